//! Rego, compiled for the virtual machine of `regorus`. The names are data, and the conditions are
//! a rule.

use std::sync::Arc;

use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::program::Program;
use regorus::rvm::vm::RegoVM;
use serde_json::{Value, json};

use super::{Engine, Rules, TextSize};
use crate::workload::{CHARGE, DESCRIPTION};

const ENTRY_POINT: &str = "data.gateway.allow";

pub(crate) struct Regorus {
    machine: RegoVM,
    has_conditions: bool,
}

/// A module, and data as JSON.
pub(crate) struct Text {
    module: String,
    data: String,
    has_conditions: bool,
}

impl TextSize for Text {
    fn bytes(&self) -> usize {
        self.module.len() + self.data.len()
    }
}

impl Engine for Regorus {
    const NAME: &'static str = "regorus, compiled";
    type Text = Text;

    fn write(rules: Rules) -> Text {
        let mut module =
            String::from("package gateway\nimport rego.v1\ndefault allow := false\nallow if data.tools[input.tool]\n");
        if rules.has_conditions() {
            module.push_str(&format!(
                "allow if {{\n  input.tool == \"{CHARGE}\"\n  input.args.amount <= 50000\n  \
                 input.args.currency in {{\"usd\", \"eur\"}}\n  input.args.reason != null\n  \
                 regex.match(`{DESCRIPTION}`, input.args.description)\n}}\n"
            ));
        }
        let tools: serde_json::Map<_, _> = rules.bare().map(|name| (name, Value::Bool(true))).collect();
        Text { module, data: json!({ "tools": tools }).to_string(), has_conditions: rules.has_conditions() }
    }

    fn load(text: &Text) -> Self {
        let mut engine = regorus::Engine::new();
        engine.add_policy("gateway.rego".to_owned(), text.module.clone()).unwrap();
        let compiled = engine.compile_with_entrypoint(&ENTRY_POINT.into()).unwrap();
        let program: Arc<Program> = Compiler::compile_from_policy(&compiled, &[ENTRY_POINT]).unwrap();
        let mut machine = RegoVM::new();
        machine.load_program(program);
        machine.set_data(regorus::Value::from_json_str(&text.data).unwrap()).unwrap();
        Self { machine, has_conditions: text.has_conditions }
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        let mut input = regorus::Value::new_object();
        let Ok(members) = input.as_object_mut() else { return false };
        members.insert("tool".into(), tool.into());
        if self.has_conditions {
            members.insert("args".into(), value(arguments));
        }
        self.machine.set_input(input);
        matches!(self.machine.execute(), Ok(regorus::Value::Bool(true)))
    }
}

/// Converts a value.
fn value(value: &Value) -> regorus::Value {
    match value {
        Value::Null => regorus::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().map_or(regorus::Value::Undefined, regorus::Value::from),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(self::value).collect::<Vec<_>>().into(),
        Value::Object(members) => {
            let mut object = regorus::Value::new_object();
            if let Ok(object) = object.as_object_mut() {
                for (name, member) in members {
                    object.insert(name.as_str().into(), self::value(member));
                }
            }
            object
        }
    }
}
