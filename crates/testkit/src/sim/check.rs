//! What always holds, and what holds once everything has come to rest: the
//! rules, each by its number in the architecture's table, and who looks.
//!
//! | rule | looked at here by |
//! | --- | --- |
//! | 1 one running writer | `RunLog::breaches`, of every start and end there ever was |
//! | 2 claims fit | `engine::check`, after every strike |
//! | 3 quotas | there are none yet |
//! | 4 operations end | `World::come_to_rest`; the crash matrix judges how |
//! | 5 one placement | `engine::check` |
//! | 6 walls between tenants | `World::check_wall`; of events `Reader::check` |
//! | 7 agents refuse what is old | `Ledger`, of every command an agent takes on |
//! | 8 runs only grow | `RunLog::breaches`, `World::check_growth` |
//! | 9 no restart elsewhere without a confirmed stop | `World::check_hosts`, `World::check_moves` |
//! | 10 after COMMITTED the source is still | there are no migrations yet |
//! | 11 record before effect | `World::check_effects_recorded`, `World::check_counts` |
//! | 12 deleted means gone | `World::check_nothing_left`, `World::come_to_rest` |
//! | 13 one key, one effect | `People::ask`, `World::check_promises` |
//! | 14 acknowledged means durable | `World::check_promises`, `World::check_found`, `World::check_growth` |
//! | 15 disks stay | `World::check_disk`, `engine::check` |
//! | 16 addresses are unique | there are no networks yet |
//! | 17 affinity | there is none yet |
//! | 18 no gaps | `Reader`, which is told every event once; `engine::check` |
//! | 19 authorized in the transaction | `Rights::check`, of every event after rights were lost |
//! | 20 reports rebuild the rest | `World::come_to_rest`, `engine::check`; every error that no fault explains |
//! | 21 no secret is told | `Journal::say` and `Journal::overhear`, of everything that is logged or refused |
//! | 22 rows make sense | `engine::check` |

use std::collections::BTreeMap;
use std::sync::Arc;
use vimana_model::datastore::MAIN;
use vimana_model::name::DatastoreName;

use vimana_driver::{HostDriver as _, Power};
use vimana_driver_sim::{Effects, Moment, SimDriver};
use vimana_engine::check::{Outside, check};
use vimana_engine::{Engine, Inventory, OpContext};
use vimana_model::operation::{StepKind, StepState};
use vimana_model::state::VmState;
use vimana_model::unit::Resources;
use vimana_model::{HostId, VmId};
use vimana_protocol::agent::Disks;
use vimana_repository::Repository as _;
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::vm::{VmFilter, VmRecord};
use vimana_store::{Reader, operation, orphan, vm};

use super::World;
use super::library::Library;
use super::people::Answer;

/// What was seen of each VM the last time: epoch and generation.
pub type Seen = BTreeMap<VmId, (u64, u64)>;

impl World {
    /// Looks at everything in one moment; at any moment.
    pub async fn check(&self) {
        let Some(engine) = self.server.engine() else {
            return;
        };
        self.journal.count("checks", 1);
        let looking = self.server.look();
        // No task gets ahead while this one looks.
        let look = self.check_records(engine.store().read(), Outside::default());
        tokio::task::coop::unconstrained(look).await;
        drop(looking);
    }

    async fn check_records(&self, read: Reader, outside: Outside) {
        for breach in self.log.breaches() {
            self.journal.breach(1, breach);
        }
        match check(&read, &outside).await {
            Ok(breaches) => {
                for breach in breaches {
                    let what = format!("{}: {}", breach.subject, breach.what);
                    self.journal.breach(breach.rule().number(), what);
                }
            }
            Err(error) => self
                .journal
                .breach(20, format!("{error}: {:?}", error.source)),
        }
        let vms = all(&read).await;
        self.check_hosts(&vms);
        self.check_growth(&vms);
        self.check_effects_recorded(&vms);
        self.check_promises(&read, &vms).await;
    }

    /// Nothing runs where the record does not have it: a host was not given up
    /// before it was known that nothing runs there.
    fn check_hosts(&self, vms: &BTreeMap<VmId, VmRecord>) {
        for host in &self.hosts {
            for held in host.sim.observed() {
                if held.power != Power::Running || self.strangers.contains(&held.vm_id) {
                    continue;
                }
                let on = vms.get(&held.vm_id).and_then(|vm| vm.host.as_ref());
                if on.is_none_or(|on| on.id != host.id) {
                    let what = format!(
                        "{} runs on {}, which the record has given up for {on:?}",
                        held.vm_id, host.name
                    );
                    self.journal.breach(9, what);
                }
            }
        }
    }

    /// A VM ran on another host only after the one before had been cleaned, and
    /// had said so, or after a migration was committed.
    fn check_moves(&self, vm: &VmRecord, operations: &[OperationRecord]) {
        let runs = self.log.entries();
        let starts = runs
            .iter()
            .filter(|run| run.vm == vm.id && run.moment == Moment::Started);
        let hosts: Vec<_> = starts.map(|run| &run.host).collect();
        let next = hosts.iter().skip(1);
        let moves = hosts.iter().zip(next).filter(|(from, to)| from != to);
        let moves = moves.count();
        let left = |operation: &&OperationRecord| {
            operation.steps.iter().any(|step| {
                let goes = matches!(
                    step.kind,
                    StepKind::Clean | StepKind::Send | StepKind::Arrive
                ) && step.state == StepState::Done;
                let comes = matches!(step.kind, StepKind::Prepare | StepKind::Download);
                goes || (comes && step.state == StepState::Undone)
            })
        };
        let left = operations.iter().filter(left).count();
        if moves > left {
            let what = format!(
                "{} ran on {hosts:?}, and only {left} times a host was left by it",
                vm.name
            );
            self.journal.breach(9, what);
        }
    }

    fn check_growth(&self, vms: &BTreeMap<VmId, VmRecord>) {
        let mut seen = self.seen.lock().unwrap();
        for (id, (epoch, generation)) in seen.iter() {
            match vms.get(id) {
                None => self
                    .journal
                    .breach(14, format!("{id} is no longer recorded")),
                Some(vm) if vm.run_epoch < *epoch || vm.generation < *generation => {
                    let what = format!(
                        "{id} went back from run {epoch}, generation {generation} to run {}, generation {}",
                        vm.run_epoch, vm.generation
                    );
                    self.journal.breach(8, what);
                }
                Some(_) => {}
            }
        }
        let now = vms
            .iter()
            .map(|(id, vm)| (*id, (vm.run_epoch, vm.generation)));
        *seen = now.collect();
    }

    fn check_effects_recorded(&self, vms: &BTreeMap<VmId, VmRecord>) {
        for run in self.log.entries() {
            if self.strangers.contains(&run.vm) {
                continue;
            }
            let recorded = vms.get(&run.vm).map(|vm| vm.run_epoch);
            if recorded.is_none_or(|epoch| epoch < run.run_epoch) {
                let what = format!(
                    "{} ran on {} in run {}, recorded is {recorded:?}",
                    run.vm, run.host, run.run_epoch
                );
                self.journal.breach(11, what);
            }
        }
    }

    async fn check_promises(&self, read: &Reader, vms: &BTreeMap<VmId, VmRecord>) {
        let begun = self.people.begun();
        for (operation, keys) in &begun {
            if keys.len() > 1 {
                let what = format!("{operation} was begun by {}", keys.join(" and "));
                self.journal.breach(13, what);
            }
        }
        let ids: Vec<_> = begun.keys().copied().collect();
        let found = operation::find_many(read, &ids).await.unwrap();
        let found: BTreeMap<_, _> = found.iter().map(|op| (op.id, op.object.vm())).collect();
        for promise in self.people.promises() {
            let answer = promise.answer;
            let lost_vm = answer.vm.is_some_and(|id| !vms.contains_key(&id));
            let lost_operation = promise.began
                && answer
                    .operation
                    .is_some_and(|id| found.get(&id).copied().flatten() != answer.vm);
            if lost_vm || lost_operation {
                let what = format!("{} was answered {answer:?}, which is gone", promise.key);
                self.journal.breach(14, what);
            }
        }
    }

    /// Looks at everything, outside too; once nothing moves any more.
    ///
    /// # Panics
    /// No server runs.
    pub async fn check_rest(&self) {
        let engine = self.server.engine().unwrap();
        let looking = self.server.look();
        let mut held: Vec<(HostId, Inventory)> = Vec::new();
        for host in &self.hosts {
            let driver = SimDriver::new(Arc::clone(&host.sim));
            let disks = Disks {
                volumes: driver.volumes().await.unwrap(),
                snapshots: driver.snapshots().await.unwrap(),
            };
            let inventory = Inventory {
                machines: host.sim.observed(),
                disks: Some(disks),
            };
            held.push((host.id, inventory));
        }
        let contents = self.vault.contents();
        let main = DatastoreName::new(MAIN).unwrap();
        let outside = Outside {
            in_datastore: Some(contents.saved),
            backups: [(main, contents.backups)].into(),
            in_repository: Some(Library.contents().await.unwrap()),
            ..held.into_iter().collect()
        };
        self.check_records(engine.store().read(), outside).await;
        let read = engine.store().read();
        for (id, vm) in all(&read).await {
            let operations = operation::for_vm(&read, id).await.unwrap();
            self.check_counts(&vm, &operations);
            self.check_moves(&vm, &operations);
        }
        for host in &self.hosts {
            for orphan in orphan::on_host(&read, host.id).await.unwrap() {
                let what = format!("{} holds {}, an orphan", host.name, orphan.vm_id);
                self.journal.breach(12, what);
            }
        }
        self.check_found(&engine).await;
        drop(looking);
    }

    /// Whoever was answered finds what they were promised.
    async fn check_found(&self, engine: &Engine) {
        for promise in self.people.promises() {
            let cx = OpContext::new(promise.who.subject());
            let Answer {
                vm,
                operation,
                request,
                volume,
                piece: _,
            } = promise.answer;
            let mut lost = Vec::new();
            if let Some(id) = vm {
                lost.extend(engine.vm(&cx, id).await.err());
            }
            if let Some(id) = operation {
                lost.extend(engine.operation(&cx, id).await.err());
            }
            if let Some(id) = request {
                lost.extend(engine.request(&cx, id).await.err());
            }
            if let Some(id) = volume {
                lost.extend(engine.volume(&cx, id).await.err());
            }
            for error in lost {
                let what = format!(
                    "{} was promised it under {}: {error}",
                    promise.who.name, promise.key
                );
                self.journal.breach(14, what);
            }
        }
    }

    /// Every effect happened for a step that was begun, and for every step
    /// that was done one happened.
    fn check_counts(&self, vm: &VmRecord, operations: &[OperationRecord]) {
        let had = self.effects(vm.id);
        let steps = || operations.iter().flat_map(|operation| &operation.steps);
        let begun = |kind: StepKind| {
            let of = |step: &&_| is_begun(step) && step.kind == kind;
            steps().filter(of).count()
        };
        let done = |kind: StepKind| {
            // What was on its way back when it was overtaken may never have
            // happened.
            let forward = operations
                .iter()
                .filter(|operation| operation.undo.is_none());
            let steps = forward.flat_map(|operation| &operation.steps);
            let of = |step: &&StepRecord| step.kind == kind && step.state == StepState::Done;
            steps.filter(of).count()
        };
        let rules = [
            ("prepared", had.prepared, StepKind::Prepare, 0),
            ("booted", had.booted, StepKind::Boot, 0),
            ("saved", had.saved, StepKind::Save, 0),
            (
                "imported",
                had.imported,
                StepKind::Download,
                begun(StepKind::Arrive),
            ),
            (
                "loaded",
                had.loaded + had.renumbered,
                StepKind::Load,
                // A save is taken back by a load.
                begun(StepKind::Save),
            ),
        ];
        for (what, happened, kind, more) in rules {
            let happened = usize::try_from(happened).unwrap_or(usize::MAX);
            let (at_least, at_most) = (done(kind), begun(kind) + more);
            if happened < at_least || happened > at_most {
                let what = format!(
                    "{} was {what} {happened} times; {at_least} to {at_most} were asked for",
                    vm.name
                );
                self.journal.breach(11, what);
            }
        }
        self.check_disk(vm, &had);
    }

    /// No disk was lost and made anew behind its owner's back.
    fn check_disk(&self, vm: &VmRecord, had: &Effects) {
        // One that went back to a snapshot remembers what was before that.
        let as_made = had.prepared == 1 && had.reverted == 0;
        let Some(on) = vm.host.as_ref().filter(|_| as_made) else {
            return;
        };
        let host = self.hosts.iter().find(|host| host.id == on.id);
        let boots = host.and_then(|host| host.sim.boots(vm.id));
        let expected = had.booted + had.rebooted + had.reset;
        if boots.is_some_and(|boots| boots != expected) {
            let what = format!(
                "the disk of {} remembers {boots:?} starts of {expected}",
                vm.name
            );
            self.journal.breach(15, what);
        }
    }

    /// What happened to a VM, over all hosts.
    #[must_use]
    pub fn effects(&self, vm: VmId) -> Effects {
        let mut sum = Effects::default();
        for host in &self.hosts {
            let had = host.sim.effects(vm);
            sum.prepared += had.prepared;
            sum.booted += had.booted;
            sum.guest_off += had.guest_off;
            sum.stopped += had.stopped;
            sum.crashed += had.crashed;
            sum.saved += had.saved;
            sum.loaded += had.loaded;
            sum.renumbered += had.renumbered;
            sum.exported += had.exported;
            sum.imported += had.imported;
            sum.rebooted += had.rebooted;
            sum.reset += had.reset;
            sum.resized += had.resized;
            sum.reverted += had.reverted;
            sum.cleaned += had.cleaned;
        }
        sum
    }

    /// Nothing is left of any VM, anywhere.
    ///
    /// # Panics
    /// No server runs.
    pub async fn check_nothing_left(&self) {
        let engine = self.server.engine().unwrap();
        let looking = self.server.look();
        let read = engine.store().read();
        for (id, vm) in all(&read).await {
            if vm.state != VmState::Done {
                let what = format!("{} is {} after it was deleted", vm.name, vm.state);
                self.journal.breach(12, what);
            }
            for host in &self.hosts {
                for left in host.sim.left_behind(id) {
                    let what = format!("{} left {left} on {}", vm.name, host.name);
                    self.journal.breach(12, what);
                }
                if host.sim.power(id) == Some(Power::Running) {
                    let what = format!("{} still runs on {}", vm.name, host.name);
                    self.journal.breach(12, what);
                }
            }
        }
        for host in &self.hosts {
            let driver = SimDriver::new(Arc::clone(&host.sim));
            for left in driver.volumes().await.unwrap() {
                let what = format!("volume {} is still on {}", left.volume_id, host.name);
                self.journal.breach(12, what);
            }
            for left in driver.snapshots().await.unwrap() {
                let what = format!("snapshot {} is still on {}", left.snapshot_id, host.name);
                self.journal.breach(12, what);
            }
        }
        for left in self.site.shared.machines() {
            let what = format!("the disk of {left} is still in the shared datastore");
            self.journal.breach(12, what);
        }
        for host in vimana_store::host::list(&read).await.unwrap() {
            if host.used != Resources::default() {
                let what = format!("of {} there is still used: {:?}", host.name, host.used);
                self.journal.breach(12, what);
            }
        }
        for left in vimana_store::claim::list(&read).await.unwrap() {
            self.journal
                .breach(12, format!("{} left a claim", left.vm_id));
        }
        for left in self.vault.items() {
            self.journal
                .breach(12, format!("{left} is still in the datastore"));
        }
        drop(looking);
    }
}

fn is_begun(step: &StepRecord) -> bool {
    step.started_at.is_some()
}

/// All VMs there ever were.
///
/// # Panics
/// They cannot be read.
pub async fn all(read: &Reader) -> BTreeMap<VmId, VmRecord> {
    let filter = VmFilter {
        limit: u32::MAX,
        ..VmFilter::default()
    };
    let found = vm::list(read, &filter).await.unwrap();
    found.into_iter().map(|vm| (vm.id, vm)).collect()
}
