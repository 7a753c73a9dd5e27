//! Operations reach an end, and what moves is moved by one.

use vimana_model::ImageId;
use vimana_model::image::ImageState;
use vimana_model::operation::OperationKind;
use vimana_model::operation::{Object, OperationState, StepKind, StepState};
use vimana_model::state::VmState;
use vimana_store::operation::OperationRecord;
use vimana_store::vm::VmRecord;

use super::books::Books;
use super::{Check, Findings};
use crate::saga::{Current, current};

pub fn check_operations(books: &Books, found: &mut Findings) {
    for operation in books.in_flight.values() {
        if let Some((check, what)) = trouble(books, operation) {
            found.add(check, books.about_operation(operation), what);
        }
        if operation.state == OperationState::Undoing && operation.undo.is_none() {
            let what = "it is taken back, and no reason is recorded";
            let subject = books.about_operation(operation);
            found.add(Check::UndoWithoutReason, subject, what);
        }
    }
    for image in books.images.values() {
        let imports = image
            .operation_id
            .is_some_and(|id| books.in_flight.contains_key(&id) || books.doubts("operations", id));
        if image.state == ImageState::Importing && !imports {
            let what = "it is being imported and nothing is in flight for it";
            found.add(Check::MovesWithoutOperation, books.about_image(image), what);
        }
        if image.successor().is_some() && !imports {
            let what = "it is being refreshed and nothing is in flight for it";
            found.add(Check::MovesWithoutOperation, books.about_image(image), what);
        }
    }
    for vm in books.vms.values() {
        check_latest(books, vm, found);
    }
}

/// Why the operation cannot reach its end.
fn trouble(books: &Books, operation: &OperationRecord) -> Option<(Check, String)> {
    let vm_id = match operation.object {
        Object::Vm(id) => id,
        Object::Image(id) => return import_trouble(books, operation, id),
    };
    let Some(vm) = books.vms.get(&vm_id) else {
        let lost = books.is_no_vm(vm_id);
        return lost.then(|| {
            let what = "its VM is not recorded".to_owned();
            (Check::OperationOfNoVm, what)
        });
    };
    if vm.operation_id != Some(operation.id) {
        let what = "it is in flight, but its VM points to another operation, or to none";
        return Some((Check::OperationUnknownToVm, what.to_owned()));
    }
    if vm.state == VmState::Done {
        let what = "it is in flight on a VM that is done".to_owned();
        return Some((Check::OperationOnDoneVm, what));
    }
    let Some(current) = current(operation) else {
        let steps = operation.steps.len();
        let what = format!(
            "it is in flight at step {} of {steps}, where nothing is to be done",
            u64::from(operation.step) + 1
        );
        return Some((Check::OperationWithoutStep, what));
    };
    stuck(operation, current, vm)
}

/// The same of an import.
fn import_trouble(
    books: &Books,
    operation: &OperationRecord,
    id: ImageId,
) -> Option<(Check, String)> {
    let Some(image) = books.images.get(&id) else {
        let lost = books.is_no_image(id);
        return lost.then(|| {
            let what = "its image is not recorded".to_owned();
            (Check::OperationOfNoVm, what)
        });
    };
    let works = if operation.kind == OperationKind::Refresh {
        image.state == ImageState::Ready && image.successor().is_some()
    } else {
        image.state == ImageState::Importing
    };
    if image.operation_id != Some(operation.id) || !works {
        let what = "it is in flight, and its image is not being imported by it";
        return Some((Check::OperationUnknownToVm, what.to_owned()));
    }
    let under_way = current(operation).is_some();
    (!under_way).then(|| {
        let what = "it is in flight, and nothing is to be done".to_owned();
        (Check::OperationWithoutStep, what)
    })
}

/// Why the step under way cannot end.
fn stuck(operation: &OperationRecord, current: Current, vm: &VmRecord) -> Option<(Check, String)> {
    let step = operation.steps.get(usize::try_from(current.index).ok()?)?;
    let title = current.kind.title();
    let expected = if current.undo {
        StepState::Undoing
    } else {
        StepState::Running
    };
    if step.state != expected {
        let what = format!(
            "its step under way (\"{title}\") is recorded as {:?}, not as {expected:?}",
            step.state
        );
        return Some((Check::StepNotUnderWay, what));
    }
    if current.waits && operation.due_at.is_none() {
        let what = format!("its step \"{title}\" waits to be tried again, and never is");
        return Some((Check::StepNeverTried, what));
    }
    let by_a_host = match current.kind {
        StepKind::Place
        | StepKind::GiveBack
        | StepKind::Discard
        | StepKind::Fetch
        | StepKind::Enter => false,
        StepKind::Prepare
        | StepKind::Boot
        | StepKind::Shutdown
        | StepKind::Kill
        | StepKind::Clean
        | StepKind::Save
        | StepKind::Load
        | StepKind::Upload
        | StepKind::Download
        | StepKind::Reboot
        | StepKind::Reset
        | StepKind::Resize
        | StepKind::Snapshot
        | StepKind::Revert
        | StepKind::RemoveSnapshot
        | StepKind::Backup
        | StepKind::DropBackup
        | StepKind::Attach
        | StepKind::Detach
        | StepKind::Grow
        | StepKind::Move
        | StepKind::MoveBack
        | StepKind::Receive
        | StepKind::Arrive
        | StepKind::Dismiss
        | StepKind::Send
        | StepKind::CallOff
        | StepKind::Switch
        | StepKind::Run
        | StepKind::Complete
        | StepKind::Leave => true,
    };
    // The other host's part is no matter of its own, which a stopped one lacks.
    let by_its_own = by_a_host && !current.kind.is_at_peer();
    (by_its_own && vm.host.is_none()).then(|| {
        let what = format!("its step \"{title}\" is for a host to do, and its VM has none");
        (Check::StepWithoutHost, what)
    })
}

/// What a VM's latest operation has to do with it.
fn check_latest(books: &Books, vm: &VmRecord, found: &mut Findings) {
    if let Some(id) = vm.operation_id {
        let whose = books.operations.get(&id);
        if let Some(other) = whose.filter(|other| **other != Object::Vm(vm.id)) {
            let other = match other {
                Object::Vm(other) => format!("VM {}", books.vm(*other)),
                Object::Image(other) => format!("image {}", books.image(*other)),
            };
            let what = format!("its latest operation {id} is one of {other}");
            found.add(Check::OperationOfOtherVm, books.about_vm(vm.id), what);
            return;
        }
        if books.is_no_operation(id) {
            let what = format!("its latest operation {id} is not recorded");
            found.add(Check::LatestOperationGone, books.about_vm(vm.id), what);
            return;
        }
    }
    let moves = match vm.state {
        VmState::Pending
        | VmState::Prolog
        | VmState::Boot
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Migrate => true,
        VmState::Hold
        | VmState::Running
        | VmState::Suspended
        | VmState::Stopped
        | VmState::PoweredOff
        | VmState::Done
        | VmState::Unknown
        | VmState::Failed => false,
    };
    if moves && books.rests(vm) {
        let what = format!("it is in {} and nothing is in flight for it", vm.state);
        found.add(Check::MovesWithoutOperation, books.about_vm(vm.id), what);
    }
}
