//! One case, from its first scene to the end where nothing is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Course, Mishap};
use vimana_model::action::VmAction;
use vimana_model::operation::{OperationState, Piece, StepKind};
use vimana_model::state::VmState;
use vimana_model::{ErrorKind, OperationId};
use vimana_store::operation::{self, OperationRecord};
use vimana_store::simulation::DiskCall;
use vimana_store::{Reader as Store, request, vm};

use super::deed::{About, asked};
use super::rules::{ALL_CALLS, Rule, Rules, SLOWLY, called_by};
use super::{Deed, Plan, Scene, Setback, Strike, Trouble, title};
use crate::sim::host::Host;
use crate::sim::net::Way;
use crate::sim::people::{ADMIN, Answer, Ask, MONA};
use crate::sim::run::in_time;
use crate::sim::server::At;
use crate::sim::{World, all, trace};

const PATIENCE: Duration = Duration::from_secs(1200);
/// How long a part is down.
const DOWN: Duration = Duration::from_secs(1);
/// How often somebody asks for a migration that is refused, once a second.
const MIGRATE_TRIES: u32 = 5;

/// What a case came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub title: String,
    /// What the case is about really happened.
    pub struck: bool,
    pub breaches: Vec<String>,
    /// What happened, for a person to read.
    pub text: String,
}

fn is_conflict(answer: &vimana_model::Result<Answer>) -> bool {
    matches!(answer, Err(error) if error.kind == ErrorKind::Conflict)
}

/// Runs one case.
#[must_use]
pub fn try_case(plan: &Plan, trouble: &Trouble) -> Verdict {
    in_time(async {
        let case = Case::begin().await;
        let journal = case.world.journal.clone();
        let _ears = tracing::dispatcher::set_default(&trace::dispatch(journal.clone()));
        let title = title(plan, trouble);
        case.set_scene(plan).await;
        journal.say("case", &title);
        case.operate(plan, trouble).await;
        case.undisturb();
        case.judge(plan, trouble).await;
        let crashes = journal.counts().contains_key("server crashes");
        let struck = match trouble {
            Trouble::Nothing => true,
            Trouble::ServerDies(..) => crashes,
            Trouble::After(..)
            | Trouble::Once(..)
            | Trouble::ForGood(..)
            | Trouble::AgentDiesBefore(_)
            | Trouble::AgentDiesAfter(_)
            | Trouble::RemovalOnce(_)
            | Trouble::RemovalForGood
            | Trouble::OldFrames => case.struck.load(Ordering::Relaxed),
        };
        Verdict {
            title,
            struck,
            breaches: journal.breaches(),
            text: journal.text(),
        }
    })
}

/// How often the plan's operation, undisturbed, calls the database.
pub fn disk_calls(plan: &Plan, call: DiskCall) -> u32 {
    in_time(async {
        let case = Case::begin().await;
        case.set_scene(plan).await;
        let before = case.world.server.calls_of(call);
        case.operate(plan, &Trouble::Nothing).await;
        case.world.server.calls_of(call) - before
    })
}

struct Case {
    world: World,
    rules: Rules,
    schedulers: AtomicBool,
    about: Mutex<About>,
    /// Rung by what somebody waits for.
    bell: Arc<Notify>,
    /// What was to go wrong went wrong.
    struck: Arc<AtomicBool>,
}

impl Case {
    async fn begin() -> Self {
        let mut world = World::running(7, 2).await;
        world.add_reader(MONA);
        let rules = Rules::default();
        for host in &world.hosts {
            let rules = rules.clone();
            let director = move |call, _vm| rules.course(Some(call));
            host.sim.direct(Box::new(director));
        }
        let removals = rules.clone();
        world.vault.direct_removals(move || removals.course(None));
        Self {
            world,
            rules,
            schedulers: AtomicBool::new(true),
            about: Mutex::default(),
            bell: Arc::default(),
            struck: Arc::default(),
        }
    }

    async fn set_scene(&self, plan: &Plan) {
        for scene in plan.before {
            match scene {
                Scene::Ask(deed) => {
                    let done = self.perform(*deed).await;
                    done.unwrap_or_else(|error| panic!("{}: {deed:?}: {error}", plan.name));
                    self.rest().await;
                }
                Scene::MachineDies => {
                    let vm = self.about().vm.unwrap();
                    for host in &self.world.hosts {
                        host.sim.crash(vm, "it was killed");
                    }
                    tokio::time::sleep(DOWN).await;
                }
                Scene::Breaks(call) => {
                    self.rules.add(Rule::fails(Some(*call), never_works()));
                }
                Scene::DatastoreBreaks => self.rules.add(Rule::fails(None, never_works())),
                Scene::Mends => self.rules.clear(),
                Scene::SchedulersGo => {
                    self.schedulers.store(false, Ordering::Relaxed);
                    for scheduler in &self.world.schedulers {
                        scheduler.kill();
                    }
                }
                Scene::SchedulersCome => {
                    self.schedulers.store(true, Ordering::Relaxed);
                    self.world.start_all();
                }
            }
        }
    }

    /// Asks for it, and remembers what it is about.
    async fn perform(&self, deed: Deed) -> vimana_model::Result<Answer> {
        let mut about = self.about();
        let is_elsewhere = |host: &Host| about.vm.is_some_and(|vm| host.sim.power(vm).is_none());
        let other = self.world.hosts.iter().position(is_elsewhere);
        about.other = other.map(|index| index + 1);
        let (who, ask) = asked(deed, about);
        let mut answer = self.world.people.ask(who, ask.clone()).await;
        // A host that is not back yet is one that nothing goes to.
        let mut tries = 1;
        while matches!(deed, Deed::Migrate | Deed::MigrateByPostCopy)
            && tries < MIGRATE_TRIES
            && is_conflict(&answer)
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.world.people.ask(who, ask.clone()).await;
            tries += 1;
        }
        let mut about = self.about.lock().unwrap();
        match &answer {
            Ok(answer) => {
                about.vm = answer.vm.or(about.vm);
                about.request = answer.request.or(about.request);
                about.operation = answer.operation;
                about.volume = answer.volume.or(about.volume);
                if let Some(Piece::Snapshot { id, .. }) = answer.piece {
                    about.snapshot = Some(id);
                }
            }
            Err(_) => about.refused = true,
        }
        answer
    }

    fn about(&self) -> About {
        *self.about.lock().unwrap()
    }

    async fn operate(&self, plan: &Plan, trouble: &Trouble) {
        self.lay(plan.setback);
        self.lie_in_wait(trouble);
        // A server that dies is back soon.
        let revive = async {
            loop {
                let changed = self.world.server.changed();
                if !self.world.server.is_running() {
                    tokio::time::sleep(DOWN).await;
                    self.world.server.start();
                }
                changed.await;
            }
        };
        let ask = async {
            // A refusal is an answer, too: the fault came first.
            if let Ok(answer) = self.perform(plan.deed).await {
                self.set_back(plan.setback, answer.operation).await;
            }
        };
        let work = async {
            tokio::join!(ask, self.strike(trouble));
            self.rest().await;
            if *trouble == Trouble::OldFrames {
                self.struck.store(true, Ordering::Relaxed);
                self.bring_up_old_frames().await;
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
        };
        tokio::select! {
            biased;
            () = work => {}
            () = revive => {}
        }
    }

    /// What stands in the way of the operation.
    fn lay(&self, setback: Setback) {
        match setback {
            Setback::None => {}
            // It must take long enough for someone to think better of it.
            Setback::Cancelled(step) | Setback::Deleted(step) => {
                self.rules.add(Rule::is_slow(called_by(step)));
            }
            Setback::CancelledAndDeleted(_) => {
                for call in ALL_CALLS {
                    self.rules.add(Rule::is_slow(call));
                }
            }
            Setback::Fails(call) => self.rules.add(Rule::fails(Some(call), never_works())),
            Setback::InVain(call) => {
                let fault = Fault::new(FaultKind::Host, "it works and has a bad moment");
                self.rules
                    .add(Rule::fails(Some(call), Mishap::FailAfter(fault)));
            }
        }
    }

    fn lie_in_wait(&self, trouble: &Trouble) {
        let befalls = |call, course, times| Rule {
            call,
            course,
            times,
            bell: Some(Arc::clone(&self.bell)),
            struck: Some(Arc::clone(&self.struck)),
        };
        let fails = |call, mishap: Mishap, times| {
            let course = Course {
                mishap: Some(mishap),
                ..Course::default()
            };
            self.rules.add(befalls(call, course, times));
        };
        let takes = |call, before, after| {
            let course = Course {
                before,
                mishap: None,
                after,
            };
            self.rules.add(befalls(Some(call), course, Some(1)));
        };
        match trouble.clone() {
            Trouble::Nothing | Trouble::OldFrames => {}
            Trouble::ServerDies(call, after) => {
                let call = Some(call);
                self.world.server.die_at(Some(At { call, after }));
            }
            Trouble::After(strike, after) => {
                if strike == Strike::Ledgers {
                    for host in &self.world.hosts {
                        host.ledger.sync_takes(SLOWLY);
                    }
                }
                let call = Some(DiskCall::Committed);
                let bell = Arc::clone(&self.bell);
                self.world.server.ring_at(At { call, after }, bell);
            }
            Trouble::Once(call, mishap) => fails(Some(call), mishap, Some(1)),
            Trouble::RemovalOnce(mishap) => fails(None, mishap, Some(1)),
            Trouble::ForGood(call, kind) => {
                let fault = Fault::new(kind, "it has a bad moment for ever");
                fails(Some(call), Mishap::Fail(fault), None);
            }
            Trouble::RemovalForGood => fails(None, never_works(), None),
            Trouble::AgentDiesBefore(call) => takes(call, SLOWLY, Duration::ZERO),
            Trouble::AgentDiesAfter(call) => takes(call, Duration::ZERO, SLOWLY),
        }
    }

    /// Somebody thinks better of it.
    async fn set_back(&self, setback: Setback, operation: Option<OperationId>) {
        let Some(id) = operation else {
            return;
        };
        let (step, cancels, deletes) = match setback {
            Setback::None | Setback::Fails(_) | Setback::InVain(_) => return,
            Setback::Cancelled(step) => (step, true, false),
            Setback::Deleted(step) => (step, false, true),
            Setback::CancelledAndDeleted(step) => (step, true, true),
        };
        self.until_at(id, step).await;
        if cancels {
            // Refused where it failed before.
            let _ = self.world.people.ask(ADMIN, Ask::Cancel(id)).await;
        }
        if deletes {
            // Refused where it is deleted by now.
            let _ = self.perform(Deed::Act(VmAction::Delete)).await;
        }
    }

    /// Until the step is under way, or the operation is over.
    async fn until_at(&self, id: OperationId, step: StepKind) {
        let there = self.world.until(Duration::from_secs(60), async |store| {
            let found = operation::find(&store, id).await.unwrap();
            found.is_none_or(|found| found.state.is_over() || is_at(&found, step))
        });
        there.await;
    }

    /// What does not come by itself.
    async fn strike(&self, trouble: &Trouble) {
        let strike = match trouble {
            Trouble::AgentDiesBefore(_) | Trouble::AgentDiesAfter(_) => None,
            Trouble::After(strike, _) => Some(*strike),
            Trouble::Nothing
            | Trouble::ServerDies(..)
            | Trouble::Once(..)
            | Trouble::ForGood(..)
            | Trouble::RemovalOnce(_)
            | Trouble::RemovalForGood
            | Trouble::OldFrames => return,
        };
        let rung = tokio::time::timeout(PATIENCE, self.bell.notified());
        if rung.await.is_err() {
            return;
        }
        self.struck.store(true, Ordering::Relaxed);
        let hosts = || self.world.hosts.iter();
        match strike {
            None => {
                // Half way through.
                tokio::time::sleep(SLOWLY / 2).await;
                hosts().for_each(|host| host.kill_agent());
            }
            Some(Strike::Agents) => hosts().for_each(|host| host.kill_agent()),
            Some(Strike::Ledgers) => {
                tokio::time::sleep(SLOWLY / 2).await;
                for host in hosts() {
                    host.kill_agent();
                    host.ledger.lose_power(0);
                    host.ledger.sync_takes(Duration::ZERO);
                }
            }
            Some(Strike::Hosts) => hosts().for_each(|host| host.lose_power(0)),
            Some(Strike::Schedulers) => {
                for scheduler in &self.world.schedulers {
                    scheduler.kill();
                }
            }
            Some(Strike::OldFrames) => return self.bring_up_old_frames().await,
        }
        tokio::time::sleep(DOWN).await;
        hosts().for_each(|host| host.start_agent());
        if self.schedulers.load(Ordering::Relaxed) {
            for scheduler in &self.world.schedulers {
                scheduler.start();
            }
        }
    }

    async fn bring_up_old_frames(&self) {
        for host in &self.world.hosts {
            self.world.net.cut(&host.name);
            for way in [Way::ToServer, Way::ToAgent] {
                let mut old = self.world.net.old_frames(&host.name, way);
                old.reverse();
                self.world.net.slip_in(&host.name, way, old);
            }
        }
    }

    /// Until nothing is in flight but what waits for what does not come.
    async fn rest(&self) {
        let found = self.schedulers.load(Ordering::Relaxed);
        let quiet = self.world.until(PATIENCE, async |store: Store| {
            let running = operation::running(&store).await.unwrap();
            let vms = all(&store).await;
            running.iter().all(|operation| {
                let vm = operation.object.vm().and_then(|id| vms.get(&id));
                let held = vm.map(|vm| vm.state) == Some(VmState::Hold);
                is_at(operation, StepKind::Place) && (held || !found)
            })
        });
        if !quiet.await {
            self.world.journal.breach(4, "the operation never ends");
        }
    }

    fn undisturb(&self) {
        self.rules.clear();
        self.world.calm();
    }

    async fn judge(&self, plan: &Plan, trouble: &Trouble) {
        let world = &self.world;
        world.come_to_rest().await;
        world.check_rest().await;
        self.judge_end(plan, trouble).await;
        world.sweep_up().await;
        world.check_rest().await;
        world.check_nothing_left().await;
        world.check_readers().await;
    }

    async fn judge_end(&self, plan: &Plan, trouble: &Trouble) {
        let about = self.about();
        let breach = |what: String| self.world.journal.breach(4, what);
        let read = self.world.server.until_serving().await.store().read();
        let ended = match about.operation {
            Some(id) => operation::find(&read, id).await.unwrap(),
            None => None,
        };
        if let Some(ended) = &ended
            && ended.state == OperationState::Failed
            && ended.error.is_none()
        {
            breach("it failed without a reason".to_owned());
        }
        if !trouble.passes() {
            return;
        }
        if about.refused {
            breach("it was refused".to_owned());
        }
        let vm = match about.vm {
            Some(id) => vm::find(&read, id).await.unwrap(),
            None => None,
        };
        let came_to = (ended.map(|ended| ended.state), vm.map(|vm| vm.state));
        if !plan.ends.contains(&came_to) {
            breach(format!("it came to {came_to:?}, not {:?}", plan.ends));
        }
        let asked = match about.request {
            Some(id) => request::find(&read, id).await.unwrap(),
            None => None,
        };
        let asked = asked.map(|request| request.state);
        if asked != plan.request {
            breach(format!("its request is {asked:?}, not {:?}", plan.request));
        }
    }
}

fn never_works() -> Mishap {
    Mishap::Fail(Fault::new(
        FaultKind::Hypervisor,
        "it has a bad moment for ever",
    ))
}

/// Whether the step is under way, forward.
fn is_at(operation: &OperationRecord, step: StepKind) -> bool {
    let at = usize::try_from(operation.step).unwrap_or(usize::MAX);
    operation.state == OperationState::Running
        && operation.steps.get(at).is_some_and(|at| at.kind == step)
}
