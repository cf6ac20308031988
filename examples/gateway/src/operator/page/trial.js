// Tries a call against the policy, and explains the effect. Counters are not asked.

import { post } from "./api.js";
import { badge, el, field, fill } from "./dom.js";
import { json, jsonBox, name, prose } from "./visible.js";

const EFFECTS = {
  allow: ["ok", "allow"],
  deny: ["deny", "deny"],
  approval_required: ["ask", "ask a person"],
};
const TRUTHS = { true: "true", false: "false", undecidable: "undecidable" };
const IDENTITIES = ["grant", "session", "agent", "user", "server"];

/** An empty value of a property's type, so that the arguments begin with the right names. */
function sample({ type, enum: choices, default: fallback } = {}) {
  if (fallback !== undefined) return fallback;
  if (Array.isArray(choices) && choices.length > 0) return choices[0];
  const samples = { number: 1, integer: 1, boolean: false, array: [], object: {} };
  return samples[Array.isArray(type) ? type[0] : type] ?? "";
}

export class Trial {
  #policy;
  #tools = new Map();
  #names = el("datalist", { id: "trial-tools" });
  #tool = el("input", {
    id: "trial-tool",
    list: "trial-tools",
    required: true,
    spellcheck: "false",
    autocomplete: "off",
    dir: "ltr",
  });
  #arguments = el("textarea", {
    id: "trial-arguments",
    rows: 6,
    spellcheck: "false",
    dir: "ltr",
    value: "{}",
  });
  #context = el("textarea", { rows: 2, spellcheck: "false", dir: "ltr", value: "{}" });
  #at = el("input", { spellcheck: "false", placeholder: "2026-01-15T10:30:00Z", dir: "ltr" });
  #identities = new Map(
    IDENTITIES.map((one) => [one, el("input", { spellcheck: "false", autocomplete: "off", dir: "ltr" })]),
  );
  #answer = el("div", { class: "answer", id: "trial-answer", "aria-live": "polite" });
  #filled = "{}";

  constructor(policy) {
    this.#policy = policy;
    this.#tool.addEventListener("change", () => this.#suggest());
    const more = el(
      "details",
      {},
      el("summary", {}, "Caller, context and time"),
      el(
        "div",
        { class: "pairs" },
        [...this.#identities].map(([key, input]) => field(key, input)),
      ),
      field("Context, as JSON", this.#context),
      field("Time", this.#at, "Empty: now."),
    );
    const run = (event) => {
      event.preventDefault();
      this.#run();
    };
    this.element = el(
      "div",
      {},
      el(
        "form",
        { onsubmit: run },
        field("Tool", this.#tool),
        this.#names,
        field("Arguments, as JSON", this.#arguments),
        more,
        el("div", { class: "actions" }, el("button", { class: "primary" }, "Try the call")),
      ),
      this.#answer,
    );
  }

  setServers(servers) {
    const tools = servers.flatMap((server) => server.tools);
    this.#tools = new Map(tools.map((tool) => [tool.name, tool]));
    fill(
      this.#names,
      [...this.#tools.keys()].map((tool) => el("option", { value: tool })),
    );
  }

  /** Takes a call into the form, and tries it. */
  take(call) {
    this.#tool.value = call.tool;
    this.#arguments.value = JSON.stringify(call.arguments, null, 2);
    this.#context.value = JSON.stringify(call.context ?? {});
    this.#at.value = call.at ?? "";
    for (const [key, input] of this.#identities) input.value = call[key] ?? "";
    this.#tool.focus();
    this.#run();
  }

  /** Fills in the arguments of a tool, unless the reader has written some. */
  #suggest() {
    const properties = this.#tools.get(this.#tool.value)?.inputSchema?.properties;
    if (!properties || this.#arguments.value !== this.#filled) return;
    this.#filled = JSON.stringify(
      Object.fromEntries(Object.entries(properties).map(([key, schema]) => [key, sample(schema)])),
      null,
      2,
    );
    this.#arguments.value = this.#filled;
  }

  async #run() {
    const call = { tool: this.#tool.value, arguments: this.#arguments.value, context: this.#context.value };
    for (const [key, input] of this.#identities) if (input.value !== "") call[key] = input.value;
    const at = this.#at.value.trim() || undefined;
    try {
      const answer = await post("/api/workbench/explain", { policy: this.#policy(), call, at });
      fill(this.#answer, explained(answer));
    } catch (error) {
      fill(this.#answer, el("p", { class: "note deny" }, error.message));
    }
  }
}

function explained(answer) {
  const [colour, word] = EFFECTS[answer.effect] ?? ["plain", answer.effect];
  return [
    el(
      "p",
      { class: "effect" },
      badge(colour, word),
      answer.rule ? [" by ", name(answer.rule)] : " No rule stops the call.",
    ),
    el("ol", { class: "steps" }, answer.steps.map(step)),
  ];
}

function step({ step: kind, outcome, code, rules = [], limits = [] }) {
  const colour = { passes: "ok", stops: "deny", unknown: "plain" }[outcome] ?? "plain";
  const word = outcome === "unknown" && kind === "limits" ? "not counted here" : outcome;
  return el(
    "li",
    {},
    el(
      "div",
      { class: "finding-head" },
      el("strong", {}, kind),
      badge(colour, word),
      code && outcome === "stops" && el("code", {}, code),
    ),
    rules.map(rule),
    limits.map(limit),
  );
}

function rule({ pointer, name: title, outcome, message, conditions = [], changes = [] }) {
  return el(
    "div",
    { class: "explained" },
    el(
      "p",
      {},
      name(pointer),
      title && [" ", prose(title)],
      " ",
      badge(outcome === "stops" ? "deny" : "ok", outcome),
    ),
    message && outcome === "stops" && el("p", {}, "Message: ", prose(message)),
    conditions.length > 0 && el("ul", {}, conditions.map(condition)),
    changes.length > 0 &&
      el(
        "p",
        {},
        "It would pass if: ",
        changes.map((one, at) => [at > 0 && "; or if ", change(one)]),
      ),
  );
}

/** A short value in its line, and a long one in a box that scrolls. */
function inline(value) {
  const text = JSON.stringify(value);
  return text.length <= 80 ? el("code", { dir: "ltr" }, json(text).nodes) : jsonBox(text, "Value");
}

function seen(found) {
  if (found === "absent") return "nothing there";
  if (found === "closed") return "something without members";
  if (found.value !== undefined) return inline(found.value);
  const { masked } = found;
  return masked ? `a ${masked.type}` : JSON.stringify(found);
}

function condition({ truth, path, op, not, value, value_from: other, found = [], any, all }) {
  const group = any ?? all;
  if (group)
    return el(
      "li",
      {},
      any ? "any of " : "all of ",
      el("em", {}, TRUTHS[truth] ?? truth),
      el("ul", {}, group.map(condition)),
    );
  return el(
    "li",
    {},
    name(path),
    ` ${not ? "not " : ""}${op} `,
    value !== undefined && inline(value),
    other && [name(other[0]), " (", seen(other[1]), ")"],
    ": ",
    el("em", {}, TRUTHS[truth] ?? truth),
    found.length > 0 && [", found ", found.map((one, at) => [at > 0 && ", ", seen(one)])],
  );
}

function change({ needs = [], wait_ms: wait, approval }) {
  const parts = needs.map(({ path, op, not, value, value_from: other }) => [
    name(path),
    ` ${not ? "not " : ""}${op} `,
    value !== undefined ? inline(value) : other && name(other),
  ]);
  if (wait !== undefined) parts.push([`${Math.ceil(wait / 1000)} s pass`]);
  if (approval) parts.push(["a person approves it"]);
  return parts.map((part, at) => [at > 0 && " and ", part]);
}

function limit({ counter, max, window, scope, charge, outcome, code }) {
  return el(
    "p",
    { class: "explained" },
    "limit ",
    name(counter),
    `: at most ${max} in ${window} for ${scope.join(", ")}`,
    charge !== undefined && `, this call counts ${charge}`,
    outcome === "stops" && [" ", badge("deny", code ?? "stops")],
  );
}
