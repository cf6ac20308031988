//! The gateway for the people who run it: metrics, spans, the schema, and the operator's address.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::programs::{Folder, TestGateway, grant};
use crate::operator;
use crate::stdio::running::GATEWAY;

fn policy() -> Value {
    json!({ "version": "1", "default": "deny", "tools": {
        "echo": { "limits": [{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }] },
        "delete_file": { "action": "require_approval" },
    } })
}

/// Makes one call of each outcome, and returns the metrics after it.
fn metrics_of_a_run() -> String {
    let house = TestGateway::with(&policy(), &[grant("g")], &["--json"], "");
    let client = house.session_client();
    client.tools(1);
    for (id, tool) in ["echo", "echo", "delete_file", "add", "an-invented-name"].iter().enumerate() {
        client.call(2 + id as u64, tool, &json!({}));
    }
    let (status, text) = operator::ask(&house.socket(), "GET", "/metrics", "");
    assert_eq!(status, 200);
    text
}

#[test]
fn metrics_count_decisions_by_code_and_tool() {
    let text = metrics_of_a_run();
    for line in [
        r#"toolgate_decisions_total{decision="allow",code="",tool="echo"} 1"#,
        r#"toolgate_decisions_total{decision="rate_limited",code="limit",tool="echo"} 1"#,
        r#"toolgate_decisions_total{decision="approval_required",code="approval",tool="delete_file"} 1"#,
        r#"toolgate_decisions_total{decision="deny",code="default_deny",tool="add"} 1"#,
        r#"toolgate_decisions_total{decision="deny",code="default_deny",tool="(other)"} 1"#,
        "toolgate_retry_after_seconds_count 1",
        "toolgate_pending_approvals 1",
        "toolgate_audit_failures_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
    }
    let reserved =
        text.lines().find_map(|line| line.strip_prefix(r#"toolgate_store_seconds_count{operation="reserve"} "#));
    assert!(reserved.unwrap().parse::<u64>().unwrap() >= 2, "{text}");
    assert!(!text.contains("an-invented-name") && text.ends_with("# EOF\n"), "{text}");
}

/// Every metric and label in a query of the dashboard is one that a gateway has printed.
#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let text = metrics_of_a_run();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let printed: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| {
            let (name, rest) = line.split_at(line.find(|c| !is_name(c)).unwrap_or(line.len()));
            let labels = rest.split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
            let labels = labels.map(|label| label.trim_start_matches(['{', ',']));
            std::iter::once(name).chain(labels.collect::<Vec<_>>())
        })
        .collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() >= panels.len() && panels.len() >= 5);
    let functions = ["sum", "by", "rate", "increase", "histogram_quantile", "topk", "le", "m", "s", "h"];
    for query in queries {
        // Texts in quotes are values of labels, and `$__rate_interval` is Grafana's.
        let names = query.split('"').step_by(2).flat_map(|part| part.split(|c| !is_name(c) && c != '$'));
        for name in names.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
            assert!(functions.contains(&name) || printed.contains(name), "{name} in {query}: {printed:?}");
        }
    }
}

#[test]
fn spans_have_the_names_of_opentelemetry() {
    let folder = Folder::new();
    let house = TestGateway::with(&policy(), &[grant("g")], &["--json"], "");
    let mut command = TestGateway::command(&house.folder);
    // A second gateway in front of the same server, with spans in its log.
    let config = std::fs::read_to_string(house.folder.file("gateway.toml")).unwrap();
    std::fs::write(house.folder.file("gateway.toml"), config.replace("/operator\"", "/operator-2\"")).unwrap();
    command.arg("--log-json").env("RUST_LOG", "info,mcp=info");
    let gateway = super::programs::Running::start(command);
    let client = super::client::Client::new(gateway.address, "g").begin();
    client.call(1, "echo", &json!({ "text": "x" }));
    client.call(2, "delete_file", &json!({}));
    drop(folder);
    for part in [
        r#""mcp.method.name":"tools/call""#,
        r#""gen_ai.tool.name":"echo""#,
        r#""gen_ai.operation.name":"execute_tool""#,
        r#""otel.name":"tools/call delete_file""#,
        r#""network.transport":"tcp""#,
        r#""jsonrpc.request.id":"2""#,
        r#""error.type":"approval""#,
        r#""mcp.method.name":"initialize""#,
    ] {
        gateway.wait_for_log(part);
    }
}

#[test]
fn the_published_schema_is_current_and_accepts_the_sample() {
    let printed = Command::new(GATEWAY).arg("schema").output().unwrap();
    assert!(printed.status.success());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let published = std::fs::read(folder.join("gateway.schema.json")).unwrap();
    assert!(printed.stdout == published, "run `toolgate-gateway schema > gateway.schema.json`");
    let schema: Value = serde_json::from_slice(&published).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let sample: Value = toml::from_str(&std::fs::read_to_string(folder.join("sample.toml")).unwrap()).unwrap();
    assert!(validator.is_valid(&sample), "{:?}", validator.iter_errors(&sample).collect::<Vec<_>>());
    let mut wrong = sample;
    wrong["grants"]["g-sample"]["polcy"] = json!("p");
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn a_tcp_operator_address_needs_a_token() {
    let settings = format!(
        "operator = {{ listen = \"127.0.0.1:0\", token_sha256 = [{:?}] }}",
        super::programs::digest("of-the-operator")
    );
    let folder = Folder::new();
    folder.write("policy.json", &policy());
    let config = super::programs::config("127.0.0.1:1".parse().unwrap(), &settings, &[grant("g")]);
    folder.configure(&config.replace("operator.listen = \"unix:$FOLDER/operator\"\n", ""));
    let gateway = super::programs::Running::start(TestGateway::command(&folder));
    let address = gateway.find_in_log("operator page on http://").trim_end_matches('/').to_owned();
    for path in ["/api/approvals", "/metrics", "/api/reload"] {
        for token in ["", "Authorization: Bearer of-nobody\r\n", "Authorization: Bearer g\r\n"] {
            assert_eq!(operator::ask_at(&address, "GET", path, token, "").0, 401, "{path} {token}");
        }
    }
    let (status, _) =
        operator::ask_at(&address, "GET", "/api/approvals", "Authorization: Bearer of-the-operator\r\n", "");
    assert_eq!(status, 200);

    // Without a digest, a token is made at the start.
    let other = Folder::new();
    other.write("policy.json", &policy());
    let config = super::programs::config("127.0.0.1:1".parse().unwrap(), "", &[grant("g")]);
    other.configure(&config.replace("unix:$FOLDER/operator", "127.0.0.1:0"));
    let gateway = super::programs::Running::start(TestGateway::command(&other));
    let page = gateway.find_in_log("operator page on http://");
    let (address, token) = page.split_once("/#token=").unwrap();
    assert_eq!(token.len(), 48);
    let token = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(operator::ask_at(address, "GET", "/api/approvals", &token, "").0, 200);
    assert_eq!(operator::ask_at(address, "GET", "/api/approvals", "", "").0, 401);
}
