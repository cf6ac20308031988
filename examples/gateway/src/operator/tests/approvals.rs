//! Approvals in a browser.

use fantoccini::key::Key;
use serde_json::json;

use super::gateway::who;
use super::opened;

const DIALOG: &str = "dialog[open]";

#[tokio::test]
async fn approves_with_a_name() {
    let Some((gateway, browser)) = opened().await else { return };
    let arguments = json!({ "to": "ann@example.com", "text": "Hello" });
    assert_eq!(gateway.call(&who("g-42"), "send_mail", &arguments).await, "approval_required");
    // The page learns of it without a reload.
    browser.wait_for_text("#view-approvals article", "send_mail").await;
    browser.wait_for_text("#pending-count", "1").await;
    browser.press("#view-approvals article", "Approve").await;
    let shown = browser.text(DIALOG).await;
    let digest = gateway.host.pending().await.unwrap()[0].id().digest().to_string();
    for part in ["send_mail", "g-42", "lena", "s-7", "crm", "ann@example.com", "Hello", "all arguments", &digest] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // Without a name nothing happens.
    browser.press(DIALOG, "Approve this call").await;
    assert_eq!(gateway.pending().await, 1);
    browser.write("dialog input", "lena").await;
    browser.press(DIALOG, "Approve this call").await;
    browser.wait_for_text("dialog [role=alert]", "not an approver").await;
    browser.write("dialog input", "maria").await;
    browser.press(DIALOG, "Approve this call").await;
    browser.wait_for_text("#view-approvals .note", "Approved send_mail by maria").await;
    browser.wait_for_text("#view-approvals", "No call waits").await;
    assert_eq!(gateway.call(&who("g-42"), "send_mail", &arguments).await, "allow");
    browser.close().await;
}

#[tokio::test]
async fn refuses_with_a_name() {
    let Some((gateway, browser)) = opened().await else { return };
    gateway.call(&who("g-42"), "send_mail", &json!({ "to": "all" })).await;
    browser.press("#view-approvals article", "Refuse").await;
    browser.write("dialog input", "maria").await;
    browser.press(DIALOG, "Refuse this call").await;
    browser.wait_for_text("#view-approvals .note", "Refused send_mail by maria").await;
    assert_eq!(gateway.pending().await, 0);
    browser.click("#nav a[href='#decisions']").await;
    browser.wait_for_text("#view-decisions .log", "refused").await;
    assert!(browser.text("#view-decisions .log").await.contains("by maria"));
    // The call is refused from then on, until somebody lifts that.
    assert_eq!(gateway.call(&who("g-42"), "send_mail", &json!({ "to": "all" })).await, "deny");
    browser.click("#nav a[href='#approvals']").await;
    browser.press("#view-approvals .note", "Let the agent ask again").await;
    browser.wait_for_text("#view-approvals .note", "Lifted the refusal of send_mail").await;
    assert_eq!(gateway.call(&who("g-42"), "send_mail", &json!({ "to": "all" })).await, "approval_required");
    browser.close().await;
}

#[tokio::test]
async fn asks_as_many_people_as_the_policy_says() {
    let Some((gateway, browser)) = opened().await else { return };
    let transfer = json!({ "to": "acme", "amount": 70, "note": "not bound" });
    gateway.call(&who("g-42"), "wire_money", &transfer).await;
    browser.press("#view-approvals article", "Approve").await;
    let shown = browser.text(DIALOG).await;
    assert!(shown.contains("may change every other argument") && shown.contains("args.amount<="), "{shown}");
    assert!(!shown.contains("not bound"), "{shown}");
    browser.write("dialog input", "maria").await;
    browser.press(DIALOG, "Approve this call").await;
    browser.wait_for_text("#view-approvals .note", "1 more person must approve").await;
    browser.wait_for_text("#view-approvals article", "1 of 2 have approved: maria").await;
    browser.press("#view-approvals article", "Approve").await;
    browser.write("dialog input", "ben").await;
    browser.press(DIALOG, "Approve this call").await;
    browser.wait_for_text("#view-approvals .note", "The agent can repeat its call").await;
    assert_eq!(gateway.call(&who("g-42"), "wire_money", &transfer).await, "allow");
    browser.close().await;
}

#[tokio::test]
async fn offers_no_approval_of_what_it_cannot_show() {
    let Some((gateway, browser)) = opened().await else { return };
    let arguments = json!({ "text": "x".repeat(20_000), "to": "eve\u{202e}" });
    gateway.call(&who("g-42"), "send_mail", &arguments).await;
    browser.wait_for_text("#view-approvals article", "too long to be kept").await;
    // The long argument is cut, and says so; the others are there.
    let shown = browser.text("#view-approvals article").await;
    assert!(shown.contains(r#""eve\u{202e}""#) && shown.contains("more bytes are not shown"), "{shown}");
    assert_eq!(
        browser.run("return document.querySelectorAll('#view-approvals article button.primary').length", vec![]).await,
        0
    );
    browser.close().await;
}

#[tokio::test]
async fn approves_by_keyboard_alone() {
    let Some((gateway, browser)) = opened().await else { return };
    gateway.call(&who("g-42"), "send_mail", &json!({ "to": "ann" })).await;
    browser.wait_for("#view-approvals article").await;
    let (enter, escape) = (char::from(Key::Enter).to_string(), char::from(Key::Escape).to_string());
    browser.tab_to("article button.primary").await;
    browser.keys(&enter).await;
    browser.wait_for(DIALOG).await;
    browser.keys(&escape).await;
    browser.tab_to("article button.primary").await;
    browser.keys(&enter).await;
    // The arguments can be reached, and so scrolled.
    browser.tab_to("dialog pre.value").await;
    browser.tab_to("dialog input").await;
    browser.keys("maria").await;
    browser.tab_to("dialog button.primary").await;
    browser.keys(&enter).await;
    browser.wait_for_text("#view-approvals .note", "Approved send_mail by maria").await;
    browser.close().await;
}

#[tokio::test]
async fn shows_hostile_calls_without_running_them() {
    let Some((gateway, browser)) = opened().await else { return };
    let tool = "send_<img src=x onerror='window.harm=1'>\u{202e}gnp.exe\u{200b} ";
    let arguments = json!({
        "<script>window.harm=2</script>": "\"><svg onload=window.harm=3>",
        "path": "/home\u{2066}/..\u{2028}/etc\u{a0}\u{feff}\u{e0041}",
        "p\u{0430}yee": "\u{1b}[2J${window.harm=4}{{7*7}}javascript:alert(1)",
        "spaces": format!("a{}b", " ".repeat(300)),
        "zalgo": format!("z{}", "\u{0301}\u{0302}".repeat(40)),
        "number": 9_007_199_254_740_993_i64,
    });
    let caller = who("\u{202e}drow-ssap");
    assert_eq!(gateway.call(&caller, tool, &arguments).await, "approval_required");
    browser.wait_for_text("#view-approvals article", "send_").await;
    browser.press("#view-approvals article", "Approve").await;
    for css in ["#view-approvals article", DIALOG] {
        let shown = browser.text(css).await;
        let all = [
            "<img src=x onerror='window.harm=1'>",
            "U+202E right-to-left override",
            "U+200B zero width space",
            "space",
            "<script>window.harm=2</script>",
            "<svg onload=window.harm=3>",
            "U+2066",
            "U+2028",
            "U+00A0",
            "U+FEFF",
            "U+E0041",
            "U+0430",
            "\\u001b[2J",
            "${window.harm=4}",
            "space ×300",
            "9007199254740993",
            "U+0301",
        ];
        for part in all {
            assert!(shown.contains(part), "{css}: {part} is not in {shown}");
        }
        let hidden = ['\u{200b}', '\u{202e}', '\u{2028}', '\u{2066}', '\u{a0}', '\u{feff}', '\u{e0041}'];
        assert!(!shown.contains(hidden), "{css}: {shown:?}");
    }
    for view in ["usage", "decisions", "policies", "workbench"] {
        let script = "document.querySelector('dialog')?.close(); location.hash = arguments[0]";
        browser.run(script, vec![view.into()]).await;
        browser.wait_for(&format!("#view-{view}:not([hidden]) h1")).await;
    }
    browser.wait_for_text("#view-decisions .log li", "").await;
    let counts =
        "return [window.harm ?? 0, document.querySelectorAll('main img, main svg, main script, dialog img').length]";
    assert_eq!(browser.run(counts, vec![]).await, json!([0, 0]));
    browser.close().await;
}

#[tokio::test]
async fn asks_for_a_token_and_keeps_it_out_of_the_address() {
    let Some((gateway, browser)) = opened().await else { return };
    let address = browser.client.current_url().await.unwrap();
    assert!(!address.as_str().contains("token"), "{address}");
    browser.run("sessionStorage.clear(); location.reload()", vec![]).await;
    browser.wait_for_text("#view-sign-in h1", "Sign in").await;
    browser.write("#view-sign-in input", "wrong").await;
    browser.press("#view-sign-in", "Sign in").await;
    browser.wait_for_text("#view-sign-in [role=alert]", "does not accept").await;
    browser.write("#view-sign-in input", super::gateway::TOKEN).await;
    browser.press("#view-sign-in", "Sign in").await;
    browser.wait_for_text("#connection", "Live").await;
    assert_eq!(gateway.pending().await, 0);
    browser.close().await;
}
