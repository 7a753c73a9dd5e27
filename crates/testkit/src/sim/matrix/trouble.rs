//! What goes wrong in a case, and where it can.

use std::fmt;

use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Mishap};
use vimana_store::simulation::DiskCall;

use super::{Plan, disk_calls};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Nothing,
    /// The server dies at the n-th such call of its database.
    ServerDies(DiskCall, u32),
    /// After the n-th commit, which is when something is about to be done.
    After(Strike, u32),
    /// One call of the driver goes wrong.
    Once(Call, Mishap),
    /// Every call of the driver does.
    ForGood(Call, FaultKind),
    /// The agent dies before the call has its effect …
    AgentDiesBefore(Call),
    /// … or after it, before anybody knows.
    AgentDiesAfter(Call),
    /// One removal of a copy in the datastore goes wrong.
    RemovalOnce(Mishap),
    /// Every one does.
    RemovalForGood,
    /// When it is over, every frame comes again.
    OldFrames,
}

/// What can happen at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The agents die; the machines run on.
    Agents,
    /// The agents die while what came is being written to their ledgers,
    /// which lose it.
    Ledgers,
    /// The hosts lose power.
    Hosts,
    /// The schedulers die.
    Schedulers,
    /// All connections break, and every frame so far comes again, in reverse,
    /// on those that follow.
    OldFrames,
}

/// Cases that are told apart by what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Undisturbed,
    Server,
    CallsOnce,
    CallsForGood,
    Agents,
    Frames,
    Hosts,
}

impl Family {
    pub const ALL: [Self; 7] = [
        Self::Undisturbed,
        Self::Server,
        Self::CallsOnce,
        Self::CallsForGood,
        Self::Agents,
        Self::Frames,
        Self::Hosts,
    ];
}

/// The kinds of faults that a driver's call may end with, whatever it was
/// asked. `NoSuchVm` is none of them: the host would not tell the truth.
const FAULTS: [FaultKind; 8] = [
    FaultKind::Superseded,
    FaultKind::NoSpace,
    FaultKind::Hypervisor,
    FaultKind::BadImage,
    FaultKind::Cancelled,
    FaultKind::Unavailable,
    FaultKind::Unsupported,
    FaultKind::Host,
];

const DISK_CALLS: [DiskCall; 4] = [
    DiskCall::Begin,
    DiskCall::Write,
    DiskCall::Commit,
    DiskCall::Committed,
];

/// Everything of the family that can go wrong with the plan.
pub fn troubles(plan: &Plan, family: Family) -> Vec<Trouble> {
    let strikes = |strike| {
        let commits = disk_calls(plan, DiskCall::Committed);
        (0..commits).map(move |after| Trouble::After(strike, after))
    };
    match family {
        Family::Undisturbed => vec![Trouble::Nothing],
        Family::Server => {
            let at_every = |call| {
                let calls = disk_calls(plan, call);
                (0..calls).map(move |after| Trouble::ServerDies(call, after))
            };
            DISK_CALLS.into_iter().flat_map(at_every).collect()
        }
        Family::CallsOnce => {
            let of = |call| mishaps().into_iter().map(move |m| Trouble::Once(call, m));
            let mut all: Vec<_> = plan.calls.iter().copied().flat_map(of).collect();
            if plan.removes {
                let fault = || fault(FaultKind::Unavailable);
                all.push(Trouble::RemovalOnce(Mishap::Fail(fault())));
                all.push(Trouble::RemovalOnce(Mishap::FailAfter(fault())));
            }
            all
        }
        Family::CallsForGood => {
            let kinds = [FaultKind::Host, FaultKind::Hypervisor];
            let of = |call| kinds.map(|kind| Trouble::ForGood(call, kind));
            let mut all: Vec<_> = plan.calls.iter().copied().flat_map(of).collect();
            all.extend(plan.removes.then_some(Trouble::RemovalForGood));
            all
        }
        Family::Agents => {
            let of = |call| {
                [
                    Trouble::AgentDiesBefore(call),
                    Trouble::AgentDiesAfter(call),
                ]
            };
            let calls = plan.calls.iter().copied().flat_map(of);
            let ledgers = strikes(Strike::Ledgers);
            calls
                .chain(strikes(Strike::Agents))
                .chain(ledgers)
                .collect()
        }
        Family::Frames => {
            let during = strikes(Strike::OldFrames);
            during.chain([Trouble::OldFrames]).collect()
        }
        Family::Hosts => {
            let schedulers = plan.places.then(|| strikes(Strike::Schedulers));
            let schedulers = schedulers.into_iter().flatten();
            strikes(Strike::Hosts).chain(schedulers).collect()
        }
    }
}

fn mishaps() -> Vec<Mishap> {
    let fails = FAULTS.map(|kind| Mishap::Fail(fault(kind)));
    let others = [
        Mishap::FailAfter(fault(FaultKind::Host)),
        Mishap::Panic,
        Mishap::PanicAfter,
    ];
    fails.into_iter().chain(others).collect()
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "it has a bad moment")
}

impl Trouble {
    /// Whether what was asked for is reached all the same.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Nothing
            | Self::ServerDies(..)
            | Self::AgentDiesBefore(_)
            | Self::AgentDiesAfter(_)
            | Self::RemovalOnce(_)
            | Self::OldFrames => true,
            Self::After(strike, _) => *strike != Strike::Hosts,
            Self::Once(_, Mishap::Fail(fault)) => {
                fault.kind.may_pass() || fault.kind == FaultKind::Cancelled
            }
            Self::Once(_, Mishap::FailAfter(_) | Mishap::Panic | Mishap::PanicAfter) => true,
            Self::ForGood(..) | Self::RemovalForGood => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing goes wrong"),
            Self::ServerDies(call, after) => write!(f, "the server dies at {call:?} {after}"),
            Self::After(strike, after) => write!(f, "{strike} after commit {after}"),
            Self::Once(call, mishap) => write!(f, "{call:?} {} once", Went(mishap)),
            Self::ForGood(call, kind) => write!(f, "{call:?} fails for good as {kind:?}"),
            Self::AgentDiesBefore(call) => write!(f, "the agent dies before {call:?}"),
            Self::AgentDiesAfter(call) => write!(f, "the agent dies after {call:?}"),
            Self::RemovalOnce(mishap) => write!(f, "the removal of a copy {} once", Went(mishap)),
            Self::RemovalForGood => f.write_str("the removal of a copy fails for good"),
            Self::OldFrames => f.write_str("old frames come again in the end"),
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agents => "the agents die",
            Self::Ledgers => "the agents die and their ledgers lose what came",
            Self::Hosts => "the hosts lose power",
            Self::Schedulers => "the schedulers die",
            Self::OldFrames => "old frames come again",
        })
    }
}

/// How a call went, in words.
struct Went<'a>(&'a Mishap);

impl fmt::Display for Went<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mishap::Fail(fault) => write!(f, "fails as {:?}", fault.kind),
            Mishap::FailAfter(fault) => write!(f, "fails after its effect as {:?}", fault.kind),
            Mishap::Panic => f.write_str("panics"),
            Mishap::PanicAfter => f.write_str("panics after its effect"),
        }
    }
}
