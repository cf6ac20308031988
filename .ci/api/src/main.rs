//! Writes the public API that a rustdoc JSON describes, one item a line, for people to read and for `diff` to compare; and what of one
//! such list another one breaks.
//!
//!     toolgate-api list target/doc/toolgate.json
//!     toolgate-api broken OLD.txt NEW.txt

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;

/// Traits that no host can name, and that come and go with the compiler.
const UNSTABLE: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

/// What is left of the lines: an implementation promises a trait, and the trait says which methods that brings.
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

/// What a list promises that another does not keep, each with why. Stricter than need be in two things that a list cannot tell: a
/// declaration that is written otherwise is taken for another one, and a new method of a trait for one that has no body.
fn broken(old: &str, new: &str) -> Vec<String> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) = (old.lines().collect(), new.lines().collect());
    let declared = |words: &'static [&'static str]| -> BTreeSet<&str> {
        old.iter().filter(|line| words.iter().any(|word| line.starts_with(word))).map(|line| path(line)).collect()
    };
    let traits = declared(&["pub trait ", "pub unsafe trait "]);
    let enums = declared(&["pub enum "]); // one that may grow begins with #[non_exhaustive]
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
            Some(format!("new in an enum that hosts match whole: {line}"))
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
        // Blanket implementations are those of other crates; that a type is `Send` or `Clone` is the crate's own promise.
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
    fn what_is_added_where_it_may_be_breaks_nothing() {
        let new = format!(
            "{OLD}\npub toolgate::Code::New\npub fn toolgate::Gate<S>::explain(&self)\npub fn toolgate::Decision<P>::is_it(&self)\n\
             pub mod toolgate::new\npub trait toolgate::New\npub fn toolgate::New::act(&self)\npub enum toolgate::E\npub toolgate::E::A\n\
             impl core::fmt::Debug for toolgate::Decision<P>"
        );
        assert_eq!(broken(OLD, &new), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_changed_or_asked_of_hosts_breaks() {
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
                "new in an enum that hosts match whole: pub toolgate::Decision::Perhaps",
            ]
        );
    }

    #[test]
    fn an_implementation_stands_for_its_methods() {
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
