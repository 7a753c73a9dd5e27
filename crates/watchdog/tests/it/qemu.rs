//! The watchdog and the machines of the real driver.

use std::path::Path;

use tokio::sync::broadcast::Receiver;
use vimana_driver::{HostDriver as _, ImageRef, IncarnationSpec, Observed, Power, Seed};
use vimana_driver_qemu::{AcceleratorSetting, QemuConfig, QemuDriver, boot_sector};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{ImageId, VmId};
use vimana_watchdog::protocol::Request;
use vimana_watchdog::{BootTime, MACHINES};

use crate::world::{LONG, PATIENCE, SHORT, World};

const RESOURCES: Resources = Resources {
    vcpus: 1,
    memory_mib: MiB(32),
    disk_mib: MiB(1),
};

async fn open(dir: &Path) -> QemuDriver {
    let mut config = QemuConfig::new(dir.join(MACHINES));
    config.accelerator = AcceleratorSetting::Tcg;
    config.disk_reserve = MiB(0);
    QemuDriver::open(config).await.unwrap()
}

/// A machine that runs the smallest guest.
async fn run(driver: &QemuDriver, dir: &Path) -> VmId {
    let spec = IncarnationSpec {
        vm_id: VmId::from_parts(1, [1; 10]),
        run_epoch: 1,
        resources: RESOURCES,
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Raw,
            size_bytes: 512,
            sha256: "0".repeat(64),
        },
        seed: Seed {
            host_name: "guest".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    };
    let image = dir.join("image");
    std::fs::write(&image, boot_sector()).unwrap();
    driver.prepare(&spec, &image).await.unwrap();
    driver.boot(spec.vm_id, 1, &RESOURCES).await.unwrap();
    spec.vm_id
}

async fn crash(changes: &mut Receiver<Observed>) {
    let crashed =
        async { while !matches!(changes.recv().await.unwrap().power, Power::Crashed { .. }) {} };
    tokio::time::timeout(PATIENCE, crashed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_machine_is_stopped_with_and_without_its_agent() {
    let world = World::new();
    let _watchdog = world.watchdog();
    let driver = open(world.dir()).await;
    let mut changes = driver.subscribe();
    let vm = run(&driver, world.dir()).await;
    let mut client = world.client();
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    crash(&mut changes).await;
    assert_eq!(world.settled(until).vms, [vm.to_string()]);

    // With a new lease it may run again; then its agent goes.
    let until = BootTime::now().plus(LONG);
    client.ask(Request::Lease { until }).unwrap();
    driver.clean(vm, 1).await.unwrap();
    run(&driver, world.dir()).await;
    drop(driver);
    client.ask(Request::Disarm).unwrap();
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    world.settled(until);
    let driver = open(world.dir()).await;
    let held = driver.inventory().await.unwrap();
    assert!(
        matches!(
            held[..],
            [Observed {
                power: Power::Crashed { .. },
                ..
            }]
        ),
        "{held:?}"
    );
}

/// By its place and name alone, as while the driver still starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_record_is_known() {
    let world = World::new();
    let driver = open(world.dir()).await;
    let mut changes = driver.subscribe();
    let vm = run(&driver, world.dir()).await;
    std::fs::remove_file(world.vm_dir(&vm.to_string()).join("process.json")).unwrap();
    let _watchdog = world.watchdog();
    let until = BootTime::from_ms(1);
    world.client().ask(Request::Lease { until }).unwrap();
    crash(&mut changes).await;
    assert_eq!(world.settled(until).vms, [vm.to_string()]);
}

/// By its record alone: what a machine looks like to the system may change.
#[tokio::test(flavor = "multi_thread")]
async fn the_drivers_record_is_understood() {
    let world = World::new();
    let driver = open(world.dir()).await;
    let mut changes = driver.subscribe();
    let vm = run(&driver, world.dir()).await;
    // Elsewhere nothing is found by its place.
    let other = World::new();
    let record = world.vm_dir(&vm.to_string()).join("process.json");
    std::fs::copy(record, other.vm_dir("vm_x").join("process.json")).unwrap();
    let _watchdog = other.watchdog();
    let until = BootTime::from_ms(1);
    other.client().ask(Request::Lease { until }).unwrap();
    crash(&mut changes).await;
    assert_eq!(other.settled(until).vms, ["vm_x"]);
}
