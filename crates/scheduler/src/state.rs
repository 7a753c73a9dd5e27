//! What the scheduler knows, and what it makes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use vimana_model::pending::Explanation;
use vimana_model::{DatastoreId, HostId, Timestamp, VmId};
use vimana_placement::{Decision, Needs, place};
use vimana_protocol::scheduler::{FromScheduler, HostFacts, PendingVm, ToScheduler};

use crate::booking::BookedHost;
use crate::limits::{MAX_FRAMES_PER_ROUND, MAX_IN_FLIGHT, REFUSED_REST, VERDICT_TIMEOUT};

/// All that the server told, plus what was proposed and is not yet answered.
///
/// [`State::apply`] takes frames in, [`State::decide`] gives the frames to
/// send; several frames may come before one round of decisions.
#[derive(Debug, Default)]
pub struct State {
    hosts: BTreeMap<HostId, BookedHost>,
    /// The hosts that have reached each datastore.
    reached: BTreeMap<DatastoreId, BTreeSet<HostId>>,
    waiting: BTreeMap<VmId, Waiting>,
    /// Oldest first: the order decisions are taken in.
    queue: BTreeSet<(Timestamp, VmId)>,
    in_flight: usize,
    /// Something changed that may change a decision.
    dirty: bool,
}

#[derive(Debug)]
struct Waiting {
    vm: PendingVm,
    stage: Stage,
    /// What the server was last told about why it waits.
    told: Option<Arc<Explanation>>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// To be decided in the next round.
    Ready,
    /// A proposal is out and booked on that host.
    Proposed { host_id: HostId, at: Instant },
    /// The server accepted; it says so to everyone soon.
    Accepted,
    /// The server refused the last proposal and nothing changed since.
    Resting { until: Instant },
}

impl State {
    /// Takes one frame in. Decisions follow in [`State::decide`].
    pub fn apply(&mut self, frame: ToScheduler, now: Instant) {
        match frame {
            ToScheduler::Snapshot { hosts, pending } => {
                *self = Self {
                    dirty: true,
                    ..Self::default()
                };
                for host in hosts {
                    self.share(&host);
                    self.hosts.insert(host.id, BookedHost::new(host));
                }
                for vm in pending {
                    self.pend(vm);
                }
            }
            ToScheduler::Host(host) => {
                let shared = self.share(&host);
                let changed = match self.hosts.get_mut(&host.id) {
                    Some(known) => known.update(host),
                    None => {
                        self.hosts.insert(host.id, BookedHost::new(host));
                        true
                    }
                };
                if changed || shared {
                    self.wake();
                }
            }
            ToScheduler::Pending(vm) => self.pend(vm),
            ToScheduler::Gone { vm_id } => self.forget(vm_id),
            ToScheduler::Verdict {
                vm_id,
                generation,
                refused,
            } => {
                self.verdict(vm_id, generation, refused, now);
            }
            ToScheduler::Heartbeat => {}
        }
    }

    /// Whether [`State::decide`] has something to look at.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// When [`State::expire`] has something to do, at the earliest.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.waiting
            .values()
            .filter_map(|waiting| match waiting.stage {
                Stage::Proposed { at, .. } => Some(at + VERDICT_TIMEOUT),
                Stage::Resting { until } => Some(until),
                Stage::Ready | Stage::Accepted => None,
            })
            .min()
    }

    /// Gives up on verdicts that do not come and ends rests.
    pub fn expire(&mut self, now: Instant) {
        for waiting in self.waiting.values_mut() {
            match waiting.stage {
                Stage::Proposed { host_id, at } if at + VERDICT_TIMEOUT <= now => {
                    release(&mut self.hosts, host_id, waiting.vm.id);
                    self.in_flight = self.in_flight.saturating_sub(1);
                }
                Stage::Resting { until } if until <= now => {}
                Stage::Ready | Stage::Proposed { .. } | Stage::Accepted | Stage::Resting { .. } => {
                    continue;
                }
            }
            waiting.stage = Stage::Ready;
            self.dirty = true;
        }
    }

    /// Decides the VMs that wait, oldest first, and books what it proposes.
    ///
    /// At most [`MAX_FRAMES_PER_ROUND`] frames and [`MAX_IN_FLIGHT`] open
    /// proposals; the state stays dirty where frames were left for later.
    pub fn decide(&mut self, now: Instant) -> Vec<FromScheduler> {
        let mut frames = Vec::new();
        // Within a round free room only shrinks: what did not fit once does
        // not fit again, and VMs come in few sizes.
        let mut hopeless: HashMap<Needs, Arc<Explanation>> = HashMap::new();
        self.dirty = false;
        for (_, vm_id) in &self.queue {
            let Some(waiting) = self.waiting.get_mut(vm_id) else {
                continue;
            };
            if !matches!(waiting.stage, Stage::Ready) {
                continue;
            }
            if self.in_flight >= MAX_IN_FLIGHT {
                // The next verdict makes room and wakes.
                break;
            }
            if frames.len() >= MAX_FRAMES_PER_ROUND {
                self.dirty = true;
                break;
            }
            let needs = Needs {
                resources: waiting.vm.resources,
                datastore: waiting.vm.datastore.clone(),
            };
            let explanation = match hopeless.get(&needs) {
                Some(known) => Arc::clone(known),
                None => match place(&needs, self.hosts.values().map(BookedHost::facts)) {
                    Decision {
                        host: Some(host_id),
                        explanation,
                    } => {
                        if let Some(host) = self.hosts.get_mut(&host_id) {
                            host.book(*vm_id, needs);
                        }
                        self.in_flight += 1;
                        frames.push(waiting.propose(host_id, explanation, now));
                        continue;
                    }
                    Decision {
                        host: None,
                        explanation,
                    } => {
                        let explanation = Arc::new(explanation);
                        hopeless.insert(needs, Arc::clone(&explanation));
                        explanation
                    }
                },
            };
            frames.extend(waiting.report_no_host(explanation));
        }
        frames
    }

    /// What a host says of its datastores holds for all that reach them; says
    /// whether any of those looks different.
    fn share(&mut self, host: &HostFacts) -> bool {
        let mut changed = false;
        for datastore in &host.datastores {
            let reached = self.reached.entry(datastore.id).or_default();
            reached.insert(host.id);
            for id in reached.iter().filter(|id| **id != host.id) {
                let other = self.hosts.get_mut(id);
                changed |= other.is_some_and(|other| other.share(datastore));
            }
        }
        changed
    }

    /// A VM waits, or waits with other terms.
    fn pend(&mut self, vm: PendingVm) {
        let told = match self.waiting.get(&vm.id) {
            // The very proposal that is out serves these terms.
            Some(Waiting {
                vm: known,
                stage: Stage::Proposed { .. },
                ..
            }) if *known == vm => return,
            Some(waiting) if waiting.vm.generation == vm.generation => waiting.told.clone(),
            Some(_) | None => None,
        };
        self.forget(vm.id);
        self.queue.insert((vm.since, vm.id));
        self.waiting.insert(
            vm.id,
            Waiting {
                vm,
                stage: Stage::Ready,
                told,
            },
        );
        self.dirty = true;
    }

    fn forget(&mut self, vm_id: VmId) {
        let Some(waiting) = self.waiting.remove(&vm_id) else {
            return;
        };
        self.queue.remove(&(waiting.vm.since, vm_id));
        match waiting.stage {
            Stage::Proposed { host_id, .. } => {
                release(&mut self.hosts, host_id, vm_id);
                self.in_flight = self.in_flight.saturating_sub(1);
                self.dirty = true;
            }
            // The booking of an accepted VM goes when the host's figures come.
            Stage::Accepted | Stage::Ready | Stage::Resting { .. } => {}
        }
    }

    fn verdict(&mut self, vm_id: VmId, generation: u64, refused: Option<String>, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(&vm_id) else {
            return;
        };
        let Stage::Proposed { host_id, .. } = waiting.stage else {
            return;
        };
        if waiting.vm.generation != generation {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.dirty = true;
        match refused {
            None => {
                if let Some(host) = self.hosts.get_mut(&host_id) {
                    host.accept(vm_id);
                }
                waiting.stage = Stage::Accepted;
            }
            Some(reason) => {
                tracing::info!(%vm_id, %host_id, reason, "the server refused a proposal");
                let stale = release(&mut self.hosts, host_id, vm_id);
                // Where newer figures are already here, look again at once.
                waiting.stage = if stale {
                    Stage::Ready
                } else {
                    Stage::Resting {
                        until: now + REFUSED_REST,
                    }
                };
            }
        }
    }

    /// A host looks different: everyone who waits is decided anew.
    fn wake(&mut self) {
        for waiting in self.waiting.values_mut() {
            if matches!(waiting.stage, Stage::Resting { .. }) {
                waiting.stage = Stage::Ready;
            }
        }
        self.dirty = true;
    }
}

impl Waiting {
    fn propose(
        &mut self,
        host_id: HostId,
        explanation: Explanation,
        now: Instant,
    ) -> FromScheduler {
        self.stage = Stage::Proposed { host_id, at: now };
        self.told = None;
        FromScheduler::Proposal {
            vm_id: self.vm.id,
            generation: self.vm.generation,
            host_id,
            explanation,
        }
    }

    /// Says why it waits, unless the server knows exactly that already.
    fn report_no_host(&mut self, explanation: Arc<Explanation>) -> Option<FromScheduler> {
        if self.told.as_ref() == Some(&explanation) {
            return None;
        }
        let frame = FromScheduler::NoHost {
            vm_id: self.vm.id,
            generation: self.vm.generation,
            explanation: Explanation::clone(&explanation),
        };
        self.told = Some(explanation);
        Some(frame)
    }
}

fn release(hosts: &mut BTreeMap<HostId, BookedHost>, host_id: HostId, vm_id: VmId) -> bool {
    hosts
        .get_mut(&host_id)
        .is_some_and(|host| host.release(vm_id))
}

#[cfg(test)]
mod tests;
