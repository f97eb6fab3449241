// The stage: a frame with its masks, zoomed and moved, and what the pen is just drawing.

const FAR = 40;  // largest zoom: screen pixels for a pixel of the frame

export class Stage {
  constructor(canvas) {
    Object.assign(this, {canvas, context: canvas.getContext("2d"), width: 1, height: 1, zoom: 1, x: 0, y: 0,
      frame: null, ids: null, overlay: null, pen: null, bare: false, wipe: 0, fitted: true, onzoom: () => {}});
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  setVideo(width, height) {
    Object.assign(this, {width, height, frame: null, ids: null, overlay: null});
    this.fit();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    this.ratio = ratio;
    if (this.fitted) this.fit();
    this.redraw();
  }

  // Zoom and pan. x and y are where the frame's corner is, in pixels of the screen.

  fit() {
    const {clientWidth, clientHeight} = this.canvas, margin = 24;
    this.zoom = Math.max(0.01, Math.min((clientWidth - margin) / this.width, (clientHeight - margin) / this.height));
    this.x = (clientWidth - this.width * this.zoom) / 2;
    this.y = (clientHeight - this.height * this.zoom) / 2;
    this.fitted = true;
    this.redraw();
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const zoom = Math.min(FAR, Math.max(0.05, this.zoom * factor));
    this.x = x - (x - this.x) * zoom / this.zoom;
    this.y = y - (y - this.y) * zoom / this.zoom;
    this.zoom = zoom;
    this.fitted = false;
    this.redraw();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.redraw();
  }

  // Move as little as brings a point of the frame into view.
  reveal([x, y]) {
    const {clientWidth, clientHeight} = this.canvas, margin = 24;
    const far = (at, size) => Math.min(0, at - margin) || Math.max(0, at - size + margin);
    const [dx, dy] = [far(this.x + x * this.zoom, clientWidth), far(this.y + y * this.zoom, clientHeight)];
    if (dx || dy) this.move(-dx, -dy);
  }

  // A place on the screen, relative to the canvas, as a point of the frame.
  toFrame(x, y) {
    return [(x - this.x) / this.zoom, (y - this.y) / this.zoom];
  }

  get wantedWidth() {
    return Math.min(this.width, this.width * this.zoom * (this.ratio ?? 1));
  }

  // What is shown.

  show(frame, ids, look) {
    this.frame = frame;
    this.setMask(ids, look);
  }

  // ids: Uint8Array or null. look: {objects, opacity 0 to 1, outline, chosen}
  setMask(ids, look) {
    this.ids = ids;
    this.overlay = ids && colour(ids, this.width, this.height, look, this.overlay);
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
    const {context, canvas, zoom, ratio = 1} = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(zoom * ratio, 0, 0, zoom * ratio, this.x * ratio, this.y * ratio);
    context.imageSmoothingEnabled = zoom < 3;
    context.imageSmoothingQuality = "medium";
    if (this.frame) context.drawImage(this.frame, 0, 0, this.width, this.height);
    if (this.overlay && !this.bare) this.drawMasks(1 / zoom);
    if (this.pen) this.pen(context, 1 / zoom);
    this.onzoom(zoom);
  }

  // Left of the wipe, a share of the width, the frame is as it came. pixel: a pixel of the screen in pixels of the frame.
  drawMasks(pixel) {
    const {context, width, height} = this, left = this.wipe * width;
    context.save();
    context.beginPath();
    context.rect(left, 0, width - left, height);
    context.clip();
    context.drawImage(this.overlay, 0, 0);
    context.restore();
    if (!left) return;
    context.fillStyle = "#fff";
    context.fillRect(left - pixel, 0, 2 * pixel, height);
  }
}

// Colour ids as an OffscreenCanvas. Around each object runs a line in its own colour.
function colour(ids, width, height, {objects, opacity, outline, chosen}, old) {
  const canvas = old?.width === width && old.height === height ? old : new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer), fill = new Uint32Array(256), line = new Uint32Array(256);
  for (const {id, colour, hidden} of objects) {
    if (hidden) continue;
    const [r, g, b] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
    const rgb = b << 16 | g << 8 | r;
    const share = id === chosen ? Math.min(1, opacity * 1.25) : opacity;
    fill[id] = (Math.round(255 * share) << 24 | rgb) >>> 0;
    line[id] = outline ? (255 << 24 | rgb) >>> 0 : fill[id];
  }
  const reach = Math.max(1, Math.round(Math.min(width, height) / 480));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      if (!id) continue;
      const edge = x < reach || y < reach || x >= width - reach || y >= height - reach || ids[i - reach] !== id ||
        ids[i + reach] !== id || ids[i - reach * width] !== id || ids[i + reach * width] !== id;
      pixels[i] = edge ? line[id] : fill[id];
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
