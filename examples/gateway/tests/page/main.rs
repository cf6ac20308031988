//! The operator's page of the program: an agent calls a tool through the gateway, and a person
//! approves the call in a browser. The unit tests of the page have all other cases.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where something is wrong"
)]

#[path = "../../src/operator/tests/browser.rs"]
#[allow(dead_code, reason = "one test needs a part of it")]
mod browser;
#[path = "../../src/operator/tests/requests.rs"]
#[allow(dead_code, reason = "one test needs a part of it")]
mod requests;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use browser::Browser;

/// A server whose tools all answer `done`.
const SERVER: &str = r#"while read -r line; do
    id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    [ -z "$id" ] || printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"done"}]}}\n' "$id"
done"#;

const POLICY: &str = r#"{ "version": "1", "default": "deny", "tools": {
    "delete_*": { "action": "require_approval", "reason": "A person deletes." } } }"#;

struct Gateway {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    page: String,
    policy: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.policy);
    }
}

impl Gateway {
    fn start() -> Self {
        let policy = std::env::temp_dir().join(format!("toolgate-page-{}.json", std::process::id()));
        std::fs::write(&policy, POLICY).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_toolgate-gateway"))
            .args(["stdio", "--grant", "g-42", "--operator", "127.0.0.1:0", "--policy"])
            .arg(&policy)
            .args(["--", "sh", "-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let page = log.find_map(|line| line.split_once("operator page on ").map(|(_, page)| page.trim().to_owned()));
        // Nobody reads the log any more, and the gateway does not wait for readers.
        let page = page.expect("the address of the page");
        Self { process, input, output: BufReader::new(output), page, policy }
    }

    /// Calls a tool, and returns the text of the answer.
    fn call(&mut self, tool: &str) -> String {
        let params = json!({ "name": tool, "arguments": { "path": "/tmp/x" } });
        writeln!(self.input, "{}", json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }))
            .unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

#[tokio::test]
async fn approves_a_call_of_the_running_gateway() {
    let Some(browser) = Browser::desktop().await else { return };
    let mut gateway = Gateway::start();
    assert_eq!(gateway.call("delete_file"), "[APPROVAL REQUIRED] A person deletes.");
    browser.open(&gateway.page).await;
    browser.press("#view-approvals article", "Approve").await;
    browser.write("dialog input", "maria").await;
    browser.press("dialog", "Approve this call").await;
    browser.wait_for_text("#view-approvals .note", "Approved delete_file by maria").await;
    assert_eq!(gateway.call("delete_file"), "done");
    assert_eq!(gateway.call("delete_file"), "[APPROVAL REQUIRED] A person deletes.");
    browser.close().await;
}
