//! What is done with a VM again and again: snapshots and backups, and how many
//! of them are kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::DatastoreName;
use crate::snapshot::MAX_SNAPSHOTS;
use crate::vm::field;
use crate::{Error, FieldError, Timestamp, VmId};

/// The shortest and the longest time between two.
pub const MIN_EVERY_S: u64 = 15 * 60;
pub const MAX_EVERY_S: u64 = 90 * 24 * 3600;
/// Most backups that a schedule keeps.
pub const MAX_KEPT_BACKUPS: u32 = 365;

/// What a schedule makes; a VM has one of each kind at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    Snapshot,
    Backup,
}

impl ScheduleKind {
    pub const ALL: [Self; 2] = [Self::Snapshot, Self::Backup];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
        }
    }

    /// Most that such a schedule keeps. People want some, too.
    #[must_use]
    pub fn most(self) -> u32 {
        match self {
            Self::Snapshot => u32::try_from(MAX_SNAPSHOTS / 2).unwrap_or(u32::MAX),
            Self::Backup => MAX_KEPT_BACKUPS,
        }
    }
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no kind of schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such schedule: snapshot or backup")]
pub struct InvalidScheduleKind;

impl FromStr for ScheduleKind {
    type Err = InvalidScheduleKind;

    fn from_str(text: &str) -> Result<Self, InvalidScheduleKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or(InvalidScheduleKind)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleView {
    pub vm_id: VmId,
    pub kind: ScheduleKind,
    pub every_s: u64,
    /// So many of those it made stay; older ones go.
    pub keep: u32,
    /// Of backups: every so many is a full one.
    pub full_every: u32,
    /// Of backups: where they go; the first one for backups where absent.
    pub datastore: Option<DatastoreName>,
    pub next_at: Timestamp,
    /// When it last made one, or tried to.
    pub last_at: Option<Timestamp>,
    /// Why the last one did not come to be.
    pub trouble: Option<String>,
}

/// The form that sets a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetSchedule {
    /// Seconds from one to the next.
    pub every_s: u64,
    pub keep: u32,
    /// Of backups: every so many is a full one; 7 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_every: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub every_s: u64,
    pub keep: u32,
    pub full_every: u32,
    pub datastore: Option<DatastoreName>,
}

const FULL_EVERY: u32 = 7;

impl SetSchedule {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming each field at fault.
    pub fn check(&self, kind: ScheduleKind) -> Result<Schedule, Error> {
        let mut wrong = Vec::new();
        if !(MIN_EVERY_S..=MAX_EVERY_S).contains(&self.every_s) {
            wrong.push(FieldError::new("every_s", "from 15 minutes to 90 days"));
        }
        if !(1..=kind.most()).contains(&self.keep) {
            let message = format!("from 1 to {}", kind.most());
            wrong.push(FieldError::new("keep", message));
        }
        let full_every = self.full_every.unwrap_or(FULL_EVERY);
        if !(1..=MAX_KEPT_BACKUPS).contains(&full_every) {
            let message = format!("from 1 to {MAX_KEPT_BACKUPS}");
            wrong.push(FieldError::new("full_every", message));
        }
        let datastore = self.datastore.as_deref().map(DatastoreName::new);
        match field("datastore", datastore.transpose()) {
            Ok(datastore) if wrong.is_empty() => Ok(Schedule {
                every_s: self.every_s,
                keep: self.keep,
                full_every,
                datastore,
            }),
            datastore => {
                wrong.extend(datastore.err());
                Err(Error::invalid(wrong))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_neither_a_storm_nor_for_ever() {
        let form = |every_s, keep| SetSchedule {
            every_s,
            keep,
            full_every: None,
            datastore: None,
        };
        assert!(form(3600, 7).check(ScheduleKind::Backup).is_ok());
        for (form, field) in [
            (form(1, 7), "every_s"),
            (form(u64::MAX, 7), "every_s"),
            (form(3600, 0), "keep"),
            (form(3600, 33), "keep"),
        ] {
            let wrong = form.check(ScheduleKind::Snapshot).unwrap_err();
            assert_eq!(wrong.fields[0].field, field);
        }
    }
}
