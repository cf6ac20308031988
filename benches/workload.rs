//! The workloads of all benchmarks: documents, names, calls, and the fixed order in which they are
//! used.

use serde_json::{Value, json};
use toolgate::ToolCall;

/// The number of tools in W1 and W2: as many as a large gateway has over all its servers.
pub(crate) const ENTRIES: usize = 359;

/// The tool of W2 that has conditions.
pub(crate) const CHARGE: &str = "create_charge";

/// The regular expression of W2.
pub(crate) const DESCRIPTION: &str = "^[A-Za-z0-9 ._-]{1,200}$";

const VERBS: [&str; 12] =
    ["list", "get", "create", "update", "delete", "search", "send", "archive", "restore", "export", "merge", "assign"];
const NOUNS: [&str; 15] = [
    "customers",
    "invoice",
    "repository",
    "pull_request",
    "workflow_run",
    "calendar_event",
    "channel_message",
    "deployment",
    "secret",
    "dashboard",
    "issue_comment",
    "payment_intent",
    "subscription",
    "file_content",
    "database_branch",
];

/// Returns the name of a tool. The first 180 have no number; later ones repeat them with a number.
pub(crate) fn tool_name(index: usize) -> String {
    let (verb, noun) = (VERBS[index % VERBS.len()], NOUNS[index / VERBS.len() % NOUNS.len()]);
    match index / (VERBS.len() * NOUNS.len()) {
        0 => format!("{verb}_{noun}"),
        round => format!("{verb}_{noun}_{round}"),
    }
}

/// Returns a name that no entry has, with the length of one that does.
pub(crate) fn unknown_name(index: usize) -> String {
    let mut name = tool_name(index);
    name.replace_range(..1, "_");
    name
}

/// Returns an identity of a caller, 25 bytes long. Consecutive indices give dissimilar texts.
pub(crate) fn caller(kind: &str, index: usize) -> String {
    let scrambled = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{kind:.5}-{:010x}-{index:08}", scrambled >> 24)
}

/// Returns W1: entries without rules, with `default` set to `deny`.
pub(crate) fn w1(entries: usize) -> String {
    document("", (0..entries).map(|index| (tool_name(index), String::from("{}"))))
}

/// Returns W2: W1, and one tool with four conditions on its arguments.
pub(crate) fn w2() -> String {
    let rules = json!({ "require": [{ "conditions": [
        { "path": "args.amount", "op": "lte", "value": 50000 },
        { "path": "args.currency", "op": "in", "value": ["usd", "eur"] },
        { "path": "args.reason", "op": "exists", "value": true },
        { "path": "args.description", "op": "regex", "value": DESCRIPTION },
    ] }] });
    let bare = (0..ENTRIES - 1).map(|index| (tool_name(index), String::from("{}")));
    document("", bare.chain([(CHARGE.to_owned(), rules.to_string())]))
}

/// Returns a typical document: half of the entries have no rules, a quarter have conditions, and a
/// quarter have limits.
pub(crate) fn mixed(entries: usize) -> String {
    let rules = |index: usize| match index % 4 {
        0 => json!({
            "require": [{ "conditions": [{ "path": "args.currency", "op": "in", "value": ["usd", "eur"] }],
                          "on_deny": "Only USD and EUR." }],
            "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 50000 }],
                          "on_deny": "A single charge is at most 500.00." }],
        }),
        1 => json!({ "limits": [{ "counter": format!("{}_rate", tool_name(index)), "window": "minute", "max": 10,
                                  "scope": "grant", "on_exceed": "Ten a minute." }] }),
        _ => json!({}),
    };
    document("", (0..entries).map(|index| (tool_name(index), rules(index).to_string())))
}

/// The limits in `all_tools`, which count every call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    None,
    One,
    ThreeOfOneScope,
    ThreeOfThreeScopes,
}

impl Limits {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no limit",
            Self::One => "one limit",
            Self::ThreeOfOneScope => "three limits of one scope",
            Self::ThreeOfThreeScopes => "three limits of three scopes",
        }
    }

    /// Returns the number of counters for each caller.
    pub(crate) fn counters(self) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::ThreeOfOneScope | Self::ThreeOfThreeScopes => 3,
        }
    }

    /// Returns W1 with these limits. Their windows outlast the run, so counters stay live, and the
    /// maxima are never reached.
    pub(crate) fn document(self) -> String {
        let scopes: &[&str] = match self {
            Self::None => &[],
            Self::One => &["grant"],
            Self::ThreeOfOneScope => &["grant"; 3],
            Self::ThreeOfThreeScopes => &["grant", "session", "user"],
        };
        let limit = |((index, scope), window): ((usize, &&str), &str)| {
            let counter = format!("calls_{index}");
            json!({ "counter": counter, "window": window, "scope": scope, "max": 9_000_000_000_000u64 })
        };
        let limits: Vec<Value> = scopes.iter().enumerate().zip(["day", "week", "month"]).map(limit).collect();
        let bare = (0..ENTRIES).map(|index| (tool_name(index), String::from("{}")));
        document(&format!(r#""all_tools":{},"#, json!({ "limits": limits })), bare)
    }
}

fn document(extra: &str, entries: impl Iterator<Item = (String, String)>) -> String {
    let entries: Vec<_> = entries.map(|(name, rules)| format!("\"{name}\":{rules}")).collect();
    format!(r#"{{"version":"1","default":"deny",{extra}"tools":{{{}}}}}"#, entries.join(","))
}

/// Returns arguments for W2. Only the last condition denies them, so that all four are evaluated.
pub(crate) fn charge_arguments(allowed: bool) -> Value {
    let description = if allowed { "Invoice 2026-0117 for seat licences" } else { "<b>Invoice 2026-0117</b>" };
    json!({ "amount": 12_500, "currency": "eur", "customer": "cus_9s6XKzkNRiz8i3", "description": description,
            "reason": "renewal" })
}

/// Returns arguments that no condition reads.
pub(crate) fn arguments() -> Value {
    json!({ "query": "state:open", "limit": 20 })
}

/// A pseudo-random generator with a fixed seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(42)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 32) as usize * bound) >> 32
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// Items that are visited in an endless cycle.
pub(crate) struct Ring<T> {
    items: Vec<T>,
    at: usize,
}

impl<T> Ring<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { items, at: 0 }
    }

    pub(crate) fn next(&mut self) -> &T {
        self.at = if self.at + 1 < self.items.len() { self.at + 1 } else { 0 };
        &self.items[self.at]
    }

    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }
}

/// Returns names in a fixed pseudo-random order. They lie in memory in the order of their use: in a
/// gateway the name in the call is in the cache too, and only that in the policy may not be.
pub(crate) fn names(among: usize, name: impl Fn(usize) -> String) -> Ring<&'static str> {
    let mut random = Random::new();
    let mut indices: Vec<_> = (0..among).collect();
    random.shuffle(&mut indices);
    let names: Vec<&'static str> = indices.into_iter().map(|index| &*name(index).leak()).collect();
    // A small number of names is drawn with repetition, so that the branch predictor cannot learn
    // their order.
    let draws = if among < 1024 { (0..1024).map(|_| names[random.below(among)]).collect() } else { names };
    Ring::new(draws)
}

/// The three identities of a caller.
pub(crate) struct Caller {
    pub(crate) grant: String,
    pub(crate) session: String,
    pub(crate) user: String,
}

impl Caller {
    pub(crate) fn new(index: usize) -> Self {
        Self { grant: caller("grant", index), session: caller("sessn", index), user: caller("users", index) }
    }

    pub(crate) fn call<'a>(&'a self, tool: &'a str, arguments: &'a Value) -> ToolCall<'a> {
        ToolCall::new(tool, arguments).grant(&*self.grant).session(&*self.session).user(&*self.user)
    }
}

/// The maximum number of callers that make calls, however many have counters. Their counters are
/// several times as large as the caches.
const MAX_CALLING: usize = 1 << 18;

/// Returns some of the callers in a fixed pseudo-random order. They lie in memory in the order of
/// their calls.
pub(crate) fn callers(among: usize) -> Ring<Caller> {
    let mut indices: Vec<_> = (0..among).collect();
    Random::new().shuffle(&mut indices);
    Ring::new(indices.into_iter().take(MAX_CALLING).map(Caller::new).collect())
}
