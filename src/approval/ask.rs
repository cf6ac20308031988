//! What a call asks a person for.

use sha2::{Digest as _, Sha256};

use super::DETAILS_BYTES;
use super::id::{ApprovalId, CallDigest};
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::call::path::{Datum, Facts, Found};
use crate::json::canonical;
use crate::json::number::Exact;
use crate::policy::{Binding, Digest, Terms};
use crate::time::Timestamp;

/// A call that needs an approval, as its store sees it.
pub struct Ask<'a> {
    pub(super) call: &'a ToolCall<'a>,
    pub(super) digest: CallDigest,
    /// The numbers at the paths that bind an upper bound, in the order of those paths.
    pub(super) bounds: Box<[Exact]>,
    pub(super) terms: &'a Terms<'a>,
    pub(super) reason: &'a str,
    pub(super) details: Details,
    named: Option<&'a ApprovalId>,
}

impl<'a> Ask<'a> {
    /// What `call` asks for under a policy, on its terms; `reason` is what its rule says.
    pub(crate) fn new(
        call: &'a ToolCall<'a>,
        policy: Digest,
        terms: &'a Terms<'a>,
        reason: &'a str,
        named: Option<&'a ApprovalId>,
    ) -> Self {
        let (digest, bounds, details) = digest(call, policy, terms.bind.as_deref());
        Self { call, digest, bounds: bounds.into(), terms, reason, details, named }
    }

    /// What an approval has to be for.
    pub fn digest(&self) -> CallDigest {
        self.digest
    }

    /// How long the names of tool and caller are together: what an approval keeps of the call.
    pub fn name_bytes(&self) -> usize {
        let caller = Identity::ALL.into_iter().filter_map(|identity| self.call.identity(identity));
        caller.map(str::len).fold(self.call.tool().len(), usize::saturating_add)
    }

    /// Who is counted as the one that asks, of whom only so many requests may wait: the first that the call has of grant, user,
    /// agent and session, with the word for what it is; nobody else's calls are counted with its own. All calls without any of
    /// them are counted together.
    pub fn asker(&self) -> Option<(Identity, &str)> {
        asker(|identity| self.call.identity(identity))
    }

    /// The approval that the call comes with, if it names one: no other lets it pass.
    pub fn named(&self) -> Option<&ApprovalId> {
        self.named
    }
}

pub(super) fn asker<'n>(name: impl Fn(Identity) -> Option<&'n str>) -> Option<(Identity, &'n str)> {
    let asking = [Identity::Grant, Identity::User, Identity::Agent, Identity::Session];
    asking.into_iter().find_map(|identity| Some((identity, name(identity)?)))
}

/// What a person has to read to know what is bound: canonical text, if it is short enough to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) text: Option<Box<str>>,
    /// Of the whole text, kept or not.
    pub(super) bytes: usize,
}

impl Details {
    fn new(text: &str) -> Self {
        Self { text: (text.len() <= DETAILS_BYTES).then(|| text.into()), bytes: text.len() }
    }

    /// Keeps a text up to so many bytes.
    pub(super) fn cut(&mut self, most: usize) {
        if self.bytes > most {
            self.text = None;
        }
    }
}

/// The digest of a call, the numbers that are bound from above (they are compared, and so cannot be hashed), and what a person
/// reads of it.
fn digest(call: &ToolCall<'_>, policy: Digest, bind: Option<&[&Binding]>) -> (CallDigest, Vec<Exact>, Details) {
    let mut text = String::from("{");
    let (mut bounds, mut shown) = (Vec::new(), String::from("["));
    let bound = bind.and_then(|bind| bound_values(call, bind, &mut bounds, &mut shown));
    // The keys are in their canonical order, so that the whole text is canonical.
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
    let details = match bound {
        Some(values) => {
            text.push_str("\"bound\":");
            text.push_str(&values);
            Details::new(&shown)
        }
        None => {
            bounds.clear();
            text.push_str("\"arguments\":");
            let start = text.len();
            match call.argument_members() {
                Some(members) => canonical::write_object(&mut text, members),
                None => text.push_str("{}"),
            }
            Details::new(text.get(start..).unwrap_or_default())
        }
    };
    text.push(',');
    identity(&mut text, Identity::Grant);
    text.push_str("\"policy\":");
    canonical::write_text(&mut text, &policy.to_string());
    text.push(',');
    [Identity::Server, Identity::Session].into_iter().for_each(|other| identity(&mut text, other));
    text.push_str("\"tool\":");
    canonical::write_text(&mut text, call.tool());
    text.push(',');
    identity(&mut text, Identity::User);
    text.pop();
    text.push('}');
    (CallDigest::new(Sha256::digest(text.as_bytes()).into()), bounds, details)
}

/// The values at the paths, a list of lists: `[path, value]`, `[path]` for one that is absent, and `[path<=]` for a number that goes
/// to `bounds`; `shown` is the same with that number in it. What is no number has no smaller one: it is bound exactly.
///
/// Nothing where a path steps into a text or the like: a server may unwrap it, so what the path leads to cannot be told, and all
/// arguments are bound.
fn bound_values(call: &ToolCall<'_>, bind: &[&Binding], bounds: &mut Vec<Exact>, shown: &mut String) -> Option<String> {
    let facts = Facts::new(call, Timestamp::UNIX_EPOCH);
    let mut text = String::from("[");
    for (index, Binding { path, at_most }) in bind.iter().enumerate() {
        text.push_str(if index > 0 { ",[" } else { "[" });
        let start = text.len() - 1 - usize::from(index > 0);
        let mut number_shown = None;
        match path.resolve(&facts) {
            Found::Value(Datum::Number(number)) if *at_most => {
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
            Found::WrongContainer => return None,
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

    /// The canonical text of a call is hashed, and `want` is it, with the policy's digest at `%`.
    fn assert_hashes(rules: &Value, call: &ToolCall<'_>, want: &str, details: &str) {
        let policy =
            Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": { "pay": rules } })).unwrap();
        let evaluation = policy.evaluate(call, Timestamp::UNIX_EPOCH);
        let terms = evaluation.terms(call);
        let ask = Ask::new(call, policy.digest(), &terms, "", None);
        let want = want.replace('%', &policy.digest().to_string());
        assert_eq!(ask.digest().as_bytes()[..], Sha256::digest(want.as_bytes())[..], "{want}");
        assert_eq!(ask.details, Details { text: Some(details.into()), bytes: details.len() });
    }

    #[test]
    fn the_digest_is_that_of_the_canonical_text() {
        let arguments = json!({ "to": "x", "n": 1e2, "é": [true], "b": { "d": 2, "c": null } });
        let call = ToolCall::new("pay", &arguments).grant("g").user("u\"v");
        assert_hashes(
            &json!({}),
            &call,
            r#"{"agent":null,"arguments":{"b":{"c":null,"d":2},"n":100,"to":"x","é":[true]},"grant":"g","policy":"%","server":null,"session":null,"tool":"pay","user":"u\"v"}"#,
            r#"{"b":{"c":null,"d":2},"n":100,"to":"x","é":[true]}"#,
        );
        assert_hashes(
            &json!({ "approval": { "bind": ["args.to", "args.n<=", "args.b[\"d\"]", "args.none", "args.to<="] } }),
            &call,
            r#"{"agent":null,"bound":[["args.to","x"],["args.n<="],["args.b.d",2],["args.none"],["args.to","x"]],"grant":"g","policy":"%","server":null,"session":null,"tool":"pay","user":"u\"v"}"#,
            r#"[["args.to","x"],["args.n<=",100],["args.b.d",2],["args.none"],["args.to","x"]]"#,
        );
        let none = ToolCall::new("pay", None::<&Value>).agent("a").server("s").session("t");
        assert_hashes(
            &json!({}),
            &none,
            r#"{"agent":"a","arguments":{},"grant":null,"policy":"%","server":"s","session":"t","tool":"pay","user":null}"#,
            "{}",
        );
    }

    #[test]
    fn what_lies_inside_a_text_binds_all_arguments() {
        let arguments = json!({ "n": 1, "o": "{}" });
        assert_hashes(
            &json!({ "approval": { "bind": ["args.n<=", "args.o.to"] } }),
            &ToolCall::new("pay", &arguments),
            r#"{"agent":null,"arguments":{"n":1,"o":"{}"},"grant":null,"policy":"%","server":null,"session":null,"tool":"pay","user":null}"#,
            r#"{"n":1,"o":"{}"}"#,
        );
    }
}
