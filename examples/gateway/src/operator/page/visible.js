// Shows texts that an agent or a server wrote. Nothing of them is hidden, and nothing looks like
// something else: characters that control, turn around or vanish appear in a box with their code.

import { el } from "./dom.js";

const NAMES = {
  0x09: "tab",
  0x0a: "line break",
  0x0d: "carriage return",
  0x1b: "escape",
  0x7f: "delete",
  0x00: "null",
  0xa0: "no-break space",
  0xad: "soft hyphen",
  0x61c: "arabic letter mark",
  0x200b: "zero width space",
  0x200c: "zero width non-joiner",
  0x200d: "zero width joiner",
  0x200e: "left-to-right mark",
  0x200f: "right-to-left mark",
  0x2028: "line separator",
  0x2029: "paragraph separator",
  0x202a: "left-to-right embedding",
  0x202b: "right-to-left embedding",
  0x202c: "pop directional formatting",
  0x202d: "left-to-right override",
  0x202e: "right-to-left override",
  0x2060: "word joiner",
  0x2066: "left-to-right isolate",
  0x2067: "right-to-left isolate",
  0x2068: "first strong isolate",
  0x2069: "pop directional isolate",
  0x3000: "ideographic space",
  0xfeff: "byte order mark",
};

// Controls, formats, unassigned and private characters; separators; what fonts leave out; blanks.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/u;
const OTHER_SPACE = /(?! )[\s\p{Zs}]/u;
const MARK = /\p{M}/u;
const WORD = /[\p{L}\p{M}\p{N}_]+/gu;
const LETTER = /\p{L}/u;
const ASCII = /^[\x20-\x7e]*$/;

/** `U+202E`. */
function codeOf(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

function box(character, count) {
  const name = NAMES[character.codePointAt(0)];
  const text = codeOf(character) + (name ? ` ${name}` : "") + (count > 1 ? ` ×${count}` : "");
  return el("span", { class: "char" }, text);
}

/** Returns the indexes of letters that could be taken for others: those outside ASCII in a name,
 * and those of another script, or in another width or style, in a word with ASCII letters. */
function lookalikes(text, isName) {
  const found = new Set();
  for (const word of text.matchAll(WORD)) {
    const hasAscii = /[A-Za-z]/.test(word[0]);
    let at = word.index;
    for (const character of word[0]) {
      const isAscii = ASCII.test(character);
      const isStyled = !isAscii && character.normalize("NFKC") !== character;
      const isForeign = hasAscii && LETTER.test(character) && !/\p{Script=Latin}/u.test(character);
      if (!isAscii && (isName || isStyled || isForeign)) found.add(at);
      at += character.length;
    }
  }
  return found;
}

/**
 * Returns a text as nodes, and whether it has something unusual.
 *
 * `isName`: all of it is a name, so that spaces at its ends and letters outside ASCII matter.
 */
export function visible(text, { isName = false } = {}) {
  const nodes = [];
  let plain = "";
  let isOdd = false;
  let marks = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  const show = (node) => {
    flush();
    nodes.push(node);
    isOdd = true;
  };
  const alike = ASCII.test(text) ? new Set() : lookalikes(text, isName);
  for (let at = 0; at < text.length;) {
    const character = String.fromCodePoint(text.codePointAt(at));
    let end = at + character.length;
    while (text.startsWith(character, end)) end += character.length;
    const count = (end - at) / character.length;
    marks = MARK.test(character) ? marks + count : 0;
    if (UNSEEN.test(character) || OTHER_SPACE.test(character) || marks > 2) {
      show(box(character, count));
    } else if (
      character === " " &&
      (count > 3 || (isName && (at === 0 || end === text.length || count > 1)))
    ) {
      show(el("span", { class: "char" }, count > 1 ? `space ×${count}` : "space"));
    } else if (alike.has(at)) {
      show(
        el(
          "span",
          { class: "alike" },
          character.repeat(count),
          el("span", { class: "char" }, codeOf(character)),
        ),
      );
    } else {
      plain += text.slice(at, end);
    }
    at = end;
  }
  flush();
  return { nodes, isOdd };
}

/** The lines of a text with something unusual, as pairs of the number and its nodes; at most 20. */
export function unusualLines(text) {
  const found = [];
  for (const [index, line] of text.split("\n").entries()) {
    const { nodes, isOdd } = visible(line.replace(/^[ \t]+|[ \t\r]+$/g, ""));
    if (isOdd) found.push([index + 1, nodes]);
    if (found.length === 20) break;
  }
  return found;
}

/** A name that others chose, of a tool for example. It keeps its direction to itself. */
export function name(text, attributes = {}) {
  if (text === "")
    return el(
      "span",
      { ...attributes, class: `name ${attributes.class ?? ""}` },
      el("span", { class: "char" }, "empty"),
    );
  const { nodes } = visible(text, { isName: true });
  return el("bdi", { dir: "ltr", ...attributes, class: `name ${attributes.class ?? ""}` }, nodes);
}

/** A sentence that others wrote. */
export function prose(text, attributes = {}) {
  return el("bdi", { dir: "ltr", ...attributes }, visible(text).nodes);
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gsu;

/**
 * Returns JSON with a line for each member and element. It works on the text: a browser would round
 * long numbers. Everything between the structural characters appears as it is.
 */
export function json(text) {
  const nodes = [];
  let isOdd = false;
  let depth = 0;
  let before = "";
  const tokens = text.match(TOKEN) ?? [];
  // Up to here, everything is in one line: a short list without further lists.
  let inlineUntil = -1;
  const line = (index) => {
    if (index <= inlineUntil) nodes.push(before === "," ? " " : "");
    else nodes.push(`\n${"  ".repeat(Math.min(depth, 64))}`);
  };
  tokens.forEach((token, index) => {
    const opens = token === "{" || token === "[";
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    if (closes ? before !== "{" && before !== "[" : before === "{" || before === "[" || before === ",")
      line(index);
    if (opens) depth += 1;
    if (token === "[" && index > inlineUntil) inlineUntil = endOfShortList(tokens, index);
    if (token.startsWith('"')) {
      const shown = visible(token);
      isOdd ||= shown.isOdd;
      nodes.push(el("span", { class: tokens[index + 1] === ":" ? "key" : "string" }, shown.nodes));
    } else if (token === ":") {
      nodes.push(": ");
    } else {
      const shown = visible(token);
      isOdd ||= shown.isOdd;
      nodes.push(...shown.nodes);
    }
    before = token;
  });
  return { nodes, isOdd };
}

/** The index of the bracket that ends a list of a few short values, or -1. */
function endOfShortList(tokens, start) {
  let length = 0;
  for (let at = start + 1; at < tokens.length && length <= 60; at += 1) {
    if (tokens[at] === "]") return at;
    if ("[{".includes(tokens[at])) return -1;
    length += tokens[at].length;
  }
  return -1;
}

/** A box with JSON, in full, that scrolls and that the keyboard reaches. */
export function jsonBox(text, label) {
  const { nodes, isOdd } = json(text);
  const pre = el(
    "pre",
    { class: "value", tabindex: "0", role: "group", "aria-label": label, dir: "ltr" },
    nodes,
  );
  const note =
    isOdd &&
    el(
      "p",
      { class: "note warn" },
      "This text has hidden or unusual characters. Each is shown in a box with its code.",
    );
  return el("div", {}, note, pre);
}
