//! What Linux says of a process.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The unit of times in `/proc`, the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Every host has a connection here.
pub fn raise_file_limit() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

#[derive(Clone, Copy)]
pub struct Process(u32);

impl Process {
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    pub const fn id(self) -> u32 {
        self.0
    }

    /// Memory it holds now.
    pub fn resident_mib(self) -> Result<f64> {
        self.status_mib("VmRSS:")
    }

    /// The most it held since it started.
    pub fn peak_mib(self) -> Result<f64> {
        self.status_mib("VmHWM:")
    }

    fn status_mib(self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: f64 = kib.context("a field is missing in /proc")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// Seconds of a processor that all its threads have used.
    fn cpu_seconds(self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // Behind the name, which may hold anything: user and system time are
        // the fields 14 and 15 of proc(5), counted from 1.
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc")?;
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = times.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }
}

/// Seconds of a processor, or processors in use.
pub struct Cpu {
    pub server: f64,
    pub scheduler: f64,
    /// This process: hosts and people.
    pub load: f64,
}

impl Cpu {
    pub fn of(server: u32, scheduler: u32) -> Result<Self> {
        Ok(Self {
            server: Process(server).cpu_seconds()?,
            scheduler: Process(scheduler).cpu_seconds()?,
            load: Process(std::process::id()).cpu_seconds()?,
        })
    }

    /// How many processors were in use.
    pub fn since(&self, before: &Self, time: Duration) -> Self {
        let per_second = |now: f64, then: f64| (now - then) / time.as_secs_f64();
        Self {
            server: per_second(self.server, before.server),
            scheduler: per_second(self.scheduler, before.scheduler),
            load: per_second(self.load, before.load),
        }
    }
}
