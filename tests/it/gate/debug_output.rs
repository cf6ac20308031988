//! `Debug` and `Display` of public types, and the accessors of an evaluation.

use serde_json::{Value, json};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Amount, Code, Decision, Effect, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::polling::ready;

fn policy() -> Policy {
    let limits = json!([{ "counter": "spend", "window": "day", "max": 2.5, "scope": "global" }]);
    let asks =
        json!([{ "conditions": [{ "path": "args.x", "op": "gt", "value": 1 }], "on_deny": "a person confirms" }]);
    let document = json!({ "version": "1", "default": "deny", "hide": ["h"], "tools": {
        "t": { "limits": limits, "require_approval_if": asks },
        "closed": { "action": "deny" },
        "free": {},
    } });
    Policy::from_json(&document.to_string()).unwrap()
}

#[test]
fn debug_output_names_the_important_fields() {
    let half: Amount = "0.5".parse().unwrap();
    let noon: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
    assert_eq!(format!("{half:?} {noon:?}"), "0.5 2026-01-15T12:00:00Z");
    assert_eq!(format!("{} {}", Code::NoPolicy, Code::ActionDeny), "no_policy action_deny");

    let store = MemoryStore::with_capacity(100);
    assert_eq!(format!("{store:?}"), "MemoryStore { counters: 0, capacity: 100 }");
    assert!(store.is_empty() && store.snapshot().is_empty());
    let gate = Gate::builder().policy(policy()).store_async(InProcess(store)).clock(ManualClock::new(noon)).build();
    let shown = format!("{gate:?}");
    assert!(shown.starts_with("Gate { policy: Some(") && shown.ends_with(", .. }"), "{shown}");

    let call = ToolCall::new("t", None::<&Value>);
    let Decision::Allow(permit) = ready(gate.check(&call)) else { panic!("there is room") };
    let store = &gate.store().0;
    assert!(!store.is_empty() && !store.snapshot().is_empty() && store.len() == 1);
    let shown = format!("{permit:?}");
    assert!(shown.starts_with("AsyncPermit { limits: [LimitState { counter: \"spend\", used: 1,"), "{shown}");
    let gate = Gate::new(policy());
    let two = json!({ "x": 2 });
    assert!(gate.approvals().pending(Timestamp::UNIX_EPOCH).unwrap().is_empty());
    let Decision::RequireApproval(asked) = gate.check(&ToolCall::new("t", &two)) else {
        panic!("the call needs approval")
    };
    assert_eq!(asked.limits().iter().map(|state| state.counter()).collect::<Vec<_>>(), ["spend"]);
    assert!(asked.signed_error().is_none() && asked.message() == "a person confirms");
    let Decision::Allow(permit) = gate.check(&call) else { panic!("there is room") };
    let shown = format!("{permit:?}");
    assert!(shown.starts_with("Permit { limits: [LimitState { counter: \"spend\", used: 1,"), "{shown}");
}

#[test]
fn an_evaluation_has_the_result_of_the_rules() {
    let policy = policy();
    let two = json!({ "x": 2 });
    for (tool, arguments, effect, code, rule) in [
        ("t", None, Effect::Allow, None, None),
        ("free", Some(&two), Effect::Allow, None, None),
        ("t", Some(&two), Effect::RequireApproval, Some(Code::Approval), Some("/tools/t/require_approval_if/0")),
        ("closed", None, Effect::Deny(Code::ActionDeny), Some(Code::ActionDeny), Some("/tools/closed/action")),
        ("h", None, Effect::Deny(Code::Hidden), Some(Code::Hidden), Some("(hidden)")),
        ("other", None, Effect::Deny(Code::DefaultDeny), Some(Code::DefaultDeny), Some("(default deny)")),
    ] {
        let evaluation = policy.evaluate(&ToolCall::new(tool, arguments), Timestamp::UNIX_EPOCH);
        assert_eq!((evaluation.effect(), evaluation.code()), (effect, code), "{tool}");
        assert_eq!(evaluation.is_allowed(), effect == Effect::Allow, "{tool}");
        assert_eq!(evaluation.rule().as_deref(), rule, "{tool}");
        let shown = format!("{evaluation:?}");
        assert!(shown.starts_with(&format!("Evaluation {{ effect: {effect:?}, rule: ")), "{shown}");
    }
}
