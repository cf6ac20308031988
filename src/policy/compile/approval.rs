//! Compiles `approval`.

use super::super::approval::{Approving, Binding, MAX_USES};
use super::super::document::APPROVAL_TERMS;
use super::super::error::IssueCode;
use crate::json::Node;
use crate::policy::read::{Reader, quote};

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Box<Approving>> {
    let fields = reader.object(node, &APPROVAL_TERMS)?;
    let ttl = reader.field(fields, "ttl", |reader, node| reader.duration(node, "`ttl`"));
    let approvers = reader.field(fields, "approvers", |reader, node| {
        let approvers = reader.list(node, "`approvers`")?;
        if approvers.is_empty() {
            let help = "list the people who may approve, or remove `approvers`: then the host decides";
            reader.empty_list(node.at, "an empty `approvers` names no one who may approve", help);
        }
        let one = |reader: &mut Reader<'_>, node: &Node<'_>| {
            let approver = reader.string(node, "an approver")?;
            reader.no_control(node.at, approver).then(|| Box::from(approver))
        };
        Some(reader.each(approvers, |reader, node| one(reader, node)).into())
    });
    let min_approvers = reader.field(fields, "min_approvers", |reader, node| {
        let count = reader.count(node, "`min_approvers`", 1)?;
        if count == 0 {
            let help = "write at least 1; to need no approval, remove the rule that asks for one".to_owned();
            reader.issue(IssueCode::InvalidValue, node.at, "`min_approvers` cannot be 0", help);
        }
        // A number beyond `u32` is more people than exist: no one can give such an approval.
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    });
    let bind = reader.field(fields, "bind", |reader, node| {
        let paths = reader.list(node, "`bind`")?;
        Some(reader.each(paths, binding).into())
    });
    let uses = reader.field(fields, "uses", |reader, node| {
        let count = reader.count(node, "`uses`", 1)?;
        let uses = u32::try_from(count).ok().filter(|uses| (1..=MAX_USES).contains(uses));
        if uses.is_none() {
            let message = format!("`uses` cannot be {count}");
            let help = format!("write 1 to {MAX_USES}, the number of calls that one approval serves");
            reader.issue(IssueCode::InvalidValue, node.at, message, help);
        }
        uses
    });
    Some(Box::new(Approving { ttl, approvers, min_approvers, bind, uses }))
}

fn binding(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Binding> {
    let text = reader.string(node, "a path")?;
    let (at_most, path) = text.strip_suffix("<=").map_or((false, text), |path| (true, path));
    let path = reader.path_text(node.at, path)?;
    if !path.is_in_arguments() || path.has_each() {
        let help = "write a path such as `args.customer` or `args.amount<=`".to_owned();
        let message = format!("{} does not lead to one argument", quote(text));
        reader.issue(IssueCode::InvalidPath, node.at, message, help);
    }
    Some(Binding { path, at_most })
}
