//! Where a VM goes: hard filters, then a score, with an explanation.
//!
//! Pure: no clock, no randomness, no I/O. The same hosts give the same answer
//! in whatever order they come. One look is O(hosts) and allocates only for
//! what the explanation keeps.

mod best;
mod filter;
mod summary;

use vimana_model::HostId;
use vimana_model::name::DatastoreName;
use vimana_model::pending::{Explanation, Filter, MAX_SCORED_HOSTS, Score};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::scheduler::{DatastoreFacts, HostFacts};

use best::Best;
use filter::Tally;

pub use summary::summary;

/// The order filters are asked in; a host counts under the first that removes it.
const ORDER: [Filter; 9] = [
    Filter::Connected,
    Filter::Cordoned,
    Filter::Draining,
    Filter::Maintenance,
    Filter::Enabled,
    Filter::Vcpus,
    Filter::Memory,
    Filter::Datastore,
    Filter::Disk,
];

/// What a VM needs of its host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    pub resources: Resources,
    /// The one of its host that its disk is to be in.
    pub datastore: DatastoreName,
}

impl From<Resources> for Needs {
    /// With the disk in the host's own directory.
    fn from(resources: Resources) -> Self {
        Self {
            resources,
            datastore: DatastoreName::local(),
        }
    }
}

/// What one look at all hosts found.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// None where every host was removed by a filter.
    pub host: Option<HostId>,
    pub explanation: Explanation,
}

/// Finds the host for a VM that needs `needs`: of those that pass every
/// filter, the one left with the largest free share ("spread"). Equal hosts
/// are told apart by name.
#[must_use]
pub fn place<'a>(needs: &Needs, hosts: impl IntoIterator<Item = &'a HostFacts>) -> Decision {
    let mut considered = 0_u32;
    let mut tallies = ORDER.map(Tally::new);
    let mut best = Best::new(MAX_SCORED_HOSTS);
    for host in hosts {
        considered = considered.saturating_add(1);
        match filter::first_removing(needs, host) {
            Some(filter) => {
                if let Some(tally) = tallies.iter_mut().find(|tally| tally.filter == filter) {
                    tally.add(needs, host);
                }
            }
            None => best.offer(Candidate {
                score: spread(needs, host),
                host,
            }),
        }
    }
    let candidates = best.into_sorted();
    Decision {
        host: candidates.first().map(|candidate| candidate.host.id),
        explanation: Explanation {
            considered,
            rejections: tallies
                .into_iter()
                .filter_map(|tally| tally.finish(needs))
                .collect(),
            scores: candidates.into_iter().map(Candidate::into_score).collect(),
        },
    }
}

/// Whether `host` passes every filter for a VM that needs `needs`.
#[must_use]
pub fn fits(needs: &Needs, host: &HostFacts) -> bool {
    filter::first_removing(needs, host).is_none()
}

/// How well `host` suits a VM that needs `needs`, from 0 to 1; as [`place`] has it.
#[must_use]
pub fn score(needs: &Needs, host: &HostFacts) -> f64 {
    spread(needs, host)
}

/// The share of the host that stays free once the VM is there: that of its
/// scarcest resource, so that no single one runs out early.
fn spread(needs: &Needs, host: &HostFacts) -> f64 {
    let left = free(host).saturating_sub(needs.resources);
    let disk = free_disk(needs, host).unwrap_or(MiB(0)).0;
    let disk = disk.saturating_sub(needs.resources.disk_mib.0);
    let shares = [
        share(left.vcpus.into(), host.capacity.vcpus.into()),
        share(left.memory_mib.0, host.capacity.memory_mib.0),
        share(disk, disk_capacity(needs, host).0),
    ];
    shares.into_iter().fold(1.0, f64::min)
}

/// `part` of `whole` as 0 to 1. A resource the host does not have at all and
/// the VM does not need does not speak against the host.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    // Above 2^53 the quotient loses digits nobody compares.
    (part as f64 / whole as f64).clamp(0.0, 1.0)
}

/// What the host has left to give.
fn free(host: &HostFacts) -> Resources {
    host.capacity.saturating_sub(host.used)
}

/// What is left where the VM's disk is to be; none where the host does not reach it.
fn free_disk(needs: &Needs, host: &HostFacts) -> Option<MiB> {
    if needs.datastore.is_local() {
        return Some(free(host).disk_mib);
    }
    let datastore = datastore(needs, host)?;
    let left = datastore
        .capacity_mib
        .0
        .saturating_sub(datastore.used_mib.0);
    Some(MiB(left))
}

fn disk_capacity(needs: &Needs, host: &HostFacts) -> MiB {
    if needs.datastore.is_local() {
        return host.capacity.disk_mib;
    }
    datastore(needs, host).map_or(MiB(0), |datastore| datastore.capacity_mib)
}

fn datastore<'a>(needs: &Needs, host: &'a HostFacts) -> Option<&'a DatastoreFacts> {
    let mut known = host.datastores.iter();
    known.find(|known| known.name == needs.datastore)
}

/// A host that passed every filter.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    score: f64,
    host: &'a HostFacts,
}

impl Candidate<'_> {
    fn into_score(self) -> Score {
        Score {
            host_id: self.host.id,
            host: self.host.name.to_string(),
            score: self.score,
        }
    }
}

/// Better candidates come first: higher score, then name, then id.
impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| self.host.name.cmp(&other.host.name))
            .then_with(|| self.host.id.cmp(&other.host.id))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

#[cfg(test)]
mod tests;
