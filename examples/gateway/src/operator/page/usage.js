// The limits of the callers that the gateway has seen, as bars.

import { get } from "./api.js";
import { duration, el, fill } from "./dom.js";
import { name } from "./visible.js";

const EVERY = 5000;
let root;
let list;
let note;

export function mount(section) {
  root = section;
  list = el("div", { class: "grid" });
  note = el("p", { class: "note deny" });
  note.hidden = true;
  fill(
    root,
    el("h1", { id: "usage-title", tabindex: "-1" }, "Usage"),
    el("p", { class: "lead" }, "How much of their limits callers have used. The latest caller comes first."),
    note,
    list,
  );
  setInterval(() => !root.hidden && !document.hidden && show(), EVERY);
}

export async function show() {
  try {
    const answer = await get("/api/callers");
    note.hidden = true;
    draw(answer);
  } catch (error) {
    note.hidden = false;
    note.textContent = `The usage cannot be read. ${error.message}`;
  }
}

function draw({ now, callers, omitted }) {
  if (callers.length === 0) {
    fill(list, el("p", { class: "empty" }, "No caller has made a call since the gateway started."));
    return;
  }
  fill(
    list,
    callers.map((caller) => card(caller, Date.parse(now))),
    omitted > 0 && el("p", { class: "empty" }, `${omitted} more callers are not shown.`),
  );
}

function card({ caller, limits, problem }, now) {
  const parts = ["grant", "user", "agent", "session", "server"].filter((part) => caller[part] !== undefined);
  const title = parts.length === 0 ? "Callers without identity" : [`${parts[0]} `, name(caller[parts[0]])];
  const rest = parts.slice(1).map((part) => el("span", {}, `${part} `, name(caller[part])));
  return el(
    "article",
    { class: "card" },
    el("h2", {}, title),
    rest.length > 0 && el("p", { class: "caller" }, rest),
    problem && el("p", { class: "note warn" }, problem),
    limits.length === 0 && !problem && el("p", { class: "muted" }, "No limit counts this caller."),
    limits.map((limit) => bar(limit, now)),
  );
}

function bar({ counter, used, max, remaining, resets_at }, now) {
  const share = max > 0 ? Math.min(used / max, 1) : 1;
  const level = share >= 1 ? "full" : share >= 0.8 ? "near" : "";
  const left = Date.parse(resets_at) - now;
  // A token bucket has room for its burst, which `max` does not say.
  const text = `${used} of ${max}`;
  return el(
    "div",
    { class: "bar-row" },
    el(
      "div",
      { class: "bar-text" },
      name(counter, { class: "counter" }),
      el("span", {}, text, share >= 1 && " · full"),
    ),
    el("progress", { class: level, max: 1, value: String(share), "aria-label": `${counter}: ${text}` }),
    el(
      "p",
      { class: "muted small" },
      `${remaining} left`,
      used > 0 && left > 0 && ` · empty again in ${duration(left)}`,
    ),
  );
}
