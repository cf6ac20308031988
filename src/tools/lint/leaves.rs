//! The comparisons of a rule, wherever they stand in it.

use serde_json::{Value, json};

use super::{elements, member};
use crate::call::path::Path;
use crate::json::Node;

/// A comparison of a rule.
pub(super) struct Leaf<'l> {
    pub(super) at: usize,
    pub(super) pointer: String,
    pub(super) path: Path,
    pub(super) op: &'l str,
    /// Nothing for a comparison with another part of the call.
    pub(super) value: Option<Value>,
    /// Whether the rule joins it to its others by AND: it stands in no group but `all`.
    pub(super) joined: bool,
    /// Whether it stands below a `not`.
    pub(super) below_not: bool,
    /// Whether it stands below an odd number of them.
    pub(super) turned: bool,
    pub(super) absent_matches: bool,
    pub(super) ignores_case: bool,
    pub(super) node: &'l Node<'l>,
}

impl Leaf<'_> {
    /// Whether it asks that something is not so, all `not`s counted.
    pub(super) fn is_negative(&self) -> bool {
        matches!(self.op, "neq" | "not_in" | "not_contains" | "not_regex") != self.turned
    }

    /// Whether it counts as true where its path is absent.
    pub(super) fn holds_absent(&self, section: &str) -> bool {
        match self.op {
            "exists" => (self.value == Some(json!(false))) != self.turned,
            _ => self.absent_matches || (section != "require" && self.is_negative()),
        }
    }

    /// Whether it reads an argument, and not all of them.
    pub(super) fn reads_argument(&self) -> bool {
        self.path.is_in_arguments() && !self.path.is_root()
    }
}

/// The comparisons of a rule's list of conditions, those of groups included. `pointer` is that of the list.
pub(super) fn leaves<'l>(conditions: &'l [Node<'l>], pointer: &str) -> Vec<Leaf<'l>> {
    let mut all = Vec::new();
    add_list(conditions, pointer, Standing { joined: true, below_not: false, turned: false }, &mut all);
    all
}

/// The groups around a comparison, as far as they matter to it.
#[derive(Clone, Copy)]
struct Standing {
    joined: bool,
    below_not: bool,
    turned: bool,
}

fn add_list<'l>(conditions: &'l [Node<'l>], pointer: &str, standing: Standing, to: &mut Vec<Leaf<'l>>) {
    for (index, node) in conditions.iter().enumerate() {
        add(node, format!("{pointer}/{index}"), standing, to);
    }
}

fn add<'l>(node: &'l Node<'l>, pointer: String, standing: Standing, to: &mut Vec<Leaf<'l>>) {
    let Standing { joined, below_not, turned } = standing;
    if let Some(all) = member(node, "all") {
        add_list(elements(all), &format!("{pointer}/all"), standing, to);
    }
    if let Some(any) = member(node, "any") {
        add_list(elements(any), &format!("{pointer}/any"), Standing { joined: false, ..standing }, to);
    }
    if let Some(inner) = member(node, "not") {
        let standing = Standing { joined: false, below_not: true, turned: !turned };
        add(inner, format!("{pointer}/not"), standing, to);
    }
    let path = member(node, "path").and_then(Node::as_str).and_then(|text| Path::parse(text).ok());
    let (Some(path), Some(op)) = (path, member(node, "op").and_then(Node::as_str)) else { return };
    to.push(Leaf {
        at: node.at,
        pointer,
        path,
        op,
        value: member(node, "value").and_then(Node::to_value),
        joined,
        below_not,
        turned,
        absent_matches: member(node, "absent").is_some(),
        ignores_case: member(node, "ignore_case").and_then(Node::to_value) == Some(json!(true)),
        node,
    });
}
