//! Cedar: the tools are actions in a group, which one policy permits, and conditions are in `when`.
//!
//! The language has no regular expressions. The host matches the description, and passes the result
//! in the context.

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use regex::Regex;
use serde_json::{Value, json};

use super::{Engine, Rules, TextSize};
use crate::workload::{CHARGE, DESCRIPTION};

/// One policy for all tools of the group.
pub(crate) type Cedar = CedarEngine<true>;
/// A policy for each tool.
pub(crate) type CedarByTool = CedarEngine<false>;

pub(crate) struct CedarEngine<const GROUPS: bool> {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    principal: EntityUid,
    action: EntityTypeName,
    resource: EntityUid,
    /// The regular expression that the host matches, if the policy has conditions.
    description: Option<Regex>,
}

/// Policies, and entities as JSON.
pub(crate) struct Text {
    policies: String,
    entities: String,
    has_conditions: bool,
}

impl TextSize for Text {
    fn bytes(&self) -> usize {
        self.policies.len() + self.entities.len()
    }
}

impl<const GROUPS: bool> Engine for CedarEngine<GROUPS> {
    const NAME: &'static str = if GROUPS { "cedar, tools in a group" } else { "cedar, a policy for each tool" };
    type Text = Text;

    fn write(rules: Rules) -> Text {
        let uid = |kind: &str, id: &str| json!({ "type": kind, "id": id });
        let (mut policies, mut entities) = (String::new(), Vec::new());
        if GROUPS {
            policies.push_str("permit(principal, action in Action::\"allowed\", resource);\n");
            entities.extend(rules.bare().map(
                |name| json!({ "uid": uid("Action", &name), "attrs": {}, "parents": [uid("Action", "allowed")] }),
            ));
        } else {
            for name in rules.bare() {
                policies.push_str(&format!("permit(principal, action == Action::\"{name}\", resource);\n"));
            }
        }
        if rules.has_conditions() {
            policies.push_str(&format!(
                r#"permit(principal, action == Action::"{CHARGE}", resource) when {{
                    context.args has amount && context.args.amount <= 50000 &&
                    context.args has currency && ["usd", "eur"].contains(context.args.currency) &&
                    context.args has reason && context.plain_description
                }};"#
            ));
        }
        Text { policies, entities: json!(entities).to_string(), has_conditions: rules.has_conditions() }
    }

    fn load(text: &Text) -> Self {
        let uid = |kind: &str, id: &str| EntityUid::from_type_name_and_id(kind.parse().unwrap(), EntityId::new(id));
        Self {
            authorizer: Authorizer::new(),
            policies: text.policies.parse().unwrap(),
            entities: Entities::from_json_str(&text.entities, None).unwrap(),
            principal: uid("Agent", "a-1"),
            action: "Action".parse().unwrap(),
            resource: uid("Server", "s-1"),
            description: text.has_conditions.then(|| Regex::new(DESCRIPTION).unwrap()),
        }
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        let context = match &self.description {
            None => Context::empty(),
            Some(plain) => {
                let Some(args) = record(arguments) else { return false };
                let description = arguments.get("description").and_then(Value::as_str);
                let plain = RestrictedExpression::new_bool(description.is_some_and(|text| plain.is_match(text)));
                let Ok(context) =
                    Context::from_pairs([("args".to_owned(), args), ("plain_description".to_owned(), plain)])
                else {
                    return false;
                };
                context
            }
        };
        let action = EntityUid::from_type_name_and_id(self.action.clone(), EntityId::new(tool));
        let Ok(request) = Request::new(self.principal.clone(), action, self.resource.clone(), context, None) else {
            return false;
        };
        self.authorizer.is_authorized(&request, &self.policies, &self.entities).decision() == Decision::Allow
    }
}

/// Converts a value, or returns `None` if Cedar has no such value.
fn record(value: &Value) -> Option<RestrictedExpression> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::Number(number) => RestrictedExpression::new_long(number.as_i64()?),
        Value::String(text) => RestrictedExpression::new_string(text.clone()),
        Value::Array(items) => RestrictedExpression::new_set(items.iter().map(record).collect::<Option<Vec<_>>>()?),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| Some((name.clone(), record(value)?)));
            RestrictedExpression::new_record(members.collect::<Option<Vec<_>>>()?).ok()?
        }
    })
}
