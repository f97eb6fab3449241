// Small parts of the page: elements, messages, the list of objects, the facts of a frame.

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
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  setTimeout(() => toast.remove(), bad ? 9000 : 5000);
}

// The list of objects. on: {choose(id), change(id, values), remove(id), merge(id, into)}
export function showObjects(objects, chosen, on) {
  const list = $("objects");
  if (list.contains(document.activeElement) && document.activeElement.matches(".name, [type=color]")) return;
  list.replaceChildren(...objects.map(thing => {
    const toggle = (field, yes, no, label) => make("button", {
      class: thing[field] ? "icon" : "icon rare", "aria-pressed": String(thing[field]), "aria-label": `${label} ${thing.name}`,
      title: label[0].toUpperCase() + label.slice(1),
      onclick: event => { event.stopPropagation(); on.change(thing.id, {[field]: !thing[field]}); },
    }, icon(thing[field] ? yes : no));
    const other = objects.find(each => each.id === chosen && each.id !== thing.id);
    return make("li", {"aria-current": String(thing.id === chosen), "data-id": thing.id, onclick: () => on.choose(thing.id)},
      make("input", {type: "color", value: thing.colour, "aria-label": `colour of ${thing.name}`,
        onchange: event => { on.change(thing.id, {colour: event.target.value}); event.target.blur(); }}),
      make("input", {class: "name", value: thing.name, "aria-label": `name of object ${thing.id}`, spellcheck: "false",
        onfocus: () => on.choose(thing.id),
        onkeydown: event => { if (event.key === "Enter" || event.key === "Escape") event.target.blur(); event.stopPropagation(); },
        onchange: event => on.change(thing.id, {name: event.target.value})}),
      toggle("hidden", "hidden", "eye", "hide"), toggle("locked", "lock", "unlock", "lock"),
      other && make("button", {class: "icon rare", "aria-label": `merge ${thing.name} into ${other.name}`,
        title: `Merge into ${other.name}`, onclick: event => { event.stopPropagation(); on.merge(thing.id, other.id); }}, icon("merge")),
      make("button", {class: "icon rare", "aria-label": `delete ${thing.name}`, title: "Delete",
        onclick: event => { event.stopPropagation(); on.remove(thing.id); }}, icon("bin")));
  }));
  if (!objects.length) list.append(make("li", {class: "none"}, "None yet. Click on something in the frame."));
}

// What is known of each object in a frame.
export function showFacts(objects, qualities, references, position) {
  const drawn = references[position] ?? [];
  $("frame-facts").replaceChildren(...objects.flatMap(thing => {
    const value = qualities.get(thing.id)?.[position] ?? 0;
    const text = drawn.includes(thing.id) ? "drawn" : value === 0 ? "–" : value === 250 ? "not seen" : `${value - 1} %`;
    return [make("dt", {}, make("span", {class: "dot", style: `background:${thing.colour}`}), thing.name), make("dd", {}, text)];
  }));
  $("unmark").hidden = !drawn.length;
}

export function showTime(position, count, rate) {
  const seconds = position / rate, minutes = Math.floor(seconds / 60);
  const clock = `${minutes}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
  $("where").value = `${position} / ${count - 1}  ·  ${clock}`;
}
