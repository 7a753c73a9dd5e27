//! Frames that come twice, late or out of order, sessions that are cut and
//! agents that are killed: every effect happens exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;
use vimana_driver_sim::{Course, Effects};
use vimana_model::{OperationId, VmId};
use vimana_protocol::agent::{Command, CommandRef, FromAgent, Outcome, ToAgent, Work};

use crate::orders::{RESOURCES, image_of, prepare, vm};
use crate::world::{Session, World};

/// What is to be done to a VM, one after the other: the step of which
/// operation, in which run.
fn plan(vm_id: VmId) -> Vec<Command> {
    let image = image_of(b"content");
    let resources = RESOURCES;
    let steps = [
        (1, 0, 1, prepare(vm_id, 0, &image).work),
        (1, 1, 1, Work::Boot { resources }),
        (2, 0, 1, Work::Save),
        (3, 0, 2, Work::Load),
        (4, 0, 2, Work::Shutdown { grace_ms: 10 }),
        (5, 0, 3, Work::Boot { resources }),
        (6, 0, 3, Work::Kill),
        (6, 1, 3, Work::Clean),
    ];
    let commands = steps.into_iter().map(|(operation, step, run_epoch, work)| {
        let rest = vm_id.uuid().as_bytes()[6..].try_into().unwrap();
        Command {
            command: CommandRef {
                operation_id: OperationId::from_parts(operation, rest),
                step,
                undo: false,
                attempt: 1,
            },
            vm_id,
            run_epoch,
            claim_epoch: 1,
            work,
        }
    });
    commands.collect()
}

/// As many VMs as there are ids for, each through its plan.
struct Server {
    plans: BTreeMap<VmId, Vec<Command>>,
    /// What each VM is at.
    at: BTreeMap<VmId, usize>,
    sent: Vec<Command>,
    random: StdRng,
}

impl Server {
    fn new(vms: u8, seed: u64) -> Self {
        let ids = (1..=vms).map(vm);
        Self {
            plans: ids.clone().map(|id| (id, plan(id))).collect(),
            at: ids.map(|id| (id, 0)).collect(),
            sent: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn is_done(&self) -> bool {
        self.plans
            .iter()
            .all(|(id, plan)| self.at[id] == plan.len())
    }

    fn commands_left(&self) -> usize {
        let left = |(id, plan): (&VmId, &Vec<Command>)| plan.len() - self.at[id];
        self.plans.iter().map(left).sum()
    }

    fn current(&mut self, id: VmId) -> Option<&mut Command> {
        self.plans.get_mut(&id).unwrap().get_mut(self.at[&id])
    }

    async fn ask(&mut self, session: &mut Session, id: VmId) {
        if let Some(command) = self.current(id).cloned() {
            session.order(&command).await;
            self.sent.push(command);
        }
    }

    /// All that is under way goes out anew.
    async fn begin(&mut self, session: &mut Session) {
        let ids: Vec<VmId> = self.plans.keys().copied().collect();
        for id in ids {
            if let Some(operation_id) = self.current(id).map(|c| c.command.operation_id) {
                let plan = self.plans.get_mut(&id).unwrap().iter_mut();
                plan.filter(|step| step.command.operation_id == operation_id)
                    .for_each(|step| step.claim_epoch += 1);
            }
            self.ask(session, id).await;
        }
    }

    /// An answer to what was asked last ends a step; others have no effect.
    async fn take(&mut self, session: &mut Session, frame: FromAgent) {
        let FromAgent::Done {
            command,
            claim_epoch,
            outcome,
        } = frame
        else {
            return;
        };
        let asked = self.plans.iter().find_map(|(id, plan)| {
            let asked = plan.get(self.at[id])?;
            let same = (asked.command, asked.claim_epoch) == (command, claim_epoch);
            same.then_some(*id)
        });
        if let Some(id) = asked {
            assert!(
                matches!(outcome, Outcome::Ok { .. }),
                "{command:?} {outcome:?}"
            );
            *self.at.get_mut(&id).unwrap() += 1;
            self.ask(session, id).await;
        }
    }

    /// Something that was once sent is sent again.
    async fn replay(&mut self, session: &mut Session) {
        if let Some(command) = self.sent.choose(&mut self.random).cloned() {
            session.send(ToAgent::Command(command)).await;
        }
    }
}

/// Every call of the driver takes up to 20 ms before and after its effect.
fn dawdle(world: &World, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    world.host.direct(Box::new(move |_, _| Course {
        before: Duration::from_millis(random.random_range(0..20)),
        mishap: None,
        after: Duration::from_millis(random.random_range(0..20)),
    }));
    world.journal.sync_takes(Duration::from_millis(3));
}

fn assert_once(world: &World, vms: u8) {
    let once = Effects {
        prepared: 1,
        booted: 2,
        guest_off: 1,
        stopped: 1,
        saved: 1,
        loaded: 1,
        cleaned: 1,
        ..Effects::default()
    };
    for n in 1..=vms {
        assert_eq!(world.host.effects(vm(n)), once, "VM {n}");
        assert!(world.host.left_behind(vm(n)).is_empty());
    }
    assert_eq!(world.host.log().breaches(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn frames_that_come_again_late_or_out_of_order_have_no_effect() {
    for seed in 0..20 {
        let mut world = World::seeded(seed);
        dawdle(&world, seed);
        let mut server = Server::new(5, seed);
        let mut session = world.session().await;
        server.begin(&mut session).await;
        while !server.is_done() {
            // Each is answered: more than one for each answer would never end.
            for _ in 0..2 {
                if server.random.random_bool(0.4) {
                    server.replay(&mut session).await;
                }
            }
            let frame = session.next().await.unwrap();
            server.take(&mut session, frame).await;
        }
        // Yesterday's frames, all of them, backwards; then to an agent that
        // knows of them from its ledger alone.
        for _ in 0..2 {
            for command in server.sent.iter().rev() {
                session.order(command).await;
                session.done().await;
            }
            world.kill().await;
            world.start();
            session = world.session().await;
        }
        assert_once(&world, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_commands_have_one_effect_each_through_twenty_cuts_and_kills() {
    const VMS: u8 = 130;
    for seed in 0..2 {
        let mut world = World::seeded(seed);
        dawdle(&world, seed);
        let mut server = Server::new(VMS, seed);
        let total = server.commands_left();
        assert!(total > 1000);
        let mut session = world.session().await;
        server.begin(&mut session).await;
        let mut cuts = 0;
        while !server.is_done() {
            // Evenly over all the work.
            if total - server.commands_left() >= (cuts + 1) * total / 21 {
                cuts += 1;
                if server.random.random() {
                    world.kill().await;
                    world.start();
                }
                drop(session);
                session = world.session().await;
                server.begin(&mut session).await;
            }
            if server.random.random_bool(0.05) {
                server.replay(&mut session).await;
            }
            let frame = session.next().await.unwrap();
            server.take(&mut session, frame).await;
        }
        assert_eq!(cuts, 20);
        assert_once(&world, VMS);
    }
}

/// Everything an agent says, and when, in a course full of accidents.
async fn transcript(seed: u64) -> Vec<(Duration, String)> {
    let started = Instant::now();
    let mut world = World::seeded(seed);
    dawdle(&world, 7);
    let mut server = Server::new(10, 7);
    let mut said = Vec::new();
    let mut session = world.session().await;
    server.begin(&mut session).await;
    while !server.is_done() {
        if said.len() % 30 == 29 {
            drop(session);
            session = world.session().await;
            server.begin(&mut session).await;
        }
        if server.random.random_bool(0.3) {
            server.replay(&mut session).await;
        }
        let frame = session.next().await.unwrap();
        said.push((started.elapsed(), serde_json::to_string(&frame).unwrap()));
        server.take(&mut session, frame).await;
    }
    said
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_course_to_the_millisecond() {
    let first = transcript(1).await;
    assert_eq!(first, transcript(1).await);
    // The jitter is another one.
    assert_ne!(first, transcript(2).await);
}
