//! A user-visible piece of work: steps forward, and for each step the one
//! that takes it back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::migration::{CopyProgress, MigrationView};
use crate::name::{BackupName, SnapshotName, VolumeName};
use crate::{BackupId, ImageId, OperationId, SnapshotId, Timestamp, VmId, VolumeId};

/// What an operation sets out to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// From the request to a running VM.
    Create,
    /// A powered-off or failed VM is switched on again.
    Start,
    /// The memory is saved on the host.
    Suspend,
    /// Memory and disk are saved to the datastore.
    Stop,
    /// A suspended or stopped VM runs on.
    Resume,
    /// The guest is switched off, its disk stays.
    #[serde(rename = "poweroff")]
    PowerOff,
    Reboot,
    Reset,
    /// vCPUs and memory of a running VM change.
    Resize,
    /// The guest switches itself off, then everything is given back.
    Shutdown,
    /// Stopped at once, then everything is given back.
    Delete,
    /// A VM's disks are kept as they are at one instant.
    Snapshot,
    /// A VM goes back to a snapshot.
    Revert,
    RemoveSnapshot,
    /// A VM's disks are copied to a datastore, as they are at one instant.
    Backup,
    /// A VM is given a volume.
    Attach,
    /// A volume is taken from its VM.
    Detach,
    /// A volume becomes larger.
    Grow,
    /// Disks are brought to another datastore of their host.
    Move,
    /// A VM goes to another host.
    Migrate,
    /// An image is brought into the repository.
    Import,
    /// What is new at an image's source is brought in beside it, and takes its
    /// place.
    Refresh,
}

/// One step of an operation; each is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A scheduler finds a host and the room is claimed.
    Place,
    /// The host fetches the image, makes the disk and the seed.
    Prepare,
    /// The hypervisor starts the machine.
    Boot,
    /// The guest is asked to switch itself off.
    Shutdown,
    /// The machine is stopped at once.
    Kill,
    /// The host removes the machine's files.
    Clean,
    /// The host pauses the machine and saves its memory.
    Save,
    /// The machine runs on from its saved memory.
    Load,
    /// The host copies memory and disk to the datastore.
    Upload,
    /// The host fetches memory and disk from the datastore.
    Download,
    /// The copy in the datastore is removed.
    Discard,
    /// The room on the host is given back.
    GiveBack,
    Reboot,
    Reset,
    Resize,
    /// The host keeps the disks as they are, and the memory where asked for.
    Snapshot,
    /// The host puts the disks back, and the memory of a running machine.
    Revert,
    /// The host lets go of a snapshot.
    RemoveSnapshot,
    /// The host copies the disks to the datastore, or what has changed of them.
    Backup,
    /// The host lets go of a backup that does not come to be.
    DropBackup,
    /// The host makes the volume, where there is none yet, and gives it to the
    /// machine.
    Attach,
    Detach,
    /// The host makes the volume larger.
    Grow,
    /// The host brings a disk, the VM's own where no volume is named, to another
    /// datastore.
    Move,
    /// The host brings it back to where it was.
    MoveBack,
    /// The other host makes place for the machine, and waits for it.
    Receive,
    /// The other host fetches a machine that does not run, from the datastore; it
    /// is its own from then on.
    Arrive,
    /// The other host lets go of what did not come to be there.
    Dismiss,
    /// The machine is copied to the other host, until it stands still on both.
    Send,
    /// The machine runs on where it was.
    CallOff,
    /// The machine, which stands still on both hosts, may be let run on the other
    /// one, with a part of its memory still to come.
    Switch,
    /// The machine runs on the other host, which is its own from now on.
    Run,
    /// The rest of its memory comes to where it runs.
    Complete,
    /// The host that it was on removes what it left.
    Leave,
    /// The server fetches, unpacks and checks an image, in the staging area.
    Fetch,
    /// The checked image gets its place in the repository.
    Enter,
}

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Object {
    #[serde(rename = "vm_id")]
    Vm(VmId),
    #[serde(rename = "image_id")]
    Image(ImageId),
}

impl Object {
    #[must_use]
    pub const fn vm(self) -> Option<VmId> {
        match self {
            Self::Vm(id) => Some(id),
            Self::Image(_) => None,
        }
    }

    #[must_use]
    pub const fn image(self) -> Option<ImageId> {
        match self {
            Self::Image(id) => Some(id),
            Self::Vm(_) => None,
        }
    }
}

/// The piece of a VM that an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Piece {
    Snapshot { id: SnapshotId, name: SnapshotName },
    Volume { id: VolumeId, name: VolumeName },
    Backup { id: BackupId, name: BackupName },
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { name, .. } => write!(f, "snapshot {name}"),
            Self::Volume { name, .. } => write!(f, "volume {name}"),
            Self::Backup { name, .. } => write!(f, "backup {name}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Running,
    /// A step failed or someone cancelled: what was done is taken back.
    Undoing,
    Succeeded,
    Failed,
    /// Taken back on request, or overtaken by a later operation such as a delete.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    Running,
    Done,
    Failed,
    /// Never begun, since the operation ended before.
    Skipped,
    /// Its effect is being taken back.
    Undoing,
    /// Its effect was taken back.
    Undone,
}

/// What decides an operation's steps, beside its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// A host holds something of the VM.
    pub on_host: bool,
    /// The datastore holds its memory and disk.
    pub in_datastore: bool,
    /// Its machine runs.
    pub runs: bool,
    /// Asked to act at once, without the guest's consent.
    pub force: bool,
    /// Asked to run elsewhere before all of its memory is there.
    pub post_copy: bool,
}

impl OperationKind {
    pub const ALL: [Self; 22] = [
        Self::Create,
        Self::Start,
        Self::Suspend,
        Self::Stop,
        Self::Resume,
        Self::PowerOff,
        Self::Reboot,
        Self::Reset,
        Self::Resize,
        Self::Shutdown,
        Self::Delete,
        Self::Snapshot,
        Self::Revert,
        Self::RemoveSnapshot,
        Self::Backup,
        Self::Attach,
        Self::Detach,
        Self::Grow,
        Self::Move,
        Self::Migrate,
        Self::Import,
        Self::Refresh,
    ];

    /// The steps in their order.
    #[must_use]
    pub const fn steps(self, at: Situation) -> &'static [StepKind] {
        use StepKind as S;
        match self {
            Self::Create => &[S::Place, S::Prepare, S::Boot],
            Self::Start => &[S::Boot],
            Self::Suspend => &[S::Save],
            Self::Stop if at.runs => &[S::Save, S::Upload, S::Clean],
            Self::Stop => &[S::Upload, S::Clean],
            Self::Resume if at.on_host => &[S::Load],
            Self::Resume => &[S::Place, S::Download, S::Load, S::Discard],
            Self::PowerOff if at.force => &[S::Kill],
            Self::PowerOff => &[S::Shutdown],
            Self::Reboot => &[S::Reboot],
            Self::Reset => &[S::Reset],
            Self::Resize => &[S::Resize],
            Self::Shutdown => &[S::Shutdown, S::Clean],
            Self::Delete => match (at.on_host, at.in_datastore) {
                (true, true) => &[S::Kill, S::Clean, S::Discard],
                (true, false) => &[S::Kill, S::Clean],
                (false, true) => &[S::Discard],
                (false, false) => &[],
            },
            Self::Snapshot => &[S::Snapshot],
            Self::Revert => &[S::Revert],
            Self::RemoveSnapshot => &[S::RemoveSnapshot],
            Self::Backup => &[S::Backup],
            Self::Attach => &[S::Attach],
            Self::Detach => &[S::Detach],
            Self::Grow => &[S::Grow],
            Self::Move => &[S::Move],
            Self::Migrate if at.runs && at.post_copy => &[
                S::Receive,
                S::Send,
                S::Switch,
                S::Run,
                S::Complete,
                S::Leave,
            ],
            Self::Migrate => match (at.runs, at.on_host) {
                (true, _) => &[S::Receive, S::Send, S::Run, S::Leave],
                (false, true) => &[S::Upload, S::Arrive, S::Discard, S::Leave],
                (false, false) => &[S::Arrive, S::Discard],
            },
            Self::Import | Self::Refresh => &[S::Fetch, S::Enter],
        }
    }

    /// The step that takes `step` back, registered before `step` has an
    /// effect; `None` where there is nothing to take back or no way to.
    /// `steps` are all of the operation's.
    #[must_use]
    pub const fn undo(self, step: StepKind, steps: &[StepKind]) -> Option<StepKind> {
        use StepKind as S;
        match (self, step) {
            (Self::Create | Self::Resume, S::Place) => Some(S::GiveBack),
            (Self::Create, S::Prepare) | (Self::Resume, S::Download) => Some(S::Clean),
            (Self::Create | Self::Start, S::Boot) => Some(S::Kill),
            // A resume on the host itself keeps the saved memory when it fails.
            (Self::Resume, S::Load) if has_place(steps) => Some(S::Kill),
            (Self::Suspend | Self::Stop, S::Save) => Some(S::Load),
            (Self::Stop | Self::Migrate, S::Upload) => Some(S::Discard),
            (Self::Snapshot, S::Snapshot) => Some(S::RemoveSnapshot),
            (Self::Backup, S::Backup) => Some(S::DropBackup),
            (Self::Attach, S::Attach) => Some(S::Detach),
            (Self::Move, S::Move) => Some(S::MoveBack),
            (Self::Migrate, S::Receive | S::Arrive) => Some(S::Dismiss),
            (Self::Migrate, S::Send) => Some(S::CallOff),
            (
                Self::Create
                | Self::Start
                | Self::Suspend
                | Self::Stop
                | Self::Resume
                | Self::PowerOff
                | Self::Reboot
                | Self::Reset
                | Self::Resize
                | Self::Shutdown
                | Self::Delete
                | Self::Snapshot
                | Self::Revert
                | Self::RemoveSnapshot
                | Self::Backup
                | Self::Attach
                | Self::Detach
                | Self::Grow
                | Self::Move
                | Self::Migrate
                // What is in the staging area is nobody's: the sweep removes it.
                | Self::Import
                | Self::Refresh,
                _,
            ) => None,
        }
    }

    /// Whether what the operation is for is reached by `step`: nothing is
    /// taken back from there, what is left to do is to tidy up.
    #[must_use]
    pub const fn is_past_return(self, step: StepKind) -> bool {
        matches!(
            (self, step),
            (Self::Stop, StepKind::Clean)
                | (Self::Resume, StepKind::Discard)
                | (
                    Self::Migrate,
                    StepKind::Switch
                        | StepKind::Run
                        | StepKind::Complete
                        | StepKind::Discard
                        | StepKind::Leave
                )
        )
    }

    /// Whether an operation can be cancelled during `step`.
    ///
    /// # Errors
    /// The sentence that refuses it, beginning with a verb: the operation is
    /// its subject.
    pub const fn judge_cancel(self, step: StepKind) -> Result<(), Refusal> {
        use StepKind as S;
        match (self, step) {
            (Self::Create, S::Place | S::Prepare | S::Boot)
            | (Self::Start, S::Boot)
            | (Self::Suspend, S::Save)
            | (Self::Stop, S::Save | S::Upload)
            | (Self::Resume, S::Place | S::Download)
            | (Self::Snapshot, S::Snapshot)
            | (Self::Backup, S::Backup)
            | (Self::Attach, S::Attach)
            | (Self::Move, S::Move)
            | (Self::Migrate, S::Receive | S::Send | S::Upload | S::Arrive)
            | (Self::Import | Self::Refresh, S::Fetch) => Ok(()),
            (Self::Resume, S::Load | S::Discard) | (Self::Migrate, _) => {
                Err(Refusal("is past the point of no return"))
            }
            (Self::Stop, _) => Err(Refusal(
                "is past the point of no return; resume the VM afterwards",
            )),
            (Self::PowerOff | Self::Shutdown, _) => Err(Refusal(
                "cannot be cancelled: the guest has already been asked",
            )),
            (Self::Delete | Self::RemoveSnapshot, _) => Err(Refusal(
                "cannot be cancelled: a deletion goes on to its end",
            )),
            (Self::Revert, _) => Err(Refusal(
                "cannot be cancelled: half of its disks would be those of the snapshot",
            )),
            (
                Self::Create
                | Self::Start
                | Self::Suspend
                | Self::Resume
                | Self::Reboot
                | Self::Reset
                | Self::Resize
                | Self::Snapshot
                | Self::Backup
                | Self::Attach
                | Self::Detach
                | Self::Grow
                | Self::Move
                | Self::Import
                | Self::Refresh,
                _,
            ) => Err(Refusal("cannot be cancelled: it is over in a moment")),
        }
    }

    /// Whether it is about a snapshot, a backup or a volume of a VM that runs or is off,
    /// and stays so.
    #[must_use]
    pub const fn is_of_disks(self) -> bool {
        matches!(
            self,
            Self::Snapshot
                | Self::Revert
                | Self::RemoveSnapshot
                | Self::Backup
                | Self::Attach
                | Self::Detach
                | Self::Grow
                | Self::Move
        )
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
            Self::Resume => "resume",
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Resize => "resize",
            Self::Shutdown => "shutdown",
            Self::Delete => "delete",
            Self::Snapshot => "snapshot",
            Self::Revert => "revert",
            Self::RemoveSnapshot => "remove-snapshot",
            Self::Backup => "backup",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Migrate => "migrate",
            Self::Import => "import",
            Self::Refresh => "refresh",
        }
    }

    /// What was asked for, for a timeline.
    #[must_use]
    pub const fn asked(self) -> &'static str {
        match self {
            Self::Create => "Asked for the VM",
            Self::Start => "Asked to start it",
            Self::Suspend => "Asked to suspend it",
            Self::Stop => "Asked to stop it",
            Self::Resume => "Asked to resume it",
            Self::PowerOff => "Asked to power it off",
            Self::Reboot => "Asked to reboot it",
            Self::Reset => "Asked to reset it",
            Self::Resize => "Asked to resize it",
            Self::Shutdown => "Asked to shut it down",
            Self::Delete => "Asked to delete it",
            Self::Snapshot => "Asked for a snapshot",
            Self::Revert => "Asked to go back to a snapshot",
            Self::RemoveSnapshot => "Asked to delete a snapshot",
            Self::Backup => "Asked for a backup",
            Self::Attach => "Asked to attach a volume",
            Self::Detach => "Asked to detach a volume",
            Self::Grow => "Asked to make a volume larger",
            Self::Move => "Asked to move its disks",
            Self::Migrate => "Asked to migrate it",
            Self::Import => "Asked to import it",
            Self::Refresh => "Asked its source for something new",
        }
    }
}

/// Whether a host is found, and what is made there made anew.
const fn has_place(steps: &[StepKind]) -> bool {
    let mut rest = steps;
    while let [step, more @ ..] = rest {
        if matches!(step, StepKind::Place) {
            return true;
        }
        rest = more;
    }
    false
}

impl StepKind {
    pub const ALL: [Self; 36] = [
        Self::Place,
        Self::Prepare,
        Self::Boot,
        Self::Shutdown,
        Self::Kill,
        Self::Clean,
        Self::Save,
        Self::Load,
        Self::Upload,
        Self::Download,
        Self::Discard,
        Self::GiveBack,
        Self::Reboot,
        Self::Reset,
        Self::Resize,
        Self::Snapshot,
        Self::Revert,
        Self::RemoveSnapshot,
        Self::Backup,
        Self::DropBackup,
        Self::Attach,
        Self::Detach,
        Self::Grow,
        Self::Move,
        Self::MoveBack,
        Self::Receive,
        Self::Arrive,
        Self::Dismiss,
        Self::Send,
        Self::CallOff,
        Self::Switch,
        Self::Run,
        Self::Complete,
        Self::Leave,
        Self::Fetch,
        Self::Enter,
    ];

    /// Whether the VM's other host does it: the one that it goes to, or that it
    /// was on.
    #[must_use]
    pub const fn is_at_peer(self) -> bool {
        matches!(
            self,
            Self::Receive | Self::Arrive | Self::Dismiss | Self::Switch | Self::Leave
        )
    }

    /// What the step does, as people read it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Place => "Find a host",
            Self::Prepare => "Prepare disk and seed",
            Self::Boot => "Start the machine",
            Self::Shutdown => "Switch off the guest",
            Self::Kill => "Stop the machine",
            Self::Clean => "Remove its files",
            Self::Save => "Save the memory",
            Self::Load => "Continue from the saved memory",
            Self::Upload => "Copy memory and disk to the datastore",
            Self::Download => "Fetch memory and disk from the datastore",
            Self::Discard => "Remove the copy in the datastore",
            Self::GiveBack => "Give the room back",
            Self::Reboot => "Restart the guest",
            Self::Reset => "Reset the machine",
            Self::Resize => "Change vCPUs and memory",
            Self::Snapshot => "Take the snapshot",
            Self::Revert => "Go back to the snapshot",
            Self::RemoveSnapshot => "Delete the snapshot",
            Self::Backup => "Copy the disks to the datastore",
            Self::DropBackup => "Let go of the backup",
            Self::Attach => "Attach the volume",
            Self::Detach => "Detach the volume",
            Self::Grow => "Make the volume larger",
            Self::Move => "Bring the disk to the other datastore",
            Self::MoveBack => "Bring it back",
            Self::Receive => "Make place on the other host",
            Self::Arrive => "Fetch it on the other host",
            Self::Dismiss => "Clear the other host",
            Self::Send => "Copy disk and memory",
            Self::CallOff => "Run on where it was",
            Self::Switch => "Hand it over",
            Self::Run => "Run on the other host",
            Self::Complete => "Bring the rest of its memory",
            Self::Leave => "Clear the host it left",
            Self::Fetch => "Fetch and check the image",
            Self::Enter => "Take it into the repository",
        }
    }
}

impl OperationState {
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Undoing,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Running | Self::Undoing => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationView {
    pub id: OperationId,
    #[serde(flatten)]
    pub object: Object,
    pub kind: OperationKind,
    /// The snapshot, backup or volume that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<Piece>,
    pub state: OperationState,
    pub steps: Vec<StepView>,
    /// Name of the user who asked.
    pub requested_by: String,
    /// Name of the user who cancelled it.
    pub cancelled_by: Option<String>,
    /// Why it failed, in the user's words; present from the moment it is undone.
    pub error: Option<String>,
    /// Where a VM goes, and how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationView>,
    /// How far the step under way is, where the host tells.
    pub progress: Option<Progress>,
    /// What the step under way waits for, where that is away, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    pub kind: StepKind,
    pub state: StepState,
    /// How often it was begun.
    pub attempts: u32,
    /// When it is tried again, after a fault that may pass.
    pub retry_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// Bytes moved by the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub done_bytes: u64,
    /// As far as known by now.
    pub total_bytes: u64,
    /// Of a machine on its way to another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyProgress>,
}

impl OperationView {
    /// The step under way, forward or back.
    #[must_use]
    pub fn current_step(&self) -> Option<&StepView> {
        self.steps
            .iter()
            .find(|step| matches!(step.state, StepState::Running | StepState::Undoing))
    }

    /// Whether it can be cancelled now.
    ///
    /// # Errors
    /// The sentence that refuses it; the operation is its subject.
    pub fn judge_cancel(&self) -> Result<(), Refusal> {
        match self.state {
            OperationState::Running => {
                self.current_step().map_or(Err(Refusal("is over")), |step| {
                    self.kind.judge_cancel(step.kind)
                })
            }
            OperationState::Undoing => Err(Refusal("is already being taken back")),
            OperationState::Succeeded | OperationState::Failed | OperationState::Cancelled => {
                Err(Refusal("is over"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITUATIONS: [Situation; 32] = {
        let mut all = [Situation {
            on_host: false,
            in_datastore: false,
            runs: false,
            force: false,
            post_copy: false,
        }; 32];
        let mut n = 0;
        while n < 32 {
            all[n] = Situation {
                on_host: n & 1 != 0,
                in_datastore: n & 2 != 0,
                runs: n & 4 != 0,
                force: n & 8 != 0,
                post_copy: n & 16 != 0,
            };
            n += 1;
        }
        all
    };

    #[test]
    fn every_operation_has_its_steps_and_their_undoing() {
        let mut plans: Vec<String> = Vec::new();
        for kind in OperationKind::ALL {
            for situation in SITUATIONS {
                let steps = kind.steps(situation);
                let shown = steps.iter().map(|step| {
                    let undo = kind
                        .undo(*step, steps)
                        .map_or(String::new(), |undo| format!("/{undo:?}"));
                    let fixed = kind.judge_cancel(*step).map_or("!", |()| "");
                    format!("{step:?}{undo}{fixed}")
                });
                let plan = format!("{kind}: {}", shown.collect::<Vec<_>>().join(" → "));
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
        }
        // After the slash the step that takes it back; `!` cannot be cancelled.
        insta::assert_snapshot!(plans.join("\n"));
    }

    #[test]
    fn what_can_be_cancelled_can_be_taken_back() {
        for kind in OperationKind::ALL {
            for situation in SITUATIONS {
                let steps = kind.steps(situation);
                for (index, step) in steps.iter().enumerate() {
                    if kind.judge_cancel(*step).is_ok() {
                        for begun in &steps[..=index] {
                            if *begun == StepKind::Fetch {
                                continue;
                            }
                            assert!(kind.undo(*begun, steps).is_some(), "{kind}: {begun:?}");
                        }
                    }
                }
            }
        }
    }
}
