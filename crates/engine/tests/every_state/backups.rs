//! Backups of VMs: made, kept, deleted, and what stands in the way.

use std::time::Duration;

use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Mishap};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::backup::{BackupState, BackupView, TakeBackup};
use vimana_model::operation::{OperationState, Piece};
use vimana_model::schedule::{ScheduleKind, SetSchedule};
use vimana_model::unit::MiB;
use vimana_model::vm::{AcceptedView, VmView};
use vimana_model::{BackupId, Error, ErrorKind, VmState};

use super::{Scene, TINY, disk_of};

impl Scene {
    async fn back_up(&self, form: TakeBackup) -> Result<AcceptedView, Error> {
        self.ask(VmAction::Backup, ActionArgs::Backup(form)).await
    }

    /// Makes one to its end.
    async fn backed_up(&self, name: &str) -> BackupView {
        let accepted = self.back_up(named(name)).await.unwrap();
        let Some(Piece::Backup { id, .. }) = accepted.operation.piece else {
            unreachable!("a backup's operation is about it");
        };
        let vm = self.world.until_rest(self.vm).await;
        assert_eq!(vm.operation.unwrap().state, OperationState::Succeeded);
        self.backup(id).await
    }

    async fn backup(&self, id: BackupId) -> BackupView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.backup(admin, id).await.unwrap()
    }

    async fn backups(&self) -> Vec<BackupView> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.backups(admin).await.unwrap()
    }

    /// In every state, the newest first.
    async fn states(&self) -> Vec<(String, BackupState)> {
        let all = self.backups().await.into_iter();
        all.map(|backup| (backup.name.to_string(), backup.state))
            .collect()
    }

    async fn delete_backup(&self, id: BackupId) -> Result<BackupView, Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.delete_backup(admin, id).await
    }

    async fn schedule(&self, keep: u32, full_every: u32) -> VmView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let form = SetSchedule {
            every_s: 3600,
            keep,
            full_every: Some(full_every),
            datastore: None,
        };
        let before = self.world.vm(self.vm).await.operation.map(|op| op.id);
        let set = engine.set_schedule(admin, self.vm, ScheduleKind::Backup, &form);
        set.await.unwrap();
        self.world
            .until_vm(self.vm, "the first backup of the schedule", |vm| {
                let operation = vm.operation.as_ref();
                operation.is_some_and(|op| Some(op.id) != before && op.state.is_over())
            })
            .await
    }
}

fn named(name: &str) -> TakeBackup {
    TakeBackup {
        name: name.to_owned(),
        ..TakeBackup::default()
    }
}

fn dislikes() -> Mishap {
    Mishap::Fail(Fault::new(FaultKind::Hypervisor, "it does not like it"))
}

#[tokio::test]
async fn backups_hold_what_changed_and_outlive_the_vm() {
    let scene = Scene::new(1).await;
    let first = scene.backed_up("first").await;
    assert_eq!((first.state, first.since), (BackupState::Ready, None));
    assert_eq!(first.datastore.as_str(), "backups");
    assert_eq!(first.disks.len(), 1);
    let second = scene.backed_up("second").await;
    assert_eq!(second.since, Some(first.id));
    let form = TakeBackup {
        full: true,
        ..named("third")
    };
    scene.back_up(form).await.unwrap();
    scene.world.until_rest(scene.vm).await;
    let third = scene.backups().await[0].clone();
    assert_eq!((third.name.as_str(), third.since), ("third", None));
    assert_eq!(
        scene.used().await,
        TINY,
        "its copies are gone from the host"
    );

    let needed = scene.delete_backup(first.id).await.unwrap_err();
    assert_eq!(
        needed.public,
        "backup `first` cannot be deleted: `second` holds only what has changed since it"
    );
    scene.world.operate(scene.vm, VmAction::Delete).await;
    scene.world.until(scene.vm, VmState::Done).await;
    let ready = |name: &str| (name.to_owned(), BackupState::Ready);
    assert_eq!(
        scene.states().await,
        [ready("third"), ready("second"), ready("first")]
    );
    for id in [second.id, first.id] {
        let deleted = scene.delete_backup(id).await.unwrap();
        assert_eq!(deleted.state, BackupState::Removing);
    }
    assert_eq!(scene.states().await, [ready("third")]);
    let again = scene.delete_backup(first.id).await.unwrap_err();
    assert!(matches!(
        again.kind,
        ErrorKind::Conflict | ErrorKind::NotFound
    ));
}

#[tokio::test]
async fn a_vm_that_is_off_is_backed_up_and_one_whose_memory_is_saved_is_not() {
    let scene = Scene::new(1).await;
    scene.through(VmAction::PowerOff).await;
    scene.backed_up("off").await;
    assert_eq!(scene.used().await, disk_of(1024));
    scene.through(VmAction::Start).await;
    scene.through(VmAction::Suspend).await;
    let refused = scene.back_up(named("asleep")).await.unwrap_err();
    assert_eq!(
        refused.public,
        "`web-1` has its memory saved, which fixes its disks; resume it first"
    );
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn a_backup_that_fails_costs_the_vm_nothing() {
    let scene = Scene::new(1).await;
    let first = scene.backed_up("first").await;
    scene.hosts[0].sim.mishap(Call::BackUp, dislikes());
    scene.back_up(named("second")).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    let second = scene.backups().await[0].clone();
    assert_eq!(second.state, BackupState::Failed);
    assert_eq!(second.failure.as_deref(), Some("it does not like it"));
    assert_eq!(scene.used().await, TINY);
    // What changed since the first is still known.
    assert_eq!(scene.backed_up("third").await.since, Some(first.id));
    let deleted = scene.delete_backup(second.id).await.unwrap();
    assert_eq!(deleted.state, BackupState::Removing);
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_taken_back_leaves_the_vm_running_too() {
    let scene = Scene::new(1).await;
    for call in [Call::BackUp, Call::EndBackup] {
        scene.hosts[0].sim.mishap(call, dislikes());
    }
    scene.back_up(named("first")).await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.state, VmState::Running);
    assert_eq!(vm.operation.unwrap().state, OperationState::Failed);
    assert_eq!(scene.used().await, TINY);
    scene.backed_up("second").await;
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn while_it_is_made_it_claims_its_room_and_can_be_cancelled() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::BackUp, Duration::from_secs(3600));
    let accepted = scene.back_up(named("first")).await.unwrap();
    assert_eq!(
        scene.used().await.disk_mib,
        MiB(2048),
        "a copy beside the disk"
    );
    let busy = scene.back_up(named("second")).await.unwrap_err();
    assert_eq!(
        busy.public,
        "`web-1` is being backed up; wait for it, or cancel it"
    );
    let Some(Piece::Backup { id, .. }) = accepted.operation.piece.clone() else {
        unreachable!("a backup's operation is about it");
    };
    let making = scene.delete_backup(id).await.unwrap_err();
    assert!(making.public.contains("is still being made"), "{making:?}");
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let cancel = engine.cancel_operation(admin, accepted.operation.id);
    cancel.await.unwrap();
    let vm = scene.world.until_rest(scene.vm).await;
    assert_eq!(vm.operation.unwrap().state, OperationState::Cancelled);
    let backup = scene.backup(id).await;
    assert_eq!(backup.state, BackupState::Failed);
    assert_eq!(backup.failure.as_deref(), Some("it was cancelled"));
    assert_eq!(scene.used().await, TINY);
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn a_deletion_overtakes_a_backup() {
    let scene = Scene::new(1).await;
    let sim = &scene.hosts[0].sim;
    sim.delay(Call::BackUp, Duration::from_secs(3600));
    scene.back_up(named("first")).await.unwrap();
    scene.world.operate(scene.vm, VmAction::Delete).await;
    scene.world.until(scene.vm, VmState::Done).await;
    let failed = ("first".to_owned(), BackupState::Failed);
    assert_eq!(scene.states().await, [failed]);
    assert_eq!(scene.used().await, disk_of(0));
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn forms_name_what_is_wrong() {
    let scene = Scene::new(1).await;
    for datastore in ["nowhere", "main"] {
        let form = TakeBackup {
            datastore: Some(datastore.to_owned()),
            ..named("first")
        };
        let wrong = scene.back_up(form).await.unwrap_err();
        assert_eq!(wrong.fields[0].field, "datastore", "{datastore}");
    }
    scene.backed_up("first").await;
    let taken = scene.back_up(named("first")).await.unwrap_err();
    assert_eq!(taken.public, "there is already a backup named `first`");
    scene.sound_but_for_files().await;
}

#[tokio::test]
async fn a_schedule_makes_backups_and_keeps_as_many_as_it_says() {
    let scene = Scene::new(1).await;
    let own = scene.backed_up("own").await;
    for _ in 0..3 {
        scene.schedule(1, 1).await;
    }
    let all = scene.backups().await;
    let ready: Vec<_> = all
        .iter()
        .filter(|backup| backup.state == BackupState::Ready)
        .map(|backup| (backup.scheduled, backup.since))
        .collect();
    assert_eq!(ready, [(true, None), (false, None)], "{all:#?}");
    assert_eq!(all.last().unwrap().id, own.id);
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let kind = ScheduleKind::Backup;
    let shown = engine.schedules(admin, scene.vm).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].trouble, None);
    assert!(shown[0].last_at.is_some_and(|last| last < shown[0].next_at));
    engine.remove_schedule(admin, scene.vm, kind).await.unwrap();
    let gone = engine.remove_schedule(admin, scene.vm, kind).await;
    assert_eq!(gone.unwrap_err().kind, ErrorKind::NotFound);
    scene.sound_but_for_files().await;
}

impl Scene {
    /// What always holds, holds, but for the files of backups: the tests' hosts
    /// carry none.
    async fn sound_but_for_files(&self) {
        let found = self.world.engine.check().await.unwrap();
        let found = found
            .into_iter()
            .filter(|breach| breach.check != vimana_engine::check::Check::BackupGone);
        assert_eq!(found.collect::<Vec<_>>(), []);
    }
}
