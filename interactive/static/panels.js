// Small parts of the page: elements, messages, the list of objects, the facts of a frame.

// What a byte of quality means: one more than the quality in percent; see interactive/project.py.
export const GIVEN = 101, UNSEEN = 250, GOOD = 81, DOUBTFUL = 70;

export const $ = id => document.getElementById(id);

// make("button", {class: "icon", onclick}, child, "text")
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element[name] = value;
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child != null));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), use = svg.appendChild(
    document.createElementNS("http://www.w3.org/2000/svg", "use"));
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  return svg;
}

// A message that goes by itself.
export function tell(text, bad = false) {
  const toast = make("div", {class: bad ? "toast bad" : "toast"}, text);
  $("toasts").append(toast);
  // Before a dialog that was opened since.
  $("toasts").hidePopover();
  $("toasts").showPopover();
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(() => toast.remove(), bad ? 9000 : 5000);
}

// The list of objects. on: {choose(id), change(id, values)}
export function showObjects(objects, chosen, on) {
  const list = $("objects"), said = JSON.stringify([objects, chosen]), focused = document.activeElement;
  if (list.dataset.said === said) return;
  const key = list.contains(focused) ? focused.dataset.key : null;
  // The row in which something is being typed stays as it is, until it has been.
  const typing = key && focused.matches(".name, [type=color]") ? +focused.closest("li").dataset.id : null;
  const kept = objects.some(thing => thing.id === typing) ? focused.closest("li") : null;
  list.dataset.said = kept ? "" : said;
  const rows = objects.map(thing => {
    if (kept && thing.id === typing) return kept;
    const toggle = (field, yes, no, label) => make("button", {
      class: "icon", "aria-pressed": String(thing[field]), "aria-label": `${label} ${thing.name}`, "data-key": `${field} ${thing.id}`,
      title: label[0].toUpperCase() + label.slice(1),
      onclick: event => { event.stopPropagation(); on.change(thing.id, {[field]: !thing[field]}); },
    }, icon(thing[field] ? yes : no));
    return make("li", {"aria-current": String(thing.id === chosen), "data-id": thing.id, onclick: () => on.choose(thing.id)},
      make("input", {type: "color", value: thing.colour, "aria-label": `colour of ${thing.name}`, "data-key": `colour ${thing.id}`,
        onchange: event => { on.change(thing.id, {colour: event.target.value}); event.target.blur(); }}),
      make("input", {class: "name", value: thing.name, "aria-label": `name of object ${thing.id}`, "data-key": `name ${thing.id}`,
        spellcheck: "false", onfocus: () => on.choose(thing.id),
        onkeydown: event => {
          if (event.key === "Escape") event.target.value = thing.name;
          if (event.key === "Enter" || event.key === "Escape") event.target.blur();
          event.stopPropagation();
        },
        onchange: event => {
          if (event.target.value.trim()) on.change(thing.id, {name: event.target.value});
          else event.target.value = thing.name;
        }}),
      make("span", {class: "fact", title: "How good the mask in this frame probably is"}),
      toggle("hidden", "hidden", "eye", "hide"), toggle("locked", "lock", "unlock", "lock"));
  });
  if (kept) {
    // It would lose the focus if it were taken out.
    [...list.children].forEach(row => row === kept || row.remove());
    kept.before(...rows.slice(0, rows.indexOf(kept)));
    kept.after(...rows.slice(rows.indexOf(kept) + 1));
    kept.setAttribute("aria-current", String(typing === chosen));
  }
  else list.replaceChildren(...rows);
  if (!objects.length) list.append(make("li", {class: "none"}, "None yet. Click on something in the frame."));
  if (key) list.querySelector(`[data-key="${key}"]`)?.focus();
  list.querySelector("[aria-current=true]")?.scrollIntoView({block: "nearest"});
  // Into which object the chosen one can be merged.
  const others = objects.filter(thing => thing.id !== chosen);
  $("merge").replaceChildren(make("option", {value: ""}, "Merge …"), ...others.map(thing => make("option", {value: thing.id}, thing.name)));
  $("merge").disabled = !others.length || others.length === objects.length;
}

// What is known of each object in a frame, in the list of objects.
export function showFacts(objects, qualities, references, position) {
  const drawn = references[position] ?? [];
  for (const {id} of objects) {
    const value = qualities.get(id)?.[position] ?? 0, fact = $("objects").querySelector(`[data-id="${id}"] .fact`);
    if (!fact) continue;
    fact.textContent = drawn.includes(id) ? "drawn" : value === 0 ? "" : value === UNSEEN ? "not seen" : `${value - 1} %`;
    fact.classList.toggle("bad", value > 0 && value <= DOUBTFUL && !drawn.includes(id));
  }
  $("unmark").disabled = !drawn.length;
}

export function showTime(position, count, rate) {
  const seconds = position / rate, minutes = Math.floor(seconds / 60);
  const clock = `${minutes}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
  if (document.activeElement !== $("frame")) $("frame").value = position;
  $("frame").style.width = `${String(count - 1).length + 2.5}ch`;
  $("where").value = `/ ${count - 1}  ·  ${clock}`;
}
