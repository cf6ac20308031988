//! Writes the draft policy as text.

use std::fmt::Write;

use super::{Recommendation, RiskClass, ToolClass};

/// The number of pieces of evidence that an entry shows besides those for the class itself.
const BESIDES: usize = 3;

pub(super) fn policy(recommendation: &Recommendation) -> String {
    let mut tools: Vec<&ToolClass> = recommendation.tools().iter().collect();
    tools.sort_by(|a, b| (a.class, &a.name).cmp(&(b.class, &b.name)));
    let mut text = String::from("{\n  \"version\": \"1\",\n  \"description\": ");
    write_text(&mut text, &summary(recommendation));
    text.push_str(",\n  \"default\": \"deny\"");

    let hidden = tools.iter().filter(|tool| is_hidden(tool.class));
    for (index, tool) in hidden.clone().enumerate() {
        text.push_str(if index == 0 { ",\n  \"hide\": [\n    " } else { ",\n    " });
        write_text(&mut text, &tool.name);
    }
    if hidden.clone().next().is_some() {
        text.push_str("\n  ]");
    }
    text.push_str(",\n  \"tools\": {");
    for (index, tool) in tools.iter().enumerate() {
        text.push_str(if index == 0 { "\n    " } else { ",\n    " });
        entry(&mut text, tool);
    }
    text.push_str(if tools.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
    text
}

fn is_hidden(class: RiskClass) -> bool {
    matches!(class, RiskClass::Other | RiskClass::Destructive)
}

fn summary(recommendation: &Recommendation) -> String {
    let mut counts = String::new();
    for class in RiskClass::ALL {
        let count = recommendation.count(class);
        if count > 0 {
            let comma = if counts.is_empty() { "" } else { ", " };
            // Writing to a `String` does not fail.
            let _ = write!(counts, "{comma}{count} {class}");
        }
    }
    let tools = recommendation.tools().len();
    let colon = if tools == 0 { "" } else { ": " };
    format!(
        "A draft to review and edit, written from the definitions of {tools} tools{colon}{counts}. \
         Every other tool is denied."
    )
}

fn entry(text: &mut String, tool: &ToolClass) {
    write_text(text, &tool.name);
    text.push_str(": {\n      \"description\": ");
    write_text(text, &why(tool));
    text.push_str(match tool.class {
        RiskClass::Read => "",
        RiskClass::Write => {
            r#",
      "limits": [{ "counter": "writes", "window": "minute", "max": 30, "scope": "grant" }]"#
        }
        RiskClass::Execute => {
            r#",
      "limits": [{ "counter": "executions", "window": "minute", "max": 10, "scope": "grant" }]"#
        }
        RiskClass::Financial => {
            r#",
      "action": "require_approval",
      "reason": "A person must approve a call that moves money."#
        }
        RiskClass::Other => {
            r#",
      "action": "deny",
      "reason": "This tool has not been reviewed yet: use another, or ask the operator."#
        }
        RiskClass::Destructive => {
            r#",
      "action": "deny",
      "reason": "This tool can destroy something and is not available to agents: ask the operator."#
        }
    });
    text.push_str(if tool.class > RiskClass::Execute { "\"\n    }" } else { "\n    }" });
}

/// Returns the reason for an entry.
fn why(tool: &ToolClass) -> String {
    let ToolClass { class, severity, confidence, .. } = tool;
    let mut text = format!("{class}; severity {severity}, confidence {confidence}");
    // One piece of each source is enough; then those that add to it or speak against it.
    let mut said = None;
    let for_class = tool.evidence.iter().filter(|piece| piece.class() == Some(*class));
    let for_class = for_class.filter(|piece| said.replace(piece.source()) != Some(piece.source()));
    let besides = tool.evidence.iter().filter(|piece| piece.class().is_none());
    for (index, piece) in for_class.chain(besides.take(BESIDES)).enumerate() {
        let (source, word, why) = (piece.source(), piece.word(), piece.why());
        let mark = if index == 0 { '.' } else { ';' };
        let _ = write!(text, "{mark} {source}: `{word}` {why}");
    }
    if tool.evidence.is_empty() {
        text.push_str(". It has no known words");
    }
    text.push('.');
    text
}

/// Writes a text so that a person sees all of it: characters other than printable ASCII, letters
/// and digits are escaped.
fn write_text(to: &mut String, text: &str) {
    to.push('"');
    for character in text.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            ' '..='~' => to.push(character),
            letter if letter.is_alphanumeric() => to.push(letter),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    let _ = write!(to, "\\u{unit:04x}");
                }
            }
        }
    }
    to.push('"');
}
