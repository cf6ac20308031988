// A text area with the numbers of its lines. Lines with issues have a mark.

import { el, fill } from "./dom.js";

export class Editor {
  #area;
  #numbers;
  #marks = new Map();

  constructor(changed) {
    this.#area = el("textarea", {
      id: "policy-text",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
      wrap: "off",
      dir: "ltr",
      rows: 24,
      "aria-describedby": "policy-hint",
      oninput: () => {
        this.#marks.clear();
        this.#draw();
        changed();
      },
      onscroll: () => {
        this.#numbers.scrollTop = this.#area.scrollTop;
      },
    });
    this.#numbers = el("div", { class: "numbers", "aria-hidden": "true" });
    this.element = el(
      "div",
      { class: "field" },
      el("label", { for: "policy-text" }, "Text of the policy"),
      el("div", { class: "editor" }, this.#numbers, this.#area),
      el(
        "span",
        { class: "hint", id: "policy-hint" },
        "Paste a policy, or write one. The check follows as you type.",
      ),
    );
  }

  get text() {
    return this.#area.value;
  }

  set(text) {
    this.#area.value = text;
    this.#marks.clear();
    this.#draw();
  }

  /** Marks lines: pairs of a line and a severity. */
  mark(places) {
    this.#marks = new Map(places);
    this.#draw();
  }

  /** Moves the cursor, and selects the rest of the line. Columns are characters, from 1. */
  goTo(line, column) {
    const lines = this.#area.value.split("\n");
    const before = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    const own = lines[line - 1] ?? "";
    const at = before + [...own].slice(0, column - 1).join("").length;
    this.#area.focus();
    this.#area.setSelectionRange(at, before + own.length);
    const height = this.#area.scrollHeight / lines.length;
    this.#area.scrollTop = Math.max(0, (line - 5) * height);
  }

  #draw() {
    const count = this.#area.value.split("\n").length;
    const rows = Array.from({ length: Math.min(count, 20_000) }, (_, index) => {
      const mark = this.#marks.get(index + 1);
      return el("div", { class: mark && `mark ${mark}` }, String(index + 1));
    });
    fill(this.#numbers, rows);
    this.#numbers.scrollTop = this.#area.scrollTop;
  }
}
