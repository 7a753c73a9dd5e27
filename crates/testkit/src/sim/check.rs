//! What always holds, and what holds once everything has come to rest.

use std::collections::BTreeMap;

use vimana_driver::Power;
use vimana_driver_sim::Effects;
use vimana_engine::check::{Outside, check};
use vimana_model::VmId;
use vimana_model::operation::{StepKind, StepState};
use vimana_model::state::VmState;
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::vm::{VmFilter, VmRecord};
use vimana_store::{Reader, operation, orphan, vm};

use super::World;

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
        self.check_growth(&vms);
        self.check_effects_recorded(&vms);
        self.check_promises(&read, &vms).await;
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
        let found: BTreeMap<_, _> = found.iter().map(|op| (op.id, op.vm_id)).collect();
        for promise in self.people.promises() {
            let answer = promise.answer;
            let lost_vm = answer.vm.is_some_and(|id| !vms.contains_key(&id));
            let lost_operation = promise.began
                && answer
                    .operation
                    .is_some_and(|id| found.get(&id).copied() != answer.vm);
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
        let hosts = self.hosts.iter();
        let outside = Outside {
            inventories: hosts.map(|host| (host.id, host.sim.observed())).collect(),
            in_datastore: Some(self.vault.contents()),
        };
        self.check_records(engine.store().read(), outside).await;
        let read = engine.store().read();
        for (id, vm) in all(&read).await {
            let operations = operation::for_vm(&read, id).await.unwrap();
            self.check_counts(&vm, &operations);
        }
        for host in &self.hosts {
            for orphan in orphan::on_host(&read, host.id).await.unwrap() {
                let what = format!("{} holds {}, an orphan", host.name, orphan.vm_id);
                self.journal.breach(12, what);
            }
        }
        drop(looking);
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
            ("imported", had.imported, StepKind::Download, 0),
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
        let Some(on) = vm.host.as_ref().filter(|_| had.prepared == 1) else {
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
        for left in vimana_store::claim::list(&read).await.unwrap() {
            self.journal
                .breach(12, format!("{} left a claim", left.vm_id));
        }
        for left in self.vault.vms() {
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
