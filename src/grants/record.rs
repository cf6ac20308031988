//! Records of changes of grants.

use std::collections::HashMap;

use super::table::Table;
use super::{Access, Grant, GrantError, Inner, Record};
use crate::audit::{AuditRecord, Event};

/// A change of a grant: of this access, or of all.
type Change = (Event, Box<str>, Option<Access>);

impl<S, A: ?Sized> Inner<S, A> {
    /// Records a change of a grant: of this access, or of all.
    pub(super) fn note(
        &self,
        event: Event,
        id: &str,
        access: Option<&Access>,
        by: &str,
        failure: Option<&GrantError>,
    ) -> Result<(), GrantError> {
        let noted = self.default_gate.note_grant(|now| {
            let server = access.and_then(|access| access.server());
            let record =
                AuditRecord::of_grant(event, id, server, by, now).with_failure(failure.map(|error| error as _));
            match access {
                Some(access) if event == Event::Give => record.with_access(&access.policy, access.expires_at),
                Some(access) => record.with_access(&access.policy, None),
                None => record,
            }
        });
        noted.map_err(|_| GrantError::Unrecorded)
    }

    /// Returns what [`replace_all`](super::Grants::replace_all) changes, if anything is recorded.
    pub(super) fn changes(&self, records: &Table<Record<S, A>>, grants: &HashMap<&str, Vec<Access>>) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.default_gate.is_recorded() {
            return changes;
        }
        for (&id, all) in grants {
            let former = records.get(id).map(|record| Grant::of(record));
            if former.as_ref().is_some_and(Grant::is_revoked) {
                continue;
            }
            let former = former.as_ref().map_or(&[][..], Grant::access);
            let given = all.iter().filter(|access| !former.contains(access));
            changes.extend(given.map(|access| (Event::Give, id.into(), Some(access.clone()))));
            let lost = former.iter().filter(|lost| all.iter().all(|access| access.server != lost.server));
            changes.extend(lost.map(|access| (Event::Forget, id.into(), Some(access.clone()))));
        }
        records.for_each(|record| {
            if !record.revoked && !grants.contains_key(&*record.id) {
                changes.push((Event::Forget, record.id.clone(), None));
            }
        });
        changes
    }
}
