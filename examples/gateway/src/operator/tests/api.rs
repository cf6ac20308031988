//! The interface without a browser: who is let in, and what requests can cost.

use serde_json::{Value, json};

use super::gateway::{Gateway, TOKEN, who};

const READS: [&str; 7] =
    ["/api/session", "/api/approvals", "/api/callers", "/api/usage", "/api/events", "/api/policies", "/api/tools"];

#[tokio::test]
async fn refuses_requests_without_a_token() {
    let gateway = Gateway::start().await;
    for path in READS.into_iter().chain(["/metrics"]) {
        for headers in
            [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", TOKEN)], &[("cookie", TOKEN)]]
        {
            assert_eq!(gateway.request("GET", path, headers, None).await.status, 401, "{path} {headers:?}");
        }
    }
    let answer = gateway.request("POST", "/api/approvals/x/approve", &[], Some(json!({ "by": "ann" }))).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn refuses_other_origins_and_names() {
    let gateway = Gateway::start().await;
    let token = format!("Bearer {TOKEN}");
    let own = format!("http://{}", gateway.address);
    let ask = async |more: (&str, &str)| {
        gateway.request("GET", "/api/approvals", &[("authorization", &token), more], None).await.status
    };
    assert_eq!(ask(("origin", &own)).await, 200);
    assert_eq!(ask(("origin", "https://evil.example")).await, 403);
    assert_eq!(ask(("origin", "null")).await, 403);
    assert_eq!(ask(("host", "evil.example")).await, 403);
    assert_eq!(ask(("sec-fetch-site", "cross-site")).await, 403);
    let page = gateway.request("GET", "/", &[("host", "evil.example")], None).await;
    assert_eq!(page.status, 403);
}

#[tokio::test]
async fn asks_for_its_own_header_where_no_token_is_needed() {
    let gateway = Gateway::start_with(None).await;
    for path in READS {
        assert_eq!(gateway.request("GET", path, &[], None).await.status, 403, "{path}");
    }
    let own = ("x-toolgate-operator", "1");
    assert_eq!(gateway.request("GET", "/api/approvals", &[own], None).await.status, 200);
    let foreign = gateway.request("GET", "/api/approvals", &[own, ("origin", "https://evil.example")], None).await;
    assert_eq!(foreign.status, 403);
    // A page of another origin would have to ask first, and is not told that it may.
    let asked = [("origin", "https://evil.example"), ("access-control-request-headers", "x-toolgate-operator")];
    let preflight = gateway.request("OPTIONS", "/api/approvals", &asked, None).await;
    assert!(preflight.status >= 400 && !preflight.headers.contains_key("access-control-allow-headers"));
}

#[tokio::test]
async fn confines_every_answer() {
    let gateway = Gateway::start().await;
    for path in ["/", "/page/app.js", "/page/none", "/api/session", "/nothing"] {
        let headers = gateway.request("GET", path, &[], None).await.headers;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(!headers.contains_key("set-cookie") && !headers.contains_key("access-control-allow-origin"), "{path}");
    }
}

#[tokio::test]
async fn refuses_names_that_nobody_could_read() {
    let gateway = Gateway::start().await;
    gateway.call(&who("g-42"), "send_mail", &json!({})).await;
    let pending = gateway.ask("GET", "/api/approvals", None).await.json();
    let id = pending[0]["id"].as_str().unwrap();
    for by in ["", "   ", "ann\nben", "\u{1b}[2J", &"x".repeat(201)] {
        let answer = gateway.ask("POST", &format!("/api/approvals/{id}/approve"), Some(json!({ "by": by }))).await;
        assert_eq!(answer.status, 400, "{by:?}: {}", answer.body);
    }
    // Whoever asked cannot approve.
    let answer = gateway.ask("POST", &format!("/api/approvals/{id}/approve"), Some(json!({ "by": "lena" }))).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (409, Some("not an approver of this call")));
    assert_eq!(gateway.pending().await, 1);
}

#[tokio::test]
async fn bounds_the_list_of_requests_and_counts_all() {
    let gateway = Gateway::start().await;
    for grant in ["g-42", "g-43", "\u{202e}drow-ssap"] {
        for number in 0..100 {
            gateway.call(&who(grant), "send_mail", &json!({ "number": number })).await;
        }
    }
    let answer = gateway.ask("GET", "/api/approvals", None).await;
    assert_eq!(answer.json().as_array().unwrap().len(), 200);
    assert_eq!(answer.headers["x-toolgate-pending"], "300");
}

#[tokio::test]
async fn keeps_argument_values_out_of_events() {
    let gateway = Gateway::start().await;
    gateway.call(&who("g-42"), "get_card", &json!({ "number": "4111-secret" })).await;
    let (records, _) = gateway.host.journal.follow();
    assert!(!records.is_empty());
    let callers = gateway.ask("GET", "/api/callers", None).await;
    assert_eq!(callers.json()["callers"][0]["caller"]["grant"], "g-42");
    assert!(!callers.body.contains("secret"));
}

async fn explain(gateway: &Gateway, arguments: &str) -> (u16, Value) {
    let policy = r#"{ "version": "1", "default": "deny", "tools": { "pay": {
        "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 9007199254740990 }] }] } } }"#;
    let body = json!({ "policy": policy, "call": { "tool": "pay", "arguments": arguments } });
    let answer = gateway.ask("POST", "/api/workbench/explain", Some(body)).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn tries_calls_as_the_gateway_reads_them() {
    let gateway = Gateway::start().await;
    assert_eq!(explain(&gateway, r#"{ "amount": 9007199254740990 }"#).await.1["effect"], "allow");
    assert_eq!(explain(&gateway, r#" {"amount":9007199254740991} "#).await.1["effect"], "deny");
    let refused = [
        r#"{ "amount": 1, "amount": 2 }"#,
        r#"[1]"#,
        "1e400",
        r#"{ "amount": 9007199254740993 }"#,
        "",
        "{",
        r#"{}, "name": "other""#,
        r#"{} } , { "x": {}"#,
    ];
    for arguments in refused {
        let (status, answer) = explain(&gateway, arguments).await;
        assert_eq!(status, 422, "{arguments}: {answer}");
    }
}

#[tokio::test]
async fn checks_policies_within_bounds() {
    let gateway = Gateway::start().await;
    let check =
        async |policy: String| gateway.ask("POST", "/api/workbench/check", Some(json!({ "policy": policy }))).await;
    let long = check(format!(r#"{{"version":"1","default":"deny","description":"{}"}}"#, "x".repeat(600 << 10))).await;
    assert_eq!(long.json()["issues"][0]["code"], "document_too_large");
    assert_eq!(check("x".repeat(3 << 20)).await.status, 413);
    let deep = check("[".repeat(100_000)).await.json();
    assert_eq!((deep["valid"].as_bool(), deep["issues"].as_array().map(Vec::is_empty)), (Some(false), Some(false)));
}

#[tokio::test]
async fn knows_every_operator_of_the_language() {
    // The forms list the operators, windows and scopes: the schema has the same ones.
    let schema = serde_json::to_string(&toolgate::Policy::json_schema()).unwrap();
    let forms = include_str!("../page/policy.js");
    let (_, table) = forms.split_once("export const OPERATORS").unwrap();
    let (table, _) = table.split_once("];").unwrap();
    let listed: Vec<_> = table.split('[').filter_map(|part| part.strip_prefix('"')?.split('"').next()).collect();
    assert_eq!(listed.len(), 23, "{listed:?}");
    for operator in listed {
        assert!(schema.contains(&format!("\"{operator}\"")), "{operator}");
    }
}
