//! Records of changes of grants.

use std::collections::HashMap;

use super::{Access, Grant, GrantError, Inner};
use crate::audit::{AuditRecord, Event};

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

    /// Records what [`replace_all`](super::Grants::replace_all) changes.
    pub(super) fn note_changes(&self, grants: &HashMap<&str, Vec<Access>>, by: &str) -> Result<(), GrantError> {
        if !self.default_gate.is_recorded() {
            return Ok(());
        }
        let records = self.records.load();
        let former = |id: &str| records.get(id).map(|record| Grant::of(record));
        for (&id, all) in grants {
            let former = former(id);
            if former.as_ref().is_some_and(Grant::is_revoked) {
                continue;
            }
            let former = former.as_ref().map_or(&[][..], Grant::access);
            for access in all.iter().filter(|access| !former.contains(access)) {
                self.note(Event::Give, id, Some(access), by, None)?;
            }
            for lost in former.iter().filter(|lost| all.iter().all(|access| access.server != lost.server)) {
                self.note(Event::Forget, id, Some(lost), by, None)?;
            }
        }
        let mut forgotten = Vec::new();
        records.for_each(|record| {
            if !record.revoked && !grants.contains_key(&*record.id) {
                forgotten.push(record.id.clone());
            }
        });
        forgotten.iter().try_for_each(|id| self.note(Event::Forget, id, None, by, None))
    }
}
