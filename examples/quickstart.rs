//! The first example of the guide to gateways: `cargo run --example quickstart`

use serde_json::json;
use toolgate::mcp::Refusal;
use toolgate::{Gate, Policy, ToolCall};

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
        let call = ToolCall::new("create_charge", &arguments).grant("g-42");
        match gate.check(&call).into_result() {
            Ok(permit) => {
                println!("Allowed: {amount} {currency}");
                // Make the call here. `permit.release()` gives the quota back if it was not made.
                permit.end();
            }
            Err(refused) => println!("{}", Refusal::from(&refused).text()),
        }
    }
    Ok(())
}
