//! Volumes in other datastores than the host's own directory: what two hosts
//! reach, and what an agent finds that died in the middle.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use vimana_driver::conformance::{Harness as _, new_spec, new_volume};
use vimana_driver::{FaultKind, HostDriver, ObservedVolume, VolumeSource};
use vimana_driver_qemu::{QemuConfig, QemuDriver};
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use crate::host::{QemuHost, other_datastore, run};

/// The host, with the other datastore of `of` for its own.
fn sharing(host: &QemuHost, of: &QemuHost, owner: &str) -> QemuConfig {
    let mut config = host.config();
    config.datastores = of.config().datastores;
    config.owner = owner.to_owned();
    config
}

async fn open(config: QemuConfig) -> Arc<dyn HostDriver> {
    Arc::new(QemuDriver::open(config).await.unwrap())
}

async fn seen(driver: &dyn HostDriver, volume: VolumeId) -> Option<ObservedVolume> {
    let all = driver.volumes().await.unwrap();
    all.into_iter().find(|seen| seen.volume_id == volume)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_from_host_to_host_while_no_machine_has_it() {
    let [a, b] = [QemuHost::new().await, QemuHost::new().await];
    let one = open(sharing(&a, &a, "host-a")).await;
    let two = open(sharing(&b, &a, "host-b")).await;
    let vms = [run(&a, &*one).await, run(&b, &*two).await];
    let (volume, there) = (new_volume(), other_datastore());
    let made = one.create_volume(volume, MiB(2), &VolumeSource::Empty, &there);
    made.await.unwrap();
    a.scribble(volume);
    // Made once, whoever is asked.
    let again = two.create_volume(volume, MiB(2), &VolumeSource::Empty, &there);
    again.await.unwrap();
    assert!(!a.reads_zeros(volume));

    one.attach(vms[0], 1, volume).await.unwrap();
    assert_eq!(
        seen(&*two, volume).await,
        None,
        "another host's machine has it"
    );
    let refused = two.attach(vms[1], 1, volume).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::NoSuchVolume);
    two.remove_volume(volume).await.unwrap();
    let kept = seen(&*one, volume).await.unwrap();
    assert_eq!(kept.attached_to, Some(vms[0]), "it is not theirs to remove");
    one.grow_volume(volume, MiB(3)).await.unwrap();
    one.detach(vms[0], 1, volume).await.unwrap();

    let free = seen(&*two, volume).await.unwrap();
    assert_eq!((free.size_mib, free.attached_to), (MiB(3), None));
    two.attach(vms[1], 1, volume).await.unwrap();
    assert_eq!(b.plugged(&*two, vms[1]).await, 1);
    assert_eq!(seen(&*one, volume).await, None);
    // It stays so over restarts of both.
    drop((one, two));
    let one = open(sharing(&a, &a, "host-a")).await;
    let two = open(sharing(&b, &a, "host-b")).await;
    assert_eq!(seen(&*one, volume).await, None);
    assert_eq!(seen(&*two, volume).await.unwrap().attached_to, Some(vms[1]));
    two.detach(vms[1], 1, volume).await.unwrap();
    assert!(!a.reads_zeros(volume));
    one.remove_volume(volume).await.unwrap();
    assert_eq!(seen(&*two, volume).await, None);
}

/// A machine that is off and has a volume in the host's own directory.
async fn with_volume(host: &QemuHost, driver: &dyn HostDriver) -> (VmId, VolumeId) {
    let (spec, volume) = (new_spec(host), new_volume());
    driver.prepare(&spec, &host.image().1).await.unwrap();
    let here = DatastoreName::local();
    let made = driver.create_volume(volume, MiB(2), &VolumeSource::Empty, &here);
    made.await.unwrap();
    driver.attach(spec.vm_id, 1, volume).await.unwrap();
    (spec.vm_id, volume)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_volume_found_in_two_places_the_one_counts_that_is_whole() {
    for whole in [false, true] {
        let host = QemuHost::new().await;
        let driver = host.driver().await;
        let (vm, volume) = with_volume(&host, &*driver).await;
        drop(driver);
        // As if an agent had died on the way: what came is told by what it reads.
        let [old, new] = ["vms", "other"].map(|dir| host.dir().join(dir).join(volume.to_string()));
        fs::create_dir(&new).unwrap();
        fs::copy(old.join("volume.qcow2"), new.join("volume.qcow2")).unwrap();
        let record = fs::read_to_string(old.join("volume.json")).unwrap();
        let mut record: Value = serde_json::from_str(&record).unwrap();
        record["datastore"] = json!("other");
        record["comes"] = json!({"from": "local", "whole": whole});
        fs::write(new.join("volume.json"), record.to_string()).unwrap();

        let driver = host.driver().await;
        let (place, gone) = if whole {
            (other_datastore(), old)
        } else {
            (DatastoreName::local(), new)
        };
        assert_eq!(seen(&*driver, volume).await.unwrap().datastore, place);
        assert!(!gone.exists());
        driver.detach(vm, 1, volume).await.unwrap();
        driver.remove_volume(volume).await.unwrap();
        assert_eq!(driver.volumes().await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_machine_is_half_removed_is_free_once_it_is_removed_again() {
    let host = QemuHost::new().await;
    let driver = host.driver().await;
    let (vm, volume) = with_volume(&host, &*driver).await;
    drop(driver);
    fs::remove_dir_all(host.vm_dir(vm)).unwrap();
    let driver = host.driver().await;
    assert_eq!(seen(&*driver, volume).await.unwrap().attached_to, Some(vm));
    driver.clean(vm, 1).await.unwrap();
    assert_eq!(seen(&*driver, volume).await.unwrap().attached_to, None);
    driver.remove_volume(volume).await.unwrap();
}
