// The export dialog: formats, changes of the masks, the command line that does the same.

import {ask} from "./api.js";
import {$, make, tell} from "./panels.js";

const FORMATS = [
  ["For training and labelling", [
    ["coco", "COCO", "most training code, CVAT"], ["yolo", "YOLO", "Ultralytics"], ["cvat", "CVAT", "CVAT for video"],
    ["labelme", "LabelMe", "one JSON a frame"], ["mot", "MOT", "boxes, TrackEval"], ["mots", "MOTS", "masks, TrackEval"],
    ["sa-v", "SA-V", "SAM 2's tools"], ["boxes-csv", "Boxes", "a table, CSV"], ["indexed-png", "Masks", "PNG of ids, as DAVIS"],
    ["images", "Frames", "JPEG"],
  ]],
  ["For editing and showing", [
    ["prores", "ProRes 4444", "video with opacity, editors"], ["webm-alpha", "WebM", "video with opacity, browsers"],
    ["matte-video", "Matte video", "grey, one for each object"], ["mattes", "Mattes", "grey PNGs"],
    ["cutout-png", "Cut-out", "PNGs with opacity"], ["gif", "GIF", "on transparent ground"],
  ]],
];

let project = null, cancel = null;

function chosen() {
  const formats = [...$("formats").querySelectorAll("input:checked")].map(box => box.value);
  const options = Object.fromEntries([...$("shapes").querySelectorAll("input")].map(input =>
    [input.name, input.type === "checkbox" ? input.checked : Math.round(+input.value)]));
  return {formats, options};
}

async function showCommand() {
  const wanted = chosen();
  $("run-export").disabled = !wanted.formats.length;
  const command = !wanted.formats.length ? "choose a format" :
    (await ask(`/api/p/${encodeURIComponent(project)}/command`, wanted).catch(error => ({command: error.message}))).command;
  // A line does not end within an option.
  $("command").replaceChildren(...command.split(" ").flatMap((word, number) => [number ? " " : "", make("span", {}, word)]));
}

async function run() {
  const button = $("run-export");
  button.disabled = true;
  $("exported").replaceChildren(make("div", {class: "row"},
    make("progress", {id: "export-done", max: 1, "aria-label": "exported"}), make("span", {id: "export-pace", class: "mono"}, "getting ready …"),
    make("button", {type: "button", class: "small", onclick: cancel}, "Cancel")));
  try {
    const done = await ask(`/api/p/${encodeURIComponent(project)}/export`, chosen());
    if (done.cancelled) $("exported").replaceChildren("cancelled; earlier exports are as they were");
    else $("exported").replaceChildren(
      make("div", {}, `written to ${done.folder}`),
      ...done.files.map(file => make("a", {href: `/api/p/${encodeURIComponent(project)}/download/${encodeURIComponent(file)}`, download: true}, file)),
      ...done.text.filter(line => line.startsWith("note")).map(line => make("div", {}, line)));
  } catch (error) {
    $("exported").replaceChildren();
    tell(error.message, true);
  }
  button.disabled = false;
}

// How far an export is, in frames.
export function showExporting({done, total}) {
  if (!$("export-done")) return;
  $("export-done").max = total;
  $("export-done").value = done;
  $("export-pace").textContent = `${done} of ${total} frames`;
}

// stop() cancels an export that is under way.
export function openExport(name, stop) {
  [project, cancel] = [name, stop];
  if (!$("export-done")) $("exported").replaceChildren();
  showCommand();
  $("export-dialog").showModal();
}

export function prepareExport() {
  $("formats").replaceChildren(...FORMATS.flatMap(([title, rows]) => [make("h3", {}, title), ...rows.map(([value, label, note]) =>
    make("label", {}, make("input", {type: "checkbox", value}), make("span", {}, label), make("small", {}, note)))]));
  $("export-dialog").addEventListener("input", showCommand);
  $("run-export").onclick = run;
  $("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText($("command").textContent);
      tell("copied");
    } catch {
      getSelection().selectAllChildren($("command"));
      tell("press Ctrl+C to copy");
    }
  };
}
