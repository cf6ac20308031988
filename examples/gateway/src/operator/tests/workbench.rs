//! The policy workbench in a browser.

use serde_json::{Value, json};

use super::browser::Browser;
use super::gateway::Gateway;
use super::opened;

const TEXT: &str = "#policy-text";

/// The tools that a server lists: one of them is hostile.
pub(super) fn tools() -> Value {
    json!([
        {
            "name": "create_charge",
            "description": "Charges a customer's card.",
            "inputSchema": { "type": "object", "properties": {
                "amount": { "type": "number" }, "currency": { "type": "string", "enum": ["usd", "eur", "gbp"] }
            } }
        },
        { "name": "list_customers", "description": "Lists customers.", "inputSchema": { "type": "object" } },
        {
            "name": "<b onmouseover=window.harm=1>\u{202e}reve",
            "description": "<script>window.harm=2</script>",
            "inputSchema": { "type": "object", "properties": { "\"><img src=x onerror=window.harm=3>": {} } }
        },
        { "name": "__proto__", "inputSchema": { "type": "object" } }
    ])
}

async fn workbench() -> Option<(Gateway, Browser)> {
    let (gateway, browser) = opened().await?;
    gateway.list(&tools());
    browser.click("#nav a[href='#workbench']").await;
    browser.wait_for_text("#view-workbench", "A valid policy").await;
    Some((gateway, browser))
}

async fn policy(browser: &Browser) -> String {
    browser.run("return document.querySelector('#policy-text').value", vec![]).await.as_str().unwrap().to_owned()
}

/// The selector of the form of a tool.
fn entry(tool: &str) -> String {
    format!(".entry:has([aria-label='Remove {tool}'])")
}

async fn choose(browser: &Browser, css: &str, value: &str) {
    let select = browser.wait_for(css).await;
    select.select_by_value(value).await.unwrap_or_else(|error| panic!("{css}: {error}"));
}

async fn field_of(browser: &Browser, css: &str, label: &str) -> String {
    let script = "const [css, label] = arguments; \
        return [...document.querySelectorAll(`${css} label`)].find((one) => one.innerText.startsWith(label))?.htmlFor";
    let id = browser.run(script, vec![css.into(), label.into()]).await;
    format!("#{}", id.as_str().unwrap_or_else(|| panic!("{css} has no field `{label}`")))
}

#[tokio::test]
async fn builds_a_policy_by_forms() {
    let Some((gateway, browser)) = workbench().await else { return };
    browser.press("#view-workbench .tabs", "Forms").await;
    browser.press("#panel-forms", "Add all 4 tools").await;
    let charge = entry("create_charge");
    browser.press(&charge, "Add a condition").await;
    let condition = format!("{charge} .rule");
    let fields = ["Effect", "Value of", "Comparison", "Compared with", "Message"];
    let [effect, path, comparison, value, message] = fields.map(|label| field_of(&browser, &condition, label));
    choose(&browser, &effect.await, "deny_if").await;
    browser.write(&path.await, "args.amount").await;
    choose(&browser, &comparison.await, "gt").await;
    browser.write(&value.await, "500").await;
    browser.write(&message.await, "A single charge is at most 500.").await;
    // Lint shows that a call without an amount slips through, and the form has the answer.
    browser.wait_for_text("#view-workbench .report", "absent").await;
    browser.click(&format!("{condition} input[type=checkbox]")).await;
    browser.press(&charge, "Add a limit").await;
    let limit = format!("{charge} .limit");
    browser.write(&field_of(&browser, &limit, "At most").await, "3").await;
    choose(&browser, &field_of(&browser, &limit, "Window").await, "day").await;
    choose(&browser, &format!("{} .entry-head select", entry("list_customers")), "require_approval").await;
    choose(&browser, &format!("{} .entry-head select", entry("__proto__")), "deny").await;
    browser.wait_for_text("#view-workbench [role=status]", "A valid policy").await;

    let built: Value = serde_json::from_str(&policy(&browser).await).unwrap();
    let expected = json!({
        "version": "1",
        "default": "deny",
        "tools": {
            "create_charge": {
                "deny_if": [{
                    "conditions": [{ "path": "args.amount", "op": "gt", "value": 500, "absent": "match" }],
                    "on_deny": "A single charge is at most 500."
                }],
                "limits": [{ "counter": "create_charge_calls", "window": "day", "max": 3, "scope": "grant" }]
            },
            "list_customers": { "action": "require_approval" },
            "<b onmouseover=window.harm=1>\u{202e}reve": {},
            "__proto__": { "action": "deny" }
        }
    });
    assert_eq!(built, expected);
    assert!(built.to_string().parse::<toolgate::Policy>().is_ok());
    // What is in force is what it was.
    assert_eq!(gateway.host.policies()[0].1.entries(), 5);
    let shown = browser.text("#panel-forms").await;
    assert!(shown.contains("<b onmouseover=window.harm=1>") && shown.contains("U+202E"), "{shown}");
    assert_eq!(browser.run("return window.harm ?? 0", vec![]).await, 0);
    browser.close().await;
}

#[tokio::test]
async fn shows_the_issues_of_a_text_at_their_lines() {
    let Some((_gateway, browser)) = workbench().await else { return };
    let broken = r#"{
  "version": "1",
  "default": "dney",
  "tools": {
    "a": { "denyif": [] },
    "*": {}
  }
}"#;
    browser.paste(TEXT, broken).await;
    browser.wait_for_text("#view-workbench [role=status]", "Not a valid policy: 3 issues").await;
    let report = browser.text("#view-workbench .report").await;
    for part in
        ["Line 3, column 14", "did you mean `deny`?", "Line 5", "unknown_key", "did you mean `deny_if`?", "Line 6"]
    {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let marked = "return [...document.querySelectorAll('.numbers .mark')].map((one) => one.textContent)";
    assert_eq!(browser.run(marked, vec![]).await, json!(["3", "5", "6"]));
    browser.press("#view-workbench .report", "Line 5").await;
    let line = "const t = document.activeElement; return t.value.slice(0, t.selectionStart).split('\\n').length";
    assert_eq!(browser.run(line, vec![]).await, 5);
    browser.press("#view-workbench .tabs", "Forms").await;
    browser.wait_for_text("#forms-blocked", "Fix the issues").await;
    browser.close().await;
}

#[tokio::test]
async fn forms_leave_numbers_alone_that_they_would_round() {
    let Some((_gateway, browser)) = workbench().await else { return };
    let text = r#"{ "version": "1", "default": "deny", "tools": { "pay": { "require": [
        { "conditions": [{ "path": "args.id", "op": "eq", "value": 9007199254740993 }] }] } } }"#;
    browser.paste(TEXT, text).await;
    browser.press("#view-workbench .tabs", "Forms").await;
    browser.wait_for_text("#forms-blocked", "9007199254740993").await;
    assert_eq!(policy(&browser).await, text);
    browser.close().await;
}

#[tokio::test]
async fn explains_a_call_against_the_draft() {
    let Some((gateway, browser)) = workbench().await else { return };
    gateway.list(&tools());
    let text = r#"{ "version": "1", "default": "deny", "tools": { "create_charge": {
        "require": [{ "conditions": [{ "path": "args.currency", "op": "in", "value": ["usd", "eur"] }] }],
        "deny_if": [{
            "conditions": [{ "path": "args.amount", "op": "gt", "value": 500, "absent": "match" }],
            "on_deny": "Too much."
        }] } } }"#;
    browser.paste(TEXT, text).await;
    browser.write("#trial-tool", "create_charge").await;
    browser
        .paste("#trial-arguments", r#"{ "amount": 900, "currency": "gbp", "x": "<img src=x onerror=window.harm=1>" }"#)
        .await;
    browser.press("#view-workbench", "Try the call").await;
    browser.wait_for_text("#trial-answer", "/tools/create_charge/require/0").await;
    let shown = browser.text("#trial-answer").await;
    for part in ["deny", "Too much.", "900", "It would pass if", "args.currency"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    browser.paste("#trial-arguments", r#"{ "amount": 5, "currency": "eur" }"#).await;
    browser.press("#view-workbench", "Try the call").await;
    browser.wait_for_text("#trial-answer .effect", "allow").await;
    browser.paste("#trial-arguments", r#"{ "amount": 5, "amount": 6 }"#).await;
    browser.press("#view-workbench", "Try the call").await;
    browser.wait_for_text("#trial-answer", "malformed_call").await;
    // Nothing was decided at the gateway.
    assert!(gateway.host.journal.callers().is_empty());
    browser.close().await;
}

#[tokio::test]
async fn shows_hidden_characters_of_a_text() {
    let Some((_gateway, browser)) = workbench().await else { return };
    let text =
        "{\n  \"version\": \"1\",\n  \"default\": \"deny\",\n  \"hide\": [\"a\u{200b}\", \"\u{202e}b\"]\u{a0}\n}";
    browser.paste(TEXT, text).await;
    browser.wait_for_text("#view-workbench .report", "Line 4: ").await;
    let report = browser.text("#view-workbench .report").await;
    for part in ["U+200B", "U+202E", "U+00A0"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    browser.close().await;
}

#[tokio::test]
async fn downloads_the_draft() {
    let Some((_gateway, browser)) = workbench().await else { return };
    browser.paste(TEXT, "{ \"version\": \"1\", \"default\": \"allow\" }").await;
    browser.click("#download").await;
    let saved = browser.downloaded("policy.json").await;
    assert_eq!(saved, "{ \"version\": \"1\", \"default\": \"allow\" }");
    browser.close().await;
}

#[tokio::test]
async fn opens_a_copy_of_a_policy_in_force() {
    let Some((gateway, browser)) = opened().await else { return };
    browser.click("#nav a[href='#policies']").await;
    browser.wait_for_text("#view-policies article", "support").await;
    // Its lint is shown: a charge without an amount passes.
    browser.wait_for_text("#view-policies article .badge", "finding").await;
    browser.press("#view-policies article", "Open a copy").await;
    browser.wait_for_text("#view-workbench [role=status]", "A valid policy").await;
    let copy: toolgate::Policy = policy(&browser).await.parse().unwrap();
    assert_eq!(copy.digest(), gateway.host.policies()[0].1.digest());
    browser.close().await;
}
