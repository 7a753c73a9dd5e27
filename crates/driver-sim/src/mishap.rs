//! How calls are made to take time and to go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vimana_driver::Fault;
use vimana_model::VmId;

/// A call that can be delayed or made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Inventory,
    Prepare,
    ImagesInUse,
    Boot,
    Shutdown,
    Kill,
    Save,
    Load,
    Export,
    Import,
    Reboot,
    Reset,
    Resize,
    Clean,
    CreateVolume,
    RemoveVolume,
    GrowVolume,
    CopyVolume,
    RemoveCopy,
    Volumes,
    Attach,
    MoveDisk,
    Detach,
    Snapshot,
    Revert,
    RemoveSnapshot,
    BackUp,
    EndBackup,
    Receive,
    Send,
    CallOff,
    Switch,
    Run,
    Complete,
    Snapshots,
    Serial,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It fails before it has any effect.
    Fail(Fault),
    /// It has its effect, and answers with a fault all the same: what a crash
    /// between effect and answer looks like.
    FailAfter(Fault),
    /// The driver panics before the call has any effect.
    Panic,
    /// The call has its effect, then the driver panics.
    PanicAfter,
}

/// How one call goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Passes before the effect.
    pub before: Duration,
    pub mishap: Option<Mishap>,
    /// Passes between effect and answer.
    pub after: Duration,
}

/// Decides how each call goes; the VM is absent for [`Call::Inventory`],
/// [`Call::ImagesInUse`], [`Call::Snapshots`] and for volumes on their own.
pub type Director = Box<dyn FnMut(Call, Option<VmId>) -> Course + Send>;

/// What is planned for calls to come.
#[derive(Default)]
pub(crate) struct Plans {
    pub queued: BTreeMap<Call, VecDeque<Mishap>>,
    pub delays: BTreeMap<Call, Duration>,
    pub director: Option<Director>,
}

impl Plans {
    /// The course of a call that begins now.
    pub fn next(&mut self, call: Call, vm: Option<VmId>) -> Course {
        let mut course = match &mut self.director {
            Some(director) => director(call, vm),
            None => Course::default(),
        };
        course.before += self.delays.get(&call).copied().unwrap_or_default();
        let queued = self.queued.get_mut(&call).and_then(VecDeque::pop_front);
        course.mishap = queued.or(course.mishap);
        course
    }
}

/// What is still to come of a call once it has its effect.
#[must_use]
pub(crate) struct Rest {
    mishap: Option<Mishap>,
    after: Duration,
}

impl Course {
    /// Up to the effect.
    pub(crate) async fn begin(self, call: Call) -> Result<Rest, Fault> {
        if !self.before.is_zero() {
            tokio::time::sleep(self.before).await;
        }
        match self.mishap {
            Some(Mishap::Fail(fault)) => Err(fault),
            Some(Mishap::Panic) => panic!("{call:?} was made to panic"),
            Some(Mishap::FailAfter(_) | Mishap::PanicAfter) | None => Ok(Rest {
                mishap: self.mishap,
                after: self.after,
            }),
        }
    }
}

impl Rest {
    /// From the effect to the answer.
    pub async fn end<T>(self, call: Call, result: Result<T, Fault>) -> Result<T, Fault> {
        if !self.after.is_zero() {
            tokio::time::sleep(self.after).await;
        }
        match self.mishap {
            Some(Mishap::FailAfter(fault)) => Err(fault),
            Some(Mishap::PanicAfter) => panic!("{call:?} was made to panic after its effect"),
            Some(Mishap::Fail(_) | Mishap::Panic) | None => result,
        }
    }
}
