// The first screen: choose a video, or go on with a project.

import {ask, upload} from "./api.js";
import {$, icon, make, tell} from "./panels.js";

// The files in a folder that was dropped.
async function listFolder(entry) {
  const reader = entry.createReader(), files = [];
  for (;;) {
    // A browser gives a hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    for (const each of some) if (each.isFile) files.push(await new Promise((resolve, reject) => each.file(resolve, reject)));
  }
}

// open(name) shows a project.
export function prepareStart(open) {
  const go = asked => ask("/api/open", asked).then(found => open(found.project)).catch(error => tell(error.message, true));
  const show = share => { $("upload").value = share; };
  // A video, or the images of a folder of this name.
  const take = async (files, name) => {
    if (!files.length) return;
    $("upload").hidden = false;
    try {
      if (files.length === 1) open((await upload(files[0], show)).project);
      else await takeImages(files.filter(file => file.type.startsWith("image/")), name);
    } catch (error) {
      tell(error.message, true);
    }
    $("upload").hidden = true;
  };
  const takeImages = async (images, name) => {
    if (!images.length) throw new Error("there is no image among these files");
    const {folder} = await ask(`/api/folder?name=${encodeURIComponent(name)}`, {});
    for (const [number, image] of images.entries()) {
      await upload(image, () => {}, folder);
      show((number + 1) / images.length);
    }
    open((await ask("/api/open", {uploaded: folder})).project);
  };
  $("file").onchange = event => take([...event.target.files], "images");
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, event => {
      event.preventDefault();
      $("drop").classList.toggle("over", name === "dragover");
      if (name !== "drop") return;
      const entry = event.dataTransfer.items[0]?.webkitGetAsEntry();
      if (entry?.isDirectory) {
        listFolder(entry).then(files => files.length ? take(files, entry.name) : tell("this folder is empty", true),
          error => tell(error.message, true));
      }
      else take([...event.dataTransfer.files], "images");
    });
  }
  $("path-form").onsubmit = event => {
    event.preventDefault();
    go({video: $("path").value.trim()});
  };
  $("example").onclick = () => go({example: true});

  function showFolder(found) {
    const inside = name => found.folder ? `${found.folder}/${name}` : name;
    const row = (symbol, text, act) => make("li", {}, make("button", {type: "button", onclick: act}, icon(symbol), text));
    const look = folder => ask(`/api/browse?folder=${encodeURIComponent(folder)}`).then(showFolder).catch(error => tell(error.message, true));
    $("path").value = found.images ? found.folder : "";
    $("files").replaceChildren(
      ...(found.parent === null ? [] : [row("left", "up", () => look(found.parent))]),
      ...(found.images ? [row("film", `this folder, ${found.images} images`, () => go({video: found.folder}))] : []),
      ...found.videos.map(name => row("film", name, () => go({video: inside(name)}))),
      ...found.folders.map(name => row("folder", name, () => look(inside(name)))));
  }

  return async function showStart() {
    const found = await ask("/api/start");
    $("start").hidden = false;
    $("example").hidden = !found.example;
    $("projects").replaceChildren(...found.projects.map(name =>
      make("li", {}, make("button", {onclick: () => go({project: name})}, icon("brush"), name))));
    showFolder(found);
  };
}
