//! The first example of the guide to gateways.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use serde_json::json;
use toolgate::{Decision, Gate, Policy, ToolCall};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy: Policy = r#"{
        "version": "1",
        "default": "deny",
        "tools": {
            "list_customers": {},
            "create_charge": {
                "require": [{
                    "conditions": [{ "path": "args.currency", "op": "in", "value": ["usd", "eur"] }],
                    "on_deny": "Only USD and EUR."
                }],
                "limits": [{
                    "counter": "spend", "window": "day", "max": 1000,
                    "scope": "grant", "amount_from": "args.amount"
                }]
            }
        }
    }"#
    .parse()?;
    let gate = Gate::new(policy);

    for (amount, currency) in [(600, "usd"), (600, "usd"), (5, "gbp")] {
        let arguments = json!({ "amount": amount, "currency": currency });
        let call = ToolCall::new("create_charge", &arguments).grant("g-42").session("s-7");
        match gate.check(&call) {
            // Forward the call now. Its quota is spent; release the permit if the call was not made.
            Decision::Allow(permit) => println!("allowed: {:?}", permit.limits()),
            Decision::Deny(denial) => println!("denied, {}: {}", denial.code(), denial.message()),
            Decision::RateLimit(limited) => println!("wait {:?}: {}", limited.retry_after(), limited.message()),
            Decision::RequireApproval(request) => println!("ask a person: {}", request.message()),
        }
    }
    Ok(())
}
