//! The suite every driver must pass: each case is a promise of [`HostDriver`].
//!
//! A driver brings a [`Harness`] and calls [`crate::conformance_suite!`] in an
//! integration test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite of tests: a broken promise panics"
)]

mod backups;
mod cases;
mod copies;
mod homes;
mod migrating;
mod moves;
mod restarting;
mod saving;
mod snapshots;
mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vimana_model::name::DatastoreName;
use vimana_model::unit::Resources;
use vimana_model::{BackupId, SnapshotId, VmId, VolumeId};

use crate::{HostDriver, ImageRef, IncarnationSpec, Observed, Power, Seed, SerialStream};

pub use backups::*;
pub use cases::*;
pub use copies::*;
pub use homes::*;
pub use migrating::*;
pub use moves::*;
pub use restarting::*;
pub use saving::*;
pub use snapshots::*;
pub use volumes::*;

/// Typed on the serial line, it makes the guest count in its memory and say how
/// far it got, as a letter from `A` on.
pub const COUNT: u8 = 0x05;
/// Typed on the serial line, it makes the guest say how often it was started
/// from its disk, as a letter from `A` on.
pub const BOOTS: u8 = 0x02;

/// How long the suite waits for something that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host to try a driver on. Each case gets its own.
///
/// Its guest prints something on its serial line when it starts, echoes what is
/// typed, answers [`COUNT`] and [`BOOTS`], and switches itself off when asked to.
#[async_trait]
pub trait Harness: Send + Sync + Sized {
    async fn new() -> Self;

    /// Another host, to which machines of this one can go.
    async fn beside(&self) -> Self;

    /// A new driver on the host; called again after the last one was dropped,
    /// it is the agent's restart.
    async fn driver(&self) -> Arc<dyn HostDriver>;

    /// A driver on this host when it has no disk space left.
    async fn driver_on_full_disk(&self) -> Arc<dyn HostDriver>;

    /// A bootable image.
    fn image(&self) -> (ImageRef, PathBuf);

    /// An image whose bytes are not what its reference promises.
    fn bad_image(&self) -> (ImageRef, PathBuf);

    /// The size of machine to run.
    fn resources(&self) -> Resources;

    /// What the host still holds for a VM: files, processes, entries. Empty
    /// when nothing is left.
    fn left_behind(&self, vm: VmId) -> Vec<String>;

    /// A datastore of this host besides [`DatastoreName::local`].
    fn datastore(&self) -> DatastoreName;

    /// The one that a machine's own disk is in, and nothing of it in another.
    fn home(&self, vm: VmId) -> DatastoreName;

    /// Kills the machine from outside, not through the driver.
    async fn crash(&self, vm: VmId);

    /// Carries a file to another host, as a datastore does; its place there.
    fn carry(&self, file: &Path, to: &Self) -> PathBuf;

    /// Fills the beginning of a volume that no running machine has.
    fn scribble(&self, volume: VolumeId);

    /// Whether a volume that no running machine has reads zeros throughout.
    fn reads_zeros(&self, volume: VolumeId) -> bool;

    /// A file that the driver made.
    fn read_file(&self, path: &Path) -> Vec<u8>;

    /// How often the guest was started, as [`BOOTS`] has it, by the root disk
    /// of a backup: the files of the backups that it is made of, the full one
    /// first.
    fn boots_kept(&self, chain: &[Vec<u8>]) -> char;

    /// Whether a volume reads zeros throughout, in the same manner.
    fn zeros_kept(&self, chain: &[Vec<u8>]) -> bool;

    /// Whether a copy of a volume reads zeros throughout.
    fn copy_reads_zeros(&self, copy: &Path) -> bool;

    /// The copies of volumes that the host holds.
    fn copies(&self) -> Vec<String>;

    /// How many volumes the guest's hardware has right now.
    async fn plugged(&self, driver: &dyn HostDriver, vm: VmId) -> usize;

    /// Makes the guest switch itself off of its own accord.
    async fn guest_off(&self, driver: &dyn HostDriver, vm: VmId);

    /// Makes the guest ignore requests to switch itself off.
    async fn ignore_shutdown(&self, driver: &dyn HostDriver, vm: VmId);
}

/// Makes one `#[tokio::test]` of every promise.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:ty) => {
        $crate::conformance_suite! { $harness:
            prepare_is_idempotent
            boot_runs_the_machine_and_is_observed
            inventory_names_everything
            kill_is_idempotent_and_final
            clean_leaves_nothing
            images_are_in_use_as_long_as_machines_are_made_from_them
            clean_refuses_while_the_machine_runs
            calls_for_what_is_not_there_are_fine
            lower_epoch_is_refused_without_effect
            crash_is_observed_within_two_seconds
            guest_power_off_is_observed
            graceful_shutdown_is_by_the_guest
            shutdown_is_forced_after_the_grace_time
            kill_overtakes_a_shutdown
            machine_survives_a_restart_of_the_driver
            end_during_a_restart_of_the_driver_is_known_afterwards
            bad_image_leaves_nothing
            full_disk_leaves_nothing
            late_viewer_gets_recent_output
            two_viewers_see_the_same
            cancelled_prepare_is_cleaned
            cancelled_boot_is_killed_and_cleaned
            next_epoch_can_be_prepared_and_booted
            next_run_starts_from_the_same_disk
            failed_start_can_be_repeated
            reboot_is_by_the_guest
            reboot_is_forced_after_the_grace_time
            reset_starts_the_guest_at_once
            kill_overtakes_a_reboot
            only_what_runs_can_be_restarted_or_resized
            resize_is_as_the_capabilities_say
            saved_machine_goes_on_where_it_was
            saved_machine_survives_a_restart_of_the_driver
            memory_is_used_once
            nothing_but_load_uses_a_saved_memory
            clean_removes_a_saved_machine
            only_what_runs_can_be_saved
            failed_save_leaves_the_machine_running
            load_takes_back_a_save_that_never_began
            save_is_overtaken_by_load
            cancelled_save_and_load_lose_nothing
            kill_overtakes_a_load
            saved_machine_goes_on_elsewhere
            machine_that_is_off_starts_elsewhere
            export_changes_nothing
            bad_import_leaves_nothing
            machine_goes_on_at_another_host
            machine_goes_on_at_another_host_by_post_copy
            sending_that_is_called_off_leaves_the_machine_running
            sending_to_where_nobody_waits_leaves_the_machine_running
            machine_that_arrived_and_never_ran_starts_from_its_disk
            machine_that_has_left_waits_over_a_restart_of_the_driver
            sending_goes_on_after_a_restart_of_the_driver
            what_does_not_travel_is_not_sent
            volume_is_made_once_and_reads_zeros
            volume_is_a_copy_of_an_image
            volume_that_cannot_be_made_leaves_nothing
            volume_is_attached_and_detached_while_the_machine_is_off
            volume_is_attached_and_detached_while_the_machine_runs
            one_machine_at_a_time_has_a_volume
            volume_grows_and_never_shrinks
            attached_volume_survives_a_restart_of_the_driver
            volumes_go_along_with_a_machine_that_does_not_run
            saved_machine_comes_back_with_its_volumes
            clean_detaches_volumes_and_keeps_them
            cancelled_attach_and_detach_can_be_repeated
            free_volume_is_copied
            volume_is_copied_while_its_machine_runs_is_off_or_saved
            copying_makes_way_for_everything_else
            copy_that_cannot_be_made_leaves_nothing
            driver_that_starts_removes_copies
            running_machine_goes_back_to_its_memory
            machine_that_is_off_goes_back_to_its_disks
            volumes_are_in_the_snapshot
            a_volume_alone_goes_back
            snapshot_survives_a_restart_of_the_driver
            snapshot_that_does_not_fit_is_refused
            clean_removes_snapshots_and_keeps_volumes
            snapshots_of_what_is_not_there_are_refused_or_fine
            volume_calls_for_what_is_not_there_are_refused_or_fine
            volume_is_made_in_the_datastore_that_is_named
            volume_moves_while_the_machine_is_off
            volume_moves_while_the_machine_runs
            moved_volume_survives_a_restart_of_the_driver
            volume_that_cannot_move_stays
            cancelled_move_can_be_repeated_either_way
            volume_of_a_machine_that_dies_on_the_way_is_whole
            own_disk_moves_while_the_machine_is_off
            own_disk_moves_while_the_machine_runs
            own_disk_that_moved_survives_a_restart_of_the_driver
            own_disk_that_cannot_move_stays
            cancelled_move_of_an_own_disk_can_be_repeated_either_way
            own_disk_of_a_machine_that_dies_on_the_way_is_whole
            machine_whose_disk_has_moved_goes_on_at_another_host
            running_machine_is_backed_up_and_runs_on
            machine_that_is_off_is_backed_up
            backup_that_is_not_kept_costs_nothing
            changes_are_not_known_after_a_revert_or_a_crash
            volumes_are_in_the_backup
            backup_survives_a_restart_of_the_driver
            backup_that_cannot_be_is_refused
            clean_removes_the_files_of_a_backup
            disks_are_those_of_the_run_before_one_that_never_began
        }
    };
    ($harness:ty: $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::within_time(async {
                let harness = <$harness as $crate::conformance::Harness>::new().await;
                $crate::conformance::$case(&harness).await;
            })
            .await;
        }
    )+};
}

/// No case may hang.
pub async fn within_time(case: impl Future<Output = ()>) {
    tokio::time::timeout(4 * PATIENCE, Box::pin(case))
        .await
        .expect("the case ends in time");
}

/// A VM no other test uses.
#[must_use]
pub fn new_vm() -> VmId {
    let (unix_ms, random) = new_parts();
    VmId::from_parts(unix_ms, random)
}

/// A snapshot no other test uses.
#[must_use]
pub fn new_snapshot() -> SnapshotId {
    let (unix_ms, random) = new_parts();
    SnapshotId::from_parts(unix_ms, random)
}

/// A backup no other test uses.
#[must_use]
pub fn new_backup() -> BackupId {
    let (unix_ms, random) = new_parts();
    BackupId::from_parts(unix_ms, random)
}

/// A volume no other test uses.
#[must_use]
pub fn new_volume() -> VolumeId {
    let (unix_ms, random) = new_parts();
    VolumeId::from_parts(unix_ms, random)
}

fn new_parts() -> (u64, [u8; 10]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    let salt = u64::from(std::process::id()) ^ (u64::from(since.subsec_nanos()) << 24);
    random[..8].copy_from_slice(&salt.to_le_bytes());
    random[8] = count.to_le_bytes()[0];
    (since.as_millis().try_into().unwrap(), random)
}

/// A first incarnation of a new VM on the harness's image.
pub fn new_spec<H: Harness>(harness: &H) -> IncarnationSpec {
    IncarnationSpec {
        vm_id: new_vm(),
        run_epoch: 1,
        resources: harness.resources(),
        datastore: DatastoreName::local(),
        image: harness.image().0,
        seed: Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    }
}

/// Prepares and boots a new VM.
async fn run<H: Harness>(harness: &H, driver: &dyn HostDriver) -> IncarnationSpec {
    let spec = new_spec(harness);
    driver.prepare(&spec, &harness.image().1).await.unwrap();
    driver
        .boot(spec.vm_id, spec.run_epoch, &spec.resources)
        .await
        .unwrap();
    spec
}

async fn power(driver: &dyn HostDriver, vm: VmId) -> Option<Power> {
    observed(driver, vm).await.map(|o| o.power)
}

async fn observed(driver: &dyn HostDriver, vm: VmId) -> Option<Observed> {
    let all = driver.inventory().await.unwrap();
    let mut ours = all.into_iter().filter(|o| o.vm_id == vm);
    let first = ours.next();
    assert_eq!(ours.next(), None, "a VM is named once");
    first
}

/// Reads until `wanted` was seen; returns everything read.
pub async fn read_until(line: &mut Box<dyn SerialStream>, wanted: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let read = line.read_buf(&mut seen).await.unwrap();
            assert_ne!(read, 0, "the line ended");
        }
    };
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(ended.is_ok(), "waited for {wanted:?}, saw {seen:?}");
    seen
}

/// Types bytes on a VM's serial line.
pub async fn type_text(driver: &dyn HostDriver, vm: VmId, text: &[u8]) {
    let mut line = driver.serial(vm).await.unwrap();
    line.write_all(text).await.unwrap();
    line.flush().await.unwrap();
}

/// Waits until the guest runs so far that it prints and listens.
pub async fn guest_answers(driver: &dyn HostDriver, vm: VmId) {
    let mut line = driver.serial(vm).await.unwrap();
    read_until(&mut line, "\n").await;
}

/// What the guest answers to a key, with everything it said before skipped.
pub async fn answer(driver: &dyn HostDriver, vm: VmId, key: u8) -> char {
    static QUESTIONS: AtomicU64 = AtomicU64::new(0);
    let mark = format!("?{}:", QUESTIONS.fetch_add(1, Ordering::Relaxed));
    let mut line = driver.serial(vm).await.unwrap();
    type_text(driver, vm, mark.as_bytes()).await;
    type_text(driver, vm, &[key]).await;
    let mut seen = read_until(&mut line, &mark).await;
    loop {
        let (_, after) = seen.split_once(&mark).unwrap();
        if let Some(letter) = after.chars().next() {
            return letter;
        }
        let mut more = [0; 64];
        let read = line.read(&mut more).await.unwrap();
        assert_ne!(read, 0, "the line ended");
        seen += &String::from_utf8_lossy(&more[..read]);
    }
}

/// Asks until the guest, which may just be starting, answers so.
async fn answers(driver: &dyn HostDriver, vm: VmId, key: u8, wanted: char) {
    let mut line = driver.serial(vm).await.unwrap();
    // What it said before is no answer.
    let mut before = vec![0; crate::SERIAL_RECENT_BYTES];
    let reading = tokio::time::timeout(Duration::from_millis(200), line.read(&mut before));
    let _ = reading.await;
    let asking = async {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            type_text(driver, vm, &[key]).await;
            let mut more = [0; 64];
            let reading = tokio::time::timeout(Duration::from_millis(200), line.read(&mut more));
            if let Ok(read) = reading.await {
                seen += &String::from_utf8_lossy(&more[..read.unwrap()]);
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    assert!(answered.is_ok(), "the guest never says {wanted:?}");
}

/// Waits for a change of power state, as a subscriber and in the inventory.
async fn expect_power(
    driver: &dyn HostDriver,
    changes: &mut tokio::sync::broadcast::Receiver<Observed>,
    vm: VmId,
    within: Duration,
    wanted: impl Fn(&Power) -> bool,
) {
    let since = Instant::now();
    loop {
        let left = within.saturating_sub(since.elapsed());
        let change = tokio::time::timeout(left, changes.recv()).await;
        let change = change
            .expect("the change is observed in time")
            .expect("the feed goes on");
        if change.vm_id == vm && wanted(&change.power) {
            break;
        }
    }
    assert!(wanted(&power(driver, vm).await.expect("it is held")));
}
