//! A call that needs an approval: its digest, its bounds, and the text that people read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{DETAIL_NAMES_BYTES, DETAILS_BYTES};
use crate::call::ToolCall;
use crate::call::approval_id::{ApprovalId, CallDigest};
use crate::call::identity::{Identity, asker};
use crate::call::path::{Datum, Facts, Found};
use crate::json::canonical;
use crate::json::number::Exact;
use crate::json::visible::visible;
use crate::policy::{Binding, Digest, Terms};
use crate::time::Timestamp;

/// A call that needs an approval, as a store sees it.
pub struct Ask<'a> {
    pub(super) call: &'a ToolCall<'a>,
    pub(super) digest: CallDigest,
    /// The numbers of the call that are bound from above, in the order of their paths.
    pub(super) bounds: Box<[Exact]>,
    pub(super) terms: &'a Terms<'a>,
    pub(super) reason: &'a str,
    pub(super) details: Details,
    /// The host lets people approve what they are not shown in full.
    pub(super) unseen: bool,
    named: Option<&'a ApprovalId>,
}

/// Names the call by its digest alone: its arguments stay out of logs.
impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("tool", &self.call.tool()).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl<'a> Ask<'a> {
    /// The request that `call` makes under a policy, on the terms of that policy. `reason` comes
    /// from the rule that requires the approval.
    pub(crate) fn new(
        call: &'a ToolCall<'a>,
        policy: Digest,
        terms: &'a Terms<'a>,
        reason: &'a str,
        named: Option<&'a ApprovalId>,
    ) -> Self {
        let (digest, bounds, details) = digest(call, policy, terms.bind.as_deref());
        Self { call, digest, bounds: bounds.into(), terms, reason, details, unseen: false, named }
    }

    /// Lets people approve the request even if they are not shown all of it.
    pub(crate) fn approvable_unseen(self, unseen: bool) -> Self {
        Self { unseen, ..self }
    }

    /// The digest of the call. An approval is for calls of one digest.
    pub fn digest(&self) -> CallDigest {
        self.digest
    }

    /// The length in bytes of the names that an approval keeps: the tool's and those of the caller.
    pub fn name_bytes(&self) -> usize {
        let caller = Identity::ALL.into_iter().filter_map(|identity| self.call.identity(identity));
        caller.map(str::len).fold(self.call.tool().len(), usize::saturating_add)
    }

    /// The identity whose pending requests are limited: the first present of grant, user, agent and
    /// session. Calls without any of them are counted together.
    pub fn asker(&self) -> Option<(Identity, &str)> {
        asker(|identity| self.call.identity(identity))
    }

    /// The approval that the call presents, if it names one. No other approval lets it pass.
    pub fn named(&self) -> Option<&ApprovalId> {
        self.named
    }
}

/// Everything that is bound, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) shown: Shown,
    /// The length of the whole canonical text.
    pub(super) bytes: usize,
}

/// The kept part of the details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The canonical text.
    Whole(Box<str>),
    /// The text is too long. Each value is cut, so that no long one hides the others.
    Cut {
        arguments: Box<[ShownArgument]>,
        /// The number of arguments that are not among them.
        left_out: usize,
    },
}

/// An argument of a call with too many values to be kept, as far as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownArgument {
    pub(super) name: Box<str>,
    pub(super) value: Box<str>,
    pub(super) bytes: usize,
}

impl ShownArgument {
    /// The name of the argument, or the path that the policy binds, as a JSON string with invisible
    /// characters [written out](crate::visible).
    pub fn name(&self) -> Cow<'_, str> {
        visible(&self.name)
    }

    /// The JSON of the value, or its beginning, with invisible characters
    /// [written out](crate::visible). Empty for a bound path without a value.
    pub fn value(&self) -> Cow<'_, str> {
        visible(&self.value)
    }

    /// The number of bytes at the end of the value that are not shown.
    pub fn hidden_bytes(&self) -> usize {
        self.bytes.saturating_sub(self.value.len())
    }
}

/// `name: value`, and how much of the value is not shown.
impl fmt::Display for ShownArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.value())?;
        match self.hidden_bytes() {
            0 => Ok(()),
            hidden => write!(f, " [{hidden} more bytes are not shown]"),
        }
    }
}

impl Details {
    fn new(text: &str) -> Self {
        let mut details = Self { shown: Shown::Whole(text.into()), bytes: text.len() };
        details.cut(DETAILS_BYTES);
        details
    }

    /// Cuts values until all of them together have at most `most` bytes. Short values stay whole.
    pub(super) fn cut(&mut self, most: usize) {
        let cut = match &mut self.shown {
            Shown::Whole(text) if text.len() <= most => return,
            Shown::Whole(text) => Shown::apart(text),
            Shown::Cut { arguments, left_out } => {
                Shown::Cut { arguments: std::mem::take(arguments), left_out: *left_out }
            }
        };
        self.shown = cut.with_values_up_to(most);
    }
}

impl Shown {
    /// Takes a canonical text apart: an object of all arguments, or a list of what is bound. The
    /// shortest names are kept.
    fn apart(text: &str) -> Self {
        let argument = |name: Box<str>, value: &str| ShownArgument { name, value: value.into(), bytes: value.len() };
        // A text that this crate has written can be read.
        let mut arguments: Vec<ShownArgument> = if text.starts_with('{') {
            let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).unwrap_or_default();
            let quoted = |name: Cow<'_, str>| {
                let mut quoted = String::new();
                canonical::write_text(&mut quoted, &name);
                quoted.into()
            };
            members.into_iter().map(|(name, value)| argument(quoted(name), value.get())).collect()
        } else {
            let rows: Vec<Vec<&RawValue>> = serde_json::from_str(text).unwrap_or_default();
            let column = |row: &[&RawValue], at: usize| row.get(at).map_or("", |value| value.get()).to_owned();
            rows.iter().map(|row| argument(column(row, 0).into(), &column(row, 1))).collect()
        };
        let all = arguments.len();
        arguments.sort_by_key(|argument| argument.name.len());
        let mut left = DETAIL_NAMES_BYTES;
        let fits = arguments.iter().take_while(|argument| {
            let fits = argument.name.len() <= left;
            left = left.saturating_sub(argument.name.len());
            fits
        });
        arguments.truncate(fits.count());
        arguments.sort_by(|a, b| a.name.cmp(&b.name));
        Self::Cut { left_out: all - arguments.len(), arguments: arguments.into() }
    }

    fn with_values_up_to(mut self, most: usize) -> Self {
        if let Self::Cut { arguments, .. } = &mut self {
            let mut lengths: Vec<usize> = arguments.iter().map(|argument| argument.value.len()).collect();
            lengths.sort_unstable();
            let (mut left, mut others) = (most, lengths.len());
            // The values that are longer than their share of what the shorter ones leave.
            let share = lengths.into_iter().find_map(|length| {
                let share = left / others.max(1);
                (left, others) = (left.saturating_sub(length), others - 1);
                (length > share).then_some(share)
            });
            for argument in
                arguments.iter_mut().filter(|argument| share.is_some_and(|most| argument.value.len() > most))
            {
                let end = share.and_then(|most| (0..=most).rev().find(|at| argument.value.is_char_boundary(*at)));
                argument.value = argument.value.get(..end.unwrap_or(0)).unwrap_or_default().into();
            }
        }
        self
    }
}

/// Returns the digest of a call, the numbers that are bound from above, and the details that people
/// read. The numbers are compared, so they cannot be part of the hash.
fn digest(call: &ToolCall<'_>, policy: Digest, bind: Option<&[&Binding]>) -> (CallDigest, Vec<Exact>, Details) {
    let mut text = String::from("{");
    let (mut bounds, mut shown) = (Vec::new(), String::from("["));
    let bound = bind.and_then(|bind| bound_values(call, bind, &mut bounds, &mut shown));
    // The keys are written in canonical order, which makes the whole text canonical.
    let identity = |text: &mut String, identity: Identity| {
        canonical::write_text(text, identity.as_str());
        text.push(':');
        match call.identity(identity) {
            Some(name) => canonical::write_text(text, name),
            None => text.push_str("null"),
        }
        text.push(',');
    };
    identity(&mut text, Identity::Agent);
    let mut beside = String::new();
    write_beside_arguments(&mut beside, call);
    let details = match bound {
        Some(values) => {
            text.push_str("\"bound\":");
            text.push_str(&values);
            shown.pop();
            let beside = if shown.len() > 1 { &*beside } else { beside.trim_start_matches(',') };
            Details::new(&format!("{shown}{beside}]"))
        }
        None => {
            bounds.clear();
            text.push_str("\"arguments\":");
            let start = text.len();
            match call.argument_members() {
                Some(members) => canonical::write_object(&mut text, members),
                None => text.push_str("{}"),
            }
            let arguments = text.get(start..).unwrap_or_default();
            match beside.is_empty() {
                true => Details::new(arguments),
                false => Details::new(&format!("[[\"args\",{arguments}]{beside}]")),
            }
        }
    };
    text.push(',');
    identity(&mut text, Identity::Grant);
    if let Some(input) = call.input_members() {
        text.push_str("\"input\":");
        canonical::write_object(&mut text, input);
        text.push(',');
    }
    text.push_str("\"policy\":");
    canonical::write_text(&mut text, &policy.to_string());
    text.push(',');
    [Identity::Server, Identity::Session].into_iter().for_each(|other| identity(&mut text, other));
    if call.is_task() {
        text.push_str("\"task\":true,");
    }
    text.push_str("\"tool\":");
    canonical::write_text(&mut text, call.tool());
    text.push(',');
    identity(&mut text, Identity::User);
    text.pop();
    text.push('}');
    (CallDigest::new(Sha256::digest(text.as_bytes()).into()), bounds, details)
}

/// Returns the bound values as a list of lists: `[path, value]`, `[path]` for an absent value, and
/// `[path<=]` for a number from 0 that goes to `bounds`. `shown` gets the same list with that
/// in it. A value that is not a number has no order, so it is bound exactly.
///
/// Returns `None` if a path steps into a string or another scalar, or if another member has a name
/// that differs in case alone. A server may parse such a string or read that member, so the value
/// at the path is unknown, and all arguments are bound instead.
fn bound_values(call: &ToolCall<'_>, bind: &[&Binding], bounds: &mut Vec<Exact>, shown: &mut String) -> Option<String> {
    let facts = Facts::new(call, Timestamp::UNIX_EPOCH);
    let mut text = String::from("[");
    for (index, Binding { path, at_most }) in bind.iter().enumerate() {
        text.push_str(if index > 0 { ",[" } else { "[" });
        let start = text.len() - 1 - usize::from(index > 0);
        let mut number_shown = None;
        match path.resolve(&facts) {
            // A negative number is bound exactly: a smaller one could be a payment in the other
            // direction.
            Found::Value(Datum::Number(number)) if *at_most && number >= Exact::Integer(0) => {
                bounds.push(number);
                number_shown = Some(number);
                canonical::write_text(&mut text, &format!("{path}<="));
            }
            Found::Value(datum) => {
                canonical::write_text(&mut text, &path.to_string());
                text.push(',');
                write_datum(&mut text, datum)?;
            }
            Found::Absent => canonical::write_text(&mut text, &path.to_string()),
            Found::Unclear(_) => return None,
        }
        shown.push_str(text.get(start..).unwrap_or_default());
        if let Some(number) = number_shown {
            shown.push(',');
            canonical::write_exact(shown, number);
        }
        shown.push(']');
        text.push(']');
    }
    shown.push(']');
    text.push(']');
    Some(text)
}

/// Writes what else reaches the server, as rows of a list of bound values, for people to read.
fn write_beside_arguments(text: &mut String, call: &ToolCall<'_>) {
    if let Some(input) = call.input_members() {
        text.push_str(",[\"input\",");
        canonical::write_object(text, input);
        text.push(']');
    }
    if call.is_task() {
        text.push_str(",[\"call.task\",true]");
    }
}

fn write_datum(text: &mut String, datum: Datum<'_>) -> Option<()> {
    match datum {
        Datum::Null => text.push_str("null"),
        Datum::False => text.push_str("false"),
        Datum::True => text.push_str("true"),
        Datum::Number(number) => canonical::write_exact(text, number),
        Datum::UnclearNumber => return None,
        Datum::Text(string) => canonical::write_text(text, string),
        Datum::Array(elements) => canonical::write_array(text, elements),
        Datum::Object(members) => canonical::write_object(text, members),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::Policy;

    /// Asserts that the canonical text of `call` is `want`, with the policy's digest in place of
    /// `%`, and that its hash is the digest.
    fn assert_hashes(rules: &Value, call: &ToolCall<'_>, want: &str, details: &str) {
        let policy =
            Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": { "pay": rules } })).unwrap();
        let evaluation = policy.evaluate(call, Timestamp::UNIX_EPOCH);
        let terms = evaluation.terms(call);
        let ask = Ask::new(call, policy.digest(), &terms, "", None);
        let want = want.replace('%', &policy.digest().to_string());
        assert_eq!(ask.digest().as_bytes()[..], Sha256::digest(want.as_bytes())[..], "{want}");
        assert_eq!(ask.details, Details { shown: Shown::Whole(details.into()), bytes: details.len() });
    }

    #[test]
    fn the_digest_is_a_hash_of_the_canonical_text() {
        let arguments = json!({ "to": "x", "n": 1e2, "é": [true], "b": { "d": 2, "c": null } });
        let call = ToolCall::new("pay", &arguments).grant("g").user("u\"v");
        assert_hashes(
            &json!({}),
            &call,
            concat!(
                r#"{"agent":null,"arguments":{"b":{"c":null,"d":2},"n":100,"to":"x","é":[true]},"#,
                r#""grant":"g","policy":"%","server":null,"session":null,"tool":"pay","user":"u\"v"}"#
            ),
            r#"{"b":{"c":null,"d":2},"n":100,"to":"x","é":[true]}"#,
        );
        assert_hashes(
            &json!({ "approval": { "bind": ["args.to", "args.n<=", "args.b[\"d\"]", "args.none", "args.to<="] } }),
            &call,
            concat!(
                r#"{"agent":null,"bound":"#,
                r#"[["args.to","x"],["args.n<="],["args.b.d",2],["args.none"],["args.to","x"]],"#,
                r#""grant":"g","policy":"%","server":null,"session":null,"tool":"pay","user":"u\"v"}"#
            ),
            r#"[["args.to","x"],["args.n<=",100],["args.b.d",2],["args.none"],["args.to","x"]]"#,
        );
        let input = json!({ "ok": { "action": "accept", "content": { "yes": true } } });
        let round = ToolCall::new("pay", &arguments).input(input.as_object()).task(true);
        assert_hashes(
            &json!({ "approval": { "bind": ["args.to"] } }),
            &round,
            concat!(
                r#"{"agent":null,"bound":[["args.to","x"]],"grant":null,"#,
                r#""input":{"ok":{"action":"accept","content":{"yes":true}}},"policy":"%","#,
                r#""server":null,"session":null,"task":true,"tool":"pay","user":null}"#
            ),
            concat!(
                r#"[["args.to","x"],["input",{"ok":{"action":"accept","content":{"yes":true}}}],"#,
                r#"["call.task",true]]"#
            ),
        );
        assert_hashes(
            &json!({ "approval": { "bind": [] } }),
            &call,
            concat!(
                r#"{"agent":null,"bound":[],"grant":"g","policy":"%","#,
                r#""server":null,"session":null,"tool":"pay","user":"u\"v"}"#
            ),
            "[]",
        );
        assert_hashes(
            &json!({ "approval": { "bind": [] } }),
            &round,
            concat!(
                r#"{"agent":null,"bound":[],"grant":null,"#,
                r#""input":{"ok":{"action":"accept","content":{"yes":true}}},"policy":"%","#,
                r#""server":null,"session":null,"task":true,"tool":"pay","user":null}"#
            ),
            r#"[["input",{"ok":{"action":"accept","content":{"yes":true}}}],["call.task",true]]"#,
        );
        assert_hashes(
            &json!({}),
            &ToolCall::new("pay", None::<&Value>).task(true),
            concat!(
                r#"{"agent":null,"arguments":{},"grant":null,"policy":"%","#,
                r#""server":null,"session":null,"task":true,"tool":"pay","user":null}"#
            ),
            r#"[["args",{}],["call.task",true]]"#,
        );
        let none = ToolCall::new("pay", None::<&Value>).agent("a").server("s").session("t");
        assert_hashes(
            &json!({}),
            &none,
            concat!(
                r#"{"agent":"a","arguments":{},"grant":null,"policy":"%","#,
                r#""server":"s","session":"t","tool":"pay","user":null}"#
            ),
            "{}",
        );
    }

    #[test]
    fn a_path_into_a_string_binds_all_arguments() {
        let arguments = json!({ "n": 1, "o": "{}" });
        assert_hashes(
            &json!({ "approval": { "bind": ["args.n<=", "args.o.to"] } }),
            &ToolCall::new("pay", &arguments),
            concat!(
                r#"{"agent":null,"arguments":{"n":1,"o":"{}"},"grant":null,"policy":"%","#,
                r#""server":null,"session":null,"tool":"pay","user":null}"#
            ),
            r#"{"n":1,"o":"{}"}"#,
        );
    }
}
