// Writes, checks and tries a policy that is not in force.

import { get, post } from "./api.js";
import { announce, el, fill } from "./dom.js";
import { Editor } from "./editor.js";
import { findings, issues } from "./findings.js";
import { Forms } from "./forms.js";
import { exactReason, read, write } from "./policy.js";
import { Trial } from "./trial.js";
import { unusualLines } from "./visible.js";

const EMPTY = { default: "deny", tools: [], rest: [] };
// The gateway refuses longer texts: see `workbench.rs`.
const MAX_BYTES = 512 * 1024;
const MAX_TOOL_BYTES = 1024 * 1024;

let editor;
let forms;
let trial;
let report;
let verdict;
let servers = [];
let areTooMany = false;
let fileName = "policy";
let tabs;
let timer;
let checks = 0;
// What the forms could not take over: a text with issues, or one that they would change.
let blocked = "";

export function mount(root) {
  editor = new Editor(() => changed("text"));
  forms = new Forms(() => {
    editor.set(write(forms.model));
    changed("forms");
  });
  trial = new Trial(() => editor.text);
  report = el("div", { class: "report", "aria-live": "polite" });
  verdict = el("p", { class: "note", role: "status" });
  const file = el("input", {
    type: "file",
    accept: ".json,application/json",
    class: "unseen",
    id: "workbench-file",
    onchange: openFile,
  });
  fill(
    root,
    el("h1", { id: "workbench-title", tabindex: "-1" }, "Workbench"),
    el(
      "p",
      { class: "lead" },
      "Write a policy, see what is wrong with it, and try calls. Nothing here changes what is in force.",
    ),
    el(
      "div",
      { class: "tools" },
      el("button", { onclick: () => load(write(EMPTY), "policy") }, "New policy"),
      file,
      el("label", { class: "button", for: "workbench-file" }, "Open a file"),
      el("button", { class: "primary", id: "download", onclick: download }, "Download"),
    ),
    el(
      "div",
      { class: "columns" },
      el("div", { class: "card" }, tabList(), textPanel(), formsPanel()),
      el(
        "div",
        { class: "stack" },
        el(
          "section",
          { class: "card", "aria-labelledby": "report-title" },
          el("h2", { id: "report-title" }, "Check"),
          verdict,
          report,
        ),
        el(
          "section",
          { class: "card", "aria-labelledby": "trial-title" },
          el("h2", { id: "trial-title" }, "Try a call"),
          trial.element,
        ),
      ),
    ),
  );
  load(write(EMPTY), "policy");
}

export function show() {
  loadTools();
}

async function loadTools() {
  try {
    ({ servers } = await get("/api/tools"));
  } catch {
    servers = [];
  }
  forms.setServers(servers);
  trial.setServers(servers);
}

/** Takes a copy of a policy. */
export function edit(text, name) {
  load(text, name || "policy");
}

function load(text, name) {
  fileName = name;
  editor.set(text);
  changed("text");
}

function tabList() {
  const tab = (id, text) =>
    el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${id}`,
        "aria-controls": `panel-${id}`,
        onclick: () => choose(id),
      },
      text,
    );
  tabs = el(
    "div",
    { class: "tabs", role: "tablist", "aria-label": "Ways to write the policy" },
    tab("text", "Text"),
    tab("forms", "Forms"),
  );
  tabs.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = [...tabs.children].find((one) => one.getAttribute("aria-selected") !== "true");
    other.click();
    other.focus();
  });
  return tabs;
}

function textPanel() {
  return el("div", { id: "panel-text", role: "tabpanel", "aria-labelledby": "tab-text" }, editor.element);
}

function formsPanel() {
  const panel = el(
    "div",
    { id: "panel-forms", role: "tabpanel", "aria-labelledby": "tab-forms" },
    el("p", { class: "note warn", id: "forms-blocked" }),
    forms.element,
  );
  queueMicrotask(() => choose("text"));
  return panel;
}

function choose(id) {
  for (const tab of tabs.children) {
    const isChosen = tab.id === `tab-${id}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

function setBlocked(reason) {
  blocked = reason;
  const note = document.getElementById("forms-blocked");
  note.hidden = !blocked;
  note.textContent = blocked;
  forms.element.hidden = Boolean(blocked);
}

/** The text has changed, by hand or by the forms. */
function changed(by) {
  clearTimeout(timer);
  timer = setTimeout(() => check(by), by === "forms" ? 150 : 350);
}

async function check(by) {
  const text = editor.text;
  const turn = ++checks;
  if (new Blob([text]).size > MAX_BYTES) {
    say("deny", `The text is longer than the ${MAX_BYTES / 1024} KiB that the workbench takes.`);
    fill(report);
    return;
  }
  let answer;
  try {
    answer = await post("/api/workbench/check", { policy: text, tools: tools() });
  } catch (error) {
    if (turn === checks) say("deny", error.message);
    return;
  }
  // An answer about a text that has changed meanwhile is of no use.
  if (turn !== checks) return;
  const goTo = (line, column) => {
    choose("text");
    editor.goTo(line, column);
  };
  if (answer.valid) {
    const { lint } = answer;
    const count = lint.findings.length + lint.omitted;
    say(
      count ? "warn" : "ok",
      count
        ? `A valid policy, with ${count} ${count === 1 ? "finding" : "findings"} of lint.`
        : "A valid policy.",
    );
    editor.mark(lint.findings.map((finding) => [finding.line, finding.severity]));
    fill(
      report,
      hidden(text),
      areTooMany &&
        el("p", { class: "note warn" }, "The servers list too many tools to compare the policy with them."),
      findings(lint, goTo, (call) => trial.take(call)),
    );
  } else {
    const count = answer.issues.length + answer.omitted;
    say("deny", `Not a valid policy: ${count} ${count === 1 ? "issue" : "issues"}.`);
    editor.mark(answer.issues.map((issue) => [issue.line, "error"]));
    fill(report, hidden(text), issues(answer, goTo));
  }
  if (by === "text") takeIntoForms(text, answer.valid);
}

/** What the text area does not show, or shows in another order. */
function hidden(text) {
  const lines = unusualLines(text);
  return (
    lines.length > 0 && [
      el("p", { class: "note warn" }, "The text has hidden or unusual characters:"),
      el(
        "ul",
        { class: "hidden-lines" },
        lines.map(([line, nodes]) => el("li", {}, `Line ${line}: `, el("bdi", { dir: "ltr" }, nodes))),
      ),
    ]
  );
}

/** The tools to compare the policy with, unless a request with them would be too long. */
function tools() {
  const all = servers.flatMap((server) => server.tools);
  areTooMany = JSON.stringify(all).length > MAX_TOOL_BYTES;
  return all.length > 0 && !areTooMany ? all : undefined;
}

function takeIntoForms(text, isValid) {
  if (!isValid)
    return setBlocked("The forms take over a text without issues. Fix the issues in the text first.");
  const reason = exactReason(text);
  if (reason) return setBlocked(reason);
  setBlocked("");
  forms.load(read(text));
}

function say(kind, text) {
  verdict.className = `note ${kind}`;
  verdict.textContent = text;
}

async function openFile(event) {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  if (file.size > MAX_BYTES) {
    say("deny", `The file is longer than the ${MAX_BYTES / 1024} KiB that the workbench takes.`);
    return;
  }
  try {
    // Bytes that are not UTF-8 would be replaced, and the policy would be another one.
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await file.arrayBuffer());
    load(text, file.name.replace(/\.json$/i, ""));
    announce(`Opened ${file.name}`);
  } catch {
    say("deny", "The file is not UTF-8 text.");
  }
}

function download() {
  const url = URL.createObjectURL(new Blob([editor.text], { type: "application/json" }));
  const safe = fileName.replace(/[^A-Za-z0-9._-]/g, "_") || "policy";
  el("a", { href: url, download: `${safe}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce("The policy was downloaded");
}
