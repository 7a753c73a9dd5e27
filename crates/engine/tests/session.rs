//! What agents say in sessions that are no longer theirs: a connection that
//! broke at the host's end may bring its last frames long after the host has
//! dialled anew. The session's number is what they are told by.
#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use tokio::sync::mpsc;
use vimana_driver::{Capabilities, Observed, Power};
use vimana_engine::AgentHandle;
use vimana_model::action::VmAction;
use vimana_model::host::Accelerator;
use vimana_model::{VmId, VmState};
use vimana_protocol::agent::{
    Command, FromAgent, Hello, Outcome, PROTOCOL_VERSIONS, ToAgent, Work,
};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

/// The host's end of one session, in frames.
struct Line {
    number: u64,
    outgoing: mpsc::Receiver<ToAgent>,
    handle: AgentHandle,
}

impl Line {
    /// A session of the host, which had `last` before and holds this.
    async fn open(world: &TestWorld, host: &TestHost, last: u64, holds: &[Observed]) -> Self {
        let hello = Hello {
            protocol: PROTOCOL_VERSIONS,
            agent_version: "test".to_owned(),
            host_id: host.id,
            name: host.name.parse().unwrap(),
            zone: "default".parse().unwrap(),
            capabilities: Capabilities {
                hypervisor: "none".to_owned(),
                accelerator: Accelerator::Simulated,
                accelerator_note: String::new(),
                hot_resize: false,
                hardware: None,
            },
            capacity: host.capacity.into(),
            datastores: Vec::new(),
            inventory: holds.to_vec(),
            session_number: last,
            fenced: 0,
        };
        let session = world.engine.connect_agent(hello).await.unwrap();
        let (mut outgoing, handle) = session.split();
        let welcome = outgoing.recv().await.unwrap();
        let ToAgent::Welcome { session_number, .. } = welcome else {
            panic!("{welcome:?}")
        };
        handle.receive(FromAgent::Ready { session_number });
        Self {
            number: session_number,
            outgoing,
            handle,
        }
    }

    async fn command(&mut self) -> Command {
        loop {
            if let ToAgent::Command(command) = self.outgoing.recv().await.unwrap() {
                return command;
            }
        }
    }

    fn done(&self, command: &Command) {
        let outcome = Outcome::Ok {
            note: None,
            saved: None,
            backup: None,
            endpoint: None,
            sent: None,
            place: None,
        };
        self.handle.receive(FromAgent::Done {
            command: command.command,
            claim_epoch: command.claim_epoch,
            outcome,
        });
    }

    /// Carries the next command out, in words.
    async fn obey(&mut self) -> Work {
        let command = self.command().await;
        self.done(&command);
        command.work
    }
}

fn seen(vm_id: VmId, power: Power) -> Observed {
    Observed {
        vm_id,
        run_epoch: 1,
        power,
    }
}

#[tokio::test]
async fn what_an_earlier_session_still_brings_is_out_of_date() {
    let world = TestWorld::new().await;
    let host = TestHost::new(1);
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let mut old = Line::open(&world, &host, 0, &[]).await;
    let vm = world.create("web-1").await.id;
    assert!(matches!(old.obey().await, Work::Prepare { .. }));
    assert!(matches!(old.obey().await, Work::Boot { .. }));
    world.until(vm, VmState::Running).await;

    let orphan = VmId::from_parts(7, [7; 10]);
    let holds = [seen(vm, Power::Running), seen(orphan, Power::Running)];
    let mut new = Line::open(&world, &host, old.number, &holds).await;
    let orphans = async || {
        let found = world.engine.host_orphans(&world.admin, host.id).await;
        found.unwrap().len()
    };
    let mut watch = std::pin::pin!(world.engine.watch(&world.admin, Some(0)));
    while orphans().await == 0 {
        futures::StreamExt::next(&mut watch).await;
    }

    // Late, or made up: the old connection says what is not so any more.
    for power in [Power::Saved, Power::Prepared, Power::Off] {
        old.handle.receive(FromAgent::Observed(seen(vm, power)));
    }

    old.handle.receive(FromAgent::Discarded { vm_id: orphan });
    old.handle.receive(FromAgent::Inventory {
        inventory: vec![],
        disks: None,
    });
    old.handle.receive(FromAgent::Ready {
        session_number: old.number,
    });
    // An outcome is told by its claim, and shows that all of it came through.
    world.operate(vm, VmAction::Suspend).await;
    let save = new.command().await;
    assert_eq!(save.work, Work::Save);
    old.done(&save);
    world.until_rest(vm).await;

    let timeline = world.engine.vm_timeline(&world.admin, vm).await.unwrap();
    let told = timeline.iter().map(|entry| entry.event.sentence());
    let turns: Vec<String> = told.filter(|told| told.starts_with("Running →")).collect();
    assert_eq!(turns, ["Running → Suspended"]);
    assert_eq!(orphans().await, 1);
    // The later session goes on.
    world.operate(vm, VmAction::Resume).await;
    assert_eq!(new.obey().await, Work::Load);
    world.until(vm, VmState::Running).await;
}

#[tokio::test]
async fn what_the_latest_session_brings_counts() {
    let world = TestWorld::new().await;
    let host = TestHost::new(1);
    let _scheduler = TestScheduler::connect(&world.engine).await;
    let mut line = Line::open(&world, &host, 0, &[]).await;
    let vm = world.create("web-1").await.id;
    line.obey().await;
    line.obey().await;
    world.until(vm, VmState::Running).await;
    let line = Line::open(&world, &host, line.number, &[seen(vm, Power::Running)]).await;
    line.handle
        .receive(FromAgent::Observed(seen(vm, Power::Off)));
    world.until(vm, VmState::PoweredOff).await;
}
