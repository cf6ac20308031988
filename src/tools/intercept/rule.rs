//! Reads the rules of Intercept and the counters that they keep.

use serde_json::{Map, Value};

use super::condition::{self, Bound, Condition};
use super::path::Path;
use super::walk::{Place, Walk};
use crate::policy::{IssueCode, quote};

pub(super) struct Rule {
    pub(super) name: String,
    pub(super) on_deny: Option<String>,
    pub(super) denies: bool,
    pub(super) conditions: Vec<Condition>,
    pub(super) state: Option<State>,
    /// `true` if it keeps a counter whose name could not be read.
    pub(super) has_unread_state: bool,
    pub(super) place: Place,
    /// `true` if every condition could be read.
    pub(super) is_whole: bool,
}

/// A counter that a rule keeps.
pub(super) struct State {
    pub(super) counter: String,
    /// `None` if it could not be read.
    pub(super) window: Option<&'static str>,
    pub(super) cost: Cost,
    pub(super) cost_place: Place,
    pub(super) place: Place,
}

/// The amount that a call adds to a counter.
#[derive(Clone)]
pub(super) enum Cost {
    Each(i64),
    /// The number at a path into the arguments, in this crate's syntax.
    From(String),
}

impl Rule {
    /// Returns the index of the first condition that bounds the rule's own counter. Intercept
    /// counts up to this bound.
    pub(super) fn own_bound(&self, scope: &str) -> Option<usize> {
        let state = self.state.as_ref()?;
        self.conditions.iter().position(|condition| match condition {
            Condition::Bound(bound) => bound.scope == scope && bound.counter == state.counter,
            Condition::Argument { .. } => false,
        })
    }
}

const KEYS: [&str; 6] = ["name", "action", "rate_limit", "conditions", "on_deny", "state"];
const WINDOWS: [&str; 3] = ["minute", "hour", "day"];

/// Reads a rule of a tool whose counters belong to `scope`.
pub(super) fn read(walk: &mut Walk, value: &Value, scope: &str) -> Option<Rule> {
    let place = walk.place();
    let members = walk.object(value, "a rule", &KEYS)?;
    let name = text(walk, members, "name");
    if name.is_none() {
        walk.missing("a rule needs a `name`", "add a name, by which a refusal can be traced");
    }
    let rate = walk.field(members, "rate_limit", |walk, value| Some((rate(walk, value), walk.place())));
    let denies = action(walk, members, rate.is_some());
    let written = walk.field(members, "conditions", |walk, value| walk.list(value, "`conditions`"));
    let conditions =
        walk.field(members, "conditions", |walk, _| Some(walk.each(written.unwrap_or_default(), condition::read)));
    let state = walk.field(members, "state", |walk, value| Some(state(walk, value)));
    let written = written.map_or(0, <[Value]>::len);
    let mut rule = Rule {
        name: name.unwrap_or_default(),
        on_deny: text(walk, members, "on_deny"),
        denies,
        is_whole: conditions.as_ref().map_or(0, Vec::len) == written,
        conditions: conditions.unwrap_or_default(),
        state: None,
        has_unread_state: matches!((&rate, &state), (Some((None, _)), _) | (_, Some(None))),
        place,
    };
    let mut conflict = |message: &str, help: &str| {
        walk.issue_at(&rule.place, IssueCode::ConflictingKeys, message, help);
    };
    match rate {
        Some((rate, place)) => {
            if written > 0 || state.is_some() {
                conflict(
                    "`rate_limit` is short for `conditions` and `state`, and excludes both",
                    "split it into two rules",
                );
            }
            if denies {
                conflict("`rate_limit` cannot be used with the action `deny`", "remove one of the two");
            }
            if let Some((count, window)) = rate {
                rule.count_by_rate(scope, count, window, &place);
            }
        }
        None => {
            if denies && written > 0 {
                conflict("a rule with the action `deny` cannot have conditions", "remove one of the two");
            }
            if !denies && written == 0 && rule.is_whole {
                let help = "add a condition, `action: deny` or `rate_limit`";
                walk.issue_at(&rule.place, IssueCode::EmptyList, "a rule needs at least one condition", help);
            }
            rule.state = state.flatten();
        }
    }
    Some(rule)
}

impl Rule {
    /// Expands `rate_limit` to its condition and counter.
    fn count_by_rate(&mut self, scope: &str, count: i64, window: &'static str, place: &Place) {
        let counter = format!("_rate_{window}");
        #[expect(clippy::cast_precision_loss, reason = "above 2^53 it exceeds the maximum of a limit and is refused")]
        let bound = Bound {
            scope: scope.to_owned(),
            counter: counter.clone(),
            is_strict: false,
            value: count as f64,
            place: place.clone(),
            value_place: place.clone(),
        };
        self.conditions = vec![Condition::Bound(bound)];
        let (cost, cost_place) = (Cost::Each(1), place.clone());
        self.state = Some(State { counter, window: Some(window), cost, cost_place, place: place.clone() });
        self.on_deny.get_or_insert_with(|| format!("Rate limit of {count} per {window} reached. Try again later."));
    }
}

/// Reads a text. An empty one counts as absent.
fn text(walk: &mut Walk, members: &Map<String, Value>, key: &str) -> Option<String> {
    let text = walk.field(members, key, |walk, value| walk.string(value, &format!("`{key}`")));
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns `true` if the rule denies every call.
fn action(walk: &mut Walk, members: &Map<String, Value>, has_rate: bool) -> bool {
    let action = walk.field(members, "action", |walk, value| {
        let action = walk.string(value, "`action`")?;
        // Beside a rate limit, Intercept reads any word as `evaluate`. A word that means something
        // else is an error here.
        let known = matches!(action, "evaluate" | "deny" | "") || (has_rate && action == "allow");
        if !known {
            walk.unknown_word(action, "an action of a rule", &["evaluate", "deny"]);
        }
        Some(action)
    });
    action == Some("deny")
}

fn rate(walk: &mut Walk, value: &Value) -> Option<(i64, &'static str)> {
    let text = walk.string(value, "`rate_limit`")?;
    let Some((count, window)) = text.split_once('/') else {
        let message = format!("{} is not a valid rate limit", quote(text));
        walk.issue(IssueCode::InvalidValue, message, "write a count and a window: `5/hour`".to_owned());
        return None;
    };
    let known = word(walk, window);
    let digits = count.strip_prefix('+').unwrap_or(count);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<i64>().ok().filter(|number| is_number && *number > 0);
    if number.is_none() {
        let message = format!("the count of a rate limit is a whole number above 0, not {}", quote(count));
        walk.issue(IssueCode::InvalidValue, message, "write a count and a window: `5/hour`".to_owned());
    }
    Some((number?, known?))
}

fn word(walk: &mut Walk, window: &str) -> Option<&'static str> {
    let known = WINDOWS.into_iter().find(|known| *known == window);
    if known.is_none() {
        walk.unknown_word(window, "a window of Intercept", &WINDOWS);
    }
    known
}

fn state(walk: &mut Walk, value: &Value) -> Option<State> {
    let place = walk.place();
    let members = walk.object(value, "`state`", &["counter", "window", "increment", "increment_from"])?;
    let counter = text(walk, members, "counter");
    if counter.is_none() {
        walk.missing("`state` needs a `counter`", "name the counter");
    }
    let window = walk.field(members, "window", |walk, value| {
        let text = walk.string(value, "`window`")?;
        word(walk, text)
    });
    if members.get("window").is_none_or(Value::is_null) {
        walk.missing("`state` needs a `window`", "use `minute`, `hour` or `day`");
    }
    let each = walk.field(members, "increment", |walk, value| Some((increment(walk, value), walk.place())));
    let from = walk.field(members, "increment_from", |walk, value| {
        let text = walk.string(value, "`increment_from`")?;
        match Path::parse(text) {
            Some(Path::Arguments(path)) => Some((path, walk.place())),
            _ => {
                let message = format!("{} is not a path into the arguments", quote(text));
                walk.issue(IssueCode::InvalidPath, message, "begin it with `args.`".to_owned());
                None
            }
        }
    });
    if each.is_some() && members.get("increment_from").is_some_and(|from| !from.is_null()) {
        let message = "Intercept ignores `increment` beside `increment_from`";
        walk.issue_at(&place, IssueCode::ConflictingKeys, message, "keep one of the two");
    }
    let (cost, cost_place) = match (from, each) {
        (Some((path, place)), _) => (Cost::From(path), place),
        (None, Some((each, place))) => (Cost::Each(each.unwrap_or(1)), place),
        (None, None) => (Cost::Each(1), place.clone()),
    };
    Some(State { counter: counter?, window, cost, cost_place, place })
}

/// Reads a whole number. 0 means 1.
fn increment(walk: &mut Walk, value: &Value) -> Option<i64> {
    let help = "write a whole number above 0, or `increment_from`".to_owned();
    match value.as_i64() {
        Some(0) => Some(1),
        Some(increment) if increment > 0 => Some(increment),
        Some(_) => {
            walk.issue(IssueCode::InvalidAmount, "an increment below 0 would restore quota with each call", help);
            None
        }
        None => {
            walk.issue(IssueCode::WrongType, "`increment` is a whole number", help);
            None
        }
    }
}
