//! The command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use vimana_agent::{JoinTerms, capacity};
use vimana_driver_qemu::AcceleratorSetting;
use vimana_model::datastore::DatastoreDir;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};

/// Runs virtual machines on this host for a Vimana server.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What else there is to do than serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shut down every machine of a host whose agent does not run
    StopMachines(StopArgs),
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The data directory of the host's agent
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Seconds a guest has before it is switched off
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub grace: u64,
    /// The QEMU binary [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_QEMU")]
    pub qemu: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where the server listens for agents: https://HOST[:PORT]
    #[arg(long, required = true, value_name = "URL", env = "VIMANA_SERVER")]
    server: Option<String>,
    /// File with a join token; needed until the host has joined, and again
    /// after it was revoked
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// Where this host keeps its identity, images and machines
    #[arg(
        long,
        required = true,
        value_name = "PATH",
        env = "VIMANA_AGENT_DATA_DIR"
    )]
    data_dir: Option<PathBuf>,
    /// The host's name [default: this machine's]
    #[arg(long, env = "VIMANA_AGENT_NAME")]
    name: Option<HostName>,
    /// Hosts of one zone can migrate machines to each other
    #[arg(long, default_value = "default", env = "VIMANA_AGENT_ZONE")]
    pub zone: ZoneName,
    /// vCPUs to give [default: processors times --vcpu-ratio]
    #[arg(long, value_name = "N", env = "VIMANA_AGENT_VCPUS")]
    vcpus: Option<u32>,
    /// vCPUs to give for each processor
    #[arg(long, value_name = "N", default_value = "4", env = "VIMANA_AGENT_VCPU_RATIO",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    vcpu_ratio: u32,
    /// Memory to give [default: all but 512 MiB]
    #[arg(long, value_name = "MIB", env = "VIMANA_AGENT_MEMORY_MIB")]
    memory_mib: Option<u64>,
    /// Disk space to give [default: what is free for the data directory, and what it holds]
    #[arg(long, value_name = "MIB", env = "VIMANA_AGENT_DISK_MIB")]
    disk_mib: Option<u64>,
    /// Disk space for fetched images; those that no machine uses go first, the
    /// least recently used before others [default: a quarter of the disk]
    #[arg(long, value_name = "MIB", env = "VIMANA_AGENT_IMAGE_CACHE_MIB")]
    image_cache_mib: Option<u64>,
    /// A further directory for volumes, such as fast=/srv/fast; repeatable.
    /// `local` is the data directory
    #[arg(
        long,
        env = "VIMANA_AGENT_DATASTORE",
        value_name = "NAME=DIR",
        value_delimiter = ','
    )]
    pub datastore: Vec<DatastoreDir>,
    /// What runs the machines
    #[arg(long, value_enum, default_value = "qemu", env = "VIMANA_AGENT_DRIVER")]
    pub driver: Driver,
    /// How guest code runs: auto (KVM where a probe shows that it works), kvm or tcg
    #[arg(long, default_value = "auto", env = "VIMANA_AGENT_ACCEL")]
    pub accel: AcceleratorSetting,
    /// Bootable image for the probe of --accel auto; qcow2 if its name ends so, else raw
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_PROBE_IMAGE")]
    pub probe_image: Option<PathBuf>,
    /// The QEMU binary [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_QEMU")]
    pub qemu: Option<PathBuf>,
    /// This host's IP address for machines that come from other hosts [default:
    /// the one that it reaches the server from]
    #[arg(long, value_name = "IP", env = "VIMANA_AGENT_MIGRATION_ADDRESS")]
    migration_address: Option<IpAddr>,
    /// Ports for machines that come from other hosts; each takes two of them
    #[arg(
        long,
        value_name = "FIRST-LAST",
        default_value = "49152-49407",
        env = "VIMANA_AGENT_MIGRATION_PORTS"
    )]
    pub migration_ports: Ports,
    /// Sends machines to other hosts unencrypted, and takes them so from whoever
    /// reaches its ports: for a network that nobody but hosts reaches, all of which are
    /// given this
    #[arg(long, env = "VIMANA_AGENT_MIGRATION_PLAINTEXT")]
    pub migration_plaintext: bool,
    /// The watchdog's binary [default: vimana-watchdog beside this one]
    #[arg(long, value_name = "PATH", env = "VIMANA_AGENT_WATCHDOG")]
    pub watchdog: Option<PathBuf>,
}

/// The address that packets to the server come from. No packet is sent.
fn towards(server: &str) -> Option<IpAddr> {
    let url = reqwest::Url::parse(server).ok()?;
    let all = url.socket_addrs(|| None).ok()?;
    all.into_iter().find_map(|server| {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// A range of ports, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected two ports, such as 49152-49407";
        let (first, last) = text.split_once('-').ok_or(EXPECTED)?;
        let port = |text: &str| text.parse::<u16>().map_err(|_| EXPECTED);
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || last <= first {
            return Err(EXPECTED);
        }
        Ok(Self(first..=last))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// QEMU processes
    Qemu,
    /// Nothing: machines are entries in memory
    Sim,
}

impl ServeArgs {
    pub fn join_terms(&self) -> anyhow::Result<JoinTerms> {
        Ok(JoinTerms {
            address: self.server.clone().context("--server is missing")?,
            token_file: self.join_token_file.clone(),
            name: self.name()?,
            zone: self.zone.clone(),
        })
    }

    pub fn data_dir(&self) -> anyhow::Result<&Path> {
        self.data_dir.as_deref().context("--data-dir is missing")
    }

    pub fn name(&self) -> anyhow::Result<HostName> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = capacity::machine_name();
        HostName::new(name.clone())
            .with_context(|| format!("this machine's name `{name}` does not serve; give --name"))
    }

    /// Where other hosts reach this one.
    pub fn migration_address(&self) -> Option<IpAddr> {
        let towards = || towards(self.server.as_deref()?);
        self.migration_address.or_else(towards)
    }

    pub fn image_cache(&self) -> Option<MiB> {
        self.image_cache_mib.map(MiB)
    }

    /// What the machine has, where nothing else is asked for.
    pub fn capacity(&self, data_dir: &Path) -> anyhow::Result<Resources> {
        let found = capacity::detect(data_dir, self.vcpu_ratio)
            .context("cannot find out what this machine has")?;
        Ok(Resources {
            vcpus: self.vcpus.unwrap_or(found.vcpus),
            memory_mib: self.memory_mib.map_or(found.memory_mib, MiB),
            disk_mib: self.disk_mib.map_or(found.disk_mib, MiB),
        })
    }
}
