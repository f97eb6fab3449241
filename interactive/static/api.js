// What the page asks of the server, and what the server tells the page.

// As fetch; the error says what the matter is.
const reach = (path, options) => fetch(path, options).catch(() => { throw new Error("the server does not answer"); });

export async function ask(path, body) {
  const answer = await reach(path, body === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
  });
  const found = await answer.json().catch(() => ({error: `the server answered with ${answer.status}`}));
  if (found.error) throw new Error(found.error);
  return found;
}

// Send a video, or an image into a folder of uploads, and tell how much of it is there, from 0 to 1.
// Resolves to {project}, or {folder}.
export function upload(file, tell, folder = null) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/upload?name=${encodeURIComponent(file.name)}${folder ? `&folder=${encodeURIComponent(folder)}` : ""}`);
    request.responseType = "json";
    request.upload.onprogress = event => tell(event.loaded / event.total);
    request.onload = () => request.status === 200 ? resolve(request.response)
      : reject(new Error(request.response?.error ?? "the upload failed"));
    request.onerror = () => reject(new Error("the server does not answer"));
    request.send(file);
  });
}

// The line to the server for one project. It is opened anew when it breaks; what is sent meanwhile waits, and is
// sent even if the project is left.
// unanswered: the number of actions that are not done yet, as far as the page knows.
export class Line {
  constructor(name, hear, tellState) {
    Object.assign(this, {name, hear, tellState, waiting: [], unanswered: 0, closed: false, pause: 300});
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/p/${encodeURIComponent(this.name)}/events`);
    this.socket.onopen = () => {
      this.pause = 300;
      this.waiting.splice(0).forEach(text => this.socket.send(text));
      if (!this.closed) this.tellState();
    };
    this.socket.onmessage = event => {
      const told = JSON.parse(event.data);
      if (["done", "error"].includes(told.event)) this.unanswered--;
      if (told.event === "refused") Object.assign(this, {refused: true, unanswered: 0});
      if (!this.closed) this.hear(told);
      else if (!this.unanswered) this.socket.close();
    };
    this.socket.onclose = () => {
      if (this.refused) return;
      // Nobody answers what was sent before. To send it again might do it twice.
      const lost = this.unanswered > this.waiting.length;
      this.unanswered = this.waiting.length;
      if (!this.closed) this.tellState(lost);
      else if (!this.waiting.length) return;
      setTimeout(() => this.connect(), this.pause);
      this.pause = Math.min(5000, 2 * this.pause);
    };
  }

  get connected() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(action) {
    this.unanswered++;
    const text = JSON.stringify(action);
    if (this.connected) this.socket.send(text);
    else this.waiting.push(text);
  }

  close() {
    this.closed = true;
    if (!this.unanswered) this.socket.close();
  }
}

export const WIDEST = 8192;  // pixels of a frame, see LARGEST_WIDTH in interactive/server.py

// Frames and masks of a project. A few are kept; the browser's own cache has the rest.
export class Pictures {
  constructor(project) {
    Object.assign(this, {project, kept: new Map(), path: `/api/p/${encodeURIComponent(project.name)}`});
  }

  // The frame at a position as an ImageBitmap, at least `width` pixels wide where the video is.
  frame(position, width) {
    const step = [480, 960, 1440, 1920, 2880].find(size => size >= width) ?? WIDEST;
    const key = `${position}:${step}`;
    if (!this.kept.has(key)) {
      const loading = reach(`${this.path}/frame/${position}?w=${step}&v=${this.project.version}`).then(async answer => {
        if (!answer.ok) throw new Error((await answer.json()).error);
        return createImageBitmap(await answer.blob());
      });
      loading.catch(() => this.kept.delete(key));
      this.kept.set(key, loading);
      if (this.kept.size > 24) this.forgetOldest();
    }
    // What was asked for last is on the stage, and is forgotten last.
    const found = this.kept.get(key);
    this.kept.delete(key);
    this.kept.set(key, found);
    return found;
  }

  forgetOldest() {
    const [key, loading] = this.kept.entries().next().value;
    this.kept.delete(key);
    // Somebody may just be about to draw it.
    setTimeout(() => loading.then(bitmap => bitmap.close(), () => {}), 2000);
  }

  // The object ids of a frame, Uint8Array of height × width; null where nothing is known.
  async mask(position) {
    const answer = await reach(`${this.path}/mask/${position}`);
    if (answer.status === 204) return null;
    if (!answer.ok) throw new Error((await answer.json()).error);
    const bitmap = await createImageBitmap(await answer.blob(), {colorSpaceConversion: "none"});
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", {willReadFrequently: true});
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const ids = readIds(context.getImageData(0, 0, context.canvas.width, context.canvas.height).data);
    // Colouring them is a task of its own: the page answers in between.
    await new Promise(resolve => setTimeout(resolve));
    return ids;
  }

  // {object id: Uint8Array with a byte for each frame}
  async qualities() {
    const ids = this.project.objects.map(thing => thing.id), count = this.project.count;
    const bytes = new Uint8Array(await (await reach(`${this.path}/quality`)).arrayBuffer());
    return new Map(ids.map((id, row) => [id, bytes.slice(row * count, (row + 1) * count)]));
  }
}

// Masks have DAVIS's palette: bit b of an id is bit 7 - ⌊b / 3⌋ of its red, green or blue, in turn.
const PARTS = [0, 1, 2].map(channel => Uint8Array.from({length: 256}, (_, level) =>
  [0, 1, 2].reduce((id, row) => 3 * row + channel < 8 ? id | ((level >> (7 - row)) & 1) << (3 * row + channel) : id, 0)));

function readIds(pixels) {
  const ids = new Uint8Array(pixels.length / 4), [red, green, blue] = PARTS;
  for (let i = 0, p = 0; i < ids.length; i++, p += 4) {
    ids[i] = red[pixels[p]] | green[pixels[p + 1]] | blue[pixels[p + 2]];
  }
  return ids;
}
