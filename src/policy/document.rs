//! The document, one to one: which keys and words there are. Nothing but shape; the reader checks against it, and the
//! JSON Schema is made of it.

/// The keys of one kind of object.
pub(crate) struct Shape {
    /// With its article, for messages.
    pub(crate) name: &'static str,
    /// A small one, for those who have written something else.
    pub(crate) example: &'static str,
    pub(crate) keys: &'static [Key],
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) need: Need,
    /// What it means, for editors.
    pub(crate) description: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    Optional,
}

use Need::{Optional, Required};

const fn key(name: &'static str, need: Need, description: &'static str) -> Key {
    Key { name, need, description }
}

pub(crate) static DOCUMENT: Shape = Shape {
    name: "a policy",
    example: r#"{ "version": "1", "default": "deny", "tools": {} }"#,
    keys: &[
        key("$schema", Optional, "The JSON Schema that editors check the document against; it decides nothing."),
        key("version", Required, "The version of the language, always \"1\"."),
        key("description", Optional, "What the policy is for."),
        key("default", Required, "The outcome for a tool that no entry of `tools` matches."),
        key(
            "hide",
            Optional,
            "Tools that are removed from `tools/list` and denied when called: names, in which `*` stands for any run of characters.",
        ),
        key(
            "all_tools",
            Optional,
            "Rules for every call that is not already denied by `hide` or `default`. They never allow a tool.",
        ),
        key(
            "tools",
            Optional,
            "The entries: a tool name, in which `*` stands for any run of characters, and its rules. Every entry that matches a call applies.",
        ),
    ],
};

/// Its keys are the names of tools.
pub(crate) static TOOLS: Shape = Shape { name: "`tools`", example: r#"{ "list_customers": {} }"#, keys: &[] };

const DESCRIPTION: Key = key("description", Optional, "What the entry is for.");
const ACTION: Key = key("action", Optional, "What becomes of a call that no rule stops; `allow` if it is left out.");
const REASON: Key = key("reason", Optional, "The message for a call that `action` denies or sends for approval.");
const REQUIRE: Key = key("require", Optional, "Rules of which each must hold, or the call is denied.");
const DENY_IF: Key = key("deny_if", Optional, "Rules of which any that matches denies the call.");
const APPROVAL_IF: Key =
    key("require_approval_if", Optional, "Rules of which any that matches asks for a person's approval.");
const APPROVAL: Key = key("approval", Optional, "How an approval is given.");
const LIMITS: Key = key("limits", Optional, "Limits of which every one must have room for the call.");
const RATE_LIMIT: Key =
    key("rate_limit", Optional, "Short for one limit of calls, with the counter `<entry>_rate`, for each session.");

pub(crate) static ENTRY: Shape = Shape {
    name: "an entry",
    example: r#"{}, which allows the tool, or { "action": "deny" }"#,
    keys: &[DESCRIPTION, ACTION, REASON, REQUIRE, DENY_IF, APPROVAL_IF, APPROVAL, LIMITS, RATE_LIMIT],
};

pub(crate) static ALL_TOOLS: Shape = Shape {
    name: "`all_tools`",
    example: r#"{ "limits": [] }"#,
    keys: &[DESCRIPTION, REASON, REQUIRE, DENY_IF, APPROVAL_IF, APPROVAL, LIMITS, RATE_LIMIT],
};

pub(crate) static RULE: Shape = Shape {
    name: "a rule",
    example: r#"{ "conditions": [{ "path": "args.amount", "op": "lte", "value": 100 }] }"#,
    keys: &[
        key("name", Optional, "A name for the rule."),
        key("conditions", Required, "The conditions, all of which must hold. An empty list always holds."),
        key("on_deny", Optional, "The message for a call that the rule stops: say what to do instead."),
    ],
};

pub(crate) static APPROVAL_RULE: Shape = Shape {
    name: "a rule of `require_approval_if`",
    example: r#"{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 100 }] }"#,
    keys: &[
        key("name", Optional, "A name for the rule."),
        key("conditions", Required, "The conditions, all of which must hold. An empty list always asks."),
        key("on_deny", Optional, "The message for a call that the rule stops; `reason` is the same."),
        key("reason", Optional, "Why a person is asked."),
    ],
};

const PATH: Key = key(
    "path",
    Required,
    "What is compared: `args.amount`, `context.role`, `call.grant`, `time.hour`, `args.items[*].price`.",
);
const OP: Key = key("op", Required, "How it is compared.");
const VALUE: Key = key("value", Optional, "What it is compared with.");
const VALUE_FROM: Key = key("value_from", Optional, "Another part of the call that it is compared with: a path.");
const IGNORE_CASE: Key = key("ignore_case", Optional, "Whether upper and lower case are the same.");
const ABSENT: Key = key("absent", Optional, "With `match`, the condition counts as true where its path is absent.");

const COMPARES: &str = r#"{ "path": "args.amount", "op": "lte", "value": 100 }"#;

pub(crate) static COMPARISON: Shape =
    Shape { name: "a condition", example: COMPARES, keys: &[PATH, OP, VALUE, VALUE_FROM, IGNORE_CASE, ABSENT] };

pub(crate) const ANY: Key = key("any", Optional, "Conditions of which at least one must hold.");
pub(crate) const ALL: Key = key("all", Optional, "Conditions all of which must hold.");
pub(crate) const NOT: Key = key("not", Optional, "The condition that must not hold.");

/// The groups of conditions, as keys.
pub(crate) const GROUPS: [&str; 3] = [ANY.name, ALL.name, NOT.name];

/// What an object of conditions may have for keys: a comparison's, or one of a group.
pub(crate) static CONDITION: Shape = Shape {
    name: "a condition",
    example: COMPARES,
    keys: &[PATH, OP, VALUE, VALUE_FROM, IGNORE_CASE, ABSENT, ANY, ALL, NOT],
};

pub(crate) static LIMIT: Shape = Shape {
    name: "a limit",
    example: r#"{ "counter": "calls", "window": "minute", "max": 60, "scope": "grant" }"#,
    keys: &[
        key(
            "counter",
            Required,
            "The counter's name. Limits that name one counter share it, whatever tools they stand under.",
        ),
        key(
            "window",
            Required,
            "The time over which is counted: a word of the calendar, a number of seconds, a duration such as `15m`, or `in_flight` for calls that run at once.",
        ),
        key("max", Required, "The most that passes in one window; 0 refuses every call. At most six decimals."),
        key(
            "scope",
            Required,
            "What shares one count: `grant`, `session`, `agent`, `user`, `server`, `global`, or a list of these and of paths.",
        ),
        key("amount", Optional, "What one call costs; 1 if it is left out."),
        key("amount_from", Optional, "Where the call says what it costs: a path to a number."),
        key(
            "algorithm",
            Optional,
            "How is counted: `fixed` (in aligned windows, the default), `sliding` or `token_bucket`.",
        ),
        key("burst", Optional, "The most that a token bucket lets pass at once; `max` if it is left out."),
        key("utc_offset", Optional, "Shifts windows of the calendar: `+02:00`."),
        key("lease", Optional, "When a unit in flight comes back by itself; `5m` if it is left out."),
        key("shadow", Optional, "The limit counts and reports, and never refuses: for trying it out."),
        key("on_exceed", Optional, "The message for a call that finds no room."),
    ],
};

pub(crate) static RATE: Shape = Shape {
    name: "`rate_limit`",
    example: r#"{ "max": 10, "window": "minute" }"#,
    keys: &[
        key("max", Required, "How many calls pass in one window."),
        key("window", Required, "The window, as in a limit; a number is seconds."),
        key("scope", Optional, "What shares one count; `session` if it is left out."),
    ],
};

pub(crate) static APPROVAL_TERMS: Shape = Shape {
    name: "`approval`",
    example: r#"{ "approvers": ["ann"], "ttl": "30m" }"#,
    keys: &[
        key(
            "ttl",
            Optional,
            "How long an approval may be used: seconds, or a duration such as `30m`; `10m` if it is left out.",
        ),
        key("approvers", Optional, "Who may approve; anyone whom the host lets, if it is left out."),
        key("min_approvers", Optional, "How many different people must approve; 1 if it is left out."),
        key(
            "bind",
            Optional,
            "The arguments that the approval is bound to, all of them exactly if it is left out; with `<=` at its end a path binds an upper bound.",
        ),
    ],
};

impl Shape {
    /// The kind of object, other than this one, that has such a key.
    pub(crate) fn elsewhere(&self, key: &str) -> Option<&'static Self> {
        let all = [&CONDITION, &RULE, &LIMIT, &APPROVAL_TERMS, &ENTRY, &DOCUMENT];
        all.into_iter().find(|shape| shape.name != self.name && shape.has(key))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.name == key)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

pub(crate) const DEFAULTS: [&str; 2] = ["allow", "deny"];
pub(crate) const ACTIONS: [&str; 3] = ["allow", "deny", "require_approval"];
pub(crate) const TYPES: [&str; 6] = ["string", "number", "integer", "boolean", "array", "object"];

/// An operator.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    /// It is true where its positive twin is false.
    pub(crate) negative: bool,
    pub(crate) value_from: bool,
    pub(crate) ignore_case: bool,
}

/// What an operator's `value` must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Exists,
    Regex,
    Contains,
    StartsWith,
    EndsWith,
    MinLength,
    MaxLength,
    Type,
    PathWithin,
    HostIn,
}

const fn operator(name: &'static str, takes: Takes) -> Operator {
    Operator { name, takes, negative: false, value_from: false, ignore_case: false }
}

const fn compares(name: &'static str, takes: Takes) -> Operator {
    Operator { value_from: true, ..operator(name, takes) }
}

const fn searches(name: &'static str, takes: Takes) -> Operator {
    Operator { ignore_case: true, ..compares(name, takes) }
}

const fn negative(operator: Operator) -> Operator {
    Operator { negative: true, ..operator }
}

pub(crate) static OPERATORS: [Operator; 20] = [
    compares("eq", Takes::Equal),
    negative(compares("neq", Takes::Equal)),
    compares("lt", Takes::Less),
    compares("lte", Takes::LessOrEqual),
    compares("gt", Takes::Greater),
    compares("gte", Takes::GreaterOrEqual),
    compares("in", Takes::In),
    negative(compares("not_in", Takes::In)),
    operator("exists", Takes::Exists),
    Operator { ignore_case: true, ..operator("regex", Takes::Regex) },
    negative(Operator { ignore_case: true, ..operator("not_regex", Takes::Regex) }),
    searches("contains", Takes::Contains),
    negative(searches("not_contains", Takes::Contains)),
    searches("starts_with", Takes::StartsWith),
    searches("ends_with", Takes::EndsWith),
    operator("min_length", Takes::MinLength),
    operator("max_length", Takes::MaxLength),
    operator("type", Takes::Type),
    operator("path_within", Takes::PathWithin),
    operator("host_in", Takes::HostIn),
];

impl Operator {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        OPERATORS.iter().find(|operator| operator.name == name)
    }
}
