//! What happens to whom when a lease is over.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use vimana_watchdog::protocol::{Message, Request, State};
use vimana_watchdog::{BootTime, Fenced, host_boot};

use crate::world::{LINGER, LONG, PATIENCE, Process, SHORT, World, sleeper, start_ticks};

/// Grants a short lease and gives its end.
fn soon(world: &World) -> BootTime {
    let until = BootTime::now().plus(SHORT);
    world.client().ask(Request::Lease { until }).unwrap();
    until
}

fn fence(world: &World) -> Fenced {
    let until = soon(world);
    world.settled(until)
}

#[test]
fn the_end_of_the_lease_ends_the_recorded_machines_and_says_so() {
    let world = World::new();
    let mut machines = ["vm_b", "vm_a"].map(|vm| world.recorded(vm));
    let bystander = sleeper();
    let _watchdog = world.watchdog();
    let until = soon(&world);
    for machine in &mut machines {
        machine.is_killed();
        assert!(BootTime::now() >= until, "before its time");
    }
    let fenced = world.settled(until);
    assert_eq!(fenced.vms, ["vm_a", "vm_b"]);
    assert_eq!(fenced.boot_id, host_boot().unwrap());
    assert!(bystander.is_alive());
    let log = world.log();
    assert!(log.contains("vm_a is killed\n"), "{log}");
}

#[test]
fn a_process_that_got_a_machines_pid_is_spared() {
    let world = World::new();
    let other = sleeper();
    world.record("vm_a", &other, start_ticks(other.pid()) - 1);
    let (earlier, mut killed) = (sleeper(), world.recorded("vm_c"));
    world.record("vm_b", &earlier, start_ticks(earlier.pid()));
    let path = world.vm_dir("vm_b").join("process.json");
    let record = fs::read_to_string(&path).unwrap();
    let boot = host_boot().unwrap();
    fs::write(&path, record.replace(&boot, "before the last restart")).unwrap();
    let _watchdog = world.watchdog();
    assert_eq!(fence(&world).vms, ["vm_c"]);
    killed.is_killed();
    assert!(other.is_alive() && earlier.is_alive());
}

#[test]
fn a_machine_whose_record_says_nothing_is_known_by_its_place_and_name() {
    let world = World::new();
    let mut starting = world.in_place("vm_a", &["sh", "-name", "vm_a"]);
    let interrupted = r#"{"run_epoch": 1, "process": null}"#;
    fs::write(world.vm_dir("vm_a").join("process.json"), interrupted).unwrap();
    let mut damaged = world.in_place("vm_b", &["sh", "-name", "vm_b,debug-threads=on"]);
    fs::write(world.vm_dir("vm_b").join("process.json"), "{").unwrap();
    let mut removed = world.in_place("vm_c", &["sh", "-name", "vm_c"]);
    let gone = world.dir().join("machines/vm_c.gone");
    fs::rename(world.vm_dir("vm_c"), &gone).unwrap();
    fs::remove_dir_all(&gone).unwrap();
    let somebody = world.in_place("vm_a", &[]);
    let misnamed = world.in_place("vm_a", &["sh", "-name", "vm_ab"]);
    let _watchdog = world.watchdog();
    assert_eq!(fence(&world).vms, ["vm_a", "vm_b", "vm_c"]);
    for machine in [&mut starting, &mut damaged, &mut removed] {
        machine.is_killed();
    }
    assert!(somebody.is_alive() && misnamed.is_alive());
}

#[test]
fn complete_means_that_no_process_is_left() {
    let world = World::new();
    // So much memory takes a while to be given back.
    let mut large = Command::new("dd");
    large.args(["if=/dev/zero", "bs=256M", "status=none"]);
    let mut child = large.stdout(Stdio::piped()).spawn().unwrap();
    let mut zeros = child.stdout.take().unwrap();
    let machine = Process::new(child);
    zeros.read_exact(&mut [0]).unwrap();
    world.record("vm_a", &machine, start_ticks(machine.pid()));
    let _watchdog = world.watchdog();
    assert_eq!(fence(&world).vms, ["vm_a"]);
    assert!(!machine.is_alive());
}

#[test]
fn without_a_new_lease_no_machine_begins_to_run() {
    let world = World::new();
    let _watchdog = world.watchdog();
    let mut client = world.client();
    assert_eq!(fence(&world).vms, [""; 0]);
    assert!(matches!(client.hear().unwrap(), Message::Alarm { .. }));
    // An agent that slept through it goes on with what it was about.
    let mut late = world.recorded("vm_a");
    late.is_killed();

    let until = BootTime::now().plus(LONG);
    let state = client.ask(Request::Lease { until }).unwrap();
    assert_eq!(state, State::Armed { until });
    let machine = world.recorded("vm_b");
    machine.outlives(BootTime::now().plus(Duration::from_millis(1200)));
    assert_eq!(Fenced::read(world.dir()).unwrap().unwrap().vms, ["vm_a"]);
}

#[test]
fn a_host_that_needs_no_lease_any_more_runs_machines_again() {
    let world = World::new();
    let _watchdog = world.watchdog();
    let mut client = world.client();
    fence(&world);
    assert_eq!(client.ask(Request::Disarm).unwrap(), State::Disarmed);
    let machine = world.recorded("vm_a");
    machine.outlives(BootTime::now().plus(Duration::from_millis(1200)));
}

#[test]
fn what_nobody_was_told_yet_is_not_forgotten() {
    let world = World::new();
    let mut first = world.recorded("vm_a");
    let _watchdog = world.watchdog();
    fence(&world);
    first.is_killed();
    let mut client = world.client();
    client.ask(Request::Disarm).unwrap();
    let mut second = world.recorded("vm_b");
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    second.is_killed();
    assert_eq!(world.settled(until).vms, ["vm_a", "vm_b"]);
}

#[test]
fn a_lease_that_was_over_before_it_came_counts_as_over() {
    // A successor of a watchdog that was killed hears of it in this way.
    let world = World::new();
    let mut machine = world.recorded("vm_a");
    let watchdog = world.watchdog_that_lingers(LINGER);
    let until = BootTime::from_ms(1);
    world.client().ask(Request::Lease { until }).unwrap();
    machine.is_killed();
    assert!(watchdog.ended_within(PATIENCE), "all is done");
    assert!(Fenced::read(world.dir()).unwrap().unwrap().complete);
}
