//! The same with a real hypervisor: QEMU runs the smallest guest there is.

use std::path::Path;
use std::sync::Arc;

use axum::extract::ws::Message;
use vimana_driver::{ImageRef, Power};
use vimana_driver_qemu::{AcceleratorSetting, QemuConfig, QemuDriver, READY, boot_sector};
use vimana_model::unit::MiB;
use vimana_protocol::agent::Work;

use crate::consoles::{farewell, open, read_until};
use crate::orders::{OK, boot, command, prepare, vm};
use crate::world::World;

async fn driver(dir: &Path) -> Arc<QemuDriver> {
    let mut config = QemuConfig::new(dir.join("machines"));
    config.accelerator = AcceleratorSetting::Tcg;
    Arc::new(QemuDriver::open(config).await.unwrap())
}

#[tokio::test]
async fn a_machine_lives_through_its_agents_restart_and_leaves_nothing() {
    let mut world = World::without_agent().await;
    world.start_agent_with(driver(world.dir.path()).await);
    let image = world.add_image(&boot_sector());
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    let mut console = open(&mut world, &mut session).await;
    read_until(&mut console, READY).await;
    console.send(Message::Binary("typed".into())).await.unwrap();
    read_until(&mut console, "typed").await;

    world.stop_agent().await;
    drop(session);
    world.start_agent_with(driver(world.dir.path()).await);
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.inventory.len(), 1);
    assert_eq!(hello.inventory[0].power, Power::Running);
    session.welcome().await;
    let mut console = open(&mut world, &mut session).await;
    console.send(Message::Binary("again".into())).await.unwrap();
    read_until(&mut console, "again").await;

    let shutdown = Work::Shutdown { grace_ms: 5000 };
    assert_eq!(session.carry_out(&command(vm(1), 2, shutdown)).await, OK);
    assert_eq!(
        farewell(&mut console).await,
        "the machine's serial line ended"
    );
    assert_eq!(session.carry_out(&command(vm(1), 3, Work::Clean)).await, OK);
    let left = std::fs::read_dir(world.dir.path().join("machines")).unwrap();
    let left: Vec<_> = left
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("vm_"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn the_records_of_machines_keep_their_images_in_the_cache() {
    let mut world = World::without_agent().await;
    world.image_cache = Some(MiB(1));
    world.start_agent_with(driver(world.dir.path()).await);
    let images: [ImageRef; 4] = [1, 2, 3, 4].map(|n| world.add_image(&[n; 500 << 10]));
    let [a, b, c, d] = &images;
    let is_cached = |world: &World, image: &ImageRef| {
        let name = format!("{}.raw", image.id);
        world.cached_names().contains(&name)
    };
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&prepare(vm(1), 0, a)).await, OK);
    // Known from what is on the disk alone.
    world.stop_agent().await;
    drop(session);
    world.start_agent_with(driver(world.dir.path()).await);
    let mut session = world.session().await;
    for (n, image) in [(2, b), (3, c)] {
        assert_eq!(session.carry_out(&prepare(vm(n), 0, image)).await, OK);
        assert_eq!(session.carry_out(&command(vm(n), 1, Work::Clean)).await, OK);
    }
    assert!(is_cached(&world, a) && is_cached(&world, c) && !is_cached(&world, b));

    // A machine that nobody can make sense of may need any of them.
    world.stop_agent().await;
    drop(session);
    let record = world
        .dir
        .path()
        .join(format!("machines/{}/spec.json", vm(1)));
    std::fs::write(&record, "{").unwrap();
    world.start_agent_with(driver(world.dir.path()).await);
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&prepare(vm(4), 0, d)).await, OK);
    assert!(is_cached(&world, a) && is_cached(&world, c) && is_cached(&world, d));
}
