//! A client with access to every byte: one connection for each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// A bound above the time of any step.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) session: Option<String>,
    /// Additional headers, one line each.
    pub(super) more: Vec<String>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns every message in the body, which is JSON or a stream of events.
    pub(super) fn messages(&self) -> Vec<Value> {
        if self.header("content-type") == Some("application/json") {
            return vec![serde_json::from_slice(&self.body).unwrap()];
        }
        let text = std::str::from_utf8(&self.body).unwrap();
        let events = text.split("\n\n").filter_map(|event| {
            let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            let data = data.join("\n");
            (!data.is_empty()).then(|| serde_json::from_str(&data).unwrap())
        });
        events.collect()
    }

    /// Returns the last message of the body.
    pub(super) fn last(&self) -> Value {
        let body = || format!("{} {}", self.status, String::from_utf8_lossy(&self.body[..self.body.len().min(500)]));
        self.messages().pop().unwrap_or_else(|| panic!("no message: {}", body()))
    }

    /// Returns the text of a tool result, or of a JSON-RPC error.
    pub(super) fn text(&self) -> String {
        let last = self.last();
        let text = last.pointer("/result/content/0/text").or_else(|| last.pointer("/error/message"));
        text.and_then(Value::as_str).unwrap_or_else(|| panic!("{last}")).to_owned()
    }
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// An answer whose body is still being read.
pub(super) struct OpenAnswer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl OpenAnswer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Reads the next chunk of the body. Returns `None` at its end.
    pub(super) fn piece(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut piece = vec![0; size];
        self.reader.read_exact(&mut piece).unwrap();
        self.reader.read_line(&mut String::new()).unwrap();
        (size > 0).then_some(piece)
    }

    pub(super) fn whole(mut self) -> Answer {
        let mut body = Vec::new();
        match self.header("content-length").map(|length| length.parse().unwrap()) {
            Some(length) => {
                body.resize(length, 0);
                self.reader.read_exact(&mut body).unwrap();
            }
            None if self.header("transfer-encoding").is_some() => {
                while let Some(piece) = self.piece() {
                    body.extend(piece);
                }
            }
            None => {}
        }
        Answer { status: self.status, headers: self.headers, body }
    }
}

impl Client {
    pub(super) fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, path: "/mcp".to_owned(), token: Some(token.into()), session: None, more: Vec::new() }
    }

    /// Initializes a session and returns the client with it.
    pub(super) fn begin(mut self) -> Self {
        let initialize = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = self.ask(0, "initialize", &initialize);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(answer.last().get("result").is_some(), "{}", answer.last());
        self.session = answer.header("mcp-session-id").map(str::to_owned);
        let initialized = self.post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        assert_eq!(initialized.status, 202);
        self
    }

    pub(super) fn ask(&self, id: u64, method: &str, params: &Value) -> Answer {
        self.post(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
    }

    pub(super) fn call(&self, id: u64, tool: &str, arguments: &Value) -> Answer {
        self.ask(id, "tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Makes a call and returns the text of its answer.
    pub(super) fn call_text(&self, id: u64, tool: &str, arguments: &Value) -> String {
        self.call(id, tool, arguments).text()
    }

    pub(super) fn tools(&self, id: u64) -> Vec<String> {
        let list = self.ask(id, "tools/list", &json!({})).last();
        let tools = list.pointer("/result/tools").and_then(Value::as_array).unwrap_or_else(|| panic!("{list}")).clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.open("POST", body.as_ref()).whole()
    }

    pub(super) fn send(&self, method: &str) -> Answer {
        self.open(method, b"").whole()
    }

    /// Sends a request and reads the head of its answer.
    pub(super) fn open(&self, method: &str, body: &[u8]) -> OpenAnswer {
        let mut connection = self.connect();
        connection.write_all(&self.head(method, body.len())).unwrap();
        // A server that refuses the request may have stopped reading.
        let _ = connection.write_all(body);
        read_answer(connection)
    }

    pub(super) fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(TIMEOUT)).unwrap();
        connection.set_write_timeout(Some(TIMEOUT)).unwrap();
        connection
    }

    pub(super) fn head(&self, method: &str, length: usize) -> Vec<u8> {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.address);
        head.push_str("Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n");
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if let Some(session) = &self.session {
            head.push_str(&format!("Mcp-Session-Id: {session}\r\n"));
        }
        if method == "POST" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
            if !self.more.iter().any(|header| header.starts_with("Content-Type")) {
                head.push_str("Content-Type: application/json\r\n");
            }
        }
        for header in &self.more {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// Reads the head of a request, on the side of a server.
pub(super) fn read_request(connection: &TcpStream) -> Vec<String> {
    lines(&mut BufReader::new(connection))
}

fn lines(reader: &mut impl BufRead) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            return lines;
        }
        lines.push(line.trim().to_owned());
    }
}

/// Reads the head of an answer.
pub(super) fn read_answer(connection: TcpStream) -> OpenAnswer {
    let mut reader = BufReader::new(connection);
    let lines = lines(&mut reader);
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    OpenAnswer { status: status.unwrap_or_else(|| panic!("no answer: {lines:?}")), headers, reader }
}
