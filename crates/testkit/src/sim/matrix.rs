//! The crash matrix: every operation and every way back, with everything that
//! can break at every place where it can.
//!
//! A case is a world in which one VM is brought to where the operation begins;
//! then the operation runs, and one thing goes wrong. Whatever it is: the
//! operation ends, what was done was done once or taken back, all rules hold,
//! and deleted means gone. Where what goes wrong passes, the operation ends as
//! if it had not.

mod case;
mod deed;
mod plans;
mod rules;
mod trouble;

use vimana_driver_sim::Call;
use vimana_model::action::VmAction;
use vimana_model::operation::{OperationState, StepKind};
use vimana_model::request::{RequestAction, RequestState};
use vimana_model::state::VmState;

pub use case::{Verdict, try_case};
pub use plans::plans;
pub use trouble::{Family, Strike, Trouble};

use case::disk_calls;

/// An operation: how to get to it, what stands in its way, and its end.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub name: &'static str,
    /// What happens before, each to its end.
    before: &'static [Scene],
    deed: Deed,
    setback: Setback,
    /// The driver's calls that it leads to.
    calls: &'static [Call],
    /// It removes a copy in the datastore.
    removes: bool,
    /// It finds a host.
    places: bool,
    /// How the operation may end, and what is then of its VM.
    ends: &'static [(Option<OperationState>, Option<VmState>)],
    /// What is then of its request.
    request: Option<RequestState>,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Create,
    Act(VmAction),
    /// Power off, by force.
    Force,
    /// Resize to more.
    Grow,
    /// With the memory or without.
    Snapshot {
        memory: bool,
    },
    /// Of the latest volume alone.
    SnapshotVolume,
    /// Go back to the latest snapshot, or delete it.
    OfSnapshot(VmAction),
    MakeVolume,
    /// Attach the volume, or detach it.
    OfVolume(VmAction),
    GrowVolume,
    MoveVolume,
    MoveDisks,
    DeleteVolume,
    /// To the other host.
    Migrate,
    /// The same, running there before all of its memory is.
    MigrateByPostCopy,
    Request,
    Decide(RequestAction),
    /// Approve, with other terms.
    ApproveChanged,
}

/// What happens before an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    Ask(Deed),
    MachineDies,
    /// This call of the driver fails for good from now on …
    Breaks(Call),
    /// … or all removals of copies in the datastore …
    DatastoreBreaks,
    /// … until now.
    Mends,
    /// From now on nobody finds hosts …
    SchedulersGo,
    /// … until now.
    SchedulersCome,
}

/// What stands in an operation's way, whatever else goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setback {
    None,
    /// Cancelled while this step is under way.
    Cancelled(StepKind),
    /// Overtaken by a deletion while this step is under way …
    Deleted(StepKind),
    /// … or is being taken back.
    CancelledAndDeleted(StepKind),
    /// The call fails for good, without effect.
    Fails(Call),
    /// The call has its effect and fails all the same, until nobody tries any
    /// more.
    InVain(Call),
}

/// Every case of a family.
#[must_use]
pub fn cases(family: Family) -> Vec<(Plan, Trouble)> {
    let of = |plan: Plan| {
        let troubles = trouble::troubles(&plan, family).into_iter();
        troubles.map(move |trouble| (plan, trouble))
    };
    plans().into_iter().flat_map(of).collect()
}

/// The case that [`title`] calls so.
#[must_use]
pub fn case_named(name: &str) -> Option<(Plan, Trouble)> {
    let plan = |plan: &Plan| {
        let rest = name.strip_prefix(plan.name)?.strip_prefix(": ")?;
        Some((*plan, rest))
    };
    let (plan, rest) = plans().iter().find_map(plan)?;
    let troubles = Family::ALL.into_iter();
    let found = troubles
        .flat_map(|family| trouble::troubles(&plan, family))
        .find(|trouble| trouble.to_string() == rest);
    found.map(|trouble| (plan, trouble))
}

/// What a case is called.
#[must_use]
pub fn title(plan: &Plan, trouble: &Trouble) -> String {
    format!("{}: {trouble}", plan.name)
}
