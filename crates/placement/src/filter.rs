//! Hard conditions on hosts, and the words for what they removed.

use std::fmt;

use vimana_model::host::HostState;
use vimana_model::pending::{Filter, MAX_NAMED_HOSTS, Rejection};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::scheduler::HostFacts;

use crate::best::Best;
use crate::{Needs, free, free_disk};

/// The first filter that removes `host`, if any does.
pub fn first_removing(needs: &Needs, host: &HostFacts) -> Option<Filter> {
    let free = free(host);
    let wanted = needs.resources;
    let disk = free_disk(needs, host);
    if !host.connected {
        Some(Filter::Connected)
    } else if let Some(filter) = removing_state(host.state) {
        Some(filter)
    } else if wanted.vcpus > free.vcpus {
        Some(Filter::Vcpus)
    } else if wanted.memory_mib > free.memory_mib {
        Some(Filter::Memory)
    } else if disk.is_none() {
        Some(Filter::Datastore)
    } else if disk.is_some_and(|free| wanted.disk_mib > free) {
        Some(Filter::Disk)
    } else {
        None
    }
}

/// The filter that removes hosts in this state, if any does.
const fn removing_state(state: HostState) -> Option<Filter> {
    match state {
        HostState::Enabled => None,
        HostState::Cordoned => Some(Filter::Cordoned),
        HostState::Draining => Some(Filter::Draining),
        HostState::Maintenance => Some(Filter::Maintenance),
        HostState::Doubted | HostState::Unknown => Some(Filter::Enabled),
    }
}

/// The hosts one filter removed, while they are counted.
pub struct Tally<'a> {
    pub filter: Filter,
    count: u32,
    names: Best<&'a str>,
    /// The most any removed host has free, each resource by itself.
    roomiest: Resources,
}

impl<'a> Tally<'a> {
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            count: 0,
            names: Best::new(MAX_NAMED_HOSTS),
            roomiest: Resources::default(),
        }
    }

    pub fn add(&mut self, needs: &Needs, host: &'a HostFacts) {
        self.count = self.count.saturating_add(1);
        self.names.offer(host.name.as_str());
        let free = free(host);
        self.roomiest.vcpus = self.roomiest.vcpus.max(free.vcpus);
        self.roomiest.memory_mib = self.roomiest.memory_mib.max(free.memory_mib);
        let disk = free_disk(needs, host).unwrap_or(MiB(0));
        self.roomiest.disk_mib = self.roomiest.disk_mib.max(disk);
    }

    /// None where the filter removed no host.
    pub fn finish(self, needs: &Needs) -> Option<Rejection> {
        if self.count == 0 {
            return None;
        }
        Some(Rejection {
            filter: self.filter,
            reason: self.reason(needs),
            hosts: self
                .names
                .into_sorted()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            count: self.count,
        })
    }

    fn reason(&self, needs: &Needs) -> String {
        let wanted = needs.resources;
        match self.filter {
            Filter::Connected => "the agent is not connected".to_owned(),
            Filter::Cordoned => "the host is cordoned".to_owned(),
            Filter::Draining => "the host drains".to_owned(),
            Filter::Maintenance => "the host is in maintenance".to_owned(),
            Filter::Enabled => "the host takes no new VMs".to_owned(),
            Filter::Vcpus => lack(Vcpus(wanted.vcpus), self.roomiest.vcpus),
            Filter::Memory => lack(wanted.memory_mib, self.roomiest.memory_mib),
            Filter::Datastore => format!("there is no datastore `{}`", needs.datastore),
            Filter::Disk => lack(wanted.disk_mib, self.roomiest.disk_mib),
        }
    }
}

fn lack(needs: impl fmt::Display, free: impl fmt::Display) -> String {
    format!("needs {needs}; the roomiest host has {free} free")
}

/// "1 vCPU", "4 vCPUs".
struct Vcpus(u32);

impl fmt::Display for Vcpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vCPU{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
