// Builds a policy in forms. A change goes into the model at once; only what adds or removes a part
// is drawn again, so that the focus stays where it is.

import { announce, el, field, fill, newId, select } from "./dom.js";
import { ACTIONS, OPERATORS, RULES, SCOPES, WINDOWS, readValue, showValue } from "./policy.js";
import { name as shownName, prose } from "./visible.js";

const IDENTITIES = [
  "call.tool",
  "call.server",
  "call.grant",
  "call.session",
  "call.agent",
  "call.user",
  "time.hour",
  "time.weekday",
];

/** Removes a key that has become empty, so that the text stays small. */
function tidy(rules, key) {
  if (Array.isArray(rules[key]) && rules[key].length === 0) delete rules[key];
}

function whole(element) {
  element.classList.add("whole");
  return element;
}

export class Forms {
  #changed;
  #servers = [];
  #entries = el("div", { class: "entries" });
  #defaults = el("div", {});
  #toolNames = el("datalist", { id: "forms-tools" });
  #serverPicker = el("div", {});

  constructor(changed) {
    this.#changed = changed;
    this.model = { default: "deny", tools: [], rest: [] };
    const added = el("input", { list: "forms-tools", autocomplete: "off", spellcheck: "false", dir: "ltr" });
    const add = (event) => {
      event.preventDefault();
      if (added.value === "") return;
      this.#add([added.value]);
      added.value = "";
      added.focus();
    };
    this.element = el(
      "div",
      { class: "forms" },
      this.#defaults,
      this.#serverPicker,
      el(
        "form",
        { class: "inline", onsubmit: add },
        field("Tool, or a pattern with *", added),
        this.#toolNames,
        el("button", {}, "Add"),
      ),
      this.#entries,
    );
  }

  setServers(servers) {
    this.#servers = servers;
    const names = [...new Set(servers.flatMap((server) => server.tools.map((tool) => tool.name)))];
    fill(
      this.#toolNames,
      names.map((tool) => el("option", { value: tool })),
    );
    fill(
      this.#serverPicker,
      servers.map((server) => {
        const count = server.tools.length;
        return el(
          "p",
          {},
          el(
            "button",
            { type: "button", onclick: () => this.#add(server.tools.map((tool) => tool.name)) },
            `Add all ${count} tools of `,
            shownName(server.server || "the server"),
          ),
        );
      }),
    );
  }

  load(model) {
    this.model = model;
    this.#draw();
  }

  #add(names) {
    const known = new Set(this.model.tools.map((entry) => entry.name));
    const fresh = [...new Set(names)].filter((one) => !known.has(one));
    this.model.tools.push(...fresh.map((one) => ({ name: one, rules: {} })));
    this.#draw();
    this.#changed();
    announce(fresh.length === 1 ? "Added one tool" : `Added ${fresh.length} tools`);
  }

  #draw() {
    const effect = select(
      [
        ["deny", "Deny"],
        ["allow", "Allow"],
      ],
      this.model.default,
      {
        onchange: (event) => {
          this.model.default = event.target.value;
          this.#changed();
        },
      },
    );
    const others = this.model.rest
      .map(([key]) => key)
      .filter((key) => key !== "$schema" && key !== "description");
    fill(
      this.#defaults,
      field("All other tools", effect),
      others.length > 0 && el("p", { class: "note" }, `Kept as it is in the text: ${others.join(", ")}.`),
    );
    fill(
      this.#entries,
      this.model.tools.map((entry) => this.#entry(entry)),
    );
  }

  /** The definition of a tool, if a server has shown it. */
  #definition(tool) {
    return this.#servers.flatMap((server) => server.tools).find((known) => known.name === tool);
  }

  #entry(entry) {
    const title = newId("entry");
    const { rules } = entry;
    const action = select(ACTIONS, rules.action ?? "allow", {
      "aria-label": `What happens to ${entry.name}`,
      onchange: (event) => {
        if (event.target.value === "allow") delete rules.action;
        else rules.action = event.target.value;
        if (event.target.value === "allow") delete rules.reason;
        this.#changed();
      },
    });
    const definition = this.#definition(entry.name);
    const properties = Object.keys(definition?.inputSchema?.properties ?? {});
    const paths = [
      ...properties.map((one) =>
        /^[A-Za-z_]\w*$/.test(one) ? `args.${one}` : `args[${JSON.stringify(one)}]`,
      ),
      ...IDENTITIES,
    ];
    const listId = newId("paths");
    const body = el("div", { class: "entry-body" });
    const redraw = () => {
      fill(
        body,
        definition?.description && el("p", { class: "muted small" }, prose(definition.description)),
        el(
          "datalist",
          { id: listId },
          paths.map((path) => el("option", { value: path })),
        ),
        RULES.map(([key]) =>
          (rules[key] ?? []).map((rule, at) => this.#rule(entry, key, at, rule, listId, redraw)),
        ),
        (rules.limits ?? []).map((limit, at) => this.#limit(entry, limit, at, listId, redraw)),
        rules.rate_limit && el("p", { class: "note" }, "Kept as it is in the text: rate_limit."),
        el(
          "div",
          { class: "actions" },
          el(
            "button",
            {
              type: "button",
              onclick: () => {
                this.#addRule(entry, paths[0]);
                redraw();
                this.#focusLast(body, ".rule");
              },
            },
            "Add a condition",
          ),
          el(
            "button",
            {
              type: "button",
              onclick: () => {
                this.#addLimit(entry);
                redraw();
                this.#focusLast(body, ".limit");
              },
            },
            "Add a limit",
          ),
        ),
      );
    };
    redraw();
    const remove = () => {
      this.model.tools = this.model.tools.filter((one) => one !== entry);
      this.#draw();
      this.#changed();
      this.element.querySelector("form input").focus();
    };
    return el(
      "article",
      { class: "entry", "aria-labelledby": title },
      el(
        "div",
        { class: "entry-head" },
        el("h2", { id: title }, shownName(entry.name)),
        action,
        el(
          "button",
          { type: "button", class: "quiet", "aria-label": `Remove ${entry.name}`, onclick: remove },
          "Remove",
        ),
      ),
      body,
    );
  }

  #focusLast(body, selector) {
    [...body.querySelectorAll(selector)].at(-1)?.querySelector("select, input")?.focus();
    this.#changed();
  }

  #addRule({ rules }, path) {
    (rules.deny_if ??= []).push({ conditions: [{ path: path ?? "args.name", op: "eq", value: "" }] });
  }

  #addLimit({ name, rules }) {
    const taken = new Set(
      this.model.tools.flatMap((entry) => (entry.rules.limits ?? []).map((limit) => limit.counter)),
    );
    const base = `${name.replace(/[^A-Za-z0-9_]+/g, "_").replace(/^_+|_+$/g, "") || "calls"}_calls`;
    let counter = base;
    for (let at = 2; taken.has(counter); at += 1) counter = `${base}_${at}`;
    (rules.limits ??= []).push({ counter, window: "hour", max: 10, scope: "grant" });
  }

  #rule(entry, key, at, rule, listId, redraw) {
    const { rules } = entry;
    const remove = el(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": `Remove condition ${at + 1} of ${entry.name}`,
        onclick: () => {
          rules[key].splice(at, 1);
          tidy(rules, key);
          redraw();
          this.#changed();
        },
      },
      "Remove",
    );
    const [condition] = rule.conditions;
    const isSimple = rule.conditions.length === 1 && "path" in condition && "value" in condition;
    const words = RULES.find(([known]) => known === key)[1];
    if (!isSimple) {
      return el(
        "div",
        { class: "rule" },
        whole(el("p", {}, `${words}: a rule with groups or several conditions. Change it in the text.`)),
        el("div", { class: "rule-end" }, remove),
      );
    }
    const kind = select(RULES, key, {
      onchange: (event) => {
        const to = event.target.value;
        rules[key].splice(at, 1);
        tidy(rules, key);
        (rules[to] ??= []).push(rule);
        redraw();
        this.#changed();
      },
    });
    const path = el("input", {
      value: condition.path,
      list: listId,
      spellcheck: "false",
      autocomplete: "off",
      dir: "ltr",
      oninput: (event) => {
        condition.path = event.target.value;
        this.#changed();
      },
    });
    const hint = el("span", { class: "hint" });
    const value = el("input", {
      value: showValue(condition.op, condition.value),
      spellcheck: "false",
      autocomplete: "off",
      dir: "ltr",
      oninput: () => understood(),
    });
    const understood = () => {
      condition.value = readValue(condition.op, value.value);
      hint.textContent = `Understood as ${JSON.stringify(condition.value)}`;
      this.#changed();
    };
    hint.textContent = `Understood as ${JSON.stringify(condition.value)}`;
    const op = select(
      OPERATORS.map(([word, text]) => [word, text]),
      condition.op,
      {
        onchange: (event) => {
          condition.op = event.target.value;
          if (condition.op === "exists") {
            delete condition.absent;
            value.value = "true";
          }
          understood();
          drawAbsent();
        },
      },
    );
    const absent = el("div", { class: "check" });
    const drawAbsent = () => {
      const id = newId("absent");
      fill(
        absent,
        condition.op !== "exists" && [
          el("input", {
            type: "checkbox",
            id,
            checked: condition.absent === "match",
            onchange: (event) => {
              if (event.target.checked) condition.absent = "match";
              else delete condition.absent;
              this.#changed();
            },
          }),
          el("label", { for: id }, "also if it is missing"),
        ],
      );
    };
    drawAbsent();
    const textKey = key === "require_approval_if" && rule.reason !== undefined ? "reason" : "on_deny";
    const message = el("input", {
      value: rule[textKey] ?? "",
      oninput: (event) => {
        if (event.target.value) rule[textKey] = event.target.value;
        else delete rule[textKey];
        this.#changed();
      },
    });
    return el(
      "div",
      { class: "rule", role: "group", "aria-label": `Condition of ${entry.name}` },
      field("Effect", kind),
      field("Value of", path),
      field("Comparison", op),
      el(
        "div",
        { class: "field" },
        el("label", { for: (value.id = newId("field")) }, "Compared with"),
        value,
        hint,
      ),
      whole(field("Message for the agent", message)),
      el("div", { class: "rule-end" }, absent, remove),
    );
  }

  #limit(entry, limit, at, listId, redraw) {
    const set = (key, read) => (event) => {
      const value = read(event.target.value);
      if (value === undefined) delete limit[key];
      else limit[key] = value;
      this.#changed();
    };
    const number = (typed) =>
      typed.trim() !== "" && String(Number(typed)) === typed.trim() ? Number(typed) : typed;
    const choices = (known, own) =>
      own === undefined || known.some(([value]) => value === own)
        ? known
        : [[own, `as in the text: ${JSON.stringify(own)}`], ...known];
    const remove = () => {
      entry.rules.limits.splice(at, 1);
      tidy(entry.rules, "limits");
      redraw();
      this.#changed();
    };
    const keep = (known, key) => {
      // A list as a scope, or a duration as a window, keeps its value unless another is chosen.
      const control = select(choices(known, limit[key]), limit[key], {});
      const own = limit[key];
      control.addEventListener("change", () => {
        limit[key] = known.some(([value]) => value === control.value) ? control.value : own;
        this.#changed();
      });
      return control;
    };
    return el(
      "div",
      { class: "limit rule", role: "group", "aria-label": `Limit of ${entry.name}` },
      field(
        "At most",
        el("input", { value: String(limit.max), inputmode: "decimal", oninput: set("max", number) }),
      ),
      field("Window", keep(WINDOWS, "window")),
      field("Scope", keep(SCOPES, "scope")),
      field(
        "Counter",
        el("input", { value: limit.counter, spellcheck: "false", oninput: set("counter", (typed) => typed) }),
      ),
      field(
        "Amount from (empty: each call counts 1)",
        el("input", {
          value: limit.amount_from ?? "",
          list: listId,
          spellcheck: "false",
          autocomplete: "off",
          oninput: set("amount_from", (typed) => typed || undefined),
        }),
      ),
      el(
        "div",
        { class: "rule-end" },
        el(
          "button",
          {
            type: "button",
            class: "quiet",
            "aria-label": `Remove limit ${at + 1} of ${entry.name}`,
            onclick: remove,
          },
          "Remove",
        ),
      ),
    );
  }
}
