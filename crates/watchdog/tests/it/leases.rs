//! What keeps the machines alive, and what does not.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vimana_watchdog::protocol::{Request, State};
use vimana_watchdog::{BootTime, Client, Fenced};

use crate::world::{LINGER, LONG, PATIENCE, Process, SHORT, World};

/// Long enough for a renewer on a busy machine.
const RENEWED: Duration = Duration::from_secs(2);
const RENEWER_DIR: &str = "VIMANA_TEST_RENEWER_DIR";

fn arm(client: &mut Client, lease: Duration) -> BootTime {
    let until = BootTime::now().plus(lease);
    client.ask(Request::Lease { until }).unwrap();
    until
}

#[test]
fn a_renewed_lease_keeps_the_machines() {
    let world = World::new();
    let machine = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    let mut client = world.client();
    let first = arm(&mut client, Duration::from_secs(1));
    let second = arm(&mut client, LONG);
    // What was granted before is not taken back.
    arm(&mut client, SHORT);
    machine.outlives(first.plus(SHORT));
    let (_, state) = Client::connect(world.dir()).unwrap();
    assert_eq!(state, State::Armed { until: second });
    assert_eq!(Fenced::read(world.dir()).unwrap(), None);
}

#[test]
fn a_lease_is_never_longer_than_the_limit() {
    let world = World::new();
    let _watchdog = world.watchdog();
    let until = BootTime::from_ms(u64::MAX);
    let state = world.client().ask(Request::Lease { until }).unwrap();
    let State::Armed { until } = state else {
        panic!("{state:?}")
    };
    assert!(BootTime::now().until(until) <= vimana_watchdog::limits::MAX_LEASE);
}

#[test]
fn a_disarmed_watchdog_lets_the_machines_run() {
    let world = World::new();
    let machine = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    let mut client = world.client();
    let until = arm(&mut client, Duration::from_secs(1));
    assert_eq!(client.ask(Request::Disarm).unwrap(), State::Disarmed);
    machine.outlives(until.plus(SHORT));
    assert_eq!(Fenced::read(world.dir()).unwrap(), None);
}

#[test]
fn without_a_lease_nothing_ever_happens() {
    let world = World::new();
    let machine = world.recorded("vm_a");
    let watchdog = world.watchdog_that_lingers(LINGER);
    drop(world.client());
    assert!(watchdog.ended_within(PATIENCE));
    assert!(machine.is_alive());
    assert_eq!(Fenced::read(world.dir()).unwrap(), None);
}

#[test]
fn an_agent_that_comes_back_within_the_lease_finds_everything_as_it_was() {
    let world = World::new();
    let machine = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    let mut first = world.client();
    let until = arm(&mut first, RENEWED);
    drop(first);
    let (mut second, state) = Client::connect(world.dir()).unwrap();
    assert_eq!(state, State::Armed { until });
    arm(&mut second, LONG);
    machine.outlives(until.plus(SHORT));
}

/// Not a test: the process that renews the lease in the tests below.
#[test]
#[ignore = "started by other tests"]
fn renewer() {
    let dir = std::env::var_os(RENEWER_DIR).unwrap();
    let (mut client, _) = Client::connect(dir.as_ref()).unwrap();
    loop {
        arm(&mut client, RENEWED);
        println!("renewed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that keeps renewing, and has done so for longer than one lease.
fn renewing(world: &World) -> Process {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leases::renewer", "--ignored", "--nocapture"])
        .env(RENEWER_DIR, world.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let process = Process::new(child);
    let begun = BootTime::now();
    while BootTime::now() < begun.plus(RENEWED + SHORT) {
        lines.next().unwrap().unwrap();
    }
    // The pipe is emptied until the renewer ends, lest it waits for a reader.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    process
}

fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_raw(process.pid()).unwrap(), signal).unwrap();
}

#[test]
fn machines_of_an_agent_that_hangs_are_stopped() {
    let world = World::new();
    let mut machine = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    let renewer = renewing(&world);
    assert!(machine.is_alive(), "as long as it renews");
    signal(&renewer, Signal::STOP);
    machine.is_killed();
    assert!(renewer.is_alive());
}

#[test]
fn machines_of_an_agent_that_was_killed_are_stopped() {
    let world = World::new();
    let mut machine = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    let mut renewer = renewing(&world);
    assert!(machine.is_alive(), "as long as it renews");
    signal(&renewer, Signal::KILL);
    renewer.is_killed();
    machine.is_killed();
}

#[test]
fn no_clock_that_anybody_can_set_is_read() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in std::fs::read_dir(source).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // `Instant` stands still while the host sleeps.
        for clock in ["SystemTime", "Realtime", "Instant", "modified()"] {
            assert!(!text.contains(clock), "{clock} in {}", path.display());
        }
    }
}
