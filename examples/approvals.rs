//! A person in a terminal confirms calls before they are made.
//!
//! ```text
//! cargo run --example approvals -- ann
//! ```
//!
//! The program plays both sides. The agent makes three calls, and the person, here ann, answers
//! each request with `y`, or refuses it with anything else.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};
use toolgate::approval::Approval;
use toolgate::mcp::Refusal;
use toolgate::{Decision, Gate, Policy, ToolCall, visible};

const POLICY: &str = r#"{
    "version": "1",
    "default": "deny",
    "tools": {
        "create_refund": {
            "require_approval_if": [{
                "conditions": [{ "path": "args.amount", "op": "gt", "value": 50, "absent": "match" }],
                "reason": "A refund of more than 50 needs a person."
            }],
            "approval": { "ttl": "5m" }
        }
    }
}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(person) = std::env::args().nth(1) else { return Err("usage: approvals YOUR_NAME".into()) };
    let gate = Gate::new(POLICY.parse::<Policy>()?);
    for arguments in [
        json!({ "amount": 20, "to": "customer 1" }),
        json!({ "amount": 900, "to": "customer 2" }),
        // What an agent sends may move the cursor, or turn the direction of the text.
        json!({ "amount": 900, "to": "\u{1b}[2J\u{202e}customer 3" }),
    ] {
        println!("{}", attempt(&gate, &arguments, &person)?);
    }
    Ok(())
}

/// Makes one call, with the help of a person if the policy asks for it, and describes how it ended.
fn attempt(gate: &Gate, arguments: &Value, person: &str) -> Result<String, Box<dyn std::error::Error>> {
    let call = ToolCall::new("create_refund", arguments).grant("g-42");
    let mut decision = gate.check(&call);
    if let Decision::RequireApproval(request) = &decision
        && let Some(request) = request.approval()
    {
        if confirm(request, person)? {
            gate.approve(request.id(), person)?;
        } else {
            gate.refuse(request.id(), person)?;
            return Ok(format!("{person} refuses the call."));
        }
        // The same call again: it uses this approval, once.
        decision = gate.check(&call.approval(request.id()));
    }
    Ok(match decision.into_result() {
        Ok(permit) => {
            // Make the call here.
            permit.end();
            "The call is made.".to_owned()
        }
        Err(refused) => Refusal::from(&refused).text(),
    })
}

/// Shows a request to the person at the terminal. Only `y` confirms it: not an empty line, and not
/// the end of the input.
fn confirm(request: &Approval, person: &str) -> io::Result<bool> {
    // The values that the approval binds, with invisible characters written out.
    println!("{} {}", visible(request.tool()), request.shown());
    println!("{}", visible(request.reason()));
    if !request.is_shown() {
        println!(
            "These are {} bytes of arguments: too long to show, so nobody can approve them.",
            request.details_bytes()
        );
        return Ok(false);
    }
    print!("Make this call, {person}? [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "y")
}
