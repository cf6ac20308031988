//! Messages against an independent strict reader, and a session between a client and a server that
//! say anything.
#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use toolgate::mcp::{
    CallOutcome, FromClient, FromServer, Message, RequestId, Routed, ServerState, Session, ToolDigest,
    filter_tools_list,
};
use toolgate::{Caller, Gate, Policy, ToolCall};
use toolgate_fuzz::canonical;
use toolgate_fuzz::strict::{self, Node};
use toolgate_fuzz::tape::Tape;

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    match tape.below(2) {
        0 => {
            if let Ok(text) = std::str::from_utf8(tape.0) {
                message(text);
            }
        }
        _ => session(&mut tape),
    }
});

/// A message that is read can be read in one way only, and is written as it was read.
fn message(text: &str) {
    let read = Message::read(text);
    let want = strict::read(text, 64).and_then(|node| judged(&node));
    match (&read, want) {
        (Ok(Message::Call(_)), Some(true)) | (Ok(Message::Other(_)), Some(false)) => {}
        (Err(error), None) => {
            assert!(error.offset() <= text.len() && text.is_char_boundary(error.offset()), "{error}: {text}");
        }
        _ => panic!("the crate reads {read:?}, the strict reader {want:?}: {text}"),
    }
    let (written, digest) = match &read {
        Ok(Message::Call(call)) => {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let params = &value["params"];
            assert_eq!(call.tool(), params["name"], "{text}");
            assert_eq!(call.arguments(), params["arguments"].as_object(), "{text}");
            assert_eq!(call.id(), value.get("id"), "{text}");
            (call.to_json(), canonical::digest(&value))
        }
        Ok(Message::Other(other)) => (other.to_json(), canonical::digest(&serde_json::from_str(text).expect("JSON"))),
        Err(_) => return,
    };
    let reread = Message::read(&written).expect("what is written can be read");
    assert_eq!(content(&reread), content(&read.expect("it was read")), "{text} is written {written}");
    let again: Value = serde_json::from_str(&written).expect("what is written is JSON");
    assert_eq!(ToolDigest::of(&again).to_string(), digest, "{text} is written {written}");
}

/// Returns the content of a message. A call keeps the notation of its id, for the answer; in what
/// is written, a number has its shortest text.
fn content(message: &Message) -> (Option<Value>, String) {
    match message {
        Message::Call(call) => (call.id().cloned(), call.to_json()),
        Message::Other(other) => (None, other.to_json()),
    }
}

/// Returns true if a message is a call, and `None` if it must not be read, by the rules of section
/// 8 of the language.
fn judged(message: &Node) -> Option<bool> {
    let Node::Object(members) = message else { return None };
    let doubles = message.all(&|node| !matches!(node, Node::Number(text) if !strict::is_double(text)));
    let certain = doubles && message.is_certain() && !is_varied(members, &["jsonrpc", "id", "method", "params"]);
    let id = message.get("id").is_none_or(|id| matches!(id, Node::Text(_) | Node::Number(_) | Node::Null));
    let version = message.get("jsonrpc") == Some(&Node::Text("2.0".to_owned()));
    let method = match message.get("method") {
        None => None,
        Some(Node::Text(method)) => Some(&**method),
        Some(_) => return None,
    };
    if !(certain && id && version) {
        return None;
    }
    if method != Some("tools/call") {
        return Some(false);
    }
    let Some(params @ Node::Object(members)) = message.get("params") else { return None };
    let named = matches!(params.get("name"), Some(Node::Text(_)));
    let mut objects = ["arguments", "task", "inputResponses"].iter().filter_map(|key| params.get(key));
    let typed = objects.all(|member| matches!(member, Node::Object(_)))
        && params.get("requestState").is_none_or(|state| matches!(state, Node::Text(_)));
    let known = ["name", "arguments", "_meta", "task", "inputResponses", "requestState"];
    (named && typed && !is_varied(members, &known)).then_some(true)
}

/// Returns true if a key equals one of these except for case, by any rule that a reader may have:
/// lower or upper case, of one letter or of the whole text.
fn is_varied(members: &[(String, Node)], known: &[&str]) -> bool {
    let small = |key: &str| key.to_uppercase().to_lowercase().replace('\u{307}', "");
    members.iter().any(|(key, _)| !known.contains(&&**key) && known.contains(&&*small(key)))
}

/// The kind of a waiting request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Waits {
    Call,
    Other,
}

/// Each request gets one answer, whatever both sides say, and all units in flight are free at the
/// end.
fn session(tape: &mut Tape<'_>) {
    let document = json!({
        "version": "1",
        "default": "deny",
        "tools": {
            "t*": { "limits": [{ "counter": "c", "window": "in_flight", "max": 3, "scope": "global" }] },
            "u": {},
        },
    });
    let gate = Gate::new(Policy::try_from(&document).expect("a policy"));
    let state = ServerState::new();
    let mut session = Session::sharing(&state, &Caller::new());
    // Calls that go on without a session, until their lease ends.
    let mut left = 0;
    let mut waiting: HashMap<RequestId, Waits> = HashMap::new();
    let mut answered: Vec<RequestId> = Vec::new();
    // Cancelled, and perhaps not answered yet.
    let mut given_up: HashSet<RequestId> = HashSet::new();
    while !tape.is_over() {
        let who = tape.byte();
        let held = state.held_calls();
        let line = tape.0.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
        tape.0 = tape.0.get(line.len() + 1..).unwrap_or_default();
        match who % 8 {
            0..=3 => match session.from_client(&line) {
                FromClient::Forward { message, id, .. } => {
                    assert!(matches!(Message::read(&message), Ok(Message::Other(_))), "{message}");
                    if let Some(id) = id {
                        assert!(!given_up.contains(&id), "{message}");
                        assert_eq!(waiting.insert(id, Waits::Other), None);
                    }
                }
                FromClient::Answer { answer, .. } => {
                    if let Some(answer) = answer {
                        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
                        assert!(answer["error"].is_object());
                        // A message with a number that no double holds has an id too, but this
                        // reader refuses the message.
                        if let Ok(asked) = serde_json::from_slice::<Value>(&line) {
                            let of = asked.get("id").unwrap_or(&Value::Null);
                            // `-0` is the integer 0 to the library, and a double to this reader.
                            let both_zero = [&answer["id"], of].map(Value::as_f64) == [Some(0.0); 2];
                            assert!(answer["id"].is_null() || answer["id"] == *of || both_zero, "{answer} to {of}");
                        }
                    }
                }
                FromClient::Decide(call) => {
                    let id = RequestId::of(call.id().expect("a request")).expect("an id");
                    assert!(!waiting.contains_key(&id) && !given_up.contains(&id));
                    let (judged, written) = (gate.check(&call.tool_call()), call.to_json());
                    let allowed = judged.is_allowed();
                    match session.decided(call, judged) {
                        Routed::Forward { message, id: of, .. } => {
                            assert!(allowed && of == id && message == written);
                            assert!(matches!(Message::read(&message), Ok(Message::Call(_))));
                            waiting.insert(id, Waits::Call);
                        }
                        Routed::Answer { answer } => {
                            // The id appears as it was written, and `-0` is not an integer for
                            // every reader.
                            let Ok(Message::Other(read)) = Message::read(&answer) else { panic!("{answer}") };
                            let of = read.as_value().get("id").and_then(RequestId::of);
                            assert!(!allowed && of.as_ref() == Some(&id), "{answer}");
                        }
                    }
                }
            },
            4..=6 => match session.from_server(&line, |result| filter_tools_list(gate.policy().as_ref(), result)) {
                FromServer::Forward { message, answers, ended, .. } => {
                    // By the grammar alone: an escaped half of a character is left to the client.
                    assert!(
                        serde_json::from_str::<&RawValue>(&message).is_ok_and(|message| message.get().starts_with('{'))
                    );
                    match answers.as_ref().map(|id| (id, waiting.remove(id))) {
                        Some((id, Some(kind))) => {
                            answered.push(id.clone());
                            // A request for input or a task goes on.
                            let goes_on = state.held_calls() > held;
                            assert_eq!(ended.is_some() || goes_on, kind == Waits::Call, "{message}");
                        }
                        Some((id, None)) => assert!(answered.contains(id) && ended.is_none(), "{message}"),
                        None => assert!(ended.is_none(), "{message}"),
                    }
                    if let Some(ended) = ended {
                        left += u64::from(ended.ending == CallOutcome::Interim);
                        ended.conclude().expect("a store in memory");
                    }
                }
                FromServer::Drop { .. } => {
                    // By the grammar, as above.
                    let dropped = serde_json::from_slice::<HashMap<String, &RawValue>>(&line).unwrap_or_default();
                    let id = dropped.get("id").and_then(|id| serde_json::from_str::<Value>(id.get()).ok());
                    if let Some(id) = id.and_then(|id| RequestId::of(&id)) {
                        given_up.remove(&id);
                    }
                }
            },
            _ => {
                let Some(id) = waiting.keys().min().cloned() else { continue };
                let failed = if who & 8 == 0 {
                    session.fail(&id, CallOutcome::NotRun, "gone")
                } else {
                    given_up.insert(id.clone());
                    session.give_up(&id, "late")
                };
                let failed = failed.expect("it is under way");
                assert_eq!(waiting.remove(&id), failed.ended.as_ref().map(|_| Waits::Call).or(Some(Waits::Other)));
                if let Some(ended) = failed.ended {
                    ended.conclude().expect("a store in memory");
                }
            }
        }
        assert_eq!(session.under_way(), waiting.len());
        let counted = waiting.iter().filter(|(_, kind)| **kind == Waits::Call).count();
        let held = state.held_calls();
        assert!(in_flight(&gate) <= (counted + held) as u64 + left && in_flight(&gate) <= 3);
    }
    let failed = session.fail_all(CallOutcome::Unclear(None), "gone");
    assert_eq!(failed.len(), waiting.len());
    failed.into_iter().filter_map(|failed| failed.ended).for_each(|ended| ended.conclude().expect("a store in memory"));
    assert_eq!(session.under_way(), 0);
    drop((session, state));
    assert!(in_flight(&gate) <= left);
}

fn in_flight(gate: &Gate) -> u64 {
    let states = gate.usage(&ToolCall::new("t", None::<&Value>)).expect("a store in memory");
    states.iter().map(|state| state.used().micros() / 1_000_000).sum()
}
