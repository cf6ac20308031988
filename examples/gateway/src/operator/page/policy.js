// The text of a policy as a model that forms can change, and back. What the forms do not know stays
// as it is: `rest` has the other members of the document, and each rules object is kept whole.

const STRING = /"(?:[^"\\]|\\.)*"/gu;
const NUMBER = /-?\d[\d.eE+-]*/g;

/** Why a browser cannot write this text again as it is; an empty text if it can. */
export function exactReason(text) {
  for (const [number] of text.replace(STRING, '""').matchAll(NUMBER)) {
    if (String(Number(number)) !== number) {
      return `The forms would write the number ${number} in another way. Change this policy as text.`;
    }
  }
  return "";
}

/** Reads a valid policy. Members become pairs, which no name can disturb, not even `__proto__`. */
export function read(text) {
  const document = JSON.parse(text);
  const { default: effect, tools = {} } = document;
  const rest = Object.entries(document).filter(([key]) => !["version", "default", "tools"].includes(key));
  return { default: effect, tools: Object.entries(tools).map(([name, rules]) => ({ name, rules })), rest };
}

/** Writes the model as the text of a policy. */
export function write({ default: effect, tools, rest }) {
  const indented = (value, by) => JSON.stringify(value, null, 2).replaceAll("\n", `\n${by}`);
  const member = (key, value) => `  ${JSON.stringify(key)}: ${value}`;
  const entries = tools.map(({ name, rules }) => `    ${JSON.stringify(name)}: ${indented(rules, "    ")}`);
  const members = [
    member("version", '"1"'),
    ...rest
      .filter(([key]) => key === "$schema" || key === "description")
      .map(([key, value]) => member(key, indented(value, "  "))),
    member("default", JSON.stringify(effect)),
    ...rest
      .filter(([key]) => key !== "$schema" && key !== "description")
      .map(([key, value]) => member(key, indented(value, "  "))),
    member("tools", entries.length > 0 ? `{\n${entries.join(",\n")}\n  }` : "{}"),
  ];
  return `{\n${members.join(",\n")}\n}\n`;
}

/** The three lists of rules, with the words of the forms. */
export const RULES = [
  ["require", "Allow only if"],
  ["deny_if", "Deny if"],
  ["require_approval_if", "Ask a person if"],
];

export const ACTIONS = [
  ["allow", "Allow"],
  ["require_approval", "Ask a person"],
  ["deny", "Deny"],
];

export const WINDOWS = [
  ["second", "each second"],
  ["minute", "each minute"],
  ["hour", "each hour"],
  ["day", "each day"],
  ["week", "each week"],
  ["month", "each month"],
  ["in_flight", "at the same time"],
];

export const SCOPES = [
  ["grant", "for each grant"],
  ["session", "for each session"],
  ["user", "for each user"],
  ["agent", "for each agent"],
  ["server", "for each server"],
  ["global", "for all callers together"],
];

/** The operators: their words, and the form of the value. */
export const OPERATORS = [
  ["eq", "is", "any"],
  ["neq", "is not", "any"],
  ["gt", "is more than", "any"],
  ["gte", "is at least", "any"],
  ["lt", "is less than", "any"],
  ["lte", "is at most", "any"],
  ["in", "is one of", "list"],
  ["not_in", "is none of", "list"],
  ["exists", "is present", "flag"],
  ["contains", "contains", "any"],
  ["not_contains", "does not contain", "any"],
  ["starts_with", "starts with", "any"],
  ["ends_with", "ends with", "any"],
  ["regex", "matches the expression", "text"],
  ["not_regex", "does not match the expression", "text"],
  ["min_length", "has at least the length", "any"],
  ["max_length", "has at most the length", "any"],
  ["min_items", "has at least as many parts as", "any"],
  ["max_items", "has at most as many parts as", "any"],
  ["keys_in", "has only the members", "list"],
  ["type", "has the type", "any"],
  ["path_within", "is a path within", "list"],
  ["host_in", "is a URL with the host", "list"],
];

/** Reads what was typed as a value: JSON if it is JSON, and otherwise a text. */
export function readValue(op, typed) {
  const form = OPERATORS.find(([known]) => known === op)?.[2] ?? "any";
  if (form === "text") return typed;
  const one = (text) => {
    try {
      const value = JSON.parse(text);
      // A number that a browser would round stays a text, which the check then reports.
      return typeof value === "number" && String(value) !== text.trim() ? text : value;
    } catch {
      return text;
    }
  };
  const value = one(typed.trim());
  if (form === "list" && !Array.isArray(value)) {
    return typed
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "")
      .map(one);
  }
  return value;
}

/** Writes a value as it would be typed. */
export function showValue(op, value) {
  const form = OPERATORS.find(([known]) => known === op)?.[2] ?? "any";
  if (value === undefined) return "";
  const plain = (one) =>
    typeof one === "string" &&
    JSON.stringify(readValue(op === "regex" ? op : "eq", one)) === JSON.stringify(one) &&
    one === one.trim() &&
    !one.includes(",");
  if (form === "text" && typeof value === "string") return value;
  if (typeof value === "string" && JSON.stringify(readValue(op, value)) === JSON.stringify(value))
    return value;
  if (form === "list" && Array.isArray(value) && value.every((one) => plain(one) || typeof one === "number"))
    return value.join(", ");
  return JSON.stringify(value);
}
