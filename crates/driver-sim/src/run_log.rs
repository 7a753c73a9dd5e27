//! When machines ran, over all simulated hosts: what a checker reads to prove
//! that a disk never had two running writers and that epochs only grew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vimana_model::{SnapshotId, VmId, VolumeId};

use crate::files::Contents;
use crate::snapshot::Snapshot;

/// Shared by the hosts of a simulation; entries are in the order they happened.
#[derive(Default)]
pub struct RunLog {
    entries: Mutex<Vec<RunEntry>>,
    /// Machines on their way from host to host.
    on_the_way: Mutex<BTreeMap<VmId, OnTheWay>>,
    /// Those of which a part of the memory is still where they were.
    missing: Mutex<BTreeMap<VmId, Missing>>,
    /// What is inside machines' disks, wherever those are.
    snapshots: Mutex<BTreeMap<VmId, BTreeMap<SnapshotId, Snapshot>>>,
}

/// A part of a machine's memory that has not arrived.
struct Missing {
    /// The host that has it.
    from: Arc<str>,
    /// That host was told that the machine runs elsewhere.
    switched: bool,
    /// It went with the process that had it.
    lost: bool,
}

/// A machine that a host waits for.
pub(crate) struct OnTheWay {
    /// The host's name in the simulation.
    pub to: Arc<str>,
    /// What it is on arrival.
    pub arrived: Option<Contents>,
    /// Whether anything is written on each of its volumes.
    volumes: BTreeMap<VolumeId, bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// The host's name in the simulation.
    pub host: Arc<str>,
    pub vm: VmId,
    pub run_epoch: u64,
    pub moment: Moment,
}

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Guest code runs, and may write the disk, from here on.
    Started,
    /// It runs on without a break, under a higher epoch.
    Renumbered,
    /// The guest stands still, and has arrived elsewhere.
    Left,
    /// It goes on where it stood still.
    WentOn,
    /// No guest code runs any more.
    Ended,
}

impl RunLog {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    #[must_use]
    pub fn entries(&self) -> Vec<RunEntry> {
        self.lock().clone()
    }

    /// How often a machine was started, over all hosts.
    #[must_use]
    pub fn starts(&self, vm: VmId) -> usize {
        let entries = self.lock();
        let started = |e: &&RunEntry| e.vm == vm && e.moment == Moment::Started;
        entries.iter().filter(started).count()
    }

    /// Every breach of "at most one running writer" and of "epochs only grow".
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        let mut runs: BTreeMap<VmId, Runs> = BTreeMap::new();
        let entries = self.lock();
        let found = entries
            .iter()
            .filter_map(|entry| runs.entry(entry.vm).or_default().follow(entry));
        found.collect()
    }

    /// A host waits for a machine.
    pub(crate) fn expect(&self, vm: VmId, host: &Arc<str>) {
        let to = Arc::clone(host);
        let expected = OnTheWay {
            to,
            arrived: None,
            volumes: BTreeMap::new(),
        };
        self.way().insert(vm, expected);
    }

    /// Those snapshots are in a machine's disks.
    pub(crate) fn keep_snapshots(&self, vm: VmId, snapshots: BTreeMap<SnapshotId, Snapshot>) {
        let kept = self.snapshots.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.insert(vm, snapshots);
    }

    /// What is in them, wherever they have come.
    pub(crate) fn kept_snapshots(&self, vm: VmId) -> BTreeMap<SnapshotId, Snapshot> {
        let kept = self.snapshots.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.get(&vm).cloned().unwrap_or_default()
    }

    /// A machine arrives where it is waited for; `false` where nobody waits.
    pub(crate) fn deliver(
        &self,
        vm: VmId,
        contents: Contents,
        volumes: BTreeMap<VolumeId, bool>,
    ) -> bool {
        let mut way = self.way();
        let Some(expected) = way.get_mut(&vm) else {
            return false;
        };
        expected.arrived = Some(contents);
        expected.volumes = volumes;
        true
    }

    /// What has arrived at the host.
    pub(crate) fn arrived(&self, vm: VmId, host: &Arc<str>) -> Option<Contents> {
        let way = self.way();
        let expected = way.get(&vm).filter(|expected| expected.to == *host)?;
        expected.arrived
    }

    /// The volumes that have arrived there, and whether anything is written on each.
    pub(crate) fn arrived_volumes(&self, vm: VmId, host: &Arc<str>) -> BTreeMap<VolumeId, bool> {
        let way = self.way();
        let expected = way.get(&vm).filter(|expected| expected.to == *host);
        expected.map_or_else(BTreeMap::new, |expected| expected.volumes.clone())
    }

    /// The host does not wait any more.
    pub(crate) fn lose(&self, vm: VmId, host: &Arc<str>) {
        let mut way = self.way();
        if way.get(&vm).is_some_and(|expected| expected.to == *host) {
            way.remove(&vm);
        }
    }

    /// A part of the machine's memory stays on the host for now, or nothing does.
    pub(crate) fn owe(&self, vm: VmId, from: &Arc<str>, owes: bool) {
        let missing = owes.then(|| Missing {
            from: Arc::clone(from),
            switched: false,
            lost: false,
        });
        match missing {
            Some(missing) => self.missing().insert(vm, missing),
            None => self.missing().remove(&vm),
        };
    }

    /// The host that has the rest of the memory gives it to the other one.
    pub(crate) fn switch(&self, vm: VmId) {
        if let Some(missing) = self.missing().get_mut(&vm) {
            missing.switched = true;
        }
    }

    /// Whether what is missing of the machine comes while it runs.
    pub(crate) fn may_run(&self, vm: VmId) -> bool {
        let missing = self.missing();
        let missing = missing.get(&vm);
        missing.is_none_or(|missing| missing.switched && !missing.lost)
    }

    /// The rest of the memory comes to where the machine runs; `false` where it is
    /// lost.
    pub(crate) fn complete(&self, vm: VmId) -> bool {
        let missing = self.missing().remove(&vm);
        missing.is_none_or(|missing| !missing.lost)
    }

    /// The machine's process has ended on the host.
    pub(crate) fn process_ended(&self, vm: VmId, host: &Arc<str>) {
        let mut all = self.missing();
        match all.get_mut(&vm) {
            Some(missing) if missing.from == *host => missing.lost = true,
            // It needs none of it any more.
            Some(_) => drop(all.remove(&vm)),
            None => {}
        }
    }

    fn missing(&self) -> std::sync::MutexGuard<'_, BTreeMap<VmId, Missing>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self) -> std::sync::MutexGuard<'_, BTreeMap<VmId, OnTheWay>> {
        self.on_the_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, entry: RunEntry) {
        self.lock().push(entry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<RunEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One VM's runs, as far as the log was followed.
#[derive(Default)]
struct Runs {
    highest_epoch: u64,
    /// Where it runs, and under which epoch.
    running: Option<(Arc<str>, u64)>,
    /// Where it stands still, and may go on.
    stands: Option<Arc<str>>,
}

impl Runs {
    fn follow(&mut self, entry: &RunEntry) -> Option<String> {
        let RunEntry {
            host,
            vm,
            run_epoch,
            moment,
        } = entry;
        let grows = *run_epoch > self.highest_epoch;
        let here = self.running.as_ref().is_some_and(|(at, _)| at == host);
        let breach = match (moment, &self.running) {
            (Moment::Started, Some((other, epoch))) => Some(format!(
                "{vm}: run {run_epoch} started on {host} while run {epoch} runs on {other}"
            )),
            (Moment::Started | Moment::Renumbered, _) if !grows => Some(format!(
                "{vm}: run {run_epoch} on {host} is not higher than {}",
                self.highest_epoch
            )),
            (Moment::WentOn, _) if self.stands.as_ref() != Some(host) => Some(format!(
                "{vm}: run {run_epoch} goes on at {host}, which is not the last that had it"
            )),
            (Moment::Renumbered | Moment::Left | Moment::Ended, _) if !here => Some(format!(
                "{vm}: run {run_epoch} goes on or ends on {host}, where it does not run"
            )),
            (
                Moment::Started
                | Moment::Renumbered
                | Moment::Left
                | Moment::WentOn
                | Moment::Ended,
                _,
            ) => None,
        };
        self.highest_epoch = self.highest_epoch.max(*run_epoch);
        match moment {
            Moment::Started | Moment::Renumbered | Moment::WentOn => {
                self.running = Some((Arc::clone(host), *run_epoch));
                self.stands = None;
            }
            Moment::Left if here => {
                self.running = None;
                self.stands = Some(Arc::clone(host));
            }
            Moment::Ended if here => self.running = None,
            Moment::Left | Moment::Ended => {}
        }
        breach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(entries: &[(&str, u64, Moment)]) -> Vec<String> {
        let log = RunLog::default();
        for (host, run_epoch, moment) in entries {
            log.push(RunEntry {
                host: Arc::from(*host),
                vm: VmId::from_parts(1, [1; 10]),
                run_epoch: *run_epoch,
                moment: *moment,
            });
        }
        log.breaches()
    }

    #[test]
    fn runs_one_after_another_are_fine() {
        use Moment::{Ended, Renumbered, Started};
        let fine = [
            ("a", 1, Started),
            ("a", 2, Renumbered),
            ("a", 2, Ended),
            ("b", 4, Started),
            ("b", 4, Ended),
        ];
        assert_eq!(breaches(&fine), [""; 0]);
    }

    #[test]
    fn a_machine_goes_on_where_it_left_unless_it_ran_elsewhere() {
        use Moment::{Ended, Left, Started, WentOn};
        let back = [("a", 1, Started), ("a", 1, Left), ("a", 1, WentOn)];
        assert_eq!(breaches(&back), [""; 0]);
        let away = [("a", 1, Started), ("a", 1, Left), ("b", 2, Started)];
        assert_eq!(breaches(&away), [""; 0]);
        let both = [away.as_slice(), &[("a", 1, WentOn)]].concat();
        assert_eq!(breaches(&both).len(), 1);
        let late = [away.as_slice(), &[("b", 2, Ended), ("a", 1, WentOn)]].concat();
        assert_eq!(breaches(&late).len(), 1);
        assert_eq!(breaches(&[("a", 1, Left)]).len(), 1);
    }

    #[test]
    fn two_writers_and_epochs_that_do_not_grow_are_found() {
        use Moment::{Ended, Renumbered, Started};
        assert_eq!(breaches(&[("a", 1, Started), ("b", 2, Started)]).len(), 1);
        let again = [("a", 1, Started), ("a", 1, Ended), ("a", 1, Started)];
        assert_eq!(breaches(&again).len(), 1);
        assert_eq!(
            breaches(&[("a", 1, Started), ("b", 2, Renumbered)]).len(),
            1
        );
    }
}
