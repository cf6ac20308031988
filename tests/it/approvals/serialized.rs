//! Approvals as JSON.

use serde_json::{Value, json};
use toolgate::approval::Approval;
use toolgate::approval::Verdict;

use super::{START, asked, call, gate, in_memory};

#[test]
fn an_approval_parses_back_and_changed_text_does_not() {
    let (gate, _) =
        gate(&in_memory, &json!({ "approval": { "bind": ["args.n<=", "args.to"], "approvers": ["ann", "bob"] } }));
    for n in [json!(0), json!(-1.5), json!(u64::MAX), json!(1e300), json!(5e-324), json!(9_007_199_254_740_993u64)] {
        let arguments = json!({ "n": n, "to": "\u{e9}\"" });
        let mut approval = asked(gate.check(&call(&arguments)));
        for verdict in [None, Some(Verdict::Approve)] {
            if let Some(verdict) = verdict {
                approval.decide(verdict, "ann", START).unwrap();
            }
            let json = approval.to_json();
            let again = Approval::from_json(&json).unwrap();
            assert_eq!(again.to_json(), json);
            assert_eq!(
                (again.id(), again.state(), again.details()),
                (approval.id(), approval.state(), approval.details())
            );
        }
        let json = approval.to_json();
        if !json.contains("\"bounds\":[\"") {
            assert!(n.as_f64() < Some(0.0), "only a negative number is bound exactly: {json}");
            continue;
        }
        for (part, other) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"version\":1"),
            ("\"version\":1", "\"version\":1,\"more\":1"),
            ("\"approved_by\":[\"ann\"]", "\"approved_by\":[]"),
            ("\"min_approvers\":1", "\"min_approvers\":0"),
            ("\"number\":", "\"number\":1"),
            ("\"state\":\"approved\"", "\"state\":\"pending\""),
            ("\"bounds\":[\"", "\"bounds\":[\"x"),
            ("\"turn\":0", "\"turn\":-1"),
            // A part of the details that passes for the whole would be approved unseen.
            ("\"details_bytes\":", "\"details_bytes\":1"),
            ("\"details_bytes\":", "\"left_out\":1,\"details_bytes\":"),
        ] {
            assert!(json.contains(part), "{part}");
            assert!(Approval::from_json(&json.replace(part, other)).is_err(), "{other}");
        }
        assert!(Approval::from_json(&format!("{json} 1")).is_err());
        // A list is not accepted in place of an object.
        let all = json.replace("{\"version\":1,\"id\":", "[1,").replace(",\"approval\":", ",");
        let all = format!("{}]", all.strip_suffix('}').unwrap());
        let (before, caller) = json.split_once("\"caller\":{").unwrap();
        let (caller, behind) = caller.split_once('}').unwrap();
        let names = ["grant", "session", "agent", "user", "server"];
        let caller = names.iter().fold(caller.to_owned(), |text, name| text.replace(&format!("\"{name}\":"), ""));
        for listed in [all, format!("{before}\"caller\":[{caller}]{behind}")] {
            assert!(serde_json::from_str::<Value>(&listed).is_ok(), "{listed}");
            assert!(Approval::from_json(&listed).is_err(), "{listed}");
        }
    }
    assert!(Approval::from_json("").is_err());
}

#[test]
fn only_uses_that_claims_can_lead_to_parse_back() {
    let (gate, _) = gate(&in_memory, &json!({ "approval": { "uses": 3 } }));
    let mut approval = asked(gate.check(&call(&json!({}))));
    assert!(approval.to_json().contains("\"uses\":3"));
    approval.decide(Verdict::Approve, "ann", START).unwrap();
    let claims = [(); 2].map(|()| approval.claim(START).unwrap());
    assert!(approval.restore(&claims[0], START) && !approval.restore(&claims[0], START));
    let json = approval.to_json();
    let mut again = Approval::from_json(&json).unwrap();
    assert_eq!((again.to_json(), again.uses(), again.uses_left()), (json.clone(), 3, 2));
    assert!(again.restore(&claims[1], START) && again.uses_left() == 3);
    for (part, other) in [
        ("\"held\":[2]", "\"held\":[3]"),
        ("\"held\":[2]", "\"held\":[2,1]"),
        ("\"held\":[2]", "\"held\":[2,2]"),
        ("\"held\":[2]", "\"held\":[0,1,2]"),
        ("\"held\":[2]", "\"held\":[-1]"),
        ("\"uses\":3", "\"uses\":0"),
        ("\"uses\":3", "\"uses\":1"),
        ("\"uses\":3", "\"uses\":1001"),
        ("\"state\":\"approved\"", "\"state\":\"consumed\""),
        ("\"state\":\"approved\"", "\"state\":\"denied\""),
    ] {
        assert!(json.contains(part), "{part} in {json}");
        assert!(Approval::from_json(&json.replace(part, other)).is_err(), "{other}");
    }
}
