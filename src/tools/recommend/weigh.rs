//! Weighs one tool: collects the evidence of its parts, and derives its class from it.

use serde_json::{Map, Value};

use super::evidence::{self, Evidence, Source};
use super::split::{name_words, phrases, sentences};
use super::words::{self, Place, among};
use super::{Confidence, RiskClass, Severity, ToolClass, schema};

/// Returns the class of a tool, and `true` if its definition is well-formed.
pub(super) fn weigh(name: &str, tool: &Map<String, Value>) -> (ToolClass, bool) {
    let text = |key| tool.get(key).and_then(Value::as_str).unwrap_or_default();
    let (description, title) = (text("description"), text("title"));
    let arguments = schema::arguments(tool.get("inputSchema"));
    let hints = Hints::of(tool.get("annotations"));
    let is_text = |key| tool.get(key).is_none_or(|value| value.is_string() || value.is_null());
    let well_formed = arguments.well_formed && hints.well_formed && is_text("description") && is_text("title");

    let mut found = Vec::new();
    let has_money = from_name(&mut found, name);
    from_text(&mut found, description);
    from_text(&mut found, title);
    arguments.evidence.into_iter().for_each(|piece| evidence::add(&mut found, piece));

    // Annotations come after the words: without a known word, an annotation cannot make a tool
    // known.
    let mut class = strictest(&found).unwrap_or(RiskClass::Other);
    class = class.max(hints.add_to(&mut found, class));
    // If the name has no verb, a sentence that begins with a reading verb is not enough to class a
    // tool about money as reading.
    let no_verb = !found.iter().any(|piece| piece.source() == Source::Name);
    let changes = matches!(class, RiskClass::Write | RiskClass::Execute);
    if changes || class == RiskClass::Read && no_verb {
        let name = has_money.map(|word| (Source::Name, word, words::MONEY_WHY));
        let argument =
            arguments.money.filter(|_| changes).map(|word| (Source::Arguments, word, words::MONEY_ARGUMENT_WHY));
        for (source, word, why) in name.into_iter().chain(argument) {
            class = RiskClass::Financial;
            evidence::add(&mut found, Evidence::new(source, word, Some(class), why));
        }
    }
    if !well_formed {
        class = class.max(RiskClass::Other);
        let why = "is malformed";
        found.push(Evidence::new(Source::Arguments, "definition", Some(RiskClass::Other), why));
    }
    if !name.is_ascii() {
        class = class.max(RiskClass::Other);
        let why = "has letters that the word lists do not cover, or that only look like ASCII";
        found.push(Evidence::new(Source::Name, "(beyond ASCII)", Some(RiskClass::Other), why));
    }
    let raises = from_weights(&mut found, name, class, &hints);
    evidence::sort(&mut found);
    let no_text = description.trim().is_empty();
    let confidence = confidence(&found, class, &hints, no_text);
    let severity = severity(class, raises);
    (ToolClass { name: name.into(), class, severity, confidence, evidence: found }, well_formed)
}

fn strictest(found: &[Evidence]) -> Option<RiskClass> {
    found.iter().filter_map(Evidence::class).max()
}

/// Adds the verbs of a name. Returns its first word about money.
fn from_name(found: &mut Vec<Evidence>, name: &str) -> Option<&'static str> {
    // The part before the last `__` is usually the name of the server, whose nouns are not verbs.
    let (server, tool) = name.rsplit_once("__").unwrap_or(("", name));
    let (server, tool) = (name_words(server), name_words(tool));
    let (mut leads, mut joined) = (true, false);
    for word in &tool {
        if matches!(&**word, "and" | "or" | "then") {
            joined = true;
            continue;
        }
        if let Some((word, row)) = words::verb(word) {
            if leads || joined || row.place == Place::Anywhere {
                evidence::add(found, Evidence::new(Source::Name, word, Some(row.class), row.why));
            }
            leads = false;
        }
        joined = false;
    }
    for word in &server {
        // A server called `search` does not make its tools reading ones.
        if let Some((word, row)) = words::verb(word)
            && row.class > RiskClass::Read
            && (leads || row.place == Place::Anywhere)
        {
            evidence::add(found, Evidence::new(Source::Name, word, Some(row.class), row.why));
        }
    }
    tool.iter().find_map(|word| among(words::MONEY, word))
}

/// Adds the verbs at the beginning of sentences, those joined to them, destructive ones, and the
/// phrases that count anywhere.
fn from_text(found: &mut Vec<Evidence>, text: &str) {
    for sentence in sentences(text) {
        let (mut begins, mut before) = (false, "");
        for (index, word) in sentence.iter().enumerate() {
            let negated = matches!(before, "never" | "not");
            before = &word.text;
            let Some((verb, row)) = words::inflected(&word.text) else { continue };
            begins |= index == 0;
            // The subject of `which deletes the source` is the tool, or something that it does.
            let destroys = row.class == RiskClass::Destructive && word.text.ends_with('s');
            let goes_on = row.place == Place::Anywhere && !negated && (destroys || begins && word.joined);
            if index == 0 || goes_on {
                evidence::add(found, Evidence::new(Source::Description, verb, Some(row.class), row.why));
            }
        }
    }
    for (phrase, class, why) in phrases(text) {
        evidence::add(found, Evidence::new(Source::Description, phrase, Some(class), why));
    }
}

/// Adds the evidence about severity. Returns `true` if it raises the severity above that of the
/// class.
fn from_weights(found: &mut Vec<Evidence>, name: &str, class: RiskClass, hints: &Hints) -> bool {
    if hints.repeats && class > RiskClass::Read {
        let why = "has a further effect each time it is repeated";
        found.push(Evidence::new(Source::Annotations, "idempotentHint", None, why));
    }
    let before = found.len();
    let (list, why) = match class {
        RiskClass::Read => (words::SECRETS, words::SECRETS_WHY),
        _ => (words::BULK, words::BULK_WHY),
    };
    if let Some(word) = name_words(name).iter().find_map(|word| among(list, word)) {
        found.push(Evidence::new(Source::Name, word, None, why));
    }
    if hints.open_world {
        let why = "reaches beyond the server's own domain";
        found.push(Evidence::new(Source::Annotations, "openWorldHint", None, why));
    }
    found.len() > before
}

fn severity(class: RiskClass, raises: bool) -> Severity {
    let severity = match class {
        RiskClass::Read => Severity::Low,
        RiskClass::Write => Severity::Medium,
        RiskClass::Execute | RiskClass::Financial | RiskClass::Other | RiskClass::Destructive => Severity::High,
    };
    match severity {
        severity if !raises => severity,
        Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}

/// Derives the confidence from the number of sources that agree, and from any that disagrees.
fn confidence(found: &[Evidence], class: RiskClass, hints: &Hints, no_text: bool) -> Confidence {
    if class == RiskClass::Other {
        return Confidence::Low;
    }
    let of = |source| strictest(&found.iter().copied().filter(|piece| piece.source() == source).collect::<Vec<_>>());
    let words = [Source::Name, Source::Description, Source::Arguments].map(of);
    let says_so = match class {
        RiskClass::Read => hints.read_only == Some(true),
        RiskClass::Destructive => hints.destructive == Some(true),
        _ => hints.read_only == Some(false),
    };
    let says_not = match class {
        RiskClass::Read => false,
        RiskClass::Destructive => hints.read_only == Some(true) || hints.destructive == Some(false),
        _ => hints.read_only == Some(true),
    };
    let agree = words.iter().filter(|said| **said == Some(class)).count() + usize::from(says_so);
    let differs = says_not || class != RiskClass::Read && words.contains(&Some(RiskClass::Read));
    match (agree, differs, no_text) {
        (2.., false, false) => Confidence::High,
        (2.., false, true) | (2.., true, false) | (1, false, false) => Confidence::Medium,
        _ => Confidence::Low,
    }
}

/// The annotations that count. A hint that is not a boolean is read as the worse of both values.
struct Hints {
    read_only: Option<bool>,
    destructive: Option<bool>,
    /// `idempotentHint` is present and not `true`.
    repeats: bool,
    open_world: bool,
    well_formed: bool,
}

impl Hints {
    fn of(annotations: Option<&Value>) -> Self {
        let hint = |key: &str| annotations.and_then(|hints| hints.get(key)).filter(|hint| !hint.is_null());
        let hint = |key, worse: bool| hint(key).map(|hint| hint.as_bool().unwrap_or(worse));
        Self {
            read_only: hint("readOnlyHint", false),
            destructive: hint("destructiveHint", true),
            repeats: hint("idempotentHint", false) == Some(false),
            open_world: hint("openWorldHint", true) == Some(true),
            well_formed: annotations.is_none_or(|hints| hints.is_object() || hints.is_null()),
        }
    }

    /// Returns the least class that they imply. They can raise a class but never lower it.
    fn add_to(&self, found: &mut Vec<Evidence>, class: RiskClass) -> RiskClass {
        let mut add = |word, class, why| found.push(Evidence::new(Source::Annotations, word, class, why));
        let mut least = RiskClass::Read;
        match self.read_only {
            Some(false) => {
                least = RiskClass::Write;
                add("readOnlyHint", Some(least), "says that it changes something");
            }
            Some(true) if class == RiskClass::Read => {
                add("readOnlyHint", Some(RiskClass::Read), "says that it changes nothing");
            }
            Some(true) => add("readOnlyHint", None, "says that it changes nothing, which is not trusted"),
            None => {}
        }
        match self.destructive {
            Some(true) => {
                least = RiskClass::Destructive;
                add("destructiveHint", Some(least), "says that it may destroy something");
            }
            Some(false) if class == RiskClass::Destructive => {
                add("destructiveHint", None, "says that it destroys nothing, which is not trusted");
            }
            Some(false) | None => {}
        }
        least
    }
}
