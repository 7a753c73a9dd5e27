//! The crash matrix: every operation and every way back, with everything that
//! can break at every place where it can.
//!
//! A case is a world in which one VM is brought to where the operation begins;
//! then the operation runs, and one thing goes wrong. Whatever it is: the
//! operation ends, what was done was done once or taken back, all rules hold,
//! and deleted means gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Course, Mishap};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::operation::{OperationState, StepKind};
use vimana_model::unit::MiB;
use vimana_model::vm::{CreateVm, PowerOffVm, ResizeVm};
use vimana_model::{OperationId, VmId};
use vimana_store::operation;
use vimana_store::simulation::DiskCall;

use super::net::Way;
use super::people::{ADMIN, Ask};
use super::run::in_time;
use super::server::Deadly;
use super::{World, trace};

const PATIENCE: Duration = Duration::from_secs(1200);
/// How long a call takes where something is to happen meanwhile.
const SLOWLY: Duration = Duration::from_secs(2);

/// An operation, how to get to it, and whether someone cancels it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub name: &'static str,
    /// What is done with the VM before, each to its end.
    before: &'static [VmAction],
    /// `None` makes the VM.
    action: Option<VmAction>,
    args: Args,
    /// Cancelled while this step is under way.
    cancel_during: Option<StepKind>,
    /// The driver's calls that it leads to.
    pub calls: &'static [Call],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Args {
    None,
    Force,
    Grow,
    /// The machine dies before.
    Dead,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    Nothing,
    /// The server dies at the n-th such call of its database.
    ServerDies(DiskCall, u32),
    /// One call of the driver goes wrong.
    Mishap(Call, Mishap),
    /// Every call of the driver does.
    AlwaysFails(Call, FaultKind),
    /// The agent dies before the call has its effect …
    AgentDiesBefore(Call),
    /// … or after it, before anybody knows.
    AgentDiesAfter(Call),
    /// The agent dies while the command is being written to its ledger, which
    /// loses it.
    LedgerLost(Call),
    /// Every frame comes again, in reverse, on a later connection.
    FramesComeAgain,
}

const fn plan(name: &'static str, before: &'static [VmAction], action: VmAction) -> Plan {
    Plan {
        name,
        before,
        action: Some(action),
        args: Args::None,
        cancel_during: None,
        calls: &[],
    }
}

/// Every operation, from everywhere it begins, and every way back.
#[must_use]
pub fn plans() -> Vec<Plan> {
    use StepKind as S;
    use VmAction as A;
    let with = |plan: Plan, calls| Plan { calls, ..plan };
    let cancelled = |plan: Plan, name, step, calls| Plan {
        name,
        cancel_during: Some(step),
        calls,
        ..plan
    };
    let create = Plan {
        action: None,
        ..plan("create", &[], A::Delete)
    };
    let start = plan("start", &[A::PowerOff], A::Start);
    let suspend = plan("suspend", &[], A::Suspend);
    let stop = plan("stop", &[], A::Stop);
    let resume = plan("resume from the datastore", &[A::Stop], A::Resume);
    let force = Plan {
        args: Args::Force,
        ..plan("power off by force", &[], A::PowerOff)
    };
    let resize = Plan {
        args: Args::Grow,
        ..plan("resize", &[], A::Resize)
    };
    let retry = Plan {
        args: Args::Dead,
        ..plan("retry", &[], A::Retry)
    };
    vec![
        with(create, &[Call::Prepare, Call::Boot]),
        with(start, &[Call::Boot]),
        with(suspend, &[Call::Save]),
        with(stop, &[Call::Save, Call::Export, Call::Clean]),
        with(
            plan("stop of a suspended VM", &[A::Suspend], A::Stop),
            &[Call::Export, Call::Clean],
        ),
        with(plan("resume", &[A::Suspend], A::Resume), &[Call::Load]),
        with(resume, &[Call::Import, Call::Load]),
        with(plan("power off", &[], A::PowerOff), &[Call::Shutdown]),
        with(force, &[Call::Kill]),
        with(plan("reboot", &[], A::Reboot), &[Call::Reboot]),
        with(plan("reset", &[], A::Reset), &[Call::Reset]),
        with(resize, &[Call::Resize]),
        with(retry, &[Call::Kill, Call::Boot]),
        with(
            plan("shutdown", &[], A::Shutdown),
            &[Call::Shutdown, Call::Clean],
        ),
        with(plan("delete", &[], A::Delete), &[Call::Kill, Call::Clean]),
        with(plan("delete of a stopped VM", &[A::Stop], A::Delete), &[]),
        cancelled(
            create,
            "create, cancelled in prepare",
            S::Prepare,
            &[Call::Prepare, Call::Clean],
        ),
        cancelled(
            create,
            "create, cancelled in boot",
            S::Boot,
            &[Call::Boot, Call::Kill, Call::Clean],
        ),
        cancelled(
            start,
            "start, cancelled",
            S::Boot,
            &[Call::Boot, Call::Kill],
        ),
        cancelled(
            suspend,
            "suspend, cancelled",
            S::Save,
            &[Call::Save, Call::Load],
        ),
        cancelled(
            stop,
            "stop, cancelled in save",
            S::Save,
            &[Call::Save, Call::Load],
        ),
        cancelled(
            stop,
            "stop, cancelled in upload",
            S::Upload,
            &[Call::Export, Call::Load],
        ),
        cancelled(
            resume,
            "resume, cancelled in download",
            S::Download,
            &[Call::Import, Call::Clean],
        ),
    ]
}

/// The kinds of faults that a driver's call may end with, whatever it was
/// asked. `NoSuchVm` is none of them: the host would not tell the truth.
pub const FAULTS: [FaultKind; 8] = [
    FaultKind::Superseded,
    FaultKind::NoSpace,
    FaultKind::Hypervisor,
    FaultKind::BadImage,
    FaultKind::Cancelled,
    FaultKind::Unavailable,
    FaultKind::Unsupported,
    FaultKind::Host,
];

/// How often the plan's operation, undisturbed, calls the database.
#[must_use]
pub fn disk_calls(plan: &Plan, call: DiskCall) -> u32 {
    in_time(async {
        let case = Case::prepare(plan).await;
        let before = case.world.server.calls_of(call);
        case.operate(plan, &Trouble::Nothing).await;
        case.rest().await;
        case.world.server.calls_of(call) - before
    })
}

/// Runs one case; what broke, with the log to read it in.
#[must_use]
pub fn try_case(plan: &Plan, trouble: &Trouble) -> Option<String> {
    in_time(async {
        let mut case = Case::prepare(plan).await;
        let journal = case.world.journal.clone();
        let _ears = tracing::dispatcher::set_default(&trace::dispatch(journal.clone()));
        journal.say("case", format!("{}: {trouble:?}", plan.name));
        case.disturb(trouble);
        case.operate(plan, trouble).await;
        case.rest().await;
        case.undisturb();
        case.judge(plan).await;
        let breaches = journal.breaches();
        let what = format!(
            "{}: {trouble:?}: {breaches:#?}\n{}",
            plan.name,
            journal.text()
        );
        (!breaches.is_empty()).then_some(what)
    })
}

struct Case {
    world: World,
    vm: Option<VmId>,
    operation: Mutex<Option<OperationId>>,
    /// Rung by the call that somebody waits for.
    bell: Arc<Notify>,
}

impl Case {
    async fn prepare(plan: &Plan) -> Self {
        let world = World::running(7, 2).await;
        let mut case = Self {
            world,
            vm: None,
            operation: Mutex::default(),
            bell: Arc::default(),
        };
        if plan.action.is_none() {
            return case;
        }
        let made = case.world.people.ask(ADMIN, Ask::Create(form())).await;
        case.vm = made.unwrap().vm;
        case.rest().await;
        for action in plan.before {
            let ask = Ask::Act(case.vm.unwrap(), *action, ActionArgs::None);
            case.world.people.ask(ADMIN, ask).await.unwrap();
            case.rest().await;
        }
        if plan.args == Args::Dead {
            for host in &case.world.hosts {
                host.sim.crash(case.vm.unwrap(), "it was killed");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        case
    }

    /// Lays the trouble in wait.
    fn disturb(&mut self, trouble: &Trouble) {
        match trouble.clone() {
            Trouble::Nothing | Trouble::FramesComeAgain => {}
            Trouble::ServerDies(call, after) => self.world.server.die_at(Some(Deadly {
                call: Some(call),
                after,
            })),
            Trouble::Mishap(call, mishap) => self.once(call, mishap),
            Trouble::AlwaysFails(call, kind) => {
                let fault = Fault::new(kind, "it never works");
                let always = move || Some(Mishap::Fail(fault.clone()));
                self.direct(call, Duration::ZERO, Duration::ZERO, always);
            }
            Trouble::AgentDiesBefore(call) => self.direct(call, SLOWLY, Duration::ZERO, || None),
            Trouble::AgentDiesAfter(call) => self.direct(call, Duration::ZERO, SLOWLY, || None),
            Trouble::LedgerLost(_) => {
                for host in &self.world.hosts {
                    host.ledger.sync_takes(SLOWLY);
                }
            }
        }
    }

    /// On whichever host comes first.
    fn once(&self, call: Call, mishap: Mishap) {
        let left = Arc::new(Mutex::new(Some(mishap)));
        let take = move || left.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.direct(call, Duration::ZERO, Duration::ZERO, take);
    }

    fn direct(
        &self,
        wanted: Call,
        before: Duration,
        after: Duration,
        mishap: impl Fn() -> Option<Mishap> + Clone + Send + 'static,
    ) {
        for host in &self.world.hosts {
            let (bell, mishap) = (Arc::clone(&self.bell), mishap.clone());
            host.sim.direct(Box::new(move |call, _vm| {
                if call != wanted {
                    return Course::default();
                }
                bell.notify_one();
                Course {
                    before,
                    mishap: mishap(),
                    after,
                }
            }));
        }
    }

    fn undisturb(&self) {
        for host in &self.world.hosts {
            host.sim.direct(Box::new(|_, _| Course::default()));
        }
        self.world.calm();
    }

    async fn operate(&self, plan: &Plan, trouble: &Trouble) {
        if let Some(step) = plan.cancel_during {
            let call = called_by(step);
            // The step must take long enough for someone to think better of it.
            if !matches!(
                trouble,
                Trouble::AgentDiesBefore(_) | Trouble::AgentDiesAfter(_)
            ) {
                for host in &self.world.hosts {
                    host.sim.delay(call, SLOWLY);
                }
            }
        }
        let ask = match (plan.action, self.vm) {
            (Some(action), Some(vm)) => Ask::Act(vm, action, args(plan)),
            _ => Ask::Create(form()),
        };
        // A server that dies is back soon.
        let revive = async {
            loop {
                let changed = self.world.server.changed();
                if !self.world.server.is_running() {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    self.world.server.start();
                }
                changed.await;
            }
        };
        let work = async {
            // A refusal is an answer, too: the fault came first.
            let answer = self.world.people.ask(ADMIN, ask).await.ok();
            let operation = answer.and_then(|answer| answer.operation);
            *self.operation.lock().unwrap() = operation;
            tokio::join!(self.cancel(plan, operation), self.strike(trouble));
            self.rest().await;
        };
        tokio::select! {
            biased;
            () = work => {}
            () = revive => {}
        }
    }

    async fn cancel(&self, plan: &Plan, operation: Option<OperationId>) {
        let (Some(step), Some(id)) = (plan.cancel_during, operation) else {
            return;
        };
        let there = self.world.until(Duration::from_secs(60), async |store| {
            let found = operation::find(&store, id).await.unwrap();
            found.is_none_or(|found| {
                let at = usize::try_from(found.step).unwrap_or(usize::MAX);
                found.state.is_over() || found.steps.get(at).is_some_and(|at| at.kind == step)
            })
        });
        there.await;
        // Refused where it failed before.
        let _ = self.world.people.ask(ADMIN, Ask::Cancel(id)).await;
    }

    /// What does not come by itself.
    async fn strike(&self, trouble: &Trouble) {
        match trouble {
            Trouble::AgentDiesBefore(_) | Trouble::AgentDiesAfter(_) => {
                let rung = tokio::time::timeout(Duration::from_secs(60), self.bell.notified());
                if rung.await.is_err() {
                    return;
                }
                tokio::time::sleep(SLOWLY / 2).await;
                self.kill_agents().await;
            }
            Trouble::LedgerLost(_) => {
                tokio::time::sleep(SLOWLY / 2).await;
                for host in &self.world.hosts {
                    host.kill_agent();
                    host.ledger.lose_power(0);
                    host.ledger.sync_takes(Duration::ZERO);
                }
                self.kill_agents().await;
            }
            Trouble::FramesComeAgain => {
                self.rest().await;
                for host in &self.world.hosts {
                    self.world.net.cut(&host.name);
                    for way in [Way::ToServer, Way::ToAgent] {
                        let mut old = self.world.net.old_frames(&host.name, way);
                        old.reverse();
                        self.world.net.slip_in(&host.name, way, old);
                    }
                }
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
            Trouble::Nothing
            | Trouble::ServerDies(..)
            | Trouble::Mishap(..)
            | Trouble::AlwaysFails(..) => {}
        }
    }

    async fn kill_agents(&self) {
        for host in &self.world.hosts {
            host.kill_agent();
            // Once is enough.
            host.sim.direct(Box::new(|_, _| Course::default()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for host in &self.world.hosts {
            host.start_agent();
        }
    }

    /// Until nothing is in flight.
    async fn rest(&self) {
        let quiet = self.world.until(PATIENCE, async |store| {
            operation::running(&store).await.unwrap().is_empty()
        });
        if !quiet.await {
            self.world.journal.breach(4, "the operation never ends");
        }
    }

    async fn judge(&self, plan: &Plan) {
        let world = &self.world;
        world.come_to_rest().await;
        world.check_rest().await;
        let operation = *self.operation.lock().unwrap();
        if let Some(id) = operation {
            let read = world.server.until_serving().await.store().read();
            let ended = operation::find(&read, id).await.unwrap().unwrap();
            let fine = ended.state == OperationState::Succeeded
                || ended.error.is_some()
                || plan.cancel_during.is_some();
            if !fine {
                let what = format!("it ended {} without a reason", ended.state.name());
                world.journal.breach(4, what);
            }
        }
        world.sweep_up().await;
        world.check_rest().await;
        world.check_nothing_left().await;
        world.check_readers().await;
    }
}

fn args(plan: &Plan) -> ActionArgs {
    match plan.args {
        Args::None | Args::Dead => ActionArgs::None,
        Args::Force => ActionArgs::PowerOff(PowerOffVm { force: true }),
        Args::Grow => ActionArgs::Resize(ResizeVm {
            vcpus: Some(2),
            memory_mib: Some(MiB(256)),
            ..ResizeVm::default()
        }),
    }
}

fn called_by(step: StepKind) -> Call {
    match step {
        StepKind::Boot => Call::Boot,
        StepKind::Save => Call::Save,
        StepKind::Upload => Call::Export,
        StepKind::Download => Call::Import,
        StepKind::Shutdown => Call::Shutdown,
        StepKind::Kill => Call::Kill,
        StepKind::Clean => Call::Clean,
        StepKind::Load => Call::Load,
        StepKind::Reboot => Call::Reboot,
        StepKind::Reset => Call::Reset,
        StepKind::Resize => Call::Resize,
        StepKind::Place | StepKind::Prepare | StepKind::Discard | StepKind::GiveBack => {
            Call::Prepare
        }
    }
}

fn form() -> CreateVm {
    CreateVm {
        name: "web-1".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    }
}
