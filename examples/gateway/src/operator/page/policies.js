// The policies in force, each with what lint finds in it.

import { get } from "./api.js";
import { badge, el, fill } from "./dom.js";
import { findings } from "./findings.js";
import { name, visible } from "./visible.js";

let list;
let context;
let shown = "";

export function mount(root, given) {
  context = given;
  list = el("div", { class: "cards" });
  fill(
    root,
    el("h1", { id: "policies-title", tabindex: "-1" }, "Policies"),
    el(
      "p",
      { class: "lead" },
      "The policies in force. To try a change, open a copy in the workbench: nothing there changes what is in force.",
    ),
    list,
  );
}

export function event(kind, record) {
  if (kind === "record" && record.event === "policy") show();
}

export async function show() {
  try {
    const answer = await get("/api/policies");
    // Redrawn only after a change, so that what is open stays open.
    const text = JSON.stringify(answer);
    if (text === shown) return;
    shown = text;
    if (answer.policies.length === 0)
      fill(list, el("p", { class: "empty" }, "No policy is in force: every call is denied."));
    else fill(list, answer.policies.map(card));
  } catch (error) {
    shown = "";
    fill(list, el("p", { class: "note deny" }, `The policies cannot be read. ${error.message}`));
  }
}

function card(policy) {
  const worst = policy.lint.findings.length;
  const grants =
    policy.grants.length > 0 &&
    el(
      "p",
      { class: "caller" },
      policy.grants.map((grant) => el("span", {}, "grant ", name(grant))),
      policy.more_grants > 0 && el("span", {}, `and ${policy.more_grants} more`),
    );
  const count =
    worst === 0 ? badge("ok", "no findings") : badge("warn", worst === 1 ? "1 finding" : `${worst} findings`);
  return el(
    "article",
    { class: "card" },
    el("div", { class: "card-head" }, el("h2", {}, name(policy.name || "policy")), count),
    grants,
    el("p", { class: "muted small" }, "digest ", el("code", { class: "digest" }, policy.digest)),
    worst > 0 && el("details", {}, el("summary", {}, "Findings of lint"), findings(policy.lint)),
    el("details", {}, el("summary", {}, "Text"), source(policy.source)),
    el(
      "div",
      { class: "actions" },
      el(
        "button",
        {
          onclick: () => {
            context.editPolicy(policy.source, policy.name);
            context.open("workbench");
          },
        },
        "Open a copy in the workbench",
      ),
    ),
  );
}

function source(text) {
  const lines = text
    .replace(/\n$/, "")
    .split("\n")
    .map((line) => {
      const indent = /^[ \t]*/.exec(line)[0];
      return el(
        "li",
        {},
        el("code", {}, indent, visible(line.slice(indent.length).replace(/\r$/, "")).nodes),
      );
    });
  return el(
    "ol",
    { class: "source", tabindex: "0", role: "group", "aria-label": "Text of the policy", dir: "ltr" },
    lines,
  );
}
