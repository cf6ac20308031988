//! A client of the operator's interface, over its socket or its address.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Sends a request over a socket. Returns the status and the body.
pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let connection = UnixStream::connect(socket).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    exchange(connection, method, path, "", body)
}

/// Sends a request to an address, with additional headers, each with its line end.
pub(crate) fn ask_at(address: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    exchange(TcpStream::connect(address).unwrap(), method, path, headers, body)
}

fn exchange(mut connection: impl Read + Write, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Toolgate-Operator: 1\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Returns what is asked for as JSON, or the error.
pub(crate) fn get(socket: &Path, path: &str) -> Result<Value, String> {
    result(ask(socket, "GET", path, ""))
}

pub(crate) fn post(socket: &Path, path: &str, body: &Value) -> Result<Value, String> {
    result(ask(socket, "POST", path, &body.to_string()))
}

fn result((status, body): (u16, String)) -> Result<Value, String> {
    let value: Value = serde_json::from_str(&body).map_err(|_| format!("{status} {body}"))?;
    if status == 200 { Ok(value) } else { Err(value["error"].as_str().unwrap_or(&body).to_owned()) }
}

/// Approves or refuses. Returns the state of the request.
pub(crate) fn answer(socket: &Path, id: &str, verdict: &str, by: &str) -> Result<String, String> {
    let answered = post(socket, &format!("/api/approvals/{id}/{verdict}"), &json!({ "by": by }))?;
    assert_eq!(answered["id"], id);
    Ok(answered["state"].as_str().unwrap().to_owned())
}

/// Returns the usage of a caller: `used of max` for each counter.
pub(crate) fn usage(socket: &Path, query: &str) -> Vec<(String, String)> {
    let limits = get(socket, &format!("/api/usage{query}")).unwrap();
    let limits = limits.as_array().unwrap().iter();
    let number = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    limits
        .map(|limit| {
            let used = format!("{} of {} used", number(&limit["used"]), number(&limit["max"]));
            (limit["counter"].as_str().unwrap().to_owned(), used)
        })
        .collect()
}
