// The timeline: a row for each object, coloured by quality; references, the range and the frame that is shown.

import {DOUBTFUL, GIVEN, GOOD, UNSEEN} from "./panels.js";

const ROWS = 52, RULER = 20, LEFT = 22, RIGHT = 10;  // ROWS: pixels for all objects together

// The frame that is most worth a look: of those that are no reference, and not within `apart` frames of those in `seen`,
// the one with the lowest quality of any object; null if there is none.
export function findWorst(count, qualities, references, seen, apart) {
  const skipped = new Uint8Array(count);
  for (const position of Object.keys(references)) skipped[position] = 1;
  for (const position of seen) skipped.fill(1, Math.max(0, position - apart), position + apart + 1);
  let found = null, lowest = GIVEN;
  for (const values of qualities.values()) {
    for (let position = 0; position < count; position++) {
      const value = values[position];
      if (value && (value < lowest || value === lowest && position < found) && !skipped[position]) [found, lowest] = [position, value];
    }
  }
  return found;
}

export class Timeline {
  // seek(position) is called while somebody drags.
  constructor(canvas, seek) {
    Object.assign(this, {canvas, context: canvas.getContext("2d"), count: 1, rate: 25, position: 0, range: [null, null],
      objects: [], qualities: new Map(), references: {}});
    const place = event => Math.min(this.count - 1, Math.max(0, Math.floor((event.offsetX - LEFT) / this.step)));
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      this.held = true;
      seek(place(event));
    });
    canvas.addEventListener("pointermove", event => this.held && seek(place(event)));
    canvas.addEventListener("pointerup", () => { this.held = false; });
    canvas.addEventListener("pointercancel", () => { this.held = false; });
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.redraw());
  }

  // Pixels of the screen for a frame.
  get step() {
    return (this.canvas.clientWidth - LEFT - RIGHT) / this.count;
  }

  set(values) {
    Object.assign(this, values);
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const {canvas, context} = this, ratio = devicePixelRatio || 1;
    // As high with one object as with many, so that the frame above stays where it is; what has no room is scrolled to.
    const ROW = Math.max(6, Math.min(18, Math.floor(ROWS / Math.max(1, this.objects.length))));
    const height = RULER + Math.max(ROWS, this.objects.length * ROW) + 4;
    canvas.style.height = `${height}px`;
    const width = canvas.parentElement.clientWidth - 20;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(`--${name}`).trim();
    const colours = {good: of("good"), fair: of("fair"), bad: of("bad"), unseen: of("unseen"), line: of("line"),
      ground: of("ground"), text: of("text"), quiet: of("quiet")};
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colours.ground;
    context.fillRect(0, 0, width, height);
    const step = (width - LEFT - RIGHT) / this.count, x = position => LEFT + position * step;

    // The ruler: as many labels as have room.
    const round = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000, 20000, 50000];
    const every = round.find(size => size * step > 64) ?? 100000;
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = colours.quiet;
    for (let position = 0; position < this.count; position += every) {
      context.fillText(position, x(position) + 3, 11);
      context.fillRect(x(position), 4, 1, 9);
    }

    // Qualities: for each pixel the worst frame that it stands for.
    const left = LEFT, right = width - RIGHT;
    this.objects.forEach((thing, row) => {
      const values = this.qualities.get(thing.id), top = RULER + row * ROW;
      context.fillStyle = colours.line;
      context.fillRect(LEFT, top + ROW / 2 - 1, width - LEFT - RIGHT, 1);
      context.fillStyle = thing.colour;
      context.beginPath();
      context.arc(9, top + ROW / 2 - 0.5, Math.min(3.5, ROW / 2 - 1), 0, 7);
      context.fill();
      if (!values) return;
      let run = null, start = left;
      for (let pixel = left; pixel <= right; pixel++) {
        const first = Math.floor((pixel - LEFT) / step), last = Math.max(first + 1, Math.floor((pixel + 1 - LEFT) / step));
        let worst = 0;
        for (let position = Math.max(0, first); position < Math.min(last, this.count); position++) {
          const value = values[position];
          if (value && (!worst || value < worst)) worst = value;
        }
        const kind = pixel === right || !worst ? null : worst === UNSEEN ? "unseen" : worst > GOOD ? "good" : worst > DOUBTFUL ? "fair" : "bad";
        if (kind === run) continue;
        if (run) {
          const thin = run === "unseen" && ROW > 10 ? 4 : 0;
          context.fillStyle = colours[run];
          context.fillRect(start, top + 2 + thin, pixel - start, Math.max(2, ROW - 4 - 2 * thin));
        }
        [run, start] = [kind, pixel];
      }
    });

    // References are diamonds in their objects' rows.
    for (const [position, ids] of Object.entries(this.references)) {
      this.objects.forEach((thing, row) => {
        if (!ids.includes(thing.id)) return;
        const centre = x(+position) + Math.min(step / 2, 4), middle = RULER + row * ROW + ROW / 2, size = Math.min(5, ROW / 2);
        context.beginPath();
        [[0, -size], [size, 0], [0, size], [-size, 0]].forEach(([dx, dy]) => context.lineTo(centre + dx, middle + dy));
        context.closePath();
        context.fillStyle = colours.text;
        context.fill();
        context.strokeStyle = colours.ground;
        context.lineWidth = 1.5;
        context.stroke();
      });
    }

    // What is outside the range is dimmed.
    const [first, last] = this.range;
    context.fillStyle = colours.ground;
    context.globalAlpha = 0.7;
    if (first !== null) context.fillRect(LEFT, 14, x(first) - LEFT, height);
    if (last !== null) context.fillRect(x(last + 1), 14, width, height);
    context.globalAlpha = 1;
    context.fillStyle = colours.text;
    if (first !== null) context.fillRect(x(first) - 1, 14, 2, height);
    if (last !== null) context.fillRect(x(last + 1) - 1, 14, 2, height);

    // The frame that is shown.
    const here = x(this.position) + Math.min(step / 2, 4);
    context.fillStyle = of("accent");
    context.fillRect(here - 1, 6, 2, height);
    context.beginPath();
    [[-5, 0], [5, 0], [5, 6], [0, 12], [-5, 6]].forEach(([dx, dy]) => context.lineTo(here + dx, 2 + dy));
    context.fill();
    canvas.setAttribute("aria-valuemax", this.count - 1);
    canvas.setAttribute("aria-valuenow", this.position);
    canvas.setAttribute("aria-valuetext", `frame ${this.position} of ${this.count - 1}`);
  }
}
