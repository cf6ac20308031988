//! Expressions of `require` that match within a longer text.

use serde_json::{Value, json};
use toolgate::analysis::lint;
use toolgate::{Policy, ToolCall};

fn source(conditions: &Value) -> String {
    let rules = json!({ "require": [{ "conditions": conditions }] });
    json!({ "version": "1", "default": "deny", "tools": { "t": rules } }).to_string()
}

#[test]
fn unanchored_expressions_are_found_in_any_group() {
    let regex = |path: &str, op: &str, pattern: &str| json!({ "path": path, "op": op, "value": pattern });
    let open = regex("args.x", "regex", "rm|ls");
    let tied = regex("args.y", "regex", "^(?:rm|ls)$");
    for (conditions, want) in [
        (json!([regex("args.x", "regex", "(?m)^safe$")]), vec![""]),
        (json!([{ "any": [tied, open] }]), vec!["/any/1"]),
        (json!([{ "any": [open, { "all": [tied, open] }] }]), vec!["/any/0", "/any/1/all/1"]),
        (json!([{ "not": regex("args.x", "not_regex", "rm|ls") }]), vec!["/not"]),
        (json!([{ "not": { "all": [{ "not": tied }, regex("args.x", "not_regex", "ls")] } }]), vec!["/not/all/1"]),
        (json!([regex("args.x[*]", "regex", "ls")]), vec![""]),
        (json!([regex("args.x[*].y", "regex", "ls$")]), vec![""]),
        (json!([{ "any": [tied, regex("args.x", "not_regex", "rm|ls")] }]), vec![]),
        (json!([{ "not": open }]), vec![]),
    ] {
        let source = source(&conditions);
        let report = lint::check(&source).unwrap();
        let want: Vec<_> = want.iter().map(|at| format!("/tools/t/require/0/conditions/0{at}")).collect();
        let found: Vec<_> = report.findings().iter().map(|one| (one.code().as_str(), one.pointer())).collect();
        assert_eq!(found, want.iter().map(|at| ("regex_unanchored", at.as_str())).collect::<Vec<_>>(), "{conditions}");
        let policy: Policy = source.parse().unwrap();
        for finding in report.findings() {
            let witness = finding.witness().unwrap();
            let call = ToolCall::new("t", witness.arguments());
            assert!(policy.evaluate(&call, witness.at()).is_allowed(), "{finding}");
            assert!(witness.arguments().to_string().contains(['\\', ';']), "{finding}");
        }
    }
}
