// Issues and findings of a policy, each with its line.

import { badge, el } from "./dom.js";
import { json, name, prose } from "./visible.js";

const SEVERITY = { error: "deny", warning: "warn", note: "plain", info: "plain" };

/** `goTo(line, column)` moves to a place of the text. */
function place(item, goTo) {
  const text = item.line ? `Line ${item.line}, column ${item.column}` : "The document";
  return goTo && item.line
    ? el("button", { type: "button", class: "link", onclick: () => goTo(item.line, item.column) }, text)
    : el("span", { class: "muted" }, text);
}

function entry(kind, item, goTo, more) {
  return el(
    "li",
    { class: `finding ${SEVERITY[kind] ?? "plain"}` },
    el(
      "div",
      { class: "finding-head" },
      badge(SEVERITY[kind] ?? "plain", kind),
      el("code", {}, item.code),
      place(item, goTo),
    ),
    el("p", {}, prose(item.message)),
    item.help && el("p", { class: "help" }, el("strong", {}, "Help: "), prose(item.help)),
    item.pointer && el("p", { class: "muted small" }, "in ", name(item.pointer)),
    more,
  );
}

/** The issues of a document that is not a valid policy. */
export function issues({ issues, omitted }, goTo) {
  return [
    el(
      "ol",
      { class: "findings" },
      issues.map((issue) => entry("error", issue, goTo)),
    ),
    omitted > 0 && el("p", { class: "muted" }, `${omitted} more issues are not shown.`),
  ];
}

const ORDER = ["error", "warning"];

/** The most severe first, and otherwise in the order of the text. */
function sorted(findings) {
  const rank = ({ severity }) => (ORDER.includes(severity) ? ORDER.indexOf(severity) : ORDER.length);
  return findings.toSorted((a, b) => rank(a) - rank(b));
}

/** The findings of lint. `tryCall` takes a call that shows a finding into the form. */
export function findings({ findings, omitted, complete }, goTo, tryCall) {
  if (findings.length === 0)
    return [el("p", { class: "note ok" }, "Lint has no findings."), !complete && incomplete()];
  const witness = (finding) =>
    finding.witness &&
    el(
      "div",
      { class: "witness" },
      el(
        "p",
        { class: "small" },
        "A call that shows it",
        finding.effect && [": ", el("strong", {}, finding.effect.decision)],
      ),
      el(
        "pre",
        {
          class: "value small",
          tabindex: "0",
          role: "group",
          "aria-label": "A call that shows it",
          dir: "ltr",
        },
        json(JSON.stringify({ tool: finding.witness.tool, arguments: finding.witness.arguments })).nodes,
      ),
      tryCall && el("button", { type: "button", onclick: () => tryCall(finding.witness) }, "Try this call"),
    );
  return [
    el(
      "ol",
      { class: "findings" },
      sorted(findings).map((finding) => entry(finding.severity, finding, goTo, witness(finding))),
    ),
    omitted > 0 && el("p", { class: "muted" }, `${omitted} more findings are not shown.`),
    !complete && incomplete(),
  ];
}

function incomplete() {
  return el(
    "p",
    { class: "note warn" },
    "The policy or the list of tools is too large to be examined completely.",
  );
}
