//! The walk through the source document. It tracks the current place, the issues, and the origin of
//! each part of the translation.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::json::pointer;
use crate::policy::{IssueCode, Issues, PolicyError, quote, suggest};

/// A place in the source. A later place has a larger `order`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pointer: String,
    order: usize,
}

#[derive(Default)]
pub(super) struct Walk {
    issues: Issues,
    pointer: String,
    order: usize,
    /// The source place of each part of the translation, by the pointer of the part.
    origins: HashMap<String, Place>,
}

impl Walk {
    pub(super) fn issue(&mut self, code: IssueCode, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.issues.add(code, self.order, &self.pointer, message.into(), help.into());
    }

    /// Records an issue at a place that the walk has left.
    pub(super) fn issue_at(&mut self, place: &Place, code: IssueCode, message: impl Into<String>, help: &str) {
        self.issues.add(code, place.order, &place.pointer, message.into(), Some(help.to_owned()));
    }

    /// Returns the current place.
    pub(super) fn place(&self) -> Place {
        Place { pointer: self.pointer.clone(), order: self.order }
    }

    /// Enters a member.
    pub(super) fn at_key<R>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.pointer.len();
        pointer::push_key(&mut self.pointer, key);
        self.order += 1;
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    /// Enters each element. Elements that cannot be read are recorded as issues and left out.
    pub(super) fn each<'v, R>(
        &mut self,
        elements: &'v [Value],
        mut read: impl FnMut(&mut Self, &'v Value) -> Option<R>,
    ) -> Vec<R> {
        let length = self.pointer.len();
        let mut all = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            pointer::push_index(&mut self.pointer, index);
            self.order += 1;
            all.extend(read(self, element));
            self.pointer.truncate(length);
        }
        all
    }

    /// Reads the member `key`, if it has a value. A key without a value counts as absent.
    pub(super) fn field<'v, R>(
        &mut self,
        members: &'v Map<String, Value>,
        key: &str,
        read: impl FnOnce(&mut Self, &'v Value) -> Option<R>,
    ) -> Option<R> {
        let value = members.get(key).filter(|value| !value.is_null())?;
        self.at_key(key, |walk| read(walk, value))
    }

    /// Returns the members of an object, and records an issue for each key that is not in `keys`.
    pub(super) fn object<'v>(
        &mut self,
        value: &'v Value,
        what: &str,
        keys: &[&'static str],
    ) -> Option<&'v Map<String, Value>> {
        let Value::Object(members) = value else {
            self.wrong_type(value, &format!("{what} is a map"));
            return None;
        };
        for key in members.keys().filter(|key| !keys.contains(&key.as_str())) {
            let message = format!("{what} of Intercept has no key {}, and would ignore it", quote(key));
            self.at_key(key, |walk| walk.issue(IssueCode::UnknownKey, message, suggest(key, keys)));
        }
        Some(members)
    }

    pub(super) fn list<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v [Value]> {
        if let Value::Array(elements) = value {
            return Some(elements);
        }
        self.wrong_type(value, &format!("{what} is a list"));
        None
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v str> {
        if value.as_str().is_none() {
            self.wrong_type(value, &format!("{what} is a text"));
        }
        value.as_str()
    }

    pub(super) fn wrong_type(&mut self, value: &Value, want: &str) {
        let help = match value {
            Value::Number(_) | Value::Bool(_) => Some("quote it if it is meant as a text".to_owned()),
            _ => None,
        };
        self.issue(IssueCode::WrongType, format!("{want}, not {}", kind(value)), help);
    }

    pub(super) fn unknown_word(&mut self, word: &str, what: &str, words: &[&'static str]) {
        let message = format!("{} is not {what}", quote(word));
        self.issue(IssueCode::UnknownValue, message, suggest(word, words));
    }

    pub(super) fn missing(&mut self, message: impl Into<String>, help: &str) {
        self.issue(IssueCode::MissingKey, message, help.to_owned());
    }

    /// Records the current place as the origin of a part of the translation.
    pub(super) fn made(&mut self, translated: &str) {
        let place = self.place();
        self.made_of(translated, &place);
    }

    pub(super) fn made_of(&mut self, translated: &str, place: &Place) {
        self.origins.insert(translated.to_owned(), place.clone());
    }

    pub(super) fn found_issues(&self) -> bool {
        !self.issues.is_empty()
    }

    /// Takes over the issues of the translation, at the source places of its parts.
    pub(super) fn take_over(&mut self, error: &PolicyError) {
        for issue in error.issues() {
            let mut translated = issue.pointer();
            let origin = loop {
                match (self.origins.get(translated), translated.rfind('/')) {
                    (Some(origin), _) => break origin.clone(),
                    (None, Some(slash)) => translated = translated.get(..slash).unwrap_or_default(),
                    (None, None) => break Place { pointer: String::new(), order: 0 },
                }
            };
            let help = issue.help().map(str::to_owned);
            self.issues.add(issue.code(), origin.order, &origin.pointer, issue.message().to_owned(), help);
        }
    }

    pub(super) fn into_error(self) -> PolicyError {
        self.issues.into_error("").without_places()
    }
}

/// Returns the type of a value, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
