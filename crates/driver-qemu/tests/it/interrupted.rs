//! Agents and QEMU processes that are killed in the middle of things: what is
//! found afterwards is true, goes on, and no saved memory is lost.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use vimana_driver::conformance::{BOOTS, COUNT, Harness as _, answer, guest_answers, new_spec};
use vimana_driver::{Fault, FaultKind, HostDriver, Keep, Observed, Power, VolumeSource, unwatched};
use vimana_driver_qemu::QemuDriver;
use vimana_model::backup::DiskId;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{SnapshotId, VmId, VolumeId};

use crate::host::{QemuHost, config_in, other_datastore, processes_below};

/// What an agent is told to do before it is killed: a directory, a VM, a call.
const ORDER: &str = "VIMANA_TEST_AGENT";
/// It has begun.
const BEGUN: &str = "the call begins";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Boot,
    Save,
    Load,
    Reboot,
    Attach,
    Detach,
    Snapshot,
    Revert,
    Move,
    MoveRoot,
}

impl What {
    const ALL: [Self; 10] = [
        Self::Boot,
        Self::Save,
        Self::Load,
        Self::Reboot,
        Self::Attach,
        Self::Detach,
        Self::Snapshot,
        Self::Revert,
        Self::Move,
        Self::MoveRoot,
    ];

    async fn carry_out(self, driver: &dyn HostDriver, vm: VmId) -> Result<(), Fault> {
        let grace = Duration::from_secs(20);
        match self {
            Self::Boot => driver.boot(vm, 1, &size()).await,
            Self::Save => driver.save(vm, 1).await,
            Self::Load => driver.load(vm, 2).await,
            Self::Reboot => driver.reboot(vm, 1, grace).await.map(drop),
            Self::Attach => driver.attach(vm, 1, volume_of(vm)).await.map(drop),
            Self::Detach => driver.detach(vm, 1, volume_of(vm)).await,
            Self::Snapshot => driver.snapshot(vm, 1, snapshot_of(vm), Keep::Memory).await,
            Self::Revert => driver.revert(vm, 1, snapshot_of(vm)).await,
            Self::Move => relocate(driver, vm, DiskId::Volume(volume_of(vm))).await,
            Self::MoveRoot => relocate(driver, vm, DiskId::Root).await,
        }
    }
}

async fn relocate(driver: &dyn HostDriver, vm: VmId, disk: DiskId) -> Result<(), Fault> {
    let to = other_datastore();
    let moved = driver.move_disk(vm, 1, disk, &to, unwatched());
    moved.await.map(drop)
}

/// The same in every process.
fn volume_of(vm: VmId) -> VolumeId {
    vm.to_string().replace("vm_", "vol_").parse().unwrap()
}

fn snapshot_of(vm: VmId) -> SnapshotId {
    vm.to_string().replace("vm_", "snap_").parse().unwrap()
}

fn size() -> Resources {
    QemuHost::size()
}

/// Brings a VM to where `what` begins.
async fn ready(host: &QemuHost, driver: &dyn HostDriver, what: What) -> VmId {
    let spec = new_spec(host);
    let vm = spec.vm_id;
    driver.prepare(&spec, &host.image().1).await.unwrap();
    if what != What::Boot {
        driver.boot(vm, 1, &size()).await.unwrap();
        guest_answers(driver, vm).await;
        assert_eq!(answer(driver, vm, COUNT).await, 'A');
    }
    if what == What::Load {
        driver.save(vm, 1).await.unwrap();
    }
    if matches!(what, What::Attach | What::Detach | What::Move) {
        let (volume, here) = (volume_of(vm), DatastoreName::local());
        let made = driver.create_volume(volume, MiB(2), &VolumeSource::Empty, &here);
        made.await.unwrap();
        host.scribble(volume);
    }
    if matches!(what, What::Detach | What::Move) {
        driver.attach(vm, 1, volume_of(vm)).await.unwrap();
    }
    if what == What::Revert {
        driver
            .snapshot(vm, 1, snapshot_of(vm), Keep::Memory)
            .await
            .unwrap();
    }
    vm
}

async fn seen(driver: &dyn HostDriver, vm: VmId) -> Observed {
    let all = driver.inventory().await.unwrap();
    all.into_iter().find(|o| o.vm_id == vm).unwrap()
}

/// Not a test: the agent that the tests kill. Does nothing without an order.
#[tokio::test(flavor = "multi_thread")]
async fn agent_process() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let [dir, vm, what] = order.splitn(3, '\n').collect::<Vec<_>>()[..] else {
        panic!("an order has three lines");
    };
    let what = What::ALL.into_iter().find(|w| format!("{w:?}") == what);
    let driver = QemuDriver::open(config_in(Path::new(dir))).await.unwrap();
    println!("{BEGUN}");
    let result = what.unwrap().carry_out(&driver, vm.parse().unwrap()).await;
    println!("{result:?}");
}

/// Starts an agent in a process of its own, and kills it some time after its
/// call has begun.
async fn killed_agent(dir: PathBuf, vm: VmId, what: What, after: Duration) {
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["interrupted::agent_process", "--exact", "--nocapture"])
        .env(ORDER, format!("{}\n{vm}\n{what:?}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
    loop {
        let line = said.next_line().await.unwrap();
        // The test harness writes in front of it.
        if line.expect("the agent begins").ends_with(BEGUN) {
            break;
        }
    }
    tokio::time::sleep(after).await;
    agent.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_killed_at_any_moment_loses_nothing() {
    for what in What::ALL {
        for moment in [0, 4, 10, 20, 35, 50, 70, 100, 140] {
            let host = QemuHost::new().await;
            let driver = host.driver().await;
            let vm = ready(&host, &*driver, what).await;
            drop(driver);
            let after = Duration::from_millis(moment);
            killed_agent(host.dir(), vm, what, after).await;
            let driver = host.driver().await;
            let found = seen(&*driver, vm).await;
            let case = format!("{what:?} after {moment} ms: {found:?}");
            let may_be: &[Power] = match what {
                What::Boot => &[Power::Prepared, Power::Running],
                What::Save | What::Load => &[Power::Running, Power::Saved],
                What::Reboot
                | What::Attach
                | What::Detach
                | What::Snapshot
                | What::Revert
                | What::Move
                | What::MoveRoot => &[Power::Running],
            };
            assert!(may_be.contains(&found.power), "{case}");
            let processes = host.processes(vm).len();
            assert_eq!(
                processes,
                usize::from(found.power == Power::Running),
                "{case}"
            );
            println!("{case}");
            // Whoever gave the order gives it again.
            what.carry_out(&*driver, vm).await.expect(&case);
            after_all(&host, &*driver, vm, what, &case).await;
        }
    }
}

/// The call has come to its end, on the second try.
async fn after_all(host: &QemuHost, driver: &dyn HostDriver, vm: VmId, what: What, case: &str) {
    let volumes = driver.volumes().await.unwrap();
    let snapshots = driver.snapshots().await.unwrap().len();
    match what {
        What::Attach => assert_eq!(volumes[0].attached_to, Some(vm), "{case}"),
        What::Detach => assert_eq!(volumes[0].attached_to, None, "{case}"),
        What::Move => {
            assert_eq!(volumes[0].datastore, other_datastore(), "{case}");
            assert_eq!(host.plugged(driver, vm).await, 1, "{case}");
            driver.detach(vm, 1, volume_of(vm)).await.expect(case);
            assert!(!host.reads_zeros(volume_of(vm)), "{case}");
        }
        What::MoveRoot => {
            assert_eq!(host.home(vm), other_datastore(), "{case}");
            assert_eq!(answer(driver, vm, COUNT).await, 'B', "{case}");
            driver.kill(vm, 1).await.expect(case);
            driver.boot(vm, 2, &size()).await.expect(case);
            guest_answers(driver, vm).await;
            assert_eq!(answer(driver, vm, BOOTS).await, 'B', "{case}");
        }
        What::Snapshot | What::Revert => {
            assert_eq!(snapshots, 1, "{case}");
            assert_eq!(answer(driver, vm, COUNT).await, 'B', "{case}");
            driver.revert(vm, 1, snapshot_of(vm)).await.expect(case);
            assert_eq!(answer(driver, vm, COUNT).await, 'B', "{case}");
        }
        // What it printed first may have gone to the agent that was killed.
        What::Boot => assert_eq!(answer(driver, vm, BOOTS).await, 'A', "{case}"),
        What::Save | What::Load => {
            if what == What::Save {
                assert_eq!(seen(driver, vm).await.power, Power::Saved, "{case}");
                driver.load(vm, 2).await.unwrap();
            }
            assert_eq!(answer(driver, vm, COUNT).await, 'B', "{case}");
            assert_eq!(answer(driver, vm, BOOTS).await, 'A', "{case}");
        }
        What::Reboot => {
            let now = seen(driver, vm).await;
            assert_eq!((now.run_epoch, now.power), (1, Power::Running), "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_killed_at_any_moment_is_seen_and_its_disk_is_free() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    for what in What::ALL {
        for moment in [0, 4, 10, 20, 35, 50, 70, 100] {
            let vm = ready(&host, &*driver, what).await;
            let dir = host.vm_dir(vm);
            let mut changes = driver.subscribe();
            let killing = async {
                tokio::time::sleep(Duration::from_millis(moment)).await;
                for pid in processes_below(&dir) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            };
            let (result, ()) = tokio::join!(what.carry_out(&*driver, vm), killing);
            if let Err(fault) = &result {
                assert_eq!(fault.kind, FaultKind::Hypervisor, "{fault}");
            }
            // What runs without a process is about to be seen.
            let case = format!("{what:?} after {moment} ms: {result:?}");
            loop {
                let now = seen(&*driver, vm).await;
                if now.power != Power::Running || !host.processes(vm).is_empty() {
                    break;
                }
                let change = tokio::time::timeout(Duration::from_secs(2), changes.recv());
                change.await.expect(&case).unwrap();
            }
            recovers(&driver, vm, what, &case).await;
            driver.kill(vm, 9).await.unwrap();
            driver.clean(vm, 9).await.unwrap();
            assert_eq!(host.left_behind(vm), [""; 0], "{case}");
            if what == What::Move {
                assert!(!host.reads_zeros(volume_of(vm)), "{case}");
            }
        }
    }
}

/// The VM can be run again: from its memory where that was saved.
async fn recovers(driver: &Arc<dyn HostDriver>, vm: VmId, what: What, case: &str) {
    let now = seen(&**driver, vm).await;
    match (what, &now.power) {
        (What::Load, Power::Saved) | (What::Save, Power::Saved) => {
            driver.load(vm, 3).await.expect(case);
            assert_eq!(answer(&**driver, vm, COUNT).await, 'B', "{case}");
        }
        (_, Power::Running) => {}
        (What::Boot, Power::Prepared) | (_, Power::Crashed { .. }) => {
            if what == What::Revert {
                what.carry_out(&**driver, vm).await.expect(case);
            }
            driver.boot(vm, 3, &size()).await.expect(case);
            guest_answers(&**driver, vm).await;
        }
        (_, power) => panic!("{case}: {power:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_qemu_holds_neither_a_detach_nor_a_kill_up() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let vm = ready(&host, &*driver, What::Detach).await;
    let silence = |signal| {
        for pid in host.processes(vm) {
            kill_process(pid, signal).unwrap();
        }
    };
    silence(Signal::STOP);
    let within = Duration::from_secs(20);
    let detach = tokio::time::timeout(within, driver.detach(vm, 1, volume_of(vm))).await;
    assert_eq!(detach.unwrap().unwrap_err().kind, FaultKind::Hypervisor);
    silence(Signal::CONT);
    driver.detach(vm, 1, volume_of(vm)).await.unwrap();
    silence(Signal::STOP);
    let (snapshot, kill) = tokio::join!(
        driver.snapshot(vm, 1, snapshot_of(vm), Keep::Memory),
        tokio::time::timeout(within, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            driver.kill(vm, 1).await
        })
    );
    assert_eq!(kill.unwrap(), Ok(()));
    assert_eq!(snapshot.unwrap_err().kind, FaultKind::Cancelled);
    assert_eq!(driver.snapshots().await.unwrap(), []);
    driver.clean(vm, 1).await.unwrap();
}
