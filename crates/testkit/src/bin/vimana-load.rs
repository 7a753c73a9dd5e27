//! How much one engine carries: the real engine on SQLite, the real scheduler's
//! decisions, and hosts that run the simulated driver, all in one process and
//! without the network between them.
//!
//! Prints one JSON object per figure: `name`, `value`, `unit`, `goal`. A
//! benchmark: it fails only when something does not work.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark may give up loudly"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use futures::{StreamExt as _, stream};
use vimana_engine::{Engine, OpContext, Settings, VmQuery};
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::CreateVm;
use vimana_model::{VmId, VmState};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

#[derive(Parser)]
struct Args {
    /// Hosts
    #[arg(long, default_value_t = 2500)]
    hosts: u32,
    /// VMs created while it is measured how fast
    #[arg(long, default_value_t = 2000)]
    measured: usize,
    /// VMs in all, when memory and restart are measured
    #[arg(long, default_value_t = 20_000)]
    vms: usize,
    /// Callers at once
    #[arg(long, default_value_t = 64)]
    callers: usize,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let before = resident_mib();
    let mut world = TestWorld::new().await;
    let mut hosts: Vec<TestHost> = (0..args.hosts).map(host).collect();
    connect_all(&world.engine, &mut hosts).await;
    let scheduler = TestScheduler::connect(&world.engine).await;

    let reading = Arc::new(AtomicBool::new(true));
    let reader = tokio::spawn(read(
        world.engine.clone(),
        world.admin.clone(),
        Arc::clone(&reading),
    ));
    let begun = Instant::now();
    create(&world, 0..args.measured, args.callers).await;
    let accepted = begun.elapsed();
    all_run(&world, args.measured).await;
    let driven = begun.elapsed();
    reading.store(false, Ordering::Relaxed);
    let reads = reader.await.unwrap();
    figure(
        "VM creates accepted",
        per_second(args.measured, accepted),
        "1/s",
        ">= 100",
    );
    figure(
        "VM creates driven to Running",
        per_second(args.measured, driven),
        "1/s",
        ">= 100",
    );
    figure(
        "API reads beside them",
        per_second(reads.len(), driven),
        "1/s",
        ">= 100",
    );
    figure(
        "API reads beside them, p99",
        quantile(reads, 0.99),
        "ms",
        "< 100",
    );

    create(&world, args.measured..args.vms, args.callers).await;
    all_run(&world, args.vms).await;
    let held = resident_mib().saturating_sub(before);
    figure(
        "memory with all VMs, simulated hosts too",
        mib(held),
        "MiB",
        "< 300",
    );

    drop(scheduler);
    for host in &mut hosts {
        host.disconnect();
    }
    let begun = Instant::now();
    world.restart_engine(Settings::default()).await;
    world.engine.ready().await.unwrap();
    let listed = world.engine.vms(&world.admin, &VmQuery::default()).await;
    assert!(!listed.unwrap().is_empty(), "the VMs are there");
    figure("restart until ready", seconds(begun.elapsed()), "s", "< 3");

    let begun = Instant::now();
    connect_all(&world.engine, &mut hosts).await;
    let connected = world.engine.hosts(&world.admin).await.unwrap();
    assert!(connected.iter().all(|host| host.connected), "all are back");
    all_run(&world, args.vms).await;
    figure(
        "all hosts reconnect at once and converge",
        seconds(begun.elapsed()),
        "s",
        "< 60",
    );
}

fn host(number: u32) -> TestHost {
    let mut host = TestHost::numbered(number);
    host.capacity = Resources {
        vcpus: 64,
        memory_mib: MiB(64 << 10),
        disk_mib: MiB(1 << 20),
    };
    host
}

async fn connect_all(engine: &Engine, hosts: &mut [TestHost]) {
    let all = stream::iter(hosts).for_each_concurrent(None, |host| host.connect(engine));
    all.await;
}

async fn create(world: &TestWorld, numbers: std::ops::Range<usize>, callers: usize) {
    let each = stream::iter(numbers).for_each_concurrent(callers, |number| async move {
        let form = CreateVm {
            name: format!("load-{number}"),
            image: "demo".to_owned(),
            flavor: "tiny".to_owned(),
            ..CreateVm::default()
        };
        let created = world.engine.create_vm(&world.admin, &form).await;
        created.expect("the VM is accepted");
    });
    each.await;
}

/// Waits until that many VMs run.
async fn all_run(world: &TestWorld, count: usize) {
    let read = world.engine.store().read();
    loop {
        let running = vimana_store::vm::count(&read, VmState::Running)
            .await
            .unwrap();
        if usize::try_from(running).is_ok_and(|n| n >= count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads as people do, 200 times a second; how long each took, in ms.
async fn read(engine: Engine, admin: OpContext, go_on: Arc<AtomicBool>) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut took = Vec::new();
    let mut last: Option<VmId> = None;
    while go_on.load(Ordering::Relaxed) {
        ticks.tick().await;
        let begun = Instant::now();
        match last.take() {
            Some(id) => {
                engine.vm(&admin, id).await.unwrap();
            }
            None => {
                let query = VmQuery {
                    limit: 50,
                    ..VmQuery::default()
                };
                let page = engine.vms(&admin, &query).await.unwrap();
                last = page.first().map(|vm| vm.id);
            }
        }
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    took
}

fn figure(name: &str, value: f64, unit: &str, goal: &str) {
    let value = (value * 10.0).round() / 10.0;
    println!(
        "{}",
        serde_json::json!({ "name": name, "value": value, "unit": unit, "goal": goal })
    );
}

fn per_second(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / time.as_secs_f64()
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn mib(amount: u64) -> f64 {
    f64::from(u32::try_from(amount).unwrap_or(u32::MAX))
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is a small number above zero"
    )]
    let index = (count * share) as usize;
    values.get(index).or(values.last()).copied().unwrap_or(0.0)
}

/// What this process keeps in memory.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() / 1024
}
