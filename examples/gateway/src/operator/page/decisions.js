// What the gateway decided, as it happens.

import { badge, el, fill, shortTime } from "./dom.js";
import { name, prose } from "./visible.js";

const KEPT = 300;
const WORDS = {
  allow: ["ok", "allowed"],
  deny: ["deny", "denied"],
  rate_limited: ["warn", "rate limited"],
  approval_required: ["ask", "approval asked"],
  approve: ["ok", "approved"],
  refuse: ["deny", "refused"],
  lift: ["ok", "refusal lifted"],
  policy: ["plain", "policy"],
};

let list;
let empty;
let pause;
let choice;
let isPaused = false;
let held = [];

export function mount(root) {
  list = el("ol", { class: "log", "aria-label": "Decisions, the latest first" });
  empty = el("p", { class: "empty" }, "No call has been decided since the gateway started.");
  pause = el("button", { "aria-pressed": "false", onclick: toggle }, "Pause");
  choice = el(
    "select",
    { id: "decision-filter", onchange: filter },
    [
      ["all", "Everything"],
      ["refused", "What was not allowed"],
      ["people", "Answers of people"],
    ].map(([value, text]) => el("option", { value }, text)),
  );
  fill(
    root,
    el("h1", { id: "decisions-title", tabindex: "-1" }, "Decisions"),
    el("p", { class: "lead" }, "The last decisions, as they are made. The audit log has all of them."),
    el("div", { class: "tools" }, el("label", { for: "decision-filter" }, "Show"), choice, pause),
    empty,
    list,
  );
}

export function event(kind, record) {
  if (kind === "start") {
    fill(list);
    held = [];
    empty.hidden = false;
  }
  if (kind !== "record" || !["decision", "approve", "refuse", "lift", "policy"].includes(record.event)) return;
  if (isPaused) {
    held.push(record);
    if (held.length > KEPT) held.shift();
    pause.textContent = `Resume (${held.length} new)`;
  } else add(record);
}

function toggle() {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  pause.textContent = isPaused ? "Resume" : "Pause";
  if (!isPaused) held.splice(0).forEach(add);
}

function matches(row) {
  const kind = row.dataset.kind;
  if (choice.value === "refused") return !["allow", "policy", "approve", "lift"].includes(kind);
  if (choice.value === "people") return ["approve", "refuse", "lift"].includes(kind);
  return true;
}

function filter() {
  for (const row of list.children) row.hidden = !matches(row);
}

function add(record) {
  empty.hidden = true;
  const added = row(record);
  added.hidden = !matches(added);
  list.prepend(added);
  while (list.children.length > KEPT) list.lastElementChild.remove();
}

function row(record) {
  const kind = record.event === "decision" ? record.decision : record.event;
  const [colour, word] = WORDS[kind] ?? ["plain", kind];
  const callers = ["grant", "session", "agent", "user", "server"].filter(
    (part) => record[part] !== undefined,
  );
  const names = record.argument_names ?? [];
  return el(
    "li",
    { "data-kind": kind },
    el(
      "div",
      { class: "log-head" },
      shortTime(record.time),
      badge(record.failure ? "deny" : colour, record.failure ? `${word}: failed` : word),
      el(
        "strong",
        {},
        record.event === "policy" ? name(record.namespace || "the policy") : name(record.tool ?? ""),
      ),
      names.length > 0 &&
        el(
          "span",
          { class: "muted" },
          "(",
          names.map((one, at) => [at > 0 && ", ", name(one)]),
          record.more_arguments > 0 && `, ${record.more_arguments} more`,
          ")",
        ),
      record.by !== undefined && el("span", {}, "by ", name(record.by)),
    ),
    (record.code || record.message) &&
      el("p", {}, record.code && el("code", {}, record.code), " ", record.message && prose(record.message)),
    record.failure && el("p", { class: "failure" }, prose(record.failure)),
    (callers.length > 0 || record.rule) &&
      el(
        "p",
        { class: "caller" },
        callers.map((part) => el("span", {}, `${part} `, name(record[part]))),
        record.rule && el("span", {}, "rule ", name(record.rule)),
      ),
  );
}
