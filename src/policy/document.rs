//! The keys, words and operators of a document, in tables. The reader checks against them, and the
//! JSON Schema is made of them.

/// The shape of one kind of object: its keys.
pub(crate) struct Shape {
    /// The name of the kind, with its article, for messages.
    pub(crate) name: &'static str,
    /// A small example, for help texts.
    pub(crate) example: &'static str,
    pub(crate) keys: &'static [Key],
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) need: Need,
    /// The meaning of the key, which editors show.
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
        key("$schema", Optional, "The JSON Schema for editors. It has no effect on decisions."),
        key("version", Required, "The version of the language: always \"1\"."),
        key("description", Optional, "The purpose of the policy."),
        key("default", Required, "The outcome for a tool that no entry of `tools` matches."),
        key(
            "hide",
            Optional,
            "Tools that are removed from `tools/list` and denied when called: names, in which `*` matches any \
             characters.",
        ),
        key(
            "all_tools",
            Optional,
            "Rules for every call that `hide` or `default` does not already deny. They never allow a tool.",
        ),
        key(
            "tools",
            Optional,
            "The entries: the name of a tool, in which `*` matches any characters, and its rules. Every entry that \
             matches a call applies.",
        ),
    ],
};

/// `tools`: its keys are the names of tools.
pub(crate) static TOOLS: Shape = Shape { name: "`tools`", example: r#"{ "list_customers": {} }"#, keys: &[] };

const DESCRIPTION: Key = key("description", Optional, "The purpose of the entry.");
const ACTION: Key = key("action", Optional, "The outcome for a call that no rule stops. Defaults to `allow`.");
const REASON: Key = key("reason", Optional, "The message for a call that `action` denies or sends for approval.");
const REQUIRE: Key = key("require", Optional, "Rules that must all hold; otherwise, the call is denied.");
const DENY_IF: Key = key("deny_if", Optional, "Rules that deny the call if any of them matches.");
const APPROVAL_IF: Key =
    key("require_approval_if", Optional, "Rules that require a person's approval if any of them matches.");
const APPROVAL: Key = key("approval", Optional, "The terms of an approval.");
const LIMITS: Key = key("limits", Optional, "Limits that must all have room for the call.");
const RATE_LIMIT: Key =
    key("rate_limit", Optional, "Shorthand for one limit of calls, with the counter `<entry>_rate`.");

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
        key("name", Optional, "The name of the rule."),
        key("conditions", Required, "The conditions, which must all hold. An empty list always holds."),
        key("on_deny", Optional, "The message for a call that the rule stops. Say what to do instead."),
    ],
};

pub(crate) static APPROVAL_RULE: Shape = Shape {
    name: "a rule of `require_approval_if`",
    example: r#"{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 100 }] }"#,
    keys: &[
        key("name", Optional, "The name of the rule."),
        key("conditions", Required, "The conditions, which must all hold. An empty list always holds."),
        key("on_deny", Optional, "The reason why the call needs approval. Same as `reason`."),
        key("reason", Optional, "The reason why the call needs approval."),
    ],
};

const PATH: Key = key(
    "path",
    Required,
    "The path to the value: `args.amount`, `context.role`, `call.grant`, `time.hour`, `args.items[*].price`.",
);
const OP: Key = key("op", Required, "The operator.");
const VALUE: Key = key("value", Optional, "The value to compare with.");
const VALUE_FROM: Key = key("value_from", Optional, "The path to another value of the call to compare with.");
const IGNORE_CASE: Key = key("ignore_case", Optional, "If `true`, upper and lower case are equal.");
const ABSENT: Key = key(
    "absent",
    Optional,
    "With `match`, the condition is true if its path is absent; with `no_match`, false, which `require` does not take.",
);

const COMPARES: &str = r#"{ "path": "args.amount", "op": "lte", "value": 100 }"#;

pub(crate) static COMPARISON: Shape =
    Shape { name: "a condition", example: COMPARES, keys: &[PATH, OP, VALUE, VALUE_FROM, IGNORE_CASE, ABSENT] };

pub(crate) const ANY: Key = key("any", Optional, "Conditions of which at least one must hold.");
pub(crate) const ALL: Key = key("all", Optional, "Conditions that must all hold.");
pub(crate) const NOT: Key = key("not", Optional, "A condition that must not hold.");

/// The keys of groups of conditions.
pub(crate) const GROUPS: [&str; 3] = [ANY.name, ALL.name, NOT.name];

/// All keys of an object of conditions: those of a comparison, and those of groups.
pub(crate) static CONDITION: Shape = Shape {
    name: "a condition",
    example: COMPARES,
    keys: &[PATH, OP, VALUE, VALUE_FROM, IGNORE_CASE, ABSENT, ANY, ALL, NOT],
};

pub(crate) static LIMIT: Shape = Shape {
    name: "a limit",
    example: r#"{ "counter": "calls", "window": "minute", "max": 60, "scope": "grant" }"#,
    keys: &[
        key("counter", Required, "The name of the counter. Limits that name the same counter share it, in any entry."),
        key(
            "window",
            Required,
            "The window: a calendar unit, a number of seconds, a duration such as `15m`, `in_flight` for concurrent \
             calls, or `lifetime`, which never begins anew.",
        ),
        key("max", Required, "The most that may pass in one window, with at most six decimals. 0 refuses every call."),
        key(
            "max_from",
            Optional,
            "The path below `context` to the host's own maximum for the caller. The smaller of it and `max` holds.",
        ),
        key(
            "scope",
            Required,
            "Calls with the same scope share one count: `grant`, `session`, `agent`, `user`, `server`, `global`, or a \
             list of these and of paths.",
        ),
        key("amount", Optional, "The cost of one call. Defaults to 1."),
        key("amount_from", Optional, "The path to a number in the call that is its cost."),
        key(
            "algorithm",
            Optional,
            "The counting algorithm: `fixed` (aligned windows, the default), `sliding` or `token_bucket`.",
        ),
        key("burst", Optional, "The most that a token bucket lets pass at once. Defaults to `max`."),
        key("utc_offset", Optional, "The offset from UTC of calendar windows, such as `+02:00`."),
        key("lease", Optional, "The time after which a call in flight no longer counts. Defaults to `5m`."),
        key("shadow", Optional, "If `true`, the limit counts and reports but never refuses, to try it out."),
        key("on_exceed", Optional, "The message for a call that the limit refuses."),
    ],
};

pub(crate) static RATE: Shape = Shape {
    name: "`rate_limit`",
    example: r#"{ "max": 10, "window": "minute" }"#,
    keys: &[
        key("max", Required, "The number of calls that may pass in one window."),
        key("window", Required, "The window, as in a limit."),
        key("scope", Optional, "The scope, as in a limit. Defaults to `session`."),
    ],
};

pub(crate) static APPROVAL_TERMS: Shape = Shape {
    name: "`approval`",
    example: r#"{ "approvers": ["ann"], "ttl": "30m" }"#,
    keys: &[
        key(
            "ttl",
            Optional,
            "The time for which an approval is valid: seconds, or a duration such as `30m`. Defaults to `10m`.",
        ),
        key("approvers", Optional, "The people who may approve. By default, the host decides."),
        key("min_approvers", Optional, "The number of different people who must approve. Defaults to 1."),
        key(
            "bind",
            Optional,
            "Paths to the arguments that the approval is bound to. By default, all arguments are. A path that ends in \
             `<=` binds an upper bound. An empty list approves any arguments.",
        ),
        key(
            "uses",
            Optional,
            "The number of calls that one approval serves before its `ttl` ends: 1 to 1000. Defaults to 1.",
        ),
    ],
};

impl Shape {
    /// Returns another kind of object that has the key.
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
