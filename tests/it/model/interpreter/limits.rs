//! Limits, and the counters that a call is charged in.

use serde_json::Value;

use super::conditions::one_or_more;
use super::counters::Algorithm;
use super::numbers::{LARGEST, UNIT, amount, exact};
use super::paths::{steps, value_at};
use super::time::{MINUTE, length, window};
use super::{Answer, Place, Policy, deny, list, text};

/// A limit, or a `rate_limit` in the same form. The members of the document are read where needed.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) pointer: String,
    pub(super) members: Value,
    pub(super) how: Algorithm,
    pub(super) max: u128,
    pub(super) burst: Option<u128>,
    /// The host's own maximum for the caller.
    pub(super) host: u128,
    pub(super) shadow: bool,
}

impl Limit {
    /// Returns the largest amount that the counter may hold.
    pub(super) fn room(&self) -> u128 {
        let room = match (self.max, self.burst) {
            (1.., Some(burst)) => burst,
            (max, _) => max,
        };
        room.min(self.host)
    }
}

/// A limit that counts the call.
pub(super) struct Counting {
    pub(super) limit: Limit,
    /// The counter and its scope: limits with the same group are charged together.
    pub(super) group: String,
    /// The charged counters, that of the limit first.
    pub(super) charged: Vec<(String, Algorithm)>,
    /// The amount of the charge.
    pub(super) amount: u128,
    /// The constant amount of the limit; `None` if it is read from the call.
    pub(super) constant: Option<u128>,
}

/// Returns all limits of `places`: for each its `limits`, then its `rate_limit`.
pub(super) fn limits(places: &[Place]) -> Vec<Limit> {
    let mut limits = Vec::new();
    for place in places {
        for (index, members) in list(&place.rules["limits"]).into_iter().enumerate() {
            limits.push(limit(members, format!("{}/limits/{index}", place.pointer)));
        }
        let mut members = place.rules["rate_limit"].clone();
        if !members.is_null() {
            members["counter"] = Value::from(format!("{}_rate", place.name));
            if members["scope"].is_null() {
                members["scope"] = Value::from("session");
            }
            limits.push(limit(members, format!("{}/rate_limit", place.pointer)));
        }
    }
    limits
}

pub(super) fn limit(members: Value, pointer: String) -> Limit {
    let max = amount(&members["max"]).expect("a valid max");
    let window_of = || window(&members["window"], &members["utc_offset"]);
    let how = match members["algorithm"].as_str() {
        _ if members["window"] == "in_flight" => Algorithm::InFlight(match &members["lease"] {
            Value::Null => 5 * MINUTE,
            lease => length(&window(lease, &Value::Null)),
        }),
        Some("sliding") => Algorithm::Sliding(length(&window_of())),
        Some("token_bucket") => Algorithm::Bucket(max, length(&window_of())),
        _ => Algorithm::Fixed(window_of()),
    };
    let burst = amount(&members["burst"]);
    let shadow = members["shadow"] == true;
    Limit { pointer, members, how, max, burst, host: LARGEST, shadow }
}

/// Returns the maximum that the host has for the caller; `None` if a limit needs one that is not
/// valid.
pub(super) fn host_maximum(limit: &Limit, roots: &Value) -> Option<u128> {
    match &limit.members["max_from"] {
        Value::Null => Some(LARGEST),
        path => value_at(path, roots).and_then(|value| amount(&value)),
    }
}

/// Returns the limits that count the call. All scopes are read, then all amounts.
pub(super) fn counting(limits: Vec<Limit>, policy: &Policy, roots: &Value) -> Result<Vec<Counting>, Answer> {
    let mut scoped = Vec::new();
    for limit in limits {
        match key(&limit, roots) {
            Some(group) => scoped.push((limit, group)),
            None if limit.shadow => {}
            None => return Err(deny("scope_missing", &limit.pointer, None)),
        }
    }
    let mut counting = Vec::new();
    for (mut limit, group) in scoped {
        let (constant, cost) = match (&limit.members["amount"], &limit.members["amount_from"]) {
            (Value::Null, Value::Null) => (Some(UNIT), Some(UNIT)),
            (constant, Value::Null) => (amount(constant), amount(constant)),
            (_, path) => (None, value_at(path, roots).and_then(|value| amount(&value))),
        };
        match cost.zip(host_maximum(&limit, roots)) {
            Some((amount, host)) => {
                limit.host = host;
                let charged = policy.charged(&group, &limit, roots);
                counting.push(Counting { limit, group, charged, amount, constant });
            }
            None if limit.shadow => {}
            None => return Err(deny("amount_invalid", &limit.pointer, None)),
        }
    }
    // A counter is charged once, with the largest amount of its limits.
    let same = |group: &str| counting.iter().filter(|one| one.group == group).map(|one| one.amount).max();
    let largest: Vec<u128> = counting.iter().map(|one| same(&one.group).expect("at least its own")).collect();
    for (one, amount) in counting.iter_mut().zip(largest) {
        one.amount = amount;
    }
    Ok(counting)
}

/// Returns the key under which a limit counts the call, or `None` if a part of its scope is
/// missing. Different parts give different keys, because `Debug` quotes each text.
pub(super) fn key(limit: &Limit, roots: &Value) -> Option<String> {
    let mut scope = Vec::new();
    let mut parts = Vec::new();
    for part in one_or_more(&limit.members["scope"]).iter().map(text) {
        match part.as_str() {
            "global" => scope.push(part),
            "session" if roots["call"]["session"].is_null() => {
                parts.push(format!("for the grant {}", text(roots["call"].get("grant")?)));
                scope.push(part);
            }
            "grant" | "session" | "agent" | "user" | "server" => {
                parts.push(text(roots["call"].get(&part)?));
                scope.push(part);
            }
            path => {
                scope.push(format!("{:?}", steps(path)));
                parts.push(match value_at(&Value::from(path), roots)? {
                    Value::String(string) => format!("the text {string}"),
                    Value::Number(number) => format!("the number {:?}", exact(&number)),
                    _ => return None,
                });
            }
        }
    }
    let how = match &limit.how {
        // Buckets of one name can have different rates, and new bursts and leases apply to existing
        // counters.
        Algorithm::Bucket(..) => "a bucket".to_owned(),
        Algorithm::InFlight(_) => "in flight".to_owned(),
        how => format!("{how:?}"),
    };
    let window = match limit.how {
        Algorithm::InFlight(_) => None,
        _ => Some(window(&limit.members["window"], &limit.members["utc_offset"])),
    };
    Some(format!("{:?}", (&limit.members["counter"], window, how, scope, parts)))
}
