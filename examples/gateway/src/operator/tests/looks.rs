//! How the page looks: widths, labels, contrast, and the pictures of the documentation.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::browser::Browser;
use super::gateway::{Gateway, who};
use super::workbench::tools;
use super::{opened, opened_at};

const VIEWS: [&str; 5] = ["approvals", "usage", "decisions", "policies", "workbench"];

/// Callers, decisions and pending requests.
async fn activity(gateway: &Gateway) {
    let (first, second) = (who("g-42"), who("g-43"));
    for (amount, caller) in [(120, &first), (900, &first), (35, &second), (60, &first)] {
        gateway.call(caller, "create_charge", &json!({ "amount": amount, "currency": "eur" })).await;
    }
    for id in 0..15 {
        gateway.call(&first, "get_customer", &json!({ "id": id })).await;
    }
    gateway.call(&second, "delete_customer", &json!({ "id": 7 })).await;
    let text = "Dear Ann, your refund of 60 EUR was made today. It arrives within three working days.";
    gateway
        .call(&second, "send_mail", &json!({ "to": "ann@example.com", "subject": "Your refund", "text": text }))
        .await;
    let transfer = json!({ "to": "DE02120300000000202051", "amount": 250, "note": "March" });
    gateway.call(&second, "wire_money", &transfer).await;
}

async fn show(browser: &Browser, view: &str) {
    browser.run("location.hash = arguments[0]", vec![view.into()]).await;
    browser.wait_for(&format!("#view-{view}:not([hidden]) h1")).await;
    let content = match view {
        "workbench" => ".report > *",
        "decisions" => ".log li",
        _ => "article",
    };
    browser.wait_for(&format!("#view-{view} {content}")).await;
}

#[tokio::test]
async fn fits_a_phone_without_scrolling_sideways() {
    let Some((gateway, browser)) = opened_at(Browser::phone()).await else { return };
    activity(&gateway).await;
    gateway.list(&tools());
    let long = json!({ "x".repeat(200): "y".repeat(900) });
    gateway.call(&who("g-43"), &format!("send_{}", "z".repeat(200)), &long).await;
    for view in VIEWS {
        show(&browser, view).await;
        let sizes = browser.run("return [document.documentElement.scrollWidth, innerWidth]", vec![]).await;
        assert_eq!(sizes, json!([360, 360]), "{view}");
    }
    browser.press("#view-workbench .tabs", "Forms").await;
    browser.press("#panel-forms", "Add all 4").await;
    browser.press(".entry", "Add a condition").await;
    browser.press(".entry", "Add a limit").await;
    let sizes = browser.run("return [document.documentElement.scrollWidth, innerWidth]", vec![]).await;
    assert_eq!(sizes, json!([360, 360]), "forms");
    show(&browser, "approvals").await;
    browser.press("#view-approvals article", "Approve").await;
    let dialog = "const dialog = document.querySelector('dialog'); \
        return dialog.scrollWidth <= dialog.clientWidth && dialog.getBoundingClientRect().right <= 360";
    assert_eq!(browser.run(dialog, vec![]).await, true);
    browser.close().await;
}

/// Every control has a name, and every target is large enough to touch.
const CONTROLS: &str = "
    const isNamed = (one) => one.labels?.length || one.getAttribute('aria-label') || one.innerText?.trim();
    const isSmall = (one) => {
        const { width, height } = one.getBoundingClientRect();
        return (height < 24 || width < 24) && !one.matches('[type=checkbox], .unseen, .skip');
    };
    const all = [...document.querySelectorAll('button, input, select, textarea, a')];
    const wrong = all.filter((one) => one.checkVisibility() && (!isNamed(one) || isSmall(one)));
    return wrong.map((one) => one.outerHTML)";

#[tokio::test]
async fn names_every_control() {
    let Some((gateway, browser)) = opened().await else { return };
    activity(&gateway).await;
    gateway.list(&tools());
    for view in VIEWS {
        show(&browser, view).await;
        assert_eq!(browser.run(CONTROLS, vec![]).await, json!([]), "{view}");
        let headings = "return [...document.querySelectorAll('h1')].filter((one) => one.checkVisibility()).length";
        assert_eq!(browser.run(headings, vec![]).await, 1, "{view}");
    }
    browser.close().await;
}

/// axe-core, which `npm ci` puts beside the tests. Without it the test is skipped, except with
/// `CI=true`.
fn axe() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/node_modules/axe-core/axe.min.js");
    match std::fs::read_to_string(&path) {
        Ok(script) => Some(script),
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "axe-core cannot be read: {error}");
            println!("skipped: axe-core cannot be read: {error}: run `npm ci` in examples/gateway/tests/page");
            None
        }
    }
}

async fn violations(browser: &Browser, script: &str, what: &str) {
    browser.run(&format!("{script}; window.axe = axe; return 1"), vec![]).await;
    let run = "const done = arguments[arguments.length - 1]; \
        axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }) \
        .then(({ violations }) => done(violations.map(({ id, nodes }) => \
            [id, nodes.slice(0, 5).map((node) => [node.html, node.failureSummary])])))";
    let found = browser.client.execute_async(run, vec![]).await.unwrap();
    assert_eq!(found, Value::Array(vec![]), "{what}: {found:#}");
}

async fn audit(browser: &Browser, gateway: &Gateway, script: &str, colours: &str) {
    activity(gateway).await;
    gateway.list(&tools());
    for view in VIEWS {
        show(browser, view).await;
        violations(browser, script, &format!("{view}, {colours}")).await;
    }
    browser.paste("#policy-text", "{ \"version\": 2 }").await;
    browser.wait_for_text("#view-workbench [role=status]", "Not a valid policy").await;
    violations(browser, script, &format!("issues, {colours}")).await;
    browser.press("#view-workbench", "New policy").await;
    browser.press("#view-workbench .tabs", "Forms").await;
    browser.press("#panel-forms", "Add all 4").await;
    browser.press(".entry", "Add a condition").await;
    browser.press(".entry", "Add a limit").await;
    violations(browser, script, &format!("forms, {colours}")).await;
    show(browser, "approvals").await;
    browser.press("#view-approvals article", "Approve").await;
    violations(browser, script, &format!("dialog, {colours}")).await;
}

#[tokio::test]
async fn axe_finds_nothing_in_light_colours() {
    let Some(script) = axe() else { return };
    let Some((gateway, browser)) = opened().await else { return };
    audit(&browser, &gateway, &script, "light").await;
    browser.close().await;
}

#[tokio::test]
async fn axe_finds_nothing_in_dark_colours() {
    let Some(script) = axe() else { return };
    let Some((gateway, browser)) = opened_at(Browser::dark()).await else { return };
    assert_eq!(browser.run("return matchMedia('(prefers-color-scheme: dark)').matches", vec![]).await, true);
    audit(&browser, &gateway, &script, "dark").await;
    browser.close().await;
}

async fn picture(browser: &Browser, name: &str) {
    let folder = std::env::var_os("PICTURES").map_or_else(|| std::env::temp_dir().join("operator"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    browser.run("document.activeElement.blur(); scrollTo(0, 0)", vec![]).await;
    // The page may still be drawing.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    std::fs::write(folder.join(format!("{name}.png")), browser.client.screenshot().await.unwrap()).unwrap();
}

/// Writes the pictures of the documentation: `PICTURES=../../docs/images cargo test -- --ignored`.
#[tokio::test]
#[ignore = "writes the pictures of the documentation"]
async fn pictures() {
    let Some((gateway, browser)) = opened().await else { return };
    activity(&gateway).await;
    show(&browser, "approvals").await;
    picture(&browser, "operator-approvals").await;
    let amount = json!({ "type": "object", "properties": { "amount": { "type": "number" } } });
    let names = ["create_charge", "list_customers", "refund_charge"];
    gateway.list(&Value::from_iter(names.map(|name| json!({ "name": name, "inputSchema": amount }))));
    browser.client.set_window_size(1280, 1250).await.unwrap();
    show(&browser, "workbench").await;
    let draft = r#"{
  "version": "1",
  "default": "deny",
  "tools": {
    "list_customers": {},
    "create_charge": {
      "deny_if": [{
        "conditions": [{ "path": "args.amount", "op": "gt", "value": 500 }],
        "on_deny": "A single charge is at most 500."
      }],
      "limits": [{ "counter": "calls", "window": "day", "max": 40, "scope": "grant" }]
    },
    "refund_*": { "action": "require_approval", "reason": "A person confirms refunds." }
  }
}"#;
    browser.paste("#policy-text", draft).await;
    browser.wait_for_text("#view-workbench .report", "denial_left_out").await;
    browser.press("#view-workbench .report", "Try this call").await;
    browser.wait_for_text("#trial-answer", "allow").await;
    browser.run("document.querySelector('.report').scrollTo(0, 0)", vec![]).await;
    picture(&browser, "operator-workbench").await;
    browser.close().await;
    let Some((gateway, browser)) = opened_at(Browser::phone()).await else { return };
    activity(&gateway).await;
    show(&browser, "approvals").await;
    picture(&browser, "operator-phone").await;
    browser.close().await;
}
