//! toolgate, and the same work by hand, as a gateway without a policy engine would do it.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};
use toolgate::{Policy, Timestamp, ToolCall};

use super::{Engine, Rules};
use crate::floor::{Conditions, Names};
use crate::workload::{self, CHARGE, DESCRIPTION};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// One look-up, and for W2 four more and the regular expression.
const FLOOR: &str = "floor by hand";

/// toolgate, without counters.
pub(crate) struct Toolgate(Policy);

impl Engine for Toolgate {
    const NAME: &'static str = "toolgate";
    type Text = String;

    fn write(rules: Rules) -> String {
        match rules {
            Rules::Names(entries) => workload::w1(entries),
            Rules::Conditions => workload::w2(),
        }
    }

    fn load(text: &String) -> Self {
        Self(Policy::from_json(text).unwrap())
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        self.0.evaluate(&ToolCall::new(tool, arguments), NOW).is_allowed()
    }
}

/// The floor of W1.
pub(crate) struct NameFloor(Names);

impl Engine for NameFloor {
    const NAME: &'static str = FLOOR;
    type Text = Rules;

    fn write(rules: Rules) -> Rules {
        rules
    }

    fn load(rules: &Rules) -> Self {
        Self(Names::new(rules.bare().count()))
    }

    fn allows(&mut self, tool: &str, _: &Value) -> bool {
        self.0.allows(tool)
    }
}

/// The floor of W2.
pub(crate) struct ConditionFloor(Conditions);

impl Engine for ConditionFloor {
    const NAME: &'static str = FLOOR;
    type Text = Rules;

    fn write(rules: Rules) -> Rules {
        rules
    }

    fn load(_: &Rules) -> Self {
        Self(Conditions::new())
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        self.0.allows(tool, arguments)
    }
}

/// The standard library's map of names.
pub(crate) struct NameMap(HashMap<String, ()>);

impl Engine for NameMap {
    const NAME: &'static str = "a HashMap of names";
    type Text = Rules;

    fn write(rules: Rules) -> Rules {
        rules
    }

    fn load(rules: &Rules) -> Self {
        Self(rules.bare().map(|name| (name, ())).collect())
    }

    fn allows(&mut self, tool: &str, _: &Value) -> bool {
        self.0.contains_key(tool)
    }
}

/// A JSON Schema for the arguments of each tool, behind a map of names.
pub(crate) struct JsonSchemas(HashMap<String, Option<Validator>>);

impl Engine for JsonSchemas {
    const NAME: &'static str = "jsonschema behind a map";
    type Text = Rules;

    fn write(rules: Rules) -> Rules {
        rules
    }

    fn load(rules: &Rules) -> Self {
        let mut tools: HashMap<_, _> = rules.bare().map(|name| (name, None)).collect();
        if rules.has_conditions() {
            let schema = json!({
                "type": "object",
                "required": ["amount", "currency", "reason", "description"],
                "properties": {
                    "amount": { "type": "number", "maximum": 50000 },
                    "currency": { "enum": ["usd", "eur"] },
                    "description": { "type": "string", "pattern": DESCRIPTION },
                },
            });
            let linear = PatternOptions::regex();
            let validator = jsonschema::options().with_pattern_options(linear).build(&schema).unwrap();
            tools.insert(CHARGE.to_owned(), Some(validator));
        }
        Self(tools)
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        match self.0.get(tool) {
            Some(Some(validator)) => validator.is_valid(arguments),
            Some(None) => true,
            None => false,
        }
    }
}
