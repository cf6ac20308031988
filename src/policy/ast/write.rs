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
            ("absent", self.absent_matches.then(|| "match".into())),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        required.into_iter().chain(optional).map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
    }
}
