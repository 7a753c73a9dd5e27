//! No false alarm while everything moves, and no true one that is missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::task::JoinSet;
use vimana_model::VmState;
use vimana_model::vm::PowerOffVm;

use super::assert_found;
use super::scene::{Installation as _, Scene, tiny};
use crate::watch::Watch;

/// How often it is looked while VMs come and go.
const LOOKS: u32 = 25;
const WORKERS: u32 = 6;

/// What the workers have to do with each other.
#[derive(Default)]
struct Shift {
    over: AtomicBool,
    /// How many VMs lived their life.
    lives: AtomicU32,
}

/// One VM after the other lives through everything.
async fn work(mut watch: Watch, worker: u32, shift: Arc<Shift>) {
    let client = watch.client.clone();
    for life in 0.. {
        if shift.over.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("vm-{worker}-{life}");
        let id = client.create_vm(&tiny(&name)).await.unwrap().vm.id;
        watch.until_vm(id, VmState::Running).await;
        match (worker + life) % 4 {
            0 => {
                client.stop_vm(id).await.unwrap();
                watch.until_vm(id, VmState::Stopped).await;
                client.resume_vm(id).await.unwrap();
                watch.until_vm(id, VmState::Running).await;
            }
            1 => {
                client.suspend_vm(id).await.unwrap();
                watch.until_vm(id, VmState::Suspended).await;
                client.resume_vm(id).await.unwrap();
                watch.until_vm(id, VmState::Running).await;
            }
            2 => {
                let force = PowerOffVm { force: true };
                client.power_off_vm(id, force).await.unwrap();
                watch.until_vm(id, VmState::PoweredOff).await;
                client.start_vm(id).await.unwrap();
                watch.until_vm(id, VmState::Running).await;
            }
            // Overtaken wherever it is.
            _ => {
                client.stop_vm(id).await.unwrap();
            }
        }
        client.delete_vm(id).await.unwrap();
        watch.until_vm(id, VmState::Done).await;
        shift.lives.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_is_found_but_what_is_wrong() {
    let scene = Scene::new(&["host-a", "host-b", "host-c"]).await;
    let shift = Arc::new(Shift::default());
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let watch = Watch::new(&scene.world).await;
        workers.spawn(work(watch, worker, Arc::clone(&shift)));
    }
    for _ in 0..LOOKS {
        let report = scene.report(0, &[]).await;
        assert_eq!(report["hosts"]["recorded"], 3);
    }
    // Everything was looked at while it moved.
    assert!(shift.lives.load(Ordering::Relaxed) > WORKERS);

    scene
        .plant("UPDATE hosts SET used_disk_mib = used_disk_mib + 1 WHERE name = 'host-b'")
        .await;
    let expected = [("sum_is_off", "host-b")];
    assert_found(&scene.report(1, &[]).await, &expected);
    shift.over.store(true, Ordering::Relaxed);
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    assert_found(&scene.report(1, &[]).await, &expected);
    scene.stop().await;
}
