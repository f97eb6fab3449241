// The first screen: choose a video, or go on with a project.

import {ask, upload} from "./api.js";
import {$, icon, make, tell} from "./panels.js";

// open(name) shows a project.
export function prepareStart(open) {
  const go = asked => ask("/api/open", asked).then(found => open(found.project)).catch(error => tell(error.message, true));
  const take = async file => {
    if (!file) return;
    $("upload").hidden = false;
    try {
      open((await upload(file, share => { $("upload").value = share; })).project);
    } catch (error) {
      tell(error.message, true);
    }
    $("upload").hidden = true;
  };
  $("file").onchange = event => take(event.target.files[0]);
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, event => {
      event.preventDefault();
      $("drop").classList.toggle("over", name === "dragover");
      if (name === "drop") take(event.dataTransfer.files[0]);
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
