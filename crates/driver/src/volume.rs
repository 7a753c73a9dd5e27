//! Volumes: writable disks that outlive the machines they are attached to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use crate::ImageRef;

/// What a new volume holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// Zeros.
    Empty,
    /// A copy of an image, a local file of that format, and zeros behind it.
    Image { path: PathBuf, format: ImageFormat },
}

/// What a volume is to be, where it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    pub volume_id: VolumeId,
    pub size_mib: MiB,
    /// What it begins as a copy of.
    pub image: Option<ImageRef>,
    /// Where it is to be made.
    #[serde(default = "DatastoreName::local")]
    pub datastore: DatastoreName,
    /// It was made before: a host that does not hold it has lost it.
    #[serde(default)]
    pub made: bool,
}

/// One volume as the driver sees it. A later version may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVolume {
    pub volume_id: VolumeId,
    pub size_mib: MiB,
    /// The machine that has it, whether it runs or not.
    pub attached_to: Option<VmId>,
    #[serde(default = "DatastoreName::local")]
    pub datastore: DatastoreName,
}
