// Makes elements. Texts become text nodes: nothing on this page parses HTML.

/** Creates an element. A function under `onclick` and the like becomes a listener. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled" || key === "selected")
      element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(3).filter((child) => child !== undefined && child !== null && child !== false),
  );
  return element;
}

/** Replaces the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(3).filter((child) => child !== undefined && child !== null && child !== false),
  );
}

let ids = 0;

/** Returns an id that no element has yet. */
export function newId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** A control with its label, and a hint below it. */
export function field(label, control, hint) {
  control.id ||= newId("field");
  const below = hint && el("span", { class: "hint", id: `${control.id}-hint` }, hint);
  if (below) control.setAttribute("aria-describedby", below.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, below);
}

/** A list of choices: texts, or pairs of a value and its text. */
export function select(choices, chosen, attributes = {}) {
  const options = choices.map((choice) => {
    const [value, text] = Array.isArray(choice) ? choice : [choice, choice];
    return el("option", { value, selected: value === chosen }, text);
  });
  return el("select", attributes, options);
}

/** A word in a coloured frame. The word says it all: colour is only help. */
export function badge(kind, text) {
  return el("span", { class: `badge ${kind}` }, text);
}

/** Text for screen readers, without an element to look at. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** An instant in the reader's own time zone. */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return el("span", {}, text);
  return el("time", { datetime: at.toISOString(), title: at.toISOString() }, clock.format(at));
}

/** The time of a row: hours, minutes and seconds, with the date only if it is another day. */
export function shortTime(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return el("span", {}, text);
  const today = at.toDateString() === new Date().toDateString();
  const shown = today ? at.toLocaleTimeString() : clock.format(at);
  return el("time", { datetime: at.toISOString(), title: at.toISOString() }, shown);
}

/** A span of time in its two largest units: `2 h 5 min`. */
export function duration(millis) {
  let seconds = Math.max(0, Math.ceil(millis / 1000));
  const units = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const parts = [];
  for (const [unit, length] of units) {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    if (count > 0 && parts.length < 2) parts.push(`${count} ${unit}`);
    else if (parts.length > 0) break;
  }
  return parts.join(" ") || "0 s";
}
