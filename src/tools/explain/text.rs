//! Explanations for a terminal.

use std::fmt;

use super::words::{plain, say, shown};
use super::{Asked, Change, ConditionOutcome, Explanation, Outcome, RuleOutcome, Seen, Step};
use crate::policy::Effect;

/// The decision, then every step, and below it what it looked at.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool: String = self.tool.chars().map(plain).collect();
        let word = match (self.effect, self.code()) {
            (Effect::Deny(_), _) => "denied",
            (_, Some(super::Code::Limit)) => "rate-limited",
            (_, Some(super::Code::ScopeMissing | super::Code::AmountInvalid)) => "denied",
            (Effect::RequireApproval, _) => "needs an approval",
            (Effect::Allow, _) => "no rule stops it",
        };
        writeln!(f, "{tool}: {word}")?;
        if !self.entries.is_empty() {
            writeln!(
                f,
                "entries: {}",
                self.entries.iter().map(|entry| entry.chars().map(plain).collect()).collect::<Vec<String>>().join(", ")
            )?;
        }
        let decided = self.decided_by().map(Step::kind);
        for step in &self.steps {
            let mark = if decided == Some(step.kind) { "  <- decides" } else { "" };
            let code = step.code.map_or_else(String::new, |code| format!(" ({code})"));
            writeln!(f, "{:<8} {}{code}{mark}", step.kind.as_str(), step.outcome.as_str())?;
            for rule in &step.rules {
                rule_lines(f, rule)?;
            }
            for limited in &step.limits {
                let shadow = if limited.is_shadow() { " (shadow)" } else { "" };
                let code = limited.code().map_or_else(String::new, |code| format!(" ({code})"));
                let pointer: String = limited.pointer().chars().map(plain).collect();
                writeln!(f, "  {} {pointer}{code}{shadow}", sign(limited.outcome()))?;
                let words: String = limited.words().chars().map(plain).collect();
                writeln!(f, "      {words}")?;
                change_lines(f, limited.changes())?;
            }
        }
        Ok(())
    }
}

fn sign(outcome: Outcome) -> char {
    match outcome {
        Outcome::Passes => '+',
        Outcome::Stops => '-',
        Outcome::Unknown => '?',
    }
}

fn rule_lines(f: &mut fmt::Formatter<'_>, rule: &RuleOutcome) -> fmt::Result {
    let pointer: String = rule.pointer().chars().map(plain).collect();
    write!(f, "  {} {pointer}", sign(rule.outcome()))?;
    if let Some(name) = rule.name() {
        write!(f, " \"{}\"", name.chars().map(plain).collect::<String>())?;
    }
    if let Some(truth) = rule.truth() {
        write!(f, ": {}", truth.as_str())?;
    }
    writeln!(f)?;
    for condition in rule.conditions() {
        condition_lines(f, condition, 3)?;
    }
    if let (Some(message), Outcome::Stops) = (rule.message(), rule.outcome()) {
        writeln!(f, "      says: {}", message.chars().map(plain).collect::<String>())?;
    }
    change_lines(f, rule.changes())
}

fn change_lines(f: &mut fmt::Formatter<'_>, changes: &[Change]) -> fmt::Result {
    let mut before = "      to pass: ";
    for change in changes {
        writeln!(f, "{before}{}", change.to_string().chars().map(plain).collect::<String>())?;
        before = "           or: ";
    }
    Ok(())
}

fn condition_lines(f: &mut fmt::Formatter<'_>, condition: &ConditionOutcome, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth.min(40));
    let truth = condition.truth().as_str();
    let (word, conditions) = match condition.asked() {
        Asked::Any { any } => ("any of", any),
        Asked::All { all } => ("all of", all),
        Asked::Comparison { path, op, not, value, value_from, found } => {
            let mut words = String::new();
            say(&mut words, path, op, *not, value.as_ref(), value_from.as_ref().map(|(path, _)| path.as_str()))?;
            let words: String = words.chars().map(plain).collect();
            let found = found.iter().map(seen).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "nothing" } else { &found };
            write!(f, "{indent}{truth}: {words}; found {found}")?;
            if let Some((_, other)) = value_from {
                write!(f, ", to compare with {}", seen(other))?;
            }
            return writeln!(f);
        }
    };
    writeln!(f, "{indent}{truth}: {word}")?;
    conditions.iter().try_for_each(|condition| condition_lines(f, condition, depth + 1))
}

fn seen(seen: &Seen) -> String {
    match seen {
        Seen::Absent => "nothing".to_owned(),
        Seen::Closed => "a value that it cannot look into".to_owned(),
        Seen::Masked { r#type, length: None } => format!("<{type}>"),
        Seen::Masked { r#type: "string", length: Some(length) } => format!("<string of {length} characters>"),
        Seen::Masked { r#type, length: Some(length) } => format!("<{type} of {length}>"),
        Seen::Value(value) => shown(value),
    }
}
