//! What befalls the driver's calls and the datastore's removals.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use vimana_driver_sim::{Call, Course, Mishap};
use vimana_model::operation::StepKind;

/// How long a call takes where something is to happen meanwhile.
pub const SLOWLY: Duration = Duration::from_secs(2);
/// How long where somebody is to think better of it, and the server may be down
/// in between.
const AT_LENGTH: Duration = Duration::from_secs(20);

/// What befalls calls; of removals in the datastore where there is no call.
#[derive(Clone, Default)]
pub struct Rules(Arc<Mutex<Vec<Rule>>>);

#[derive(Clone, Default)]
pub struct Rule {
    pub call: Option<Call>,
    pub course: Course,
    /// So many calls; all where there is none.
    pub times: Option<u32>,
    pub bell: Option<Arc<Notify>>,
    pub struck: Option<Arc<AtomicBool>>,
}

impl Rules {
    pub fn add(&self, rule: Rule) {
        self.list().push(rule);
    }

    pub fn clear(&self) {
        self.list().clear();
    }

    /// Delays add up; of what goes wrong the latest rule decides.
    pub fn course(&self, call: Option<Call>) -> Course {
        let mut course = Course::default();
        for rule in self.list().iter_mut().rev() {
            if rule.call != call || rule.times == Some(0) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            course.before += rule.course.before;
            course.after += rule.course.after;
            course.mishap = course.mishap.or_else(|| rule.course.mishap.clone());
            if let Some(bell) = &rule.bell {
                bell.notify_one();
            }
            if let Some(struck) = &rule.struck {
                struck.store(true, Ordering::Relaxed);
            }
        }
        course
    }

    fn list(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    pub fn fails(call: Option<Call>, mishap: Mishap) -> Self {
        Self {
            call,
            course: Course {
                mishap: Some(mishap),
                ..Course::default()
            },
            ..Self::default()
        }
    }

    pub fn is_slow(call: Option<Call>) -> Self {
        Self {
            call,
            course: Course {
                before: AT_LENGTH,
                ..Course::default()
            },
            ..Self::default()
        }
    }
}

/// Every call that a step comes down to.
pub const ALL_CALLS: [Option<Call>; 30] = [
    None,
    Some(Call::Prepare),
    Some(Call::Boot),
    Some(Call::Shutdown),
    Some(Call::Kill),
    Some(Call::Save),
    Some(Call::Load),
    Some(Call::Export),
    Some(Call::Import),
    Some(Call::Reboot),
    Some(Call::Reset),
    Some(Call::Resize),
    Some(Call::Clean),
    Some(Call::CreateVolume),
    Some(Call::RemoveVolume),
    Some(Call::GrowVolume),
    Some(Call::Attach),
    Some(Call::Detach),
    Some(Call::MoveDisk),
    Some(Call::Snapshot),
    Some(Call::Revert),
    Some(Call::RemoveSnapshot),
    Some(Call::BackUp),
    Some(Call::EndBackup),
    Some(Call::Receive),
    Some(Call::Send),
    Some(Call::CallOff),
    Some(Call::Switch),
    Some(Call::Run),
    Some(Call::Complete),
];

/// The driver's call of a step; of one that the datastore carries out, none.
/// Nobody carries a placement out: there it is the schedulers that are away.
pub fn called_by(step: StepKind) -> Option<Call> {
    match step {
        StepKind::Prepare => Some(Call::Prepare),
        StepKind::Boot => Some(Call::Boot),
        StepKind::Save => Some(Call::Save),
        StepKind::Upload => Some(Call::Export),
        StepKind::Download | StepKind::Arrive => Some(Call::Import),
        StepKind::Shutdown => Some(Call::Shutdown),
        StepKind::Kill => Some(Call::Kill),
        StepKind::Clean => Some(Call::Clean),
        StepKind::Load => Some(Call::Load),
        StepKind::Reboot => Some(Call::Reboot),
        StepKind::Reset => Some(Call::Reset),
        StepKind::Resize => Some(Call::Resize),
        StepKind::Snapshot => Some(Call::Snapshot),
        StepKind::Revert => Some(Call::Revert),
        StepKind::RemoveSnapshot => Some(Call::RemoveSnapshot),
        StepKind::Backup => Some(Call::BackUp),
        StepKind::DropBackup => Some(Call::EndBackup),
        StepKind::Attach => Some(Call::Attach),
        StepKind::Detach => Some(Call::Detach),
        StepKind::Grow => Some(Call::GrowVolume),
        StepKind::Move | StepKind::MoveBack => Some(Call::MoveDisk),
        StepKind::Receive => Some(Call::Receive),
        StepKind::Send => Some(Call::Send),
        StepKind::CallOff => Some(Call::CallOff),
        StepKind::Switch => Some(Call::Switch),
        StepKind::Run => Some(Call::Run),
        StepKind::Complete => Some(Call::Complete),
        StepKind::Dismiss | StepKind::Leave => Some(Call::Kill),
        StepKind::Place
        | StepKind::Discard
        | StepKind::GiveBack
        | StepKind::Fetch
        | StepKind::Enter => None,
    }
}
