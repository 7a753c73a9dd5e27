//! What an administrator can set.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;

use crate::limits::IN_VAIN;

/// How guest code is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorSetting {
    /// KVM where a timed probe shows that it runs guests, else TCG.
    #[default]
    Auto,
    Kvm,
    Tcg,
}

/// A text that is no accelerator setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such accelerator setting: one of auto, kvm, tcg")]
pub struct InvalidAccelerator;

impl FromStr for AcceleratorSetting {
    type Err = InvalidAccelerator;

    fn from_str(text: &str) -> Result<Self, InvalidAccelerator> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(InvalidAccelerator),
        }
    }
}

/// The largest machine this host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    pub vcpus: u32,
    pub memory: MiB,
    pub disk: MiB,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            vcpus: 128,
            memory: MiB(1 << 20),
            disk: MiB(16 << 20),
        }
    }
}

/// An image to boot while probing KVM.
#[derive(Clone, Debug)]
pub struct ProbeImage {
    pub path: PathBuf,
    pub format: ImageFormat,
}

/// Who this host is to others, and by whom it is said, in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate of the authority that certifies all hosts.
    pub authority: String,
    /// Names this host by its id.
    pub certificate: String,
    pub key: String,
}

/// Where a host's credentials come from. It is asked anew for every machine:
/// certificates are renewed. `None` where the host has none yet.
#[derive(Clone)]
pub struct CredentialsSource(Arc<dyn Fn() -> Option<Credentials> + Send + Sync>);

impl CredentialsSource {
    pub fn new(source: impl Fn() -> Option<Credentials> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    #[must_use]
    pub fn get(&self) -> Option<Credentials> {
        (self.0)()
    }
}

impl fmt::Debug for CredentialsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsSource")
    }
}

/// How machines come from other hosts, and go there.
#[derive(Clone, Debug)]
pub struct MigrationConfig {
    /// Where other hosts reach this one; no machine comes where nobody knows.
    pub address: Option<IpAddr>,
    /// A machine that comes takes two of them, until it is there.
    pub ports: RangeInclusive<u16>,
    /// Without, everybody who gets there can read and send machines: for hosts
    /// that are alone with each other.
    pub tls: Option<CredentialsSource>,
    /// How long a memory is copied that is changed faster than that.
    pub in_vain: Duration,
}

impl Default for MigrationConfig {
    fn default() -> Self {
        Self {
            address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ports: 49152..=49407,
            tls: None,
            in_vain: IN_VAIN,
        }
    }
}

#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// One directory per VM below it; used by one agent at a time.
    pub state_dir: PathBuf,
    /// The QEMU binary: a path, or a name to look up in `PATH`.
    pub qemu: PathBuf,
    pub accelerator: AcceleratorSetting,
    /// Makes the probe of [`AcceleratorSetting::Auto`] boot a real kernel: on
    /// software-virtualized hosts KVM runs a boot sector and nothing more.
    pub probe_image: Option<ProbeImage>,
    pub limits: GuestLimits,
    /// Further places for volumes. Other hosts' agents may use them as well: a
    /// volume is at the disposal of all while no machine has it, and of one that
    /// attaches it alone.
    pub datastores: BTreeMap<DatastoreName, PathBuf>,
    /// Tells this host from the others that use them.
    pub owner: String,
    /// Disk space the host keeps: below it no machine is prepared.
    pub disk_reserve: MiB,
    pub migration: MigrationConfig,
}

impl QemuConfig {
    /// The defaults, with VMs in `state_dir`.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            qemu: PathBuf::from("qemu-system-x86_64"),
            accelerator: AcceleratorSetting::default(),
            probe_image: None,
            limits: GuestLimits::default(),
            datastores: BTreeMap::new(),
            owner: "host".to_owned(),
            disk_reserve: MiB(256),
            migration: MigrationConfig::default(),
        }
    }
}
