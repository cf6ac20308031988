//! Typed document to policy: parts of a document, run alone.

use serde_json::{Map, Value, json};

use super::{Comparison, Condition, Rule, RuleSection, RulesObject};
use crate::policy::Policy;
use crate::policy::compiled::Action;

/// Returns the text of a policy that allows what none of these objects stops. Limits, approvals and
/// messages are left out.
pub(crate) fn text_of<'r>(objects: impl IntoIterator<Item = &'r RulesObject>) -> String {
    let (mut all_tools, mut entries) = (json!({}), Map::new());
    for object in objects {
        match &object.name {
            Some(name) => drop(entries.insert(name.to_string(), object.to_value())),
            None => all_tools = object.to_value(),
        }
    }
    json!({ "version": "1", "default": "allow", "all_tools": all_tools, "tools": entries }).to_string()
}

/// The policy of [`text_of`]. `None` if a bound of the default ones is exceeded.
pub(crate) fn policy_of<'r>(objects: impl IntoIterator<Item = &'r RulesObject>) -> Option<Policy> {
    text_of(objects).parse().ok()
}

impl RulesObject {
    fn to_value(&self) -> Value {
        let mut object = Map::new();
        match self.action {
            Action::Allow => {}
            Action::Deny => drop(object.insert("action".to_owned(), "deny".into())),
            Action::RequireApproval => drop(object.insert("action".to_owned(), "require_approval".into())),
        }
        for section in RuleSection::ALL {
            let rules = self.rules(section);
            if !rules.is_empty() {
                object.insert(section.key().to_owned(), rules.iter().map(Rule::to_value).collect());
            }
        }
        object.into()
    }
}

impl Rule {
    /// The JSON text of its conditions.
    pub(crate) fn text(&self) -> String {
        self.to_value().to_string()
    }

    fn to_value(&self) -> Value {
        json!({ "conditions": values(&self.conditions) })
    }
}

fn values(conditions: &[Condition]) -> Value {
    conditions.iter().map(Condition::to_value).collect()
}

impl Condition {
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Comparison(comparison) => comparison.to_value(),
            Self::Any(conditions) => json!({ "any": values(conditions) }),
            Self::All(conditions) => json!({ "all": values(conditions) }),
            Self::Not(inner) => json!({ "not": inner.to_value() }),
        }
    }
}

impl Comparison {
    fn to_value(&self) -> Value {
        let required = [("path", self.path.to_string().into()), ("op", self.operator.name.into())];
        let optional = [
            ("value", self.value.clone()),
            ("value_from", self.value_from.as_ref().map(|path| path.value.to_string().into())),
            ("ignore_case", self.ignore_case.map(Value::from)),
            ("absent", self.absent.map(|absent| absent.word().into())),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        required.into_iter().chain(optional).map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::operator::{OPERATORS, Takes};

    /// A condition with each operator, each of its options, and each group around it.
    fn conditions() -> Vec<Value> {
        let mut all = Vec::new();
        for operator in &OPERATORS {
            let value = match operator.takes {
                Takes::Equal => json!("a"),
                Takes::Less | Takes::LessOrEqual | Takes::Greater | Takes::GreaterOrEqual => json!(-1.5),
                Takes::In => json!(["a", 2]),
                Takes::Exists => json!(false),
                Takes::Regex => json!("^a+$"),
                Takes::Contains | Takes::StartsWith | Takes::EndsWith => json!("a"),
                Takes::MinLength | Takes::MaxLength | Takes::MinItems | Takes::MaxItems => json!(3),
                Takes::KeysIn => json!(["a"]),
                Takes::Type => json!("string"),
                Takes::PathWithin => json!(["/srv"]),
                Takes::HostIn => json!(["example.com"]),
            };
            let plain = json!({ "path": "args.a[0].b", "op": operator.name, "value": value });
            let with = |key: &str, value: Value| {
                let mut condition = plain.clone();
                condition[key] = value;
                condition
            };
            all.push(plain.clone());
            if operator.takes != Takes::Exists {
                all.push(with("absent", "match".into()));
                all.push(with("absent", "no_match".into()));
            }
            if operator.ignore_case {
                all.push(with("ignore_case", true.into()));
            }
            if operator.value_from {
                all.push(json!({ "path": "args.a", "op": operator.name, "value_from": "args.c" }));
            }
        }
        let groups = all.clone().into_iter().flat_map(|condition| {
            let group = json!({ "all": [condition, { "path": "call.tool", "op": "eq", "value": "t" }] });
            // `not` would invert `absent`, so the two exclude each other.
            let not = condition.get("absent").is_none().then(|| json!({ "not": condition }));
            [json!({ "any": [group.clone(), condition] }), group].into_iter().chain(not)
        });
        all.extend(groups.collect::<Vec<_>>());
        all
    }

    #[test]
    fn conditions_are_written_as_they_were_read() {
        for condition in conditions() {
            let in_require = condition.to_string().replace("no_match", "match");
            let in_require: Value = serde_json::from_str(&in_require).unwrap();
            let entry = json!({ "action": "require_approval", "require": [{ "conditions": [in_require] }],
                "deny_if": [{ "conditions": [condition] }] });
            let document = json!({ "version": "1", "default": "allow", "all_tools": {}, "tools": { "t": entry } });
            let policy = Policy::try_from(&document).unwrap_or_else(|error| panic!("{condition}: {error}"));
            let read = policy.document(64).unwrap();
            assert_eq!(text_of(read.objects()), document.to_string());
            for rules in [&read.entries[0].require, &read.entries[0].deny_if] {
                let text = policy.to_json();
                assert!(text.get(rules[0].at..).unwrap().starts_with(r#"{"conditions":"#), "{}", rules[0].at);
                for placed in rules[0].comparisons("") {
                    let from = text.get(placed.at..).unwrap();
                    assert!(from.starts_with('{') && from.contains(placed.operator.name), "{condition}: {from}");
                }
            }
        }
    }
}
