//! The headers of HTTP requests, which repeat parts of the message: checked, and written anew.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::tools::{HeaderArgument, Tool};
use super::{Call, FIRST_MODERN, Message, OtherMessage, version_in};
use crate::json::number::Exact;

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PARAMETER: &str = "mcp-param-";

/// A header that contradicts the message, is missing, or appears twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header mismatch: `{header}` {why}")]
pub(super) struct HeaderMismatch {
    header: String,
    why: &'static str,
}

/// The parts of a message that headers repeat.
struct Repeated<'m> {
    version: Option<&'m str>,
    method: Option<&'m str>,
    name: Option<&'m str>,
    arguments: Option<&'m Map<String, Value>>,
    is_request: bool,
    is_call: bool,
}

impl<'m> Repeated<'m> {
    fn of(message: &'m Message) -> Self {
        match message {
            Message::Call(call) => Self::of_call(call),
            Message::Other(other) => Self::of_other(other),
        }
    }

    fn of_call(call: &'m Call) -> Self {
        let (version, name) = (call.protocol_version(), Some(call.tool()));
        let arguments = call.arguments();
        Self { version, method: Some("tools/call"), name, arguments, is_request: true, is_call: true }
    }

    fn of_other(other: &'m OtherMessage) -> Self {
        let message = other.as_value();
        let method = message.get("method").and_then(Value::as_str);
        let parameter = |name: &str| message.get("params")?.get(name)?.as_str();
        let name = match method {
            Some("prompts/get") => parameter("name"),
            Some("resources/read") => parameter("uri"),
            Some(method) if method.starts_with("tasks/") => parameter("taskId"),
            _ => None,
        };
        let meta = message.get("params").and_then(|params| params.get("_meta"));
        let version = meta.and_then(version_in);
        let is_request = method.is_some() && message.get("id").is_some();
        Self { version, method, name, arguments: None, is_request, is_call: false }
    }

    fn needs_name(&self) -> bool {
        matches!(self.method, Some("tools/call" | "prompts/get" | "resources/read"))
    }
}

/// Checks the headers of a request against its message, and returns the protocol's version that
/// they name. `tool` is what lists have shown of the tool that it calls.
pub(super) fn check<'h>(
    message: &Message,
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    tool: Option<&Tool>,
) -> Result<Option<Cow<'h, str>>, HeaderMismatch> {
    let repeated = Repeated::of(message);
    let (mut version, mut method, mut name) = (None, None, None);
    let mut parameters: Vec<(String, Cow<'h, str>)> = Vec::new();
    for (header, value) in headers {
        let known = [(VERSION, &mut version), (METHOD, &mut method), (NAME, &mut name)];
        if let Some((header, known)) = known.into_iter().find(|(known, _)| header.eq_ignore_ascii_case(known)) {
            // The values of the other two are plain.
            let value = if header == NAME { decoded(value) } else { plain(value).map(Cow::Borrowed) };
            let value = value.ok_or_else(|| mismatch(header, "is not readable"))?;
            if known.replace(value).is_some() {
                return Err(mismatch(header, "appears twice"));
            }
        } else if let Some((start, parameter)) = header.split_at_checked(PARAMETER.len())
            && start.eq_ignore_ascii_case(PARAMETER)
        {
            let parameter = parameter.to_ascii_lowercase();
            let fault = |why| mismatch(&format!("{PARAMETER}{parameter}"), why);
            let value = decoded(value).ok_or_else(|| fault("is not readable"))?;
            if parameters.iter().any(|(known, _)| *known == parameter) {
                return Err(fault("appears twice"));
            }
            parameters.push((parameter, value));
        }
    }
    let known_version = repeated.version.or(version.as_deref());
    let requires = known_version.is_some_and(|version| version >= FIRST_MODERN) && repeated.is_request;
    let compare = |header: &str, given: Option<&str>, own: Option<&str>, is_required: bool| match (given, own) {
        (Some(given), Some(own)) if given == own => Ok(()),
        (Some(_), _) => Err(mismatch(header, "differs from the message")),
        (None, Some(_)) if is_required => Err(mismatch(header, "is missing")),
        (None, _) => Ok(()),
    };
    match (&version, repeated.version) {
        // The message names no version. Where it should, that is for the server to say.
        (Some(_), None) => {}
        (given, own) => compare(VERSION, given.as_deref(), own, requires)?,
    }
    compare(METHOD, method.as_deref(), repeated.method, requires)?;
    compare(NAME, name.as_deref(), repeated.name, requires && repeated.needs_name())?;
    if !repeated.is_call {
        return Ok(version);
    }
    if let (None, Some((header, _))) = (tool, parameters.first()) {
        let header = format!("{PARAMETER}{header}");
        return Err(mismatch(&header, "cannot be checked before the tool has been listed: send `tools/list` first"));
    }
    for argument in tool.into_iter().flat_map(|tool| &tool.headers) {
        let given = parameters.iter().find(|(header, _)| **header == *argument.name).map(|(_, value)| value);
        let own = argument.value(repeated.arguments);
        let header = || format!("{PARAMETER}{}", argument.name);
        match (given, own) {
            (Some(given), Some(own)) if is_same(given, own) => {}
            (Some(_), _) => return Err(mismatch(&header(), "differs from the message")),
            (None, Some(_)) if requires => return Err(mismatch(&header(), "is missing")),
            (None, _) => {}
        }
    }
    Ok(version)
}

/// Returns the headers of a request that forwards this call, each with its value. `version` is the
/// protocol's version that the client has named in a header.
pub(super) fn of_call(call: &Call, version: Option<&str>, tool: Option<&Tool>) -> Vec<(Box<str>, String)> {
    let repeated = Repeated::of_call(call);
    let mut headers = written(&repeated, version);
    if repeated.version.is_some_and(|version| version >= FIRST_MODERN) {
        for argument in tool.into_iter().flat_map(|tool| &tool.headers) {
            if let Some(text) = argument.value(repeated.arguments).and_then(text_of) {
                headers.push((format!("{PARAMETER}{}", argument.name).into(), encoded(&text)));
            }
        }
    }
    headers
}

/// Returns the headers of a request that forwards this message, each with its value.
pub(super) fn of_other(other: &OtherMessage, version: Option<&str>) -> Vec<(Box<str>, String)> {
    written(&Repeated::of_other(other), version)
}

fn written(repeated: &Repeated<'_>, version: Option<&str>) -> Vec<(Box<str>, String)> {
    let version = repeated.version.or(version);
    // Older servers read the version alone.
    let is_modern = version.is_some_and(|version| version >= FIRST_MODERN);
    let all = [(VERSION, version), (METHOD, repeated.method), (NAME, repeated.name)];
    let sent = all.into_iter().take(if is_modern { all.len() } else { 1 });
    sent.filter_map(|(header, value)| Some((header.into(), encoded(value?)))).collect()
}

impl HeaderArgument {
    /// Returns the value in the arguments, if it is there and not null.
    fn value<'a>(&self, arguments: Option<&'a Map<String, Value>>) -> Option<&'a Value> {
        let (first, rest) = self.path.split_first()?;
        let first = arguments?.get(&**first)?;
        rest.iter().try_fold(first, |value, step| value.get(&**step)).filter(|value| !value.is_null())
    }
}

/// Returns `true` if a header has this value. Numbers are compared as numbers.
fn is_same(given: &str, own: &Value) -> bool {
    match own {
        Value::Number(number) => Exact::of(number).is_some_and(|own| Exact::of_text(given) == Some(own)),
        _ => text_of(own).is_some_and(|own| own == given),
    }
}

/// Returns the text of a value in a header. Only scalars have one.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the value of a header that must be plain ASCII.
fn plain(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')).then(|| text.trim_ascii())
}

/// Returns the value of a header that may be encoded.
fn decoded(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = plain(value)?;
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

/// Returns the value of a header for a text.
fn encoded(text: &str) -> String {
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    match plain(text.as_bytes()) {
        Some(plain) if plain.len() == text.len() && !looks_encoded && !text.is_empty() => text.to_owned(),
        _ => format!("=?base64?{}?=", STANDARD.encode(text)),
    }
}

fn mismatch(header: &str, why: &'static str) -> HeaderMismatch {
    HeaderMismatch { header: header.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tools::Tools;
    use super::*;

    fn message(method: &str, params: &Value) -> Message {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        Message::read(&text).unwrap()
    }

    fn modern(params: Value) -> Value {
        let mut params = params;
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        params
    }

    fn tools() -> Tools {
        let mut tools = Tools::default();
        tools.note(&[json!({ "name": "sql", "inputSchema": { "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "page": { "properties": { "size": { "type": "integer", "x-mcp-header": "Size" } } },
            "all": { "items": { "properties": { "x": { "x-mcp-header": "Lost" } } } },
        } } })]);
        tools
    }

    fn checked(message: &Message, headers: &[(&str, &str)], tools: &Tools) -> Result<(), String> {
        let tool = match message {
            Message::Call(call) => tools.get(call.tool()),
            Message::Other(_) => None,
        };
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        check(message, headers, tool).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn headers_must_agree_with_the_message() {
        let version = ("MCP-Protocol-Version", "2026-07-28");
        let call = message("tools/call", &modern(json!({ "name": "sql", "arguments": { "region": "eu" } })));
        let all = [version, ("Mcp-Method", "tools/call"), ("mcp-name", "sql"), ("Mcp-Param-Region", "eu")];
        assert_eq!(checked(&call, &all, &tools()), Ok(()));
        for (at, changed) in [
            (0, ("mcp-protocol-version", "2025-11-25")),
            (1, ("mcp-method", "tools/list")),
            (1, ("x", "")),
            (2, ("mcp-name", "drop_all")),
            (2, ("mcp-name", "SQL")),
            (2, ("x", "")),
            (2, ("mcp-name", "=?base64?!?=")),
            (3, ("mcp-param-region", "us")),
            (3, ("x", "")),
            (3, ("mcp-param-size", "4")),
        ] {
            let mut headers = all;
            headers[at] = changed;
            assert!(checked(&call, &headers, &tools()).is_err(), "{changed:?}");
        }
        for extra in [("Mcp-Name", "sql"), ("MCP-METHOD", "tools/call"), ("mcp-param-region", "eu"), version] {
            let twice: Vec<_> = all.into_iter().chain([extra]).collect();
            assert!(checked(&call, &twice, &tools()).unwrap_err().contains("twice"), "{extra:?}");
        }
        // Without a list, the arguments of headers are unknown.
        assert!(checked(&call, &all, &Tools::default()).unwrap_err().contains("tools/list"));
        assert_eq!(checked(&call, &all[..3], &Tools::default()), Ok(()));
    }

    #[test]
    fn older_versions_require_no_headers() {
        let call = message("tools/call", &json!({ "name": "sql" }));
        assert_eq!(checked(&call, &[], &tools()), Ok(()));
        assert_eq!(checked(&call, &[("mcp-protocol-version", "2025-06-18")], &tools()), Ok(()));
        assert!(checked(&call, &[("mcp-name", "other")], &tools()).is_err());
        let version = ("mcp-protocol-version", "2026-07-28");
        assert!(checked(&call, &[version], &tools()).is_err(), "this version requires the others");
        assert_eq!(checked(&call, &[version, ("mcp-method", "tools/call"), ("mcp-name", "sql")], &tools()), Ok(()));
        let list = message("tools/list", &json!({}));
        assert!(checked(&list, &[("mcp-name", "drop_all")], &tools()).is_err());
    }

    #[test]
    fn written_headers_pass_their_own_check() {
        for name in ["sql", " padded ", "größe", "=?base64?literal?=", "two\nlines", ""] {
            let arguments = json!({ "region": name, "page": { "size": 42.0 } });
            let text = message("tools/call", &modern(json!({ "name": name, "arguments": arguments })));
            let Message::Call(call) = &text else { panic!("a call") };
            let tools = tools();
            let headers = of_call(call, None, tools.get("sql"));
            let given = headers.iter().map(|(name, value)| (&**name, value.as_bytes()));
            assert_eq!(check(&text, given, tools.get("sql")), Ok(Some("2026-07-28".into())), "{headers:?}");
            assert_eq!(headers.len(), 5);
        }
        let read = message("resources/read", &modern(json!({ "uri": "file:///a" })));
        let Message::Other(other) = &read else { panic!("no call") };
        assert_eq!(of_other(other, None).last().unwrap().1, "file:///a");
    }
}
