//! Casbin: a policy line for each tool, and conditions in the matcher, which is compiled once and
//! evaluated for each line until one allows the call.
//!
//! `regexMatch` compiles its expression again at each call. A function of the host does not.

use std::sync::LazyLock;

use casbin::function_map::OperatorFunction;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, Enforcer, StringAdapter};
use regex::Regex;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Engine, Rules, TextSize};
use crate::workload::{CHARGE, DESCRIPTION};

/// The host matches the regular expression.
pub(crate) type Casbin = CasbinEngine<true>;
/// The engine's own `regexMatch` matches it.
pub(crate) type CasbinMatches = CasbinEngine<false>;

pub(crate) struct CasbinEngine<const HOST: bool> {
    enforcer: Enforcer,
    has_conditions: bool,
}

/// A model, and the lines of a policy.
pub(crate) struct Text {
    model: String,
    lines: String,
    has_conditions: bool,
    runtime: Runtime,
}

impl TextSize for Text {
    fn bytes(&self) -> usize {
        self.model.len() + self.lines.len()
    }
}

impl<const HOST: bool> Engine for CasbinEngine<HOST> {
    const NAME: &'static str = if HOST { "casbin" } else { "casbin, `regexMatch`" };
    type Text = Text;

    fn write(rules: Rules) -> Text {
        let (request, line, matcher) = if rules.has_conditions() {
            let description = match HOST {
                true => String::from("plain(r.args.description)"),
                false => format!("regexMatch(r.args.description, \"{DESCRIPTION}\")"),
            };
            let conditions = format!(
                "r.args.amount <= 50000 && r.args.currency in [\"usd\", \"eur\"] && \
                 r.args.reason != () && {description}"
            );
            let matcher = format!("r.tool == p.tool && (p.kind == \"bare\" || ({conditions}))");
            ("tool, args", "tool, kind", matcher)
        } else {
            ("tool", "tool", String::from("r.tool == p.tool"))
        };
        let model = format!(
            "[request_definition]\nr = {request}\n[policy_definition]\np = {line}\n\
             [policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = {matcher}\n"
        );
        let mut lines = String::new();
        if rules.has_conditions() {
            lines.push_str(&format!("p, {CHARGE}, charge\n"));
        }
        let kind = if rules.has_conditions() { ", bare" } else { "" };
        lines.extend(rules.bare().map(|name| format!("p, {name}{kind}\n")));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Text { model, lines, has_conditions: rules.has_conditions(), runtime }
    }

    fn load(text: &Text) -> Self {
        let enforcer = text.runtime.block_on(async {
            let model = DefaultModel::from_str(&text.model).await.unwrap();
            let mut enforcer = Enforcer::new(model, StringAdapter::new(&text.lines)).await.unwrap();
            enforcer.add_function("plain", OperatorFunction::Arg1(is_plain));
            enforcer
        });
        Self { enforcer, has_conditions: text.has_conditions }
    }

    fn allows(&mut self, tool: &str, arguments: &Value) -> bool {
        let answer =
            if self.has_conditions { self.enforcer.enforce((tool, arguments)) } else { self.enforcer.enforce((tool,)) };
        answer.unwrap_or(false)
    }
}

fn is_plain(text: Dynamic) -> Dynamic {
    static PLAIN: LazyLock<Regex> = LazyLock::new(|| Regex::new(DESCRIPTION).unwrap());
    text.into_immutable_string().is_ok_and(|text| PLAIN.is_match(&text)).into()
}
