//! Machines that go from one host to another while they run.
//!
//! The target makes place ([`receive`]), the source sends ([`send`]), and then
//! the guest stands still on both and has arrived: neither lets it run by itself.
//! Whoever decides that the target has it now says so there ([`run`]), under a
//! higher epoch, and has the source's process killed and its files cleaned; or has
//! the machine go on where it was ([`call_off`]), and the target killed and cleaned.
//!
//! By *post-copy* a part of the memory has not arrived in that moment. It is the
//! same in all else: once the target has it, the source is told so ([`switch`]), the
//! guest runs on the target, and the source's process is needed until the rest has
//! come ([`complete`]). After Hines, Deshpande and Gopalan, "Post-copy live migration
//! of virtual machines" (2009), behind a first round of pre-copy.
//!
//! [`receive`]: crate::HostDriver::receive
//! [`send`]: crate::HostDriver::send
//! [`run`]: crate::HostDriver::run
//! [`call_off`]: crate::HostDriver::call_off
//! [`switch`]: crate::HostDriver::switch
//! [`complete`]: crate::HostDriver::complete

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vimana_model::migration::CopyProgress;
pub use vimana_model::migration::Endpoint;
use vimana_model::name::DatastoreName;
use vimana_model::saved::Part;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, SnapshotId, VolumeId};

use crate::{Fault, FaultKind};

/// How a machine comes from another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The host that alone may send it.
    pub from: HostId,
    pub disks: DiskPlan,
    /// It is to run here before all of its memory has come.
    pub post_copy: bool,
}

impl Arrival {
    /// With its own disk, which is copied, and all of its memory.
    #[must_use]
    pub fn of(from: HostId) -> Self {
        Self {
            from,
            disks: DiskPlan::default(),
            post_copy: false,
        }
    }

    /// The same, to run here before all of its memory has come.
    #[must_use]
    pub const fn by_post_copy(mut self) -> Self {
        self.post_copy = true;
        self
    }
}

/// How a machine is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    pub to: HostId,
    pub endpoint: Endpoint,
    /// How long the guest may stand still at the end: it goes on being copied
    /// until less than that is left to do.
    pub max_downtime_ms: u64,
    /// Bytes a second; as fast as can be where absent.
    #[serde(default)]
    pub max_bytes_per_s: Option<u64>,
    #[serde(default, skip_serializing_if = "DiskPlan::is_plain")]
    pub disks: DiskPlan,
}

/// What becomes of a machine's disks where it goes from one host to another: one
/// that both reach stays where it is, and every other is copied. Its snapshots are
/// inside its disks: they go with a file that is handed over or copied as it is, and
/// not with what a guest sees of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// Of the machine's own, and a saved memory beside it.
    #[serde(default)]
    pub shares_root: bool,
    #[serde(default)]
    pub volumes: Vec<VolumePlan>,
    /// Those that go along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotPlan>,
}

impl DiskPlan {
    /// All that there is is the machine's own disk, and that is copied.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.shares_root && self.volumes.is_empty() && self.snapshots.is_empty()
    }

    /// Whether nothing of it is copied.
    #[must_use]
    pub fn shares_all(&self) -> bool {
        self.shares_root && self.volumes.iter().all(|volume| volume.shared)
    }

    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&VolumePlan> {
        self.volumes.iter().find(|volume| volume.volume_id == id)
    }

    /// Whether it says what becomes of all of those, which the machine has.
    #[must_use]
    pub fn names_all(&self, has: impl IntoIterator<Item = VolumeId>) -> bool {
        has.into_iter().all(|id| self.volume(id).is_some())
    }

    /// Why a machine does not go that has others.
    #[must_use]
    pub fn other_volumes() -> Fault {
        let message = "the machine has other volumes than were to go with it";
        Fault::new(FaultKind::Conflict, message)
    }

    /// Whether all of those, which the machine has, go along.
    #[must_use]
    pub fn takes_snapshots(&self, has: impl IntoIterator<Item = SnapshotId>) -> bool {
        let goes = |id| self.snapshots.iter().any(|plan| plan.snapshot_id == id);
        has.into_iter().all(goes)
    }

    /// Why a machine does not go whose snapshots would stay.
    #[must_use]
    pub fn other_snapshots() -> Fault {
        let message = "the machine has snapshots that would not go with it";
        Fault::new(FaultKind::Conflict, message)
    }

    /// Why one that runs does not go whose snapshots the copy of a disk leaves behind.
    #[must_use]
    pub fn copies_without_snapshots() -> Fault {
        let message = "the machine has snapshots, which a disk that is copied while its guest \
                       writes leaves behind";
        Fault::new(FaultKind::Conflict, message)
    }

    /// Those that do not stay where they are.
    pub fn copied_volumes(&self) -> impl Iterator<Item = &VolumePlan> {
        self.volumes.iter().filter(|volume| !volume.shared)
    }

    /// What is copied of a machine that does not run, and has a saved memory or
    /// not.
    #[must_use]
    pub fn parts(&self, with_memory: bool) -> Vec<Part> {
        let own = Part::OWN
            .into_iter()
            .filter(|part| !self.shares_root && (with_memory || *part == Part::Disk));
        let volumes = self.copied_volumes();
        own.chain(volumes.map(|volume| Part::Volume(volume.volume_id)))
            .collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    pub volume_id: VolumeId,
    pub size_mib: MiB,
    /// The one that it is in, or is to be, on either host.
    pub datastore: DatastoreName,
    /// Where the guest finds it: see [`crate::HostDriver::attach`].
    pub place: u8,
    pub shared: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    pub snapshot_id: SnapshotId,
    pub memory: bool,
    /// Being made or removed where it is not.
    pub whole: bool,
    /// The machine's size when it was taken.
    pub resources: Resources,
    /// Whether the machine's own disk is in it.
    pub root: bool,
    /// Those that are in it.
    pub volumes: Vec<VolumeId>,
}

/// Told how far a copy is, now and then.
pub type CopyWatcher = Arc<dyn Fn(CopyProgress) + Send + Sync>;

/// Nobody is told.
#[must_use]
pub fn unwatched() -> CopyWatcher {
    Arc::new(|_| {})
}
