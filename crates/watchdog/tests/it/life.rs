//! How a watchdog begins, lives and ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, getsid, kill_process, kill_process_group};
use vimana_watchdog::protocol::{Request, State};
use vimana_watchdog::{BootTime, Client, Fenced, READY, SOCKET};

use crate::world::{
    LINGER, LONG, PATIENCE, Process, SHORT, World, descriptor, ended_within, first_line,
};

#[test]
fn there_is_one_for_a_data_directory() {
    let world = World::new();
    let _first = world.watchdog();
    let mut client = world.client();
    let until = BootTime::now().plus(LONG);
    client.ask(Request::Lease { until }).unwrap();
    let (mut second, said) = first_line(world.command());
    assert_eq!(said, "another watchdog guards this data directory");
    assert!(!second.child.wait().unwrap().success());
    let (_, state) = Client::connect(world.dir()).unwrap();
    assert_eq!(state, State::Armed { until });
}

#[test]
fn a_successor_takes_over_from_one_that_was_killed() {
    let world = World::new();
    let mut first = world.watchdog();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let error = Client::connect(world.dir()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let _second = world.watchdog();
    assert_eq!(
        Client::connect(world.dir()).unwrap().1,
        State::Disarmed,
        "what the first one knew is told by the agent"
    );
}

#[test]
fn it_outlives_its_starter_and_the_starters_group() {
    use std::os::unix::process::CommandExt as _;
    let world = World::new();
    let mut machine = world.recorded("vm_a");
    let mut starter = Command::new("sh");
    starter
        .args(["-c", r#""$@" & echo $!; wait"#, "sh"])
        .arg(world.command().get_program())
        .args(world.command().get_args())
        .process_group(0)
        .stdout(Stdio::piped());
    let mut child = starter.spawn().unwrap();
    let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut starter = Process::new(child);
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        line.trim().to_owned()
    };
    let mut lines = [line(), line()];
    // Either may be first.
    lines.sort();
    assert_eq!(lines[1], READY);
    let pid: i32 = lines[0].parse().unwrap();
    let watchdog = Pid::from_raw(pid).unwrap();
    let ended = descriptor(pid);
    assert_eq!(getsid(Some(watchdog)), Ok(watchdog));
    assert_eq!(getpgid(Some(watchdog)), Ok(watchdog));

    let group = Pid::from_raw(starter.pid()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    starter.is_killed();
    assert!(!ended_within(&ended, Duration::ZERO));
    let mut client = world.client();
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    machine.is_killed();
    client.end().unwrap();
    assert!(ended_within(&ended, PATIENCE));
}

#[test]
fn it_ends_when_it_is_told_to_and_leaves_the_machines() {
    let world = World::new();
    let machine = world.recorded("vm_a");
    let mut watchdog = world.watchdog();
    let mut other = world.client();
    let mut client = world.client();
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    client.end().unwrap();
    assert!(watchdog.child.wait().unwrap().success());
    assert!(other.ask(Request::Disarm).is_err());
    assert!(!world.dir().join(SOCKET).exists());
    assert!(machine.is_alive());
}

#[test]
fn it_stays_as_long_as_an_agent_is_connected() {
    let world = World::new();
    let watchdog = world.watchdog_that_lingers(LINGER);
    let client = world.client();
    watchdog.outlives(BootTime::now().plus(LINGER * 2));
    drop(client);
    assert!(watchdog.ended_within(PATIENCE));
    assert!(!world.dir().join(SOCKET).exists());
}

#[test]
fn it_stays_for_the_end_of_a_lease_that_nobody_renews() {
    let world = World::new();
    let watchdog = world.watchdog_that_lingers(LINGER);
    let until = BootTime::now().plus(LINGER * 2);
    world.client().ask(Request::Lease { until }).unwrap();
    watchdog.outlives(until);
    assert!(watchdog.ended_within(PATIENCE));
    assert!(Fenced::read(world.dir()).unwrap().unwrap().complete);
}

#[test]
fn it_ends_where_nobody_ever_says_a_word() {
    let world = World::new();
    let mut watchdog = world.watchdog_that_lingers(Duration::from_millis(1));
    assert!(watchdog.ended_within(PATIENCE));
    assert!(watchdog.child.wait().unwrap().success());
}

#[test]
fn its_files_are_its_users_alone() {
    let world = World::new();
    let _watchdog = world.watchdog();
    for file in [SOCKET, "watchdog.lock", "watchdog.log"] {
        let data = fs::symlink_metadata(world.dir().join(file)).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn who_speaks_another_language_is_left() {
    let world = World::new();
    let _watchdog = world.watchdog();
    for said in [&[9][..], b"GET / HTTP/1.1\r\n\r\n", b"\x01123456789"] {
        let mut stream = UnixStream::connect(world.dir().join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(said).unwrap();
        let mut heard = Vec::new();
        // A reset where something was left unread.
        if let Err(error) = stream.read_to_end(&mut heard) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    assert_eq!(Client::connect(world.dir()).unwrap().1, State::Disarmed);
}

#[test]
fn connections_are_limited_and_the_others_go_on() {
    let world = World::new();
    let _watchdog = world.watchdog();
    let mut clients: Vec<Client> = (0..vimana_watchdog::limits::MAX_CLIENTS)
        .map(|_| world.client())
        .collect();
    assert!(Client::connect(world.dir()).is_err());
    let mut first = clients.remove(0);
    assert_eq!(first.ask(Request::Disarm).unwrap(), State::Disarmed);
}

#[test]
fn a_data_directory_with_a_long_path_works() {
    let mut world = World::new();
    let long = world.dir().join("long-name".repeat(14));
    fs::create_dir_all(long.join("machines")).unwrap();
    world.enter(long);
    let mut machine = world.in_place("vm_a", &["sh", "-name", "vm_a"]);
    let _watchdog = world.watchdog();
    let until = BootTime::now().plus(SHORT);
    world.client().ask(Request::Lease { until }).unwrap();
    machine.is_killed();
}

#[test]
fn a_missing_data_directory_is_an_error_it_names() {
    let mut world = World::new();
    world.enter(world.dir().join("nowhere"));
    let (mut process, said) = first_line(world.command());
    assert!(
        said.starts_with("cannot use the data directory: "),
        "{said}"
    );
    assert!(!process.child.wait().unwrap().success());
}

#[test]
fn a_stopped_watchdog_takes_no_connection_and_goes_on_where_it_was() {
    let world = World::new();
    let mut machine = world.recorded("vm_a");
    let watchdog = world.watchdog();
    let pid = Pid::from_raw(watchdog.pid()).unwrap();
    let mut client = world.client();
    let until = BootTime::now().plus(SHORT);
    client.ask(Request::Lease { until }).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    machine.outlives(until.plus(SHORT));
    kill_process(pid, Signal::CONT).unwrap();
    machine.is_killed();
}
