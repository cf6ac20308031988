//! The workloads that all measurements share: documents, names, calls and the fixed order in which they are drawn.

use serde_json::{Value, json};
use toolgate::ToolCall;

/// How many tools W1 and W2 list: as many as a large gateway has over all its servers.
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

/// The name of a tool: 180 plain ones, then the same with a number.
pub(crate) fn tool_name(index: usize) -> String {
    let (verb, noun) = (VERBS[index % VERBS.len()], NOUNS[index / VERBS.len() % NOUNS.len()]);
    match index / (VERBS.len() * NOUNS.len()) {
        0 => format!("{verb}_{noun}"),
        round => format!("{verb}_{noun}_{round}"),
    }
}

/// A name that no entry has, as long as the others.
pub(crate) fn unknown_name(index: usize) -> String {
    let mut name = tool_name(index);
    name.replace_range(..1, "_");
    name
}

/// A caller's credential, 25 bytes long. Neighbours in number are no neighbours in text.
pub(crate) fn caller(kind: &str, index: usize) -> String {
    let scrambled = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{kind:.5}-{:010x}-{index:08}", scrambled >> 24)
}

/// W1: so many entries that say nothing, under default deny.
pub(crate) fn w1(entries: usize) -> String {
    document("", (0..entries).map(|index| (tool_name(index), String::from("{}"))))
}

/// W2: W1 and one tool with four conditions on its arguments.
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

/// A document as people write them: half of the entries say nothing, a quarter has conditions, a quarter has limits.
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

/// The limits that stand in `all_tools`, so that every call is counted.
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

    /// How many counters there are for each caller.
    pub(crate) fn counters(self) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::ThreeOfOneScope | Self::ThreeOfThreeScopes => 3,
        }
    }

    /// W1 with these limits. Their windows outlast the run, so that counters stay live, and nothing fills them.
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

/// Arguments of W2 that are allowed, and such that are denied by the last condition alone, so that all four are asked.
pub(crate) fn charge_arguments(allowed: bool) -> Value {
    let description = if allowed { "Invoice 2026-0117 for seat licences" } else { "<b>Invoice 2026-0117</b>" };
    json!({ "amount": 12_500, "currency": "eur", "customer": "cus_9s6XKzkNRiz8i3", "description": description,
            "reason": "renewal" })
}

/// Arguments that no condition asks for.
pub(crate) fn arguments() -> Value {
    json!({ "query": "state:open", "limit": 20 })
}

/// A sequence of numbers that is the same in every run (SplitMix64).
pub(crate) struct Order(u64);

impl Order {
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

/// Items that are gone through again and again.
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

/// Names in a fixed pseudo-random order. They stand in memory in the order in which they are asked for: a call's own
/// name is at hand when the call is decided, and only the policy's may be cold.
pub(crate) fn names(among: usize, name: impl Fn(usize) -> String) -> Ring<&'static str> {
    let mut order = Order::new();
    let mut indices: Vec<_> = (0..among).collect();
    order.shuffle(&mut indices);
    let names: Vec<&'static str> = indices.into_iter().map(|index| &*name(index).leak()).collect();
    // Few names are drawn with repetition, so that no predictor learns their order.
    let draws = if among < 1024 { (0..1024).map(|_| names[order.below(among)]).collect() } else { names };
    Ring::new(draws)
}

/// Who calls: its three identities.
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

/// At most so many callers are gone through, of however many there are: their counters are several times what the
/// caches hold.
const DRAWN: usize = 1 << 18;

/// Some of so many callers in a fixed pseudo-random order, standing in memory in the order in which they call.
pub(crate) fn callers(among: usize) -> Ring<Caller> {
    let mut indices: Vec<_> = (0..among).collect();
    Order::new().shuffle(&mut indices);
    Ring::new(indices.into_iter().take(DRAWN).map(Caller::new).collect())
}
