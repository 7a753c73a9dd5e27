//! Operations.

use vimana_client::Client;
use vimana_model::OperationId;
use vimana_model::migration::CopyPhase;
use vimana_model::operation::{
    Object, OperationState, OperationView, Progress, StepState, StepView,
};
use vimana_model::unit::MiB;

use crate::args::{Cancel, CancelVm, Operation, OperationShown, Shown};
use crate::failure::{Failure, Outcome};
use crate::vm::resolve;
use crate::wait::OperationWatch;
use crate::{credentials, output};

pub async fn run(command: Operation) -> Outcome {
    match command {
        Operation::List(args) => list(args).await,
        Operation::Show(args) => show(args).await,
        Operation::Cancel(args) => cancel(&credentials::client()?, args.id, args.cancel).await,
    }
}

async fn list(args: Shown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let operations = client.vm_operations(id).await?;
    if args.json.json {
        return output::json(&operations);
    }
    let rows: Vec<_> = operations
        .iter()
        .map(|operation| {
            let ended = operation.ended_at.map_or("-".to_owned(), output::time);
            [
                operation.kind.to_string(),
                operation.state.name().to_owned(),
                operation.requested_by.clone(),
                output::time(operation.created_at),
                ended,
                operation.id.to_string(),
            ]
        })
        .collect();
    let titles = ["KIND", "STATE", "ASKED BY", "BEGUN", "ENDED", "ID"];
    output::table(titles, &rows, "no operations")
}

async fn show(args: OperationShown) -> Outcome {
    let operation = credentials::client()?.operation(args.id).await?;
    print(&operation, args.json.json)
}

/// Cancels what is under way for a VM.
pub async fn cancel_of_vm(CancelVm { which, cancel: how }: CancelVm) -> Outcome {
    let client = credentials::client()?;
    let vm = client.vm(resolve(&client, &which.vm).await?).await?;
    let under_way = vm.operation.filter(|operation| !operation.state.is_over());
    let operation = under_way
        .ok_or_else(|| Failure::Failed(format!("nothing is under way for `{}`", vm.name)))?;
    cancel(&client, operation.id, how).await
}

async fn cancel(client: &Client, id: OperationId, how: Cancel) -> Outcome {
    let Cancel {
        wait,
        timeout,
        json,
    } = how;
    let watch = OperationWatch::open(client, wait, timeout).await?;
    let mut operation = client.cancel_operation(id).await?;
    if let Some(watch) = watch {
        operation = watch.until_over(operation).await?;
        if let Some(why) = not_cancelled(&operation) {
            return Err(Failure::Failed(why));
        }
    }
    print(&operation, json.json)
}

/// Why an operation that was to be cancelled, and is over, is not.
fn not_cancelled(operation: &OperationView) -> Option<String> {
    let kind = operation.kind;
    match operation.state {
        OperationState::Cancelled | OperationState::Running | OperationState::Undoing => None,
        OperationState::Succeeded => Some(format!("the {kind} came through all the same")),
        OperationState::Failed => Some(match &operation.error {
            Some(error) => format!("the {kind} failed: {error}"),
            None => format!("the {kind} failed"),
        }),
    }
}

fn print(operation: &OperationView, json: bool) -> Outcome {
    if json {
        return output::json(operation);
    }
    let mut pairs = vec![
        ("operation", line(operation)),
        ("id", operation.id.to_string()),
        match operation.object {
            Object::Vm(id) => ("vm", id.to_string()),
            Object::Image(id) => ("image", id.to_string()),
        },
        ("begun", output::time(operation.created_at)),
    ];
    if let Some(at) = operation.ended_at {
        pairs.push(("ended", output::time(at)));
    }
    pairs.extend(steps(operation).map(|step| ("", step)));
    output::fields(&pairs)
}

/// An operation in one line, for people.
pub fn line(operation: &OperationView) -> String {
    let mut line = format!(
        "{} {}, asked for by {}",
        operation.kind,
        operation.state.name(),
        operation.requested_by
    );
    if let Some(by) = &operation.cancelled_by {
        line.push_str(&format!(", cancelled by {by}"));
    }
    if let Some(error) = &operation.error {
        line.push_str(&format!(": {error}"));
    }
    if let Some(waits_for) = &operation.waits_for {
        line.push_str(&format!("; it waits for {waits_for}"));
    }
    line
}

/// Its steps, a line each.
pub fn steps(operation: &OperationView) -> impl Iterator<Item = String> {
    operation.steps.iter().map(|step| {
        let mut line = format!("{}: {}", step.kind.title(), state_of(step));
        let under_way = matches!(step.state, StepState::Running | StepState::Undoing);
        if let (true, Some(progress)) = (under_way, operation.progress)
            && progress.done_bytes.max(progress.total_bytes) > 0
        {
            line.push_str(", ");
            line.push_str(&how_far(progress));
        }
        line
    })
}

/// "3 MiB of 4 MiB"; of a memory, which changes while it is copied, what is left of
/// the round: "memory: 24 MiB left in round 8, at 9 MiB/s; its guest changes 9 MiB/s".
fn how_far(progress: Progress) -> String {
    let done = format!(
        "{} of {}",
        MiB::from_bytes(progress.done_bytes),
        MiB::from_bytes(progress.total_bytes)
    );
    let Some(copy) = progress.copy else {
        return done;
    };
    let rate = MiB::from_bytes(copy.bytes_per_s);
    match copy.phase {
        CopyPhase::Disks => format!("disks: {done}, at {rate}/s"),
        CopyPhase::Memory => format!(
            "memory: {} left in round {}, at {rate}/s; its guest changes {}/s",
            MiB::from_bytes(copy.remaining_bytes),
            copy.rounds,
            MiB::from_bytes(copy.dirty_bytes_per_s)
        ),
        CopyPhase::Switchover => format!("switchover: {done}"),
    }
}

fn state_of(step: &StepView) -> String {
    let state = match step.state {
        StepState::Waiting => "waiting",
        StepState::Running => "running",
        StepState::Done => "done",
        StepState::Failed => "failed",
        StepState::Skipped => "skipped",
        StepState::Undoing => "is being taken back",
        StepState::Undone => "taken back",
    };
    let mut text = state.to_owned();
    if step.attempts > 1 {
        text.push_str(&format!(", {} attempts", step.attempts));
    }
    if let Some(at) = step.retry_at {
        text.push_str(&format!(", tried again at {}", output::time(at)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operation(state: &str, step: serde_json::Value) -> OperationView {
        let at = "2026-11-22T18:00:00Z";
        serde_json::from_value(json!({
            "id": "op_00000000000000000000000000000001",
            "vm_id": "vm_00000000000000000000000000000001", "kind": "stop", "state": state,
            "steps": [step], "requested_by": "ann", "cancelled_by": "bob", "error": "no room",
            "progress": { "done_bytes": 3 << 20, "total_bytes": 4 << 20 },
            "created_at": at, "ended_at": null,
        }))
        .unwrap()
    }

    #[test]
    fn what_goes_on_is_told_in_full() {
        let step = json!({ "kind": "upload", "state": "running", "attempts": 2,
                           "retry_at": "2026-11-22T18:01:02.5Z" });
        let operation = operation("undoing", step);
        assert_eq!(
            line(&operation),
            "stop undoing, asked for by ann, cancelled by bob: no room"
        );
        let steps: Vec<String> = steps(&operation).collect();
        assert_eq!(
            steps,
            [
                "Copy memory and disk to the datastore: running, 2 attempts, \
              tried again at 2026-11-22 18:01:02Z, 3 MiB of 4 MiB"
            ]
        );
    }

    #[test]
    fn a_copy_of_what_changes_meanwhile_is_never_told_as_done() {
        let copy = |phase: &str| {
            json!({ "done_bytes": 122 << 20, "total_bytes": 122 << 20, "copy": {
                "phase": phase, "remaining_bytes": 24 << 20, "dirty_bytes_per_s": 8 << 20,
                "bytes_per_s": 9 << 20, "rounds": 8 } })
        };
        let told = |phase| how_far(serde_json::from_value(copy(phase)).unwrap());
        assert_eq!(
            told("memory"),
            "memory: 24 MiB left in round 8, at 9 MiB/s; its guest changes 8 MiB/s"
        );
        assert_eq!(told("disks"), "disks: 122 MiB of 122 MiB, at 9 MiB/s");
    }

    #[test]
    fn what_came_through_was_not_cancelled() {
        let step = json!({ "kind": "upload", "state": "done", "attempts": 1 });
        assert_eq!(not_cancelled(&operation("cancelled", step.clone())), None);
        assert!(not_cancelled(&operation("succeeded", step.clone())).is_some());
        assert_eq!(
            not_cancelled(&operation("failed", step)).unwrap(),
            "the stop failed: no room"
        );
    }
}
