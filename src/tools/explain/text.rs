//! Formatting of explanations for a terminal.

use std::fmt;

use super::words::{display_value, printable, write_comparison};
use super::{Asked, Change, ConditionOutcome, Explanation, Outcome, RuleOutcome, Seen, Step};
use crate::policy::Effect;

/// Writes the decision, then every step with its rules and limits below it.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = printable(&self.tool);
        let word = match (self.effect, self.code()) {
            (Effect::Deny(_), _) => "denied",
            (_, Some(super::Code::Limit)) => "rate-limited",
            (_, Some(super::Code::ScopeMissing | super::Code::AmountInvalid)) => "denied",
            (Effect::RequireApproval, _) => "needs an approval",
            (Effect::Allow, _) => "no rule stops it",
        };
        writeln!(f, "{tool}: {word}")?;
        if !self.entries.is_empty() {
            writeln!(f, "entries: {}", printable(&self.entries.join(", ")))?;
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
                let pointer = printable(limited.pointer());
                writeln!(f, "  {} {pointer}{code}{shadow}", sign(limited.outcome()))?;
                let summary = printable(&limited.summary());
                writeln!(f, "      {summary}")?;
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
    let pointer = printable(rule.pointer());
    write!(f, "  {} {pointer}", sign(rule.outcome()))?;
    if let Some(name) = rule.name() {
        write!(f, " \"{}\"", printable(name))?;
    }
    if let Some(truth) = rule.truth() {
        write!(f, ": {}", truth.as_str())?;
    }
    writeln!(f)?;
    for condition in rule.conditions() {
        condition_lines(f, condition, 3)?;
    }
    if let (Some(message), Outcome::Stops) = (rule.message(), rule.outcome()) {
        writeln!(f, "      says: {}", printable(message))?;
    }
    change_lines(f, rule.changes())
}

fn change_lines(f: &mut fmt::Formatter<'_>, changes: &[Change]) -> fmt::Result {
    let mut before = "      to pass: ";
    for change in changes {
        writeln!(f, "{before}{}", printable(&change.to_string()))?;
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
            let other_path = value_from.as_ref().map(|(path, _)| path.as_str());
            write_comparison(&mut words, path, op, *not, value.as_ref(), other_path)?;
            let words = printable(&words);
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
        Seen::Closed => "a value that the path cannot enter".to_owned(),
        Seen::CaseVariant => "a member whose name differs in case".to_owned(),
        Seen::Masked { r#type, length: None } => format!("<{type}>"),
        Seen::Masked { r#type: "string", length: Some(length) } => format!("<string of {length} characters>"),
        Seen::Masked { r#type, length: Some(length) } => format!("<{type} of {length}>"),
        Seen::Value(value) => display_value(value),
    }
}
