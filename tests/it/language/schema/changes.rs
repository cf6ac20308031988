//! Random changes of valid documents.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use toolgate::IssueCode;

use super::documents::documents;
use super::parts::letters;
use super::{VALIDATOR, is_inexpressible, issues};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn schema_and_parser_agree_on_changed_documents(
        (_, document) in select(documents().valid),
        changes in prop::collection::vec((any::<Index>(), change()), 1..4),
    ) {
        let mut changed = document;
        for (place, change) in &changes {
            let places = places(&changed);
            change.apply(&mut changed, &places[place.index(places.len())]);
        }
        let issues = issues(&changed.to_string());
        let accepts = VALIDATOR.is_valid(&changed);
        // The parser does not look into an entry whose name is too long.
        let is_complete = issues.iter().all(|issue| issue.code() != IssueCode::TooLong);
        if !issues.iter().all(|issue| is_inexpressible(issue, &changed)) {
            prop_assert!(!accepts, "the schema accepts {changed}: {issues:?}");
        } else if is_complete {
            prop_assert!(accepts, "the schema refuses {changed}: {issues:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Remove,
    Replace(Value),
    Rename(String),
    Add(String, Value),
    /// Inserts a character into a text, or removes the one at that place.
    Edit(Index, Option<char>),
}

fn change() -> impl Strategy<Value = Change> {
    let (words, values) = vocabulary();
    let word = select(words);
    let value = select(values);
    let character = select("ax0159.*[]\"\\<=:+-/%2sdh \u{e9}\u{0}\u{85}\u{2028}".chars().collect::<Vec<_>>());
    prop_oneof![
        Just(Change::Remove),
        value.clone().prop_map(Change::Replace),
        word.clone().prop_map(Change::Rename),
        (word, value).prop_map(|(word, value)| Change::Add(word, value)),
        (any::<Index>(), proptest::option::of(character)).prop_map(|(at, character)| Change::Edit(at, character)),
    ]
}

/// Returns the keys and texts of the valid documents, and their values, with some at the bounds.
fn vocabulary() -> (Vec<String>, Vec<Value>) {
    let mut words = BTreeSet::from(["", "*", "**", "x", "reasons", "é"].map(String::from));
    let mut values = vec![];
    for (_, document) in documents().valid {
        for place in places(&document) {
            let value = document.pointer(&place).unwrap();
            words.extend(value.as_object().into_iter().flat_map(Map::keys).cloned());
            words.extend(value.as_str().map(String::from));
            values.push(value.clone());
        }
    }
    let odd = [json!(null), json!([]), json!({}), json!(true), json!(false), json!([null]), json!({ "a": [null] })];
    let numbers = [json!(-1), json!(-0.0), json!(0), json!(1.0), json!(1.5), json!(0.000_000_1), json!(34_560_001)];
    let large = [json!(9e12), json!(9_000_000_000_001_u64), json!(1e300), json!(u64::MAX), json!(i64::MIN)];
    let texts = [letters(257), "é".repeat(129).into(), letters(4097), "é".repeat(2049).into(), json!("\u{0}")];
    values.extend(odd.into_iter().chain(numbers).chain(large).chain(texts));
    (words.into_iter().collect(), values)
}

/// Returns the pointers of a document and of everything in it.
fn places(document: &Value) -> Vec<String> {
    let mut places = vec![String::new()];
    let mut next = 0;
    while let Some(place) = places.get(next).cloned() {
        next += 1;
        match document.pointer(&place) {
            Some(Value::Object(members)) => {
                places
                    .extend(members.keys().map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))));
            }
            // The first elements represent a long list.
            Some(Value::Array(elements)) => places.extend((0..elements.len().min(4)).map(|at| format!("{place}/{at}"))),
            _ => {}
        }
    }
    places
}

impl Change {
    fn apply(&self, document: &mut Value, place: &str) {
        let (parent, key) = place.rsplit_once('/').unwrap_or_default();
        let key = key.replace("~1", "/").replace("~0", "~");
        match (self, document.pointer_mut(parent).filter(|_| !place.is_empty())) {
            (Self::Remove, Some(Value::Object(members))) => drop(members.remove(&key)),
            (Self::Remove, Some(Value::Array(elements))) => drop(elements.remove(key.parse().unwrap())),
            (Self::Rename(name), Some(Value::Object(members))) => {
                if let Some(value) = members.remove(&key) {
                    members.insert(name.clone(), value);
                }
            }
            _ => {}
        }
        match (self, document.pointer_mut(place)) {
            (Self::Replace(value), Some(old)) => *old = value.clone(),
            (Self::Add(name, value), Some(Value::Object(members))) => drop(members.insert(name.clone(), value.clone())),
            (Self::Add(_, value), Some(Value::Array(elements))) => elements.push(value.clone()),
            (Self::Edit(at, character), Some(Value::String(text))) => {
                let at = at.index(text.chars().count() + 1);
                let taken = usize::from(character.is_none());
                let (before, after) = (text.chars().take(at), text.chars().skip(at + taken));
                *text = before.chain(*character).chain(after).collect();
            }
            _ => {}
        }
    }
}
