//! A real Linux: its path is in `VIMANA_DEMO_IMAGE`, and `demo-image/build.sh`
//! makes it. What only a kernel can show: the seed disk, as Linux mounts it, a
//! shutdown by ACPI, and programs that go on in a memory that was saved.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests, and what helps them"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vimana_driver::conformance::{new_vm, read_until};
use vimana_driver::{
    Arrival, CopyWatcher, DiskPlan, GuestEnd, HostDriver as _, ImageRef, IncarnationSpec, Keep,
    Power, Seed, Sending, SerialStream, VolumeSource, unwatched,
};
use vimana_driver_qemu::{AcceleratorSetting, QemuConfig, QemuDriver};
use vimana_model::backup::DiskId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::ssh_key::SshKeys;
use vimana_model::unit::{MiB, Resources};
use vimana_model::user_data::UserData;
use vimana_model::{BackupId, HostId, ImageId, SnapshotId, VmId, VolumeId};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r a b";

fn demo_image() -> PathBuf {
    let path = std::env::var_os("VIMANA_DEMO_IMAGE");
    let path = path.expect("VIMANA_DEMO_IMAGE names the demo image");
    let path = PathBuf::from(path);
    assert!(path.is_file(), "VIMANA_DEMO_IMAGE names a file");
    path
}

fn other() -> DatastoreName {
    DatastoreName::new("other").unwrap()
}

/// A host that has the demo image in its cache.
struct DemoHost {
    dir: TempDir,
    driver: QemuDriver,
}

impl DemoHost {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(demo_image(), dir.path().join("image")).unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        Self::open(dir).await
    }

    async fn open(dir: TempDir) -> Self {
        let mut config = QemuConfig::new(dir.path().join("vms"));
        config.accelerator = AcceleratorSetting::Tcg;
        config.datastores.insert(other(), dir.path().join("other"));
        let driver = QemuDriver::open(config).await.unwrap();
        Self { dir, driver }
    }

    /// The host's agent is another one from now on.
    async fn reopened(self) -> Self {
        drop(self.driver);
        Self::open(self.dir).await
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn guard(&self, vm: VmId) -> Guard {
        Guard(self.dir.path().join("vms").join(vm.to_string()))
    }

    fn spec(&self, user_data: &str) -> IncarnationSpec {
        IncarnationSpec {
            vm_id: new_vm(),
            run_epoch: 1,
            resources: Resources {
                vcpus: 1,
                memory_mib: MiB(256),
                disk_mib: MiB(1024),
            },
            datastore: DatastoreName::local(),
            image: ImageRef {
                id: ImageId::from_parts(1, [0; 10]),
                format: ImageFormat::Qcow2,
                size_bytes: std::fs::metadata(self.image()).unwrap().len(),
                sha256: "0".repeat(64),
            },
            seed: Seed {
                host_name: "web-1".to_owned(),
                ssh_key: Some(SshKeys::new(KEY).unwrap()),
                user_data: Some(UserData::new(user_data).unwrap()),
            },
        }
    }

    /// What a guest sees of a qcow2 file.
    fn content(&self, file: &Path) -> Vec<u8> {
        let raw = self.dir.path().join("raw");
        let mut convert = std::process::Command::new("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
        convert.arg(file).arg(&raw);
        assert!(convert.status().unwrap().success());
        std::fs::read(raw).unwrap()
    }

    /// Prepares and boots a machine; its serial line.
    async fn run(&self, spec: &IncarnationSpec) -> Box<dyn SerialStream> {
        let (driver, vm) = (&self.driver, spec.vm_id);
        driver.prepare(spec, &self.image()).await.unwrap();
        driver.boot(vm, 1, &spec.resources).await.unwrap();
        driver.serial(vm).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_reads_its_seed_and_shuts_down_when_asked() {
    let host = DemoHost::new().await;
    let spec = host.spec(
        "#!/bin/sh\nfor f in /run/seed/*; do echo \"seed=$f\" >/dev/console; done\n\
         cat /run/seed/meta-data /root/.ssh/authorized_keys >/dev/console\n\
         echo \"name=$(hostname)\" \"last\" >/dev/console\n",
    );
    let _guard = host.guard(spec.vm_id);
    let mut line = host.run(&spec).await;
    let mut seen = output(&mut line, "vimana-demo ready").await;
    if !seen.contains("last") {
        seen += &read_until(&mut line, "last").await;
    }
    let instance = format!("instance-id: \"{}\"", spec.vm_id);
    for wanted in [
        "seed=/run/seed/meta-data",
        "seed=/run/seed/user-data",
        &instance,
        KEY,
        "name=web-1 last",
    ] {
        assert!(seen.contains(wanted), "{wanted:?} is not in:\n{seen}");
    }
    let grace = Duration::from_secs(60);
    let driver = &host.driver;
    let end = driver.shutdown(spec.vm_id, 1, grace).await.unwrap();
    assert_eq!(end, GuestEnd::ByGuest);
    let held = driver.inventory().await.unwrap();
    assert_eq!(held.first().map(|o| o.power.clone()), Some(Power::Off));
    driver.clean(spec.vm_id, 1).await.unwrap();
}

/// The number in the last whole "tick N" line.
fn last_tick(seen: &str) -> Option<u64> {
    let mut lines: Vec<&str> = seen.split('\n').collect();
    lines.pop();
    let ticks = lines.iter().rev();
    ticks
        .filter_map(|line| line.trim().strip_prefix("tick ")?.parse().ok())
        .next()
}

/// Reads until the guest's counter has moved on by a few from `from`, without
/// a step left out and without a boot.
async fn keeps_ticking(line: &mut Box<dyn SerialStream>, from: u64) -> u64 {
    let to = from + 5;
    let seen = output(line, &format!("tick {to}\r")).await;
    assert!(
        !seen.contains("vimana-demo ready"),
        "it booted anew:\n{seen}"
    );
    let numbers = seen
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tick ")?.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.collect();
    let first = *numbers.first().unwrap();
    assert!(first <= from + 1, "ticks are missing after {from}:\n{seen}");
    let counted: Vec<u64> = (first..=to).collect();
    assert_eq!(numbers, counted);
    to
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_goes_on_from_its_memory_here_and_elsewhere_and_reboots() {
    let [one, two] = [DemoHost::new().await, DemoHost::new().await];
    let mut spec = one.spec("#!/bin/sh\ntick 50 &\n");
    let vm = spec.vm_id;
    let _guards = [one.guard(vm), two.guard(vm)];
    let mut line = one.run(&spec).await;
    let seen = output(&mut line, "tick 9").await;
    assert!(seen.contains("vimana-demo ready boots=1"), "{seen}");

    // Suspended and resumed.
    one.driver.save(vm, 1).await.unwrap();
    let mut seen = String::new();
    line.read_to_string(&mut seen).await.unwrap();
    let ticked = last_tick(&seen).unwrap_or(9);
    one.driver.load(vm, 2).await.unwrap();
    let mut line = one.driver.serial(vm).await.unwrap();
    let ticked = keeps_ticking(&mut line, ticked).await;

    // Stopped, carried to the other host, and resumed there.
    one.driver.save(vm, 2).await.unwrap();
    let mut files = Vec::new();
    for (part, path) in one
        .driver
        .export(vm, 2, &DiskPlan::default())
        .await
        .unwrap()
    {
        let place = two.dir.path().join(part.to_string());
        std::fs::copy(path, &place).unwrap();
        files.push((part, place));
    }
    let mut seen = String::new();
    line.read_to_string(&mut seen).await.unwrap();
    let ticked = last_tick(&seen).unwrap_or(ticked);
    one.driver.clean(vm, 2).await.unwrap();
    std::fs::remove_file(one.image()).unwrap();
    spec.run_epoch = 3;
    two.driver
        .import(&spec, &two.image(), &files, &DiskPlan::default())
        .await
        .unwrap();
    two.driver.load(vm, 3).await.unwrap();
    let mut line = two.driver.serial(vm).await.unwrap();
    keeps_ticking(&mut line, ticked).await;

    // What it wrote came along: the next boot is its second.
    let grace = Duration::from_secs(60);
    let end = two.driver.reboot(vm, 3, grace).await.unwrap();
    assert_eq!(end, GuestEnd::ByGuest);
    output(&mut line, "vimana-demo ready boots=2").await;
    two.driver.reset(vm, 3).await.unwrap();
    output(&mut line, "vimana-demo ready boots=3").await;
    two.driver.kill(vm, 3).await.unwrap();
    two.driver.clean(vm, 3).await.unwrap();
}

/// Types a command at the guest's shell, and waits for what it says then.
async fn ask(line: &mut Box<dyn SerialStream>, command: &str, answer: &str) {
    assert!(!command.contains(answer), "the guest repeats what is typed");
    let typed = format!("{command}\n");
    line.write_all(typed.as_bytes()).await.unwrap();
    output(line, answer).await;
}

/// A Linux at its prompt, whose guest agent listens.
async fn with_agent(host: &DemoHost, spec: &IncarnationSpec) -> Box<dyn SerialStream> {
    let mut line = host.run(spec).await;
    output(&mut line, "root@web-1:~# ").await;
    let listens = "ls -l /proc/$(pidof qemu-ga)/fd | grep -q vport";
    let waiting = format!("until {listens}; do usleep 20000; done 2>/dev/null; echo up-$((1+1))");
    ask(&mut line, &waiting, "up-2").await;
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_backed_up_has_written_down_what_it_knows_and_goes_on() {
    let host = DemoHost::new().await;
    let spec = host.spec("#!/bin/sh\n");
    let vm = spec.vm_id;
    let _guard = host.guard(vm);
    let mut line = with_agent(&host, &spec).await;
    // In the guest's memory alone: nobody asked it to bring it to its disk.
    let said = "echo unsynced-$((40+2)) >/data/said; echo said-$((1+1))";
    ask(&mut line, said, "said-2").await;
    let id = BackupId::from_parts(1, [1; 10]);
    let made = host.driver.back_up(vm, 1, id, None).await.unwrap();
    assert!(made.frozen);
    let disk = host.content(&made.files.first().unwrap().path);
    let kept = disk.windows(11).any(|bytes| bytes == b"unsynced-42");
    assert!(kept, "what the guest had said is not in its backup");
    host.driver.end_backup(vm, 1, id, true).await.unwrap();
    ask(&mut line, "sync; echo on-$((1+1))", "on-2").await;
    // So does a snapshot, and a guest whose agent is away is no reason not to
    // make one.
    for (n, command) in [(1, "echo a >/data/a"), (2, "kill -STOP $(pidof qemu-ga)")] {
        ask(&mut line, &format!("{command}; echo did-$((1+1))"), "did-2").await;
        let id = SnapshotId::from_parts(n, [1; 10]);
        host.driver.snapshot(vm, 1, id, Keep::Disks).await.unwrap();
        ask(&mut line, "sync; echo on-$((1+1))", "on-2").await;
    }
    assert!(
        !host
            .dir
            .path()
            .join(format!("vms/{vm}/frozen.json"))
            .exists()
    );
    host.driver.kill(vm, 1).await.unwrap();
    host.driver.clean(vm, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_stands_still_when_its_agent_dies_goes_on_with_the_next() {
    let host = DemoHost::new().await;
    let spec = host.spec("#!/bin/sh\n");
    let vm = spec.vm_id;
    let _guard = host.guard(vm);
    drop(with_agent(&host, &spec).await);
    let dir = host.dir.path().join("vms").join(vm.to_string());
    std::fs::write(dir.join("frozen.json"), "{}").unwrap();
    let mut agent = tokio::net::UnixStream::connect(dir.join("guest.sock"))
        .await
        .unwrap();
    agent
        .write_all(b"{\"execute\": \"guest-fsfreeze-freeze\"}\n")
        .await
        .unwrap();
    let mut answer = [0; 64];
    let read = agent.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"{\"return\": 1}"));
    drop(agent);

    let host = host.reopened().await;
    let mut line = host.driver.serial(vm).await.unwrap();
    ask(&mut line, "echo a >/data/a; sync; echo on-$((1+1))", "on-2").await;
    // The record goes right after.
    while dir.join("frozen.json").exists() {
        tokio::task::yield_now().await;
    }
    host.driver.kill(vm, 1).await.unwrap();
    host.driver.clean(vm, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_writes_while_its_volume_moves_is_all_there() {
    const MIB: usize = 1 << 20;
    let host = DemoHost::new().await;
    let spec = host.spec("#!/bin/sh\n");
    let (vm, volume) = (spec.vm_id, VolumeId::from_parts(1, [1; 10]));
    let _guard = host.guard(vm);
    let mut line = host.run(&spec).await;
    output(&mut line, "root@web-1:~# ").await;
    let (driver, here) = (&host.driver, DatastoreName::local());
    let made = driver.create_volume(volume, MiB(64), &VolumeSource::Empty, &here);
    made.await.unwrap();
    driver.attach(vm, 1, volume).await.unwrap();
    let there = "until [ -b /dev/sda ]; do usleep 20000; done; echo 0 >/run/n";
    ask(
        &mut line,
        &format!("{there}; echo there-$((1+1))"),
        "there-2",
    )
    .await;
    // It counts at both ends, and says how far both are.
    let put = |block: usize| {
        format!("printf %08d $n | dd of=/dev/sda bs=512 seek={block} conv=fsync,notrunc")
    };
    let [first, last] = [8, 2048 * 63].map(put);
    let step = format!("n=$((n+1)); {first}; {last}; echo $n >/run/n");
    let count = format!("(n=0; while [ ! -e /run/stop ]; do {step}; done; touch /run/over)");
    ask(
        &mut line,
        &format!("{count} 2>/dev/null & echo counts-$((1+1))"),
        "counts-2",
    )
    .await;
    for to in [other(), here, other()] {
        let further =
            "m=$(cat /run/n); until [ $(cat /run/n) -gt $((m+3)) ]; do usleep 20000; done";
        ask(
            &mut line,
            &format!("{further}; echo more-$((1+1))"),
            "more-2",
        )
        .await;
        let disk = DiskId::Volume(volume);
        let moved = driver.move_disk(vm, 1, disk, &to, unwatched());
        moved.await.unwrap();
    }
    let stop = "touch /run/stop; until [ -e /run/over ]; do usleep 20000; done";
    ask(
        &mut line,
        &format!("{stop}; echo stopped-$((1+1))"),
        "stopped-2",
    )
    .await;
    line.write_all(b"echo last=$(cat /run/n)=$((1+1))\n")
        .await
        .unwrap();
    let said = output(&mut line, "=2\r").await;
    let last = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("last=")?.strip_suffix("=2"));
    let last: u64 = last.unwrap().parse().unwrap();
    driver.detach(vm, 1, volume).await.unwrap();
    let file = host.dir.path().join(format!("other/{volume}/volume.qcow2"));
    let disk = host.content(&file);
    let number = |at: usize| -> u64 {
        let text = String::from_utf8(disk[at..at + 8].to_vec()).unwrap();
        text.parse().unwrap()
    };
    assert_eq!([number(8 * 512), number(63 * MIB)], [last; 2]);
    driver.kill(vm, 1).await.unwrap();
    driver.clean(vm, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_writes_on_while_its_own_disk_moves() {
    let host = DemoHost::new().await;
    let spec = host.spec("#!/bin/sh\n");
    let vm = spec.vm_id;
    let _guard = host.guard(vm);
    let mut line = host.run(&spec).await;
    output(&mut line, "root@web-1:~# ").await;
    write_on(&mut line).await;
    let (driver, here) = (&host.driver, DatastoreName::local());
    for to in [other(), here, other()] {
        writes_on(&mut line).await;
        let moved = driver.move_disk(vm, 1, DiskId::Root, &to, unwatched());
        println!("{to}: {:?}", moved.await.unwrap());
    }
    writes_on(&mut line).await;
    has_written_all(&mut line).await;
    driver.kill(vm, 1).await.unwrap();
    // What is on the disk is what it starts from.
    driver.boot(vm, 2, &spec.resources).await.unwrap();
    let mut line = driver.serial(vm).await.unwrap();
    output(&mut line, "root@web-1:~# ").await;
    let there = "[ $(sed s/^0*// /root/n) -gt 9 ] && echo there-$((1+1))";
    ask(&mut line, there, "there-2").await;
    ask(&mut line, DISK_ERRORS, "0\r\nerrors-2").await;
    driver.kill(vm, 2).await.unwrap();
    driver.clean(vm, 2).await.unwrap();
}

/// How many it has seen.
const DISK_ERRORS: &str =
    "dmesg | grep -ci -e 'i/o error' -e 'ext4-fs error'; echo errors-$((1+1))";

/// From now on it writes to its own disk: a file that grows, and a number that is there
/// at once.
async fn write_on(line: &mut Box<dyn SerialStream>) {
    let step = "n=$((n+1)); dd if=/dev/urandom bs=4k count=8 >>/root/grows; \
                printf %08d $n | dd of=/root/n bs=8 conv=fsync,notrunc; echo $n >/run/n";
    let count = format!("(n=0; while [ ! -e /run/stop ]; do {step}; done; touch /run/over)");
    let count = format!("echo 0 >/run/n; {count} 2>/dev/null & echo counts-$((1+1))");
    ask(line, &count, "counts-2").await;
}

/// It goes on with that.
async fn writes_on(line: &mut Box<dyn SerialStream>) {
    let further = "m=$(cat /run/n); until [ $(cat /run/n) -gt $((m+3)) ]; do usleep 20000; done; \
                   echo more-$((1+1))";
    ask(line, further, "more-2").await;
}

/// It ends that: what it knows is what it reads when it has forgotten all that.
async fn has_written_all(line: &mut Box<dyn SerialStream>) {
    let stop = "touch /run/stop; until [ -e /run/over ]; do usleep 20000; done; sync";
    let sums = "$(cat /run/n) $(sed s/^0*// /root/n) $(md5sum </root/grows)";
    let forget = "echo 3 >/proc/sys/vm/drop_caches";
    let compare = format!(
        "{stop}; a=\"{sums}\"; {forget}; b=\"{sums}\"; set -- $a; \
         [ \"$a\" = \"$b\" ] && [ $1 = $2 ] && echo same-$((1+1)) || echo \"no: $a, $b\""
    );
    ask(line, &compare, "same-2").await;
    ask(line, DISK_ERRORS, "0\r\nerrors-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_writes_on_while_it_goes_to_another_host_and_back() {
    let hosts = [DemoHost::new().await, DemoHost::new().await];
    let names = [1, 2].map(|n| HostId::from_parts(n, [1; 10]));
    let mut spec = hosts[0].spec("#!/bin/sh\n");
    let vm = spec.vm_id;
    let _guards = [hosts[0].guard(vm), hosts[1].guard(vm)];
    let mut line = hosts[0].run(&spec).await;
    output(&mut line, "root@web-1:~# ").await;
    write_on(&mut line).await;
    for (round, [from, to], post_copy) in
        [(1, [0, 1], false), (2, [1, 0], false), (3, [0, 1], true)]
    {
        writes_on(&mut line).await;
        let (source, target) = (&hosts[from], &hosts[to]);
        let image = target.image();
        let arrival = Arrival {
            post_copy,
            ..Arrival::of(names[from])
        };
        let received = target.driver.receive(&spec, &image, &arrival);
        let sending = Sending {
            to: names[to],
            endpoint: received.await.unwrap(),
            max_downtime_ms: 300,
            max_bytes_per_s: None,
            disks: DiskPlan::default(),
        };
        let watcher: CopyWatcher = Arc::new(|progress| println!("{progress:?}"));
        let sent = source.driver.send(vm, round, &sending, watcher).await;
        let since = Instant::now();
        if post_copy {
            let switched = source.driver.switch(vm, round + 1).await;
            println!("{:?}", switched.unwrap());
        }
        target.driver.run(vm, round + 1).await.unwrap();
        println!(
            "{:?}, and let run within {:?}",
            sent.unwrap(),
            since.elapsed()
        );
        target.driver.complete(vm, round + 1).await.unwrap();
        source.driver.kill(vm, round + 1).await.unwrap();
        source.driver.clean(vm, round + 1).await.unwrap();
        spec.run_epoch = round + 1;
        line = target.driver.serial(vm).await.unwrap();
    }
    writes_on(&mut line).await;
    has_written_all(&mut line).await;
    hosts[1].driver.kill(vm, 4).await.unwrap();
    hosts[1].driver.clean(vm, 4).await.unwrap();
}

/// The machine outlives the driver, but not the test.
struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let record = std::fs::read(self.0.join("process.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        let pid = record["process"]["pid"].as_i64().unwrap_or(0);
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Linux under TCG on a busy machine takes its time.
async fn output(line: &mut Box<dyn SerialStream>, wanted: &str) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            assert_ne!(line.read_buf(&mut seen).await.unwrap(), 0, "the line ended");
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), reading).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(ended.is_ok(), "no {wanted:?} in:\n{seen}");
    seen
}
