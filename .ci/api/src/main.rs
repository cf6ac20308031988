//! Lists the public API that a rustdoc JSON describes, one item a line, for people to read and for
//! `diff` to compare. Compares two such lists, and reports the promises that the second one breaks.
//!
//!     toolgate-api list target/doc/toolgate.json
//!     toolgate-api broken OLD.txt NEW.txt

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;

/// Traits that no host can name, and that vary with the compiler.
const UNSTABLE: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

/// Leaves out the methods of implemented traits: the implementation promises the trait, and the
/// trait declares the methods.
fn promises(lines: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut methods = None;
    lines.filter(move |line| {
        if line.starts_with("impl") {
            let (implemented, of) = line.split_once(" for ").unzip();
            methods = of.map(|of| format!("pub fn {}::", of.split(" where ").next().unwrap_or(of)));
            let name = implemented.and_then(|implemented| implemented.rsplit("::").next());
            return name.is_none_or(|name| !UNSTABLE.contains(&name));
        }
        methods.as_ref().is_none_or(|methods| !line.starts_with(methods))
    })
}

/// The path that a line is about, without attributes, keywords, generics and types.
fn path(line: &str) -> &str {
    let start = line.find("toolgate").unwrap_or(0);
    let rest = line.get(start..).unwrap_or(line);
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap_or(rest).trim_end_matches(':')
}

/// Lists the promises of a list that another one breaks, each with the reason. Too strict in two
/// cases that a list does not show: a declaration in another notation counts as another one, and a
/// new method of a trait as one without a body.
fn broken(old: &str, new: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (old.lines().collect(), new.lines().collect());
    let declared = |words: &'static [&'static str]| -> BTreeSet<&str> {
        old.iter().filter(|line| words.iter().any(|word| line.starts_with(word))).map(|line| path(line)).collect()
    };
    let traits = declared(&["pub trait ", "pub unsafe trait "]);
    // The line of an enum that may grow begins with #[non_exhaustive].
    let enums = declared(&["pub enum "]);
    let gone = old.difference(&new).map(|line| format!("gone or changed: {line}"));
    let added = new.difference(&old).filter_map(|line| {
        let (owner, _) = path(line).rsplit_once("::")?;
        let is_item =
            ["fn ", "async fn ", "type ", "const "].iter().any(|word| line.starts_with(&format!("pub {word}")));
        if is_item && traits.contains(owner) {
            Some(format!("new in a trait that hosts implement: {line}"))
        } else if enums.contains(owner)
            && !line.contains(" fn ")
            && !line.starts_with("impl")
            && !line.contains(" const ")
        {
            Some(format!("new in an enum that hosts match exhaustively: {line}"))
        } else {
            None
        }
    });
    gone.chain(added).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines: Vec<String> = match words.as_slice() {
        // Blanket implementations belong to other crates. `Send` and `Clone` of a type are promises
        // of this one.
        ["list", json] => {
            let api = public_api::Builder::from_rustdoc_json(json).omit_blanket_impls(true).build()?;
            promises(api.items().map(ToString::to_string)).collect()
        }
        ["broken", old, new] => broken(&std::fs::read_to_string(old)?, &std::fs::read_to_string(new)?),
        _ => return Err("either `list JSON`, or `broken OLD NEW`".into()),
    };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{broken, promises};

    const OLD: &str = "pub trait toolgate::store::CounterStore: core::marker::Send\n\
        pub fn toolgate::store::CounterStore::reserve(&self) -> bool\n\
        pub enum toolgate::Decision<P>\n\
        pub toolgate::Decision::Allow(P)\n\
        #[non_exhaustive] pub enum toolgate::Code\n\
        pub struct toolgate::Gate<S>(_)\n\
        impl<S> core::marker::Send for toolgate::Gate<S>\n\
        pub fn toolgate::Gate<S>::check(&self) -> bool";

    #[test]
    fn compatible_additions_break_nothing() {
        let new = format!(
            "{OLD}\n\
             pub toolgate::Code::New\n\
             pub fn toolgate::Gate<S>::explain(&self)\n\
             pub fn toolgate::Decision<P>::is_it(&self)\n\
             pub mod toolgate::new\n\
             pub trait toolgate::New\n\
             pub fn toolgate::New::act(&self)\n\
             pub enum toolgate::E\n\
             pub toolgate::E::A\n\
             impl core::fmt::Debug for toolgate::Decision<P>"
        );
        assert_eq!(broken(OLD, &new), Vec::<String>::new());
    }

    #[test]
    fn reports_removals_changes_and_new_duties_of_hosts() {
        let new = OLD
            .replace("check(&self)", "check(&self, u8)")
            .replace("impl<S> core::marker::Send for toolgate::Gate<S>\n", "")
            + "\npub fn toolgate::store::CounterStore::release(&self)\npub toolgate::Decision::Perhaps";
        assert_eq!(
            broken(OLD, &new),
            [
                "gone or changed: impl<S> core::marker::Send for toolgate::Gate<S>",
                "gone or changed: pub fn toolgate::Gate<S>::check(&self) -> bool",
                "new in a trait that hosts implement: pub fn toolgate::store::CounterStore::release(&self)",
                "new in an enum that hosts match exhaustively: pub toolgate::Decision::Perhaps",
            ]
        );
    }

    #[test]
    fn lists_an_implementation_without_its_methods() {
        let lines = [
            "pub struct toolgate::A",
            "impl toolgate::A",
            "pub fn toolgate::A::own(&self)",
            "impl core::clone::Clone for toolgate::A where u8: Copy",
            "pub fn toolgate::A::clone(&self) -> toolgate::A",
            "impl core::marker::Freeze for toolgate::A",
            "pub fn toolgate::free()",
        ];
        let left: Vec<String> = promises(lines.iter().map(ToString::to_string)).collect();
        assert_eq!(left, [lines[0], lines[1], lines[2], lines[3], lines[6]]);
    }
}
