//! The watchdog together with the agent's side of it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, kill_process};
use vimana_agent::watchdog::{Watchdog, WatchdogError, disarm, end_watchdog, fenced};
use vimana_watchdog::protocol::State;
use vimana_watchdog::{BootTime, Client, SOCKET};

use crate::world::{LONG, PATIENCE, SHORT, World, descriptor, ended_within};

/// A data directory whose watchdog, started by an agent, ends with the test.
struct Host(World);

impl Host {
    fn new() -> Self {
        Self(World::new())
    }

    async fn agent(&self) -> Watchdog {
        start(self.0.dir()).await.unwrap()
    }

    /// The watchdog's process.
    fn pid(&self) -> Pid {
        let stream = UnixStream::connect(self.0.dir().join(SOCKET)).unwrap();
        socket_peercred(&stream).unwrap().pid
    }

    /// Waits until the watchdog is in such a state.
    async fn stands(&self, wanted: impl Fn(State) -> bool) {
        let look = async {
            while !Client::connect(self.0.dir()).is_ok_and(|(_, state)| wanted(state)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok((client, _)) = Client::connect(self.0.dir()) {
            let _ = client.end();
        }
    }
}

async fn start(data_dir: &Path) -> Result<Watchdog, WatchdogError> {
    let binary = Path::new(env!("CARGO_BIN_EXE_vimana-watchdog"));
    Watchdog::start(data_dir, Some(binary)).await
}

fn is_armed(state: State) -> bool {
    matches!(state, State::Armed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_an_agent_that_vanished_runs_out() {
    let host = Host::new();
    let mut machine = host.0.recorded("vm_a");
    let agent = host.agent().await;
    assert!(agent.guards());
    let granted = BootTime::now();
    assert!(agent.lease(granted, Duration::from_secs(1)));
    host.stands(is_armed).await;
    drop(agent);
    machine.is_killed();
    assert!(BootTime::now() >= granted.plus(Duration::from_secs(1)));
    host.stands(|state| matches!(state, State::Fenced { .. }))
        .await;

    let agent = host.agent().await;
    let told = agent.fenced().unwrap();
    assert_eq!(told.vms, ["vm_a"]);
    agent.forget(&told);
    assert_eq!(fenced(host.0.dir()).filter(|f| *f == told), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_in_an_orderly_way_disarms_it() {
    let host = Host::new();
    let machine = host.0.recorded("vm_a");
    let agent = host.agent().await;
    let lease = Duration::from_secs(1);
    let until = BootTime::now().plus(lease);
    assert!(agent.lease(BootTime::now(), lease));
    agent.disarm().await;
    assert_eq!(
        Client::connect(host.0.dir()).unwrap().1,
        State::Disarmed,
        "at once"
    );
    drop(agent);
    machine.outlives(until.plus(SHORT));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_goes_on_with_the_same_watchdog() {
    let host = Host::new();
    let machine = host.0.recorded("vm_a");
    let first = host.agent().await;
    let pid = host.pid();
    let lease = Duration::from_secs(2);
    let until = BootTime::now().plus(lease);
    first.lease(BootTime::now(), lease);
    host.stands(is_armed).await;
    drop(first);
    let second = host.agent().await;
    assert_eq!(host.pid(), pid);
    host.stands(is_armed).await;
    assert!(second.lease(BootTime::now(), LONG));
    machine.outlives(until.plus(SHORT));
    assert_eq!(second.fenced(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_that_dies_is_replaced_and_told_what_the_other_knew() {
    let host = Host::new();
    let mut machine = host.0.recorded("vm_a");
    let agent = host.agent().await;
    let lease = Duration::from_secs(3);
    let until = BootTime::now().plus(lease);
    agent.lease(BootTime::now(), lease);
    host.stands(is_armed).await;
    let first = host.pid();
    kill_process(first, Signal::KILL).unwrap();
    host.stands(is_armed).await;
    assert_ne!(host.pid(), first);
    drop(agent);
    machine.is_killed();
    assert!(BootTime::now() >= until);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_or_not_guarded_is_no_lease() {
    let host = Host::new();
    assert!(!Watchdog::none().guards());
    assert!(!Watchdog::none().lease(BootTime::now(), LONG));
    Watchdog::none().disarm().await;

    let agent = host.agent().await;
    let long_ago = BootTime::from_ms(0);
    assert!(!agent.lease(long_ago, Duration::from_millis(1)));
    assert!(!agent.lease_is_over(), "there never was one");
    let until = BootTime::now().plus(SHORT);
    assert!(agent.lease(BootTime::now(), SHORT));
    // A shorter one does not take back what was granted.
    agent.lease(BootTime::now(), Duration::from_millis(1));
    host.stands(|state| matches!(state, State::Fenced { .. }))
        .await;
    assert!(BootTime::now() >= until && agent.lease_is_over());
    assert!(agent.lease(BootTime::now(), LONG));
    assert!(!agent.lease_is_over());
    host.stands(is_armed).await;
    agent.no_lease();
    host.stands(|state| state == State::Disarmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_binary_is_an_error_that_names_it() {
    let host = Host::new();
    let nowhere = host.0.dir().join("nowhere");
    let error = Watchdog::start(host.0.dir(), Some(&nowhere)).await;
    let text = error.err().unwrap().to_string();
    assert!(text.contains("/nowhere`: No such file"), "{text}");
    // Beside this test's own binary there is none, either.
    assert!(Watchdog::start(host.0.dir(), None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_that_is_just_ending_is_waited_for() {
    let host = Host::new();
    let lock = File::create(host.0.dir().join("watchdog.lock")).unwrap();
    lock.lock().unwrap();
    let ends = async {
        // By then the first try has failed, or the second will do.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(lock);
    };
    let (agent, ()) = tokio::join!(host.agent(), ends);
    assert!(agent.guards());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_agent_armed_can_be_disarmed_without_one() {
    let host = Host::new();
    disarm(host.0.dir()).await.unwrap();
    let agent = host.agent().await;
    agent.lease(BootTime::now(), LONG);
    host.stands(is_armed).await;
    drop(agent);
    disarm(host.0.dir()).await.unwrap();
    assert_eq!(Client::connect(host.0.dir()).unwrap().1, State::Disarmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_it_where_it_is_not_needed() {
    let host = Host::new();
    assert!(!end_watchdog(host.0.dir()).await.unwrap());
    let agent = host.agent().await;
    let process = descriptor(host.pid().as_raw_nonzero().get());
    drop(agent);
    assert!(end_watchdog(host.0.dir()).await.unwrap());
    assert!(ended_within(&process, PATIENCE));
    assert!(!end_watchdog(host.0.dir()).await.unwrap());
}
