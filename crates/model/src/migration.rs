//! Machines that go to another host.

mod phase;

use std::fmt;
use std::iter::Sum;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::FieldError;
use crate::name::{DatastoreName, HostName};
use crate::unit::MiB;
use crate::vm::{HostRef, field};
pub use phase::{Course, Phase};

/// How a machine, or what is on its volumes, goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MigrationMode {
    /// It runs meanwhile, but for a moment at the end.
    Live,
    /// It does not run, before or after.
    Cold,
    /// It stays on its host, running or not; its disks go to another datastore.
    Storage,
}

impl MigrationMode {
    pub const ALL: [Self; 3] = [Self::Live, Self::Cold, Self::Storage];

    /// The name on the wire and in the CLI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Cold => "cold",
            Self::Storage => "storage",
        }
    }
}

impl fmt::Display for MigrationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MigrationMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        let mut all = Self::ALL.into_iter();
        all.find(|mode| mode.name() == text).ok_or(InvalidMode)
    }
}

/// A text that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected live, cold or storage")]
pub struct InvalidMode;

/// Where a host waits for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// As the other host reaches it.
    pub address: IpAddr,
    pub memory_port: u16,
    /// Where what is on its disks is written.
    pub disk_port: u16,
    /// How many connections the memory is to come by; one where nothing is said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub channels: u8,
    /// The machine may run there before all of its memory has come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub post_copy: bool,
    /// Nothing that goes there is encrypted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub plain: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
const fn is_false(said: &bool) -> bool {
    !*said
}

/// What a migration does right now, for whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CopyPhase {
    /// The disks are copied, and kept in step from then on.
    Disks,
    /// The memory is copied while the guest changes it.
    Memory,
    /// The guest stands still, and the rest is copied.
    Switchover,
}

/// How far a copy is. Bytes are those of the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyProgress {
    pub phase: CopyPhase,
    /// Bytes that are still to be copied, as far as known by now.
    pub remaining_bytes: u64,
    /// How fast the guest changes what was copied, in bytes a second.
    pub dirty_bytes_per_s: u64,
    /// How fast it is copied, in bytes a second.
    pub bytes_per_s: u64,
    /// How often the whole memory was gone through.
    pub rounds: u64,
}

/// What sending a machine, or moving a disk, took, as its hypervisor counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sent {
    /// Disks and memory.
    pub transferred_bytes: u64,
    /// From the beginning to the moment in which everything had arrived.
    pub total_ms: u64,
    /// What the hypervisor says of the time in which the guest stood still.
    pub downtime_ms: u64,
    /// From the moment in which the guest stood still to the end of sending, or to
    /// the one in which it went on here, measured from outside.
    pub paused_ms: u64,
}

/// All together, one after the other.
impl Sum for Sent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            transferred_bytes: sum.transferred_bytes.saturating_add(one.transferred_bytes),
            total_ms: sum.total_ms.saturating_add(one.total_ms),
            downtime_ms: sum.downtime_ms.saturating_add(one.downtime_ms),
            paused_ms: sum.paused_ms.saturating_add(one.paused_ms),
        })
    }
}

/// What a migration took. What tells how long the guest stood still is absent
/// where it did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationResult {
    /// From the request to the moment in which everything is where it is to be.
    pub total_ms: u64,
    pub transferred_bytes: u64,
    /// What the hypervisor says of the time in which the guest stood still.
    pub downtime_ms: Option<u64>,
    /// From the moment in which the guest stood still to the one in which it went
    /// on, on another host or here, as the server and the hosts measured it.
    pub blackout_ms: Option<u64>,
}

/// Where a VM, or what is on its volumes, goes, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationView {
    pub mode: MigrationMode,
    /// None where it comes from the datastore that stopped VMs are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<HostRef>,
    /// Its own host where it stays there.
    pub to: HostRef,
    /// Where its disks go, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreName>,
    /// What is being copied, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyProgress>,
    /// Known once all of it has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<MigrationResult>,
}

/// A host that a VM may go to, or why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationTarget {
    pub host: HostRef,
    /// How well it suits, from 0 to 1: the share that it has left then.
    pub score: f64,
    /// What keeps the VM from going there; nothing where it can.
    pub refusal: Option<String>,
    /// Size of those of its disks that are copied there; the others stay where both
    /// hosts reach them.
    #[serde(default)]
    pub copied_mib: MiB,
    /// The datastores there that all of its disks could go into instead, where one is
    /// named: also of a host that it cannot go to otherwise.
    #[serde(default)]
    pub into: Vec<DatastoreName>,
}

impl MigrationTarget {
    /// Whether it can go there, into whichever datastore.
    #[must_use]
    pub const fn takes_it(&self) -> bool {
        self.refusal.is_none() || !self.into.is_empty()
    }
}

/// A datastore of its host that the disks of a VM may go to, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StorageTarget {
    pub datastore: DatastoreName,
    /// What keeps them from going there; nothing where they can.
    pub refusal: Option<String>,
    /// Size of those that are not there yet.
    pub copied_mib: MiB,
}

/// What a migration of a VM that runs may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long its guest may stand still at the end; it goes on being copied until
    /// less than that is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime_ms: Option<u64>,
    /// How fast it may be copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mib_per_s: Option<u64>,
    /// Whether it runs on the other host before all of its memory is there. There is
    /// no way back from that: where either host fails meanwhile, what was in its
    /// memory is lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub post_copy: bool,
}

impl Limits {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    fn check(self) -> Result<Self, Error> {
        within("max_downtime_ms", self.max_downtime_ms, MAX_DOWNTIME_MS)?;
        within("max_mib_per_s", self.max_mib_per_s, MAX_MIB_PER_S)?;
        Ok(self)
    }
}

/// No guest need stand still for longer, in milliseconds.
const MAX_DOWNTIME_MS: u64 = 60_000;
/// No network is faster, in MiB a second.
const MAX_MIB_PER_S: u64 = 1_000_000;

fn within(name: &'static str, amount: Option<u64>, most: u64) -> Result<(), FieldError> {
    match amount {
        Some(amount) if amount == 0 || amount > most => {
            Err(FieldError::new(name, format!("must be from 1 to {most}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Where a VM is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Another host; without a mode, in the one that suits its state.
    Host {
        name: HostName,
        /// The one of that host that all disks go to; each to the one of its name
        /// where none is said.
        datastore: Option<DatastoreName>,
        mode: Option<MigrationMode>,
        limits: Limits,
    },
    /// Another datastore of its own host, for all of its disks.
    Datastore(DatastoreName),
}

/// The form that moves a VM to another host, or its disks to another datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MigrateVm {
    /// Name of the host that it is to go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Name of the datastore that its disks are to go to: of the host that is named, or
    /// else of its own. To another host, each goes to the one of its name where nothing
    /// is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Without one: live where it runs, and cold where it does not; storage where
    /// a datastore is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MigrationMode>,
    /// How long the guest of one that runs may stand still at the end, in
    /// milliseconds, from 1 to 60000; 300 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime_ms: Option<u64>,
    /// How fast one that runs may be copied, in MiB a second; as fast as can be
    /// where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mib_per_s: Option<u64>,
    /// Has one that runs go on at the other host before all of its memory is there:
    /// the guest stands still for a moment only, whatever it does to its memory. It
    /// cannot be taken back from then on, and where either host fails before the
    /// rest has come, what was in its memory is lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub post_copy: bool,
}

impl MigrateVm {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<Destination, Error> {
        let wrong = |name, message: &str| Err(FieldError::new(name, message).into());
        let limits = Limits {
            max_downtime_ms: self.max_downtime_ms,
            max_mib_per_s: self.max_mib_per_s,
            post_copy: self.post_copy,
        };
        let limits = limits.check()?;
        if self.post_copy && (self.host.is_none() || self.mode == Some(MigrationMode::Cold)) {
            let message = "only a VM that runs, and goes to another host, migrates by post-copy";
            return wrong("post_copy", message);
        }
        match (&self.host, &self.datastore, self.mode) {
            (None, None, Some(MigrationMode::Storage)) => wrong(
                "datastore",
                "name the datastore that its disks are to go to",
            ),
            (None, None, _) => wrong("host", "name the host that it is to go to"),
            (Some(_), _, Some(MigrationMode::Storage)) => {
                let message = "a storage migration stays on its host: name a datastore alone";
                wrong("host", message)
            }
            (Some(host), datastore, mode) => {
                let name = field("host", HostName::new(host.as_str()))?;
                let datastore = datastore.as_deref().map(DatastoreName::new);
                let datastore = field("datastore", datastore.transpose())?;
                Ok(Destination::Host {
                    name,
                    datastore,
                    mode,
                    limits,
                })
            }
            (None, Some(_), Some(MigrationMode::Storage) | None) if limits != Limits::default() => {
                let message = "only a VM that goes to another host has such a limit";
                let Limits {
                    max_downtime_ms,
                    max_mib_per_s,
                    post_copy: _,
                } = limits;
                let field = match (max_downtime_ms, max_mib_per_s) {
                    (Some(_), _) => "max_downtime_ms",
                    (None, Some(_)) => "max_mib_per_s",
                    (None, None) => "post_copy",
                };
                wrong(field, message)
            }
            (None, Some(_), Some(mode @ (MigrationMode::Live | MigrationMode::Cold))) => {
                let message =
                    format!("a VM that migrates {mode} goes to a host, not to a datastore");
                wrong("datastore", &message)
            }
            (None, Some(datastore), Some(MigrationMode::Storage) | None) => {
                let name = field("datastore", DatastoreName::new(datastore.as_str()))?;
                Ok(Destination::Datastore(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(host: Option<&str>, datastore: Option<&str>, mode: Option<MigrationMode>) -> MigrateVm {
        MigrateVm {
            host: host.map(str::to_owned),
            datastore: datastore.map(str::to_owned),
            mode,
            ..MigrateVm::default()
        }
    }

    #[test]
    fn a_form_names_a_host_or_a_datastore_and_a_mode_that_fits() {
        use MigrationMode::{Cold, Live, Storage};
        let b = HostName::new("b").unwrap();
        for (mode, datastore) in [
            (None, None),
            (Some(Live), Some("fast")),
            (Some(Cold), Some("local")),
        ] {
            let wanted = Destination::Host {
                name: b.clone(),
                datastore: datastore.map(|name| DatastoreName::new(name).unwrap()),
                mode,
                limits: Limits::default(),
            };
            assert_eq!(form(Some("b"), datastore, mode).check().unwrap(), wanted);
        }
        for mode in [None, Some(Storage)] {
            let wanted = Destination::Datastore(DatastoreName::new("fast").unwrap());
            assert_eq!(form(None, Some("fast"), mode).check().unwrap(), wanted);
        }
        let wrong = [
            (form(None, None, None), "host"),
            (form(None, None, Some(Storage)), "datastore"),
            (form(Some("b"), None, Some(Storage)), "host"),
            (form(Some("b"), Some("fast"), Some(Storage)), "host"),
            (form(Some("b"), Some("../main"), None), "datastore"),
            (form(None, Some("fast"), Some(Live)), "datastore"),
            (form(None, Some("fast"), Some(Cold)), "datastore"),
            (form(Some("no such/name"), None, None), "host"),
            (form(None, Some("../main"), None), "datastore"),
        ];
        for (form, field) in wrong {
            let error = form.check().unwrap_err();
            let fields: Vec<_> = error.fields.iter().map(|at| at.field.as_str()).collect();
            assert_eq!(fields, [field], "{form:?}");
        }
    }

    #[test]
    fn limits_are_sensible_amounts() {
        let limited = |max_downtime_ms, max_mib_per_s| MigrateVm {
            max_downtime_ms,
            max_mib_per_s,
            ..form(Some("b"), None, None)
        };
        assert!(limited(Some(1), Some(1)).check().is_ok());
        assert!(limited(Some(60_000), Some(1_000_000)).check().is_ok());
        for wrong in [
            limited(Some(0), None),
            limited(Some(60_001), None),
            limited(None, Some(0)),
            limited(None, Some(u64::MAX)),
        ] {
            assert_eq!(wrong.check().unwrap_err().fields.len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn only_what_goes_live_to_a_host_goes_by_post_copy() {
        let by = |form: MigrateVm| MigrateVm {
            post_copy: true,
            ..form
        };
        for mode in [None, Some(MigrationMode::Live)] {
            let wanted = by(form(Some("b"), None, mode)).check().unwrap();
            let Destination::Host { limits, .. } = wanted else {
                panic!("{wanted:?}");
            };
            assert!(limits.post_copy);
        }
        for wrong in [
            form(Some("b"), None, Some(MigrationMode::Cold)),
            form(None, Some("fast"), None),
            form(None, Some("fast"), Some(MigrationMode::Storage)),
        ] {
            let error = by(wrong).check().unwrap_err();
            assert_eq!(error.fields[0].field, "post_copy");
        }
    }

    #[test]
    fn every_mode_is_called_what_the_wire_calls_it() {
        for mode in MigrationMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
            let wire = serde_json::to_string(&mode).unwrap();
            assert_eq!(wire, format!("\"{mode}\""));
        }
    }
}
