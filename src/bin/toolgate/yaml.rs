//! Reads a YAML document into a value, within bounds, and refuses what another reader could read
//! differently.
//!
//! The parser is a crate. The values of plain scalars are those that Intercept's reader gives them.
//! A whole reader, with a data model of its own, would add nine crates to the build.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// The longest document that is read.
const DOCUMENT_BYTES: usize = 8 << 20;
/// The deepest nesting.
const DEPTH: usize = 64;

/// Returns the value of the one document that the bytes hold.
///
/// # Errors
/// A text that says what is wrong and where: invalid YAML, a duplicate key, an anchor (the size of
/// what it expands to has no bound), a tag, a merge key, an invalid number, a second document.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    if bytes.len() > DOCUMENT_BYTES {
        return Err(format!("a document of {} bytes exceeds the bound of {DOCUMENT_BYTES}", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| at(error.marker(), &error.info()))?;
        builder.take(event).map_err(|problem| at(&span.start, &problem))?;
    }
    Ok(builder.document.unwrap_or_default())
}

fn at(place: &granit_parser::Marker, problem: &str) -> String {
    format!("line {}, column {}: {problem}", place.line(), place.col() + 1)
}

/// The value that is being read.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    document: Option<Value>,
    documents: usize,
}

/// A list or a mapping that has not ended.
enum Open {
    List(Vec<Value>),
    /// The members, and the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 { Err("a second document".to_owned()) } else { Ok(()) }
            }
            Event::Scalar(text, style, anchor, tag) => {
                plain_node(anchor, tag.is_some())?;
                self.scalar(&text, style == ScalarStyle::Plain)
            }
            Event::SequenceStart(_, anchor, tag) => {
                plain_node(anchor, tag.is_some())?;
                self.begin(Open::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                plain_node(anchor, tag.is_some())?;
                self.begin(Open::Mapping(Map::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(elements)) => self.value(Value::Array(elements)),
                Some(Open::Mapping(members, _)) => self.value(Value::Object(members)),
                None => Ok(()),
            },
            Event::Alias(_) => Err("aliases are not read: write the value out".to_owned()),
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) => Ok(()),
            other => Err(format!("{other:?} is not read")),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        if let Some(Open::Mapping(_, None)) = self.open.last() {
            return Err("a key must be a text".to_owned());
        }
        if self.open.len() >= DEPTH {
            return Err(format!("nested deeper than {DEPTH} levels"));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(&mut self, text: &str, is_plain: bool) -> Result<(), String> {
        let Some(Open::Mapping(members, key @ None)) = self.open.last_mut() else {
            return self.value(if is_plain { plain(text)? } else { Value::from(text) });
        };
        if is_plain && text == "<<" {
            return Err("merge keys are not read: write the members out".to_owned());
        }
        if is_plain && plain(text)? == Value::Null {
            return Err("a key must be a text".to_owned());
        }
        if members.contains_key(text) {
            return Err(format!("duplicate mapping key: `{text}`"));
        }
        *key = Some(text.to_owned());
        Ok(())
    }

    fn value(&mut self, value: Value) -> Result<(), String> {
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::List(elements)) => elements.push(value),
            Some(Open::Mapping(members, key)) => match key.take() {
                Some(key) => drop(members.insert(key, value)),
                None => return Err("a key must be a text".to_owned()),
            },
        }
        Ok(())
    }
}

fn plain_node(anchor: usize, has_tag: bool) -> Result<(), String> {
    match (anchor, has_tag) {
        (0, false) => Ok(()),
        (0, true) => Err("tags are not read: remove it".to_owned()),
        _ => Err("anchors are not read: write the value out".to_owned()),
    }
}

/// Returns the value of an unquoted scalar: `yes` is a text, `0777` is 511, and `1_000` is 1000.
fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::from(true)),
        "false" | "False" | "FALSE" => return Ok(Value::from(false)),
        _ => {}
    }
    let (is_negative, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let special = unsigned.to_ascii_lowercase();
    if special == ".inf" || special == ".nan" {
        return Err(format!("`{text}` is a non-finite number"));
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(Value::from(text));
    }
    let digits = unsigned.replace('_', "");
    let (radix, in_radix) = match digits.get(..2) {
        Some("0x" | "0X") => (16, digits.get(2..)),
        Some("0o" | "0O") => (8, digits.get(2..)),
        Some("0b" | "0B") => (2, digits.get(2..)),
        Some(_) if digits.starts_with('0') && is_digits(&digits) => (8, digits.get(1..)),
        _ => (10, Some(&*digits)),
    };
    let in_radix = in_radix.unwrap_or_default();
    let is_integer = !in_radix.is_empty() && in_radix.chars().all(|c| c.is_digit(radix));
    if (is_integer || is_float(&digits)) && !parts_digits(unsigned) {
        return Err(format!("`{text}` is a number to some readers and a text to others: quote it if it is a text"));
    }
    if is_integer {
        let too_large = |_| format!("`{text}` is too large a number: quote it if it is a text");
        let number = i128::from_str_radix(in_radix, radix).map_err(too_large)?;
        let number = if is_negative { -number } else { number };
        return match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) => Ok(Value::from(number)),
            (_, Ok(number)) => Ok(Value::from(number)),
            _ => Err(format!("`{text}` is too large a number: quote it if it is a text")),
        };
    }
    if !is_float(&digits) {
        return Ok(Value::from(text));
    }
    if digits.starts_with('0') && is_digits(&digits) {
        return Err(format!("`{text}` has a leading zero and is not octal: quote it if it is a text"));
    }
    let number: f64 = digits.parse().map_err(|_| format!("`{text}` is not a valid number"))?;
    let number = if is_negative { -number } else { number };
    Number::from_f64(number).map(Value::Number).ok_or_else(|| format!("`{text}` is a non-finite number"))
}

/// Returns whether each `_` is between two digits of a number that has no leading zero.
fn parts_digits(unsigned: &str) -> bool {
    let parts: Vec<&str> = unsigned.split('_').collect();
    let meets = |pair: &[&str]| match pair {
        [before, after] => {
            before.ends_with(|c: char| c.is_ascii_hexdigit()) && after.starts_with(|c: char| c.is_ascii_hexdigit())
        }
        _ => true,
    };
    parts.windows(2).all(meets) && !unsigned.starts_with("0_")
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns `true` for `1.`, `.5`, `1.5` and `1e5`.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = is_digits(&format!("{whole}{fraction}")) && (!whole.is_empty() || !fraction.is_empty());
    is_mantissa && exponent.is_none_or(is_digits)
}
