// The tools: what the pointer, or the keyboard's cursor, does on the stage.

export const TOOLS = [
  {name: "click", key: "c", icon: "click", title: "Click", hint: "Click on the object. Alt-click, or the right button, on what does not belong to it."},
  {name: "away", key: "d", icon: "away", title: "Click away", hint: "Click on what does not belong to the object."},
  {name: "box", key: "x", icon: "box", title: "Box", hint: "Draw a box around the object."},
  {name: "brush", key: "b", icon: "brush", title: "Brush", hint: "Paint the object. [ and ] change the size."},
  {name: "eraser", key: "e", icon: "eraser", title: "Eraser", hint: "Erase what does not belong to the object."},
  {name: "polygon", key: "p", icon: "polygon", title: "Polygon", hint: "Click from corner to corner; close it at the first one, with a double click, or Enter."},
  {name: "lasso", key: "l", icon: "lasso", title: "Lasso", hint: "Draw around the object in one line."},
  {name: "hand", key: "h", icon: "hand", title: "Move", hint: "Move the frame; the wheel zooms."},
];

const SIZED = ["brush", "eraser"], POINTED = ["click", "away", "polygon"];

// stage: a Stage. current(): {tool, width, colour}. send(tool, values): makes a stroke.
export class Pen {
  constructor(stage, current, send) {
    Object.assign(this, {stage, current, send, points: [], clicks: [], pointers: new Map(), at: null, stroke: null});
    const canvas = stage.canvas;
    canvas.addEventListener("pointerdown", event => this.down(event));
    canvas.addEventListener("pointermove", event => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, event => this.up(event));
    canvas.addEventListener("pointerleave", () => { this.at = null; stage.redraw(); });
    canvas.addEventListener("contextmenu", event => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.close());
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      if (event.shiftKey) stage.move(-event.deltaY, 0);
      else stage.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, {passive: false});
    stage.pen = (context, pixel) => this.draw(context, pixel);
  }

  // Forget what is half done: another tool, object or frame.
  reset() {
    Object.assign(this, {points: [], clicks: [], stroke: null, dragging: false, waiting: null});
    this.stage.redraw();
  }

  // The server has the stroke: its mask is shown now.
  settle() {
    this.stroke = null;
    this.stage.redraw();
  }

  down(event) {
    // A hand lies on the glass while a pen draws.
    if (event.pointerType === "touch" && this.inked) return;
    if (event.pointerType === "pen") {
      this.inked = true;
      if (this.pointers.size) this.reset();
      this.pointers.clear();
    }
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    const tool = this.current().tool;
    if (this.pointers.size === 2) {
      // Two fingers zoom and move; what the first one began is dropped.
      this.reset();
      return;
    }
    if (event.button === 1 || tool === "hand") {
      this.panning = true;
      return;
    }
    const press = () => this.press(this.place(event), event.button === 2 || event.altKey);
    // Of a finger that sets a point nobody knows yet whether a second one follows.
    if (event.pointerType === "touch" && POINTED.includes(tool)) this.waiting = press;
    else press();
  }

  // The tool is set down at a point; `other` is the negative click.
  press(point, other = false) {
    const {tool} = this.current();
    if (tool === "click" || tool === "away") {
      this.clicks.push([point, (tool === "click") !== other]);
      this.send("click", {points: this.clicks.map(([at]) => at), positive: this.clicks.map(([, on]) => on)});
    } else if (tool === "polygon") {
      const [first] = this.points, near = first && Math.hypot(point[0] - first[0], point[1] - first[1]) * this.stage.zoom < 10;
      if (near && this.close()) return;
      this.points.push(point);
    } else {
      this.points = [point];
      this.dragging = true;
    }
    this.stage.redraw();
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (event.pointerType === "touch" && !before) return;
    this.at = this.place(event);
    if (before) this.pointers.set(event.pointerId, now);
    if (before && this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const length = point => Math.hypot(point[0] - other[0], point[1] - other[1]);
      this.stage.zoomBy(length(now) / Math.max(1, length(before)), ...other);
    } else if (before && this.panning) {
      this.stage.move(now[0] - before[0], now[1] - before[1]);
    } else if (this.dragging) {
      const events = event.getCoalescedEvents?.() ?? [];
      const places = (events.length ? events : [event]).map(each => this.place(each));
      if (this.current().tool === "box") this.points = [this.points[0], places.at(-1)];
      else this.points.push(...places);
    }
    this.stage.redraw();
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.panning = false;
    if (event.pointerType === "pen") this.inked = false;
    if (event.type === "pointercancel") return this.reset();
    this.waiting?.();
    this.waiting = null;
    if (this.dragging) this.finish();
  }

  finish() {
    const {tool, width} = this.current(), points = this.points;
    this.dragging = false;
    this.points = [];
    if (tool === "box" && (points.length < 2 || points[0].some((value, axis) => Math.abs(value - points[1][axis]) < 2))) return;
    if (tool === "lasso" && points.length < 3) return;
    this.stroke = {tool, width, points, colour: this.current().colour};
    this.send(tool, SIZED.includes(tool) ? {points, width} : {points});
  }

  // Close the polygon.
  close() {
    if (this.current().tool !== "polygon" || this.points.length < 3) return false;
    const points = this.points;
    this.points = [];
    this.stroke = {tool: "polygon", points, colour: this.current().colour};
    this.send("polygon", {points});
    return true;
  }

  // The keyboard's cursor: Shift and the arrows move it, Enter sets the tool down.
  step(dx, dy) {
    const {width, height} = this.stage;
    const [x, y] = this.at ?? [width / 2, height / 2];
    this.at = [Math.min(width - 1, Math.max(0, x + dx)), Math.min(height - 1, Math.max(0, y + dy))];
    this.cursor = true;
    this.stage.reveal(this.at);
    if (this.dragging && this.current().tool === "box") this.points = [this.points[0], this.at];
    else if (this.dragging) this.points.push(this.at);
    this.stage.redraw();
  }

  enter(other) {
    if (!this.at) this.step(0, 0);
    else if (this.dragging) this.finish();
    else this.press(this.at, other);
  }

  place(event) {
    this.cursor = false;
    const box = this.stage.canvas.getBoundingClientRect();
    return this.stage.toFrame(event.clientX - box.left, event.clientY - box.top).map(value => Math.round(value * 10) / 10);
  }

  // pixel: a pixel of the screen in pixels of the frame.
  draw(context, pixel) {
    const {tool, width, colour} = this.current();
    if (this.stroke) path(context, this.stroke, pixel, 0.6);
    if (this.points.length) path(context, {tool, width, colour, points: tool === "polygon" && this.at ? [...this.points, this.at] : this.points}, pixel, 0.6);
    for (const [point, on] of this.clicks) dot(context, point, on, pixel);
    if (!this.at) return;
    context.lineWidth = 1.5 * pixel;
    if (SIZED.includes(tool)) {
      for (const [style, radius] of [["#000a", width / 2 + pixel], ["#fff", width / 2]]) {
        context.strokeStyle = style;
        context.beginPath();
        context.arc(...this.at, Math.max(pixel, radius), 0, 7);
        context.stroke();
      }
    } else if (this.cursor) {
      const [x, y] = this.at, arm = 10 * pixel;
      context.strokeStyle = "#fff";
      context.beginPath();
      context.moveTo(x - arm, y); context.lineTo(x + arm, y); context.moveTo(x, y - arm); context.lineTo(x, y + arm);
      context.stroke();
    }
  }
}

function path(context, {tool, width, points, colour}, pixel, alpha) {
  context.save();
  context.globalAlpha = alpha;
  context.strokeStyle = context.fillStyle = tool === "eraser" ? "#fff" : colour;
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = SIZED.includes(tool) ? width : 2 * pixel;
  context.beginPath();
  if (tool === "box" && points.length > 1) {
    const [[left, top], [right, bottom]] = points;
    context.setLineDash([6 * pixel, 4 * pixel]);
    context.globalAlpha = 1;
    context.rect(left, top, right - left, bottom - top);
  } else {
    points.forEach(point => context.lineTo(...point));
    if (points.length === 1) context.lineTo(...points[0]);
  }
  if (tool === "polygon" || tool === "lasso") {
    context.globalAlpha = 0.3;
    context.fill();
    context.globalAlpha = 1;
  }
  context.stroke();
  if (tool === "polygon") points.forEach(point => dot(context, point, true, pixel * 0.7));
  context.restore();
}

function dot(context, [x, y], on, pixel) {
  context.beginPath();
  context.arc(x, y, 5 * pixel, 0, 7);
  context.fillStyle = on ? "#28c76f" : "#ff4d4f";
  context.fill();
  context.strokeStyle = "#fff";
  context.lineWidth = 1.5 * pixel;
  context.stroke();
}
