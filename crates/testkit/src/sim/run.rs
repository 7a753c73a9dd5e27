//! One run: a storm, a calm, and an end at which nothing is left.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use vimana_datastore::Item;
use vimana_store::backup;

use futures::FutureExt as _;
use tokio::task::JoinSet;
use vimana_model::action::VmAction;
use vimana_model::operation::StepKind;
use vimana_model::state::VmState;
use vimana_model::volume::VolumeState;
use vimana_model::{ErrorKind, VmId};
use vimana_store::{Reader as Store, event, operation, volume};

use super::check::all;
use super::people::{ADMIN, AUTOMATIC, Ask, MANUAL, MONA, PAUL, RITA, tenant_id};
use super::{World, habits, trace};

/// How long a calm may last until everything has come to an end.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub breaches: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub text: String,
    pub fingerprint: u64,
}

/// Runs on a runtime of its own, whose time is virtual.
///
/// # Panics
/// No runtime can be made.
pub fn in_time<T>(work: impl Future<Output = T>) -> T {
    quiet_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work)
}

/// Runs one seed from beginning to end.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    in_time(async {
        let mut world = World::new(seed).await;
        let _ears = tracing::dispatcher::set_default(&trace::dispatch(world.journal.clone()));
        let ended = AssertUnwindSafe(whole(&mut world)).catch_unwind().await;
        if let Err(panic) = ended {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            world.journal.breach(20, format!("a panic: {said:?}"));
        }
        Outcome {
            seed,
            breaches: world.journal.breaches(),
            counts: world.journal.counts(),
            text: world.journal.text(),
            fingerprint: world.journal.fingerprint(),
        }
    })
}

async fn whole(world: &mut World) {
    let chance = world.chance.fork();
    for _ in 0..=chance.below(3) {
        world.add_host();
    }
    for _ in 0..=chance.below(2) {
        world.add_scheduler();
    }
    world.add_reader(ADMIN);
    world.add_reader(MONA);
    world.server.start();
    world.make_secrets().await;
    world.start_all();
    let mut people = JoinSet::new();
    for number in 1..=1 + chance.below(3) {
        people.spawn(habits::tinker(world.people.clone(), chance.fork(), number));
    }
    people.spawn(habits::bureaucracy(world.people.clone(), chance.fork()));
    people.spawn(habits::personnel(world.people.clone(), chance.fork()));
    let hosts: Vec<_> = world.hosts.iter().map(|host| host.id).collect();
    people.spawn(habits::upkeep(world.people.clone(), chance.fork(), hosts));
    let long = chance.ms(20_000..=60_000);
    world.storm(&chance, long).await;
    world.people.go_home();
    world.calm();
    // Whoever still waits for an answer gets one now.
    let all_home = async { while people.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all_home).await.is_err() {
        world.journal.breach(4, "somebody never got an answer");
    }
    world.come_to_rest().await;
    world.check_rest().await;
    world.check_people().await;
    world.sweep_up().await;
    world.check_rest().await;
    world.check_nothing_left().await;
    world.check_readers().await;
}

impl World {
    /// Waits until nothing moves any more, but what waits for room or a person.
    pub async fn come_to_rest(&self) {
        self.server.until_serving().await;
        let connected = self.until_connected(Duration::from_secs(120)).await;
        if !connected {
            self.journal.breach(20, "a host does not come back");
        }
        if !self.until(PATIENCE, at_rest).await {
            self.tell_unrest().await;
        }
        if !self
            .until(PATIENCE, async |store| self.is_swept(&store).await)
            .await
        {
            self.journal
                .breach(12, "the datastore keeps what nobody points to");
        }
        // What changed by itself just now is still on its way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.check().await;
    }

    /// Whether the datastore holds nothing but what a record points to.
    async fn is_swept(&self, store: &Store) -> bool {
        let vms = all(store).await;
        let backups = backup::with_content(store).await.unwrap();
        self.vault.items().iter().all(|item| match item {
            Item::Saved(id) => vms.get(id).is_some_and(|vm| vm.saved.is_some()),
            Item::Backup(id) => backups.iter().any(|backup| backup.id == *id),
        })
    }

    async fn tell_unrest(&self) {
        let engine = self.server.until_serving().await;
        let read = engine.store().read();
        let vms = all(&read).await;
        for operation in operation::running(&read).await.unwrap() {
            let vm = operation.object.vm().and_then(|id| vms.get(&id));
            let what = format!(
                "the {} of {} never ends: it is {} at step {} of {:?}, the VM is {:?}",
                operation.kind,
                vm.map_or("nobody", |vm| vm.name.as_str()),
                operation.state.name(),
                operation.step,
                operation.steps,
                vm.map(|vm| vm.state),
            );
            self.journal.breach(4, what);
        }
        for vm in vms.values().filter(|vm| vm.state == VmState::Unknown) {
            self.journal.breach(4, format!("{} stays unknown", vm.name));
        }
    }

    /// Has everything deleted, and waits for it.
    pub async fn sweep_up(&self) {
        self.journal.say("world", "everything is deleted");
        let read = self.server.until_serving().await.store().read();
        for (id, vm) in all(&read).await {
            if vm.state == VmState::Done {
                continue;
            }
            let automatic = vm.tenant_id == tenant_id(AUTOMATIC);
            let who = if automatic { ADMIN } else { MONA };
            let ask = Ask::Act(id, VmAction::Delete, vimana_engine::ActionArgs::None);
            match self.people.ask(who, ask).await {
                Ok(_) => {}
                // Gone, or going, by itself.
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => {
                    let what = format!("{} cannot be deleted: {error}", vm.name);
                    self.journal.breach(12, what);
                }
            }
        }
        if !self.until(PATIENCE, all_done).await {
            self.tell_unrest().await;
        }
        self.delete_volumes().await;
        self.delete_backups().await;
        if !self
            .until(PATIENCE, async |store| self.is_swept(&store).await)
            .await
        {
            self.journal
                .breach(12, "the datastore keeps what nobody points to");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn delete_volumes(&self) {
        let read = self.server.until_serving().await.store().read();
        let tenant = tenant_id(AUTOMATIC);
        for volume in volume::list(&read, tenant).await.unwrap() {
            if volume.state == VolumeState::Removing {
                continue;
            }
            let deleted = self.people.ask(ADMIN, Ask::DeleteVolume(volume.id));
            if let Err(error) = deleted.await {
                let what = format!("volume {} cannot be deleted: {error}", volume.name);
                self.journal.breach(12, what);
            }
        }
        let removed = self.until(PATIENCE, async |store| {
            volume::list(&store, tenant).await.unwrap().is_empty()
        });
        if !removed.await {
            let what = "volumes are not removed for good";
            self.journal.breach(12, what);
        }
    }

    /// What others need goes after them. That is not the order of their times: a
    /// clock may have been set back.
    async fn delete_backups(&self) {
        for (tenant, who) in [(AUTOMATIC, ADMIN), (MANUAL, MONA)] {
            let read = self.server.until_serving().await.store().read();
            let mut left = backup::list(&read, tenant_id(tenant)).await.unwrap();
            loop {
                let mut refused = Vec::new();
                let count = left.len();
                for found in left {
                    let deleted = self.people.ask(who, Ask::DeleteBackup(found.id)).await;
                    if let Err(error) = deleted {
                        refused.push((found, error));
                    }
                }
                if refused.len() == count {
                    for (found, error) in refused {
                        let what = format!("backup {} cannot be deleted: {error}", found.name);
                        self.journal.breach(12, what);
                    }
                    break;
                }
                left = refused.into_iter().map(|(found, _)| found).collect();
            }
        }
        let removed = self.until(PATIENCE, async |store| {
            let left = backup::with_content(&store).await.unwrap();
            left.is_empty() && backup::removing(&store).await.unwrap().is_empty()
        });
        if !removed.await {
            self.journal.breach(12, "backups are not removed for good");
        }
    }

    /// Nobody saw or did what they may not.
    pub async fn check_people(&self) {
        for who in [PAUL, MONA, RITA] {
            self.check_wall(who).await;
        }
        self.use_tickets().await;
        let read = self.server.until_serving().await.store().read();
        self.people.check_rights(&read).await;
    }

    /// Every reader was told everything.
    pub async fn check_readers(&self) {
        let read = self.server.until_serving().await.store().read();
        let last = event::last_seq(&read).await.unwrap();
        self.journal.count("events", last);
        for reader in &self.readers {
            reader.check(&read, &self.journal).await;
        }
    }

    /// The VM of that name that is not done, or the last one that was.
    ///
    /// # Panics
    /// There never was one, or no server runs.
    pub async fn vm_named(&self, name: &str) -> VmId {
        let read = self.server.engine().unwrap().store().read();
        let vms = all(&read).await;
        let named = || vms.values().filter(|vm| vm.name.as_str() == name);
        let alive = named().find(|vm| vm.state != VmState::Done);
        alive.or_else(|| named().next_back()).unwrap().id
    }
}

async fn at_rest(store: Store) -> bool {
    let vms = all(&store).await;
    if vms.values().any(|vm| vm.state == VmState::Unknown) {
        return false;
    }
    let running = operation::running(&store).await.unwrap();
    running.iter().all(|operation| {
        // For want of room, or of a person's word.
        let step = usize::try_from(operation.step).unwrap_or(usize::MAX);
        let placing = operation.steps.get(step).map(|step| step.kind) == Some(StepKind::Place);
        let vm = operation.object.vm().and_then(|id| vms.get(&id));
        let waits = vm.is_some_and(|vm| vm.state == VmState::Hold || vm.explanation.is_some());
        placing && waits
    })
}

async fn all_done(store: Store) -> bool {
    let running = operation::running(&store).await.unwrap();
    running.is_empty()
        && all(&store)
            .await
            .values()
            .all(|vm| vm.state == VmState::Done)
}

/// Panics that were asked for are no news.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let asked = info
                .payload()
                .downcast_ref::<String>()
                .is_some_and(|said| said.contains("was made to panic"));
            if !asked {
                usual(info);
            }
        }));
    });
}
