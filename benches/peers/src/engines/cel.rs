//! CEL, as gateways use it: a list of expressions, of which one must be true.
//!
//! A hand-written list of tools has an expression for each tool, `mcp.tool.name == "x"`. One
//! expression for all tools is faster: the names are a map that the host binds once. `matches`
//! compiles its regular expression again at each call. A function of the host does not.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, CelUInt};
use cel::common::value::Val;
use cel::{Context, Env, Program};
use regex::Regex;
use serde_json::Value;

use super::{Engine, Rules, TextSize};
use crate::workload::{CHARGE, DESCRIPTION};

/// All names are in one expression, and the host matches the regular expression.
pub(crate) type Cel = CelEngine<true, true>;
/// All names are in one expression, and the language's own `matches` is used.
pub(crate) type CelMatches = CelEngine<true, false>;
/// Each tool has an expression.
pub(crate) type CelByTool = CelEngine<false, true>;

pub(crate) struct CelEngine<const MAP: bool, const HOST: bool> {
    rules: Vec<Program>,
    root: Context<'static, 'static>,
    has_conditions: bool,
}

/// Expressions, and the names that the host binds.
pub(crate) struct Text {
    expressions: Vec<String>,
    names: Vec<String>,
    has_conditions: bool,
}

impl TextSize for Text {
    fn bytes(&self) -> usize {
        self.expressions.iter().chain(&self.names).map(String::len).sum()
    }
}

impl<const MAP: bool, const HOST: bool> Engine for CelEngine<MAP, HOST> {
    const NAME: &'static str = match (MAP, HOST) {
        (true, true) => "cel, names in a map",
        (true, false) => "cel, `matches`",
        (false, _) => "cel, a rule for each tool",
    };
    type Text = Text;

    fn write(rules: Rules) -> Text {
        let (mut expressions, mut names) = (Vec::new(), Vec::new());
        if rules.has_conditions() {
            let description = match HOST {
                true => String::from("plain(mcp.tool.arguments.description)"),
                false => format!("mcp.tool.arguments.description.matches('{DESCRIPTION}')"),
            };
            expressions.push(format!(
                "mcp.tool.name == '{CHARGE}' && mcp.tool.arguments.amount <= 50000 && \
                 mcp.tool.arguments.currency in ['usd', 'eur'] && has(mcp.tool.arguments.reason) && {description}"
            ));
        }
        if MAP {
            expressions.push("mcp.tool.name in tools".to_owned());
            names.extend(rules.bare());
        } else {
            expressions.extend(rules.bare().map(|name| format!("mcp.tool.name == '{name}'")));
        }
        Text { expressions, names, has_conditions: rules.has_conditions() }
    }

    fn load(text: &Text) -> Self {
        let env = Arc::new(Env::stdlib());
        let rules = text.expressions.iter().map(|expression| env.compile(expression).unwrap()).collect();
        let mut root = Context::with_env(env);
        let names: HashMap<_, _> = text.names.iter().map(|name| (name.clone(), true)).collect();
        root.add_variable_from_value("tools", names);
        if HOST && text.has_conditions {
            let plain = Regex::new(DESCRIPTION).unwrap();
            root.add_function("plain", move |text: Arc<String>| plain.is_match(&text)).unwrap();
        }
        Self { rules, root, has_conditions: text.has_conditions }
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        let mut context = self.root.new_inner_scope();
        // CEL resolves the longest name that is bound, so the maps `mcp` and `mcp.tool` are not
        // needed.
        context.add_variable_as_val("mcp.tool.name", Box::new(CelString::from(tool)));
        if self.has_conditions {
            context.add_variable_as_val("mcp.tool.arguments", value(arguments));
        }
        self.rules.iter().any(|rule| matches!(rule.execute(&context), Ok(cel::Value::Bool(true))))
    }
}

/// Converts a value. Strings are borrowed.
fn value(value: &Value) -> Box<dyn Val + '_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(self::value).collect::<Vec<_>>())),
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| (name.as_str().into(), self::value(member)));
            Box::new(CelMap::from(members.collect::<HashMap<_, _>>()))
        }
    }
}
