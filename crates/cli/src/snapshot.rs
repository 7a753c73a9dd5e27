//! Snapshots of VMs.

use vimana_client::Client;
use vimana_model::snapshot::{self as model, SnapshotView};
use vimana_model::vm::AcceptedView;
use vimana_model::{SnapshotId, VmId};

use crate::args::{
    DeleteSnapshot, Revert, Snapshot, SnapshotList, TakeSnapshot, WaitThrough, WhichSnapshot,
};
use crate::failure::{Failure, Outcome};
use crate::input::cannot_read;
use crate::operation::{line, steps};
use crate::text::shown;
use crate::vm::resolve;
use crate::wait::OperationWatch;
use crate::{credentials, output, terminal};

pub async fn run(command: Snapshot) -> Outcome {
    match command {
        Snapshot::List(args) => list(args).await,
        Snapshot::Create(args) => take(args).await,
        Snapshot::Revert(args) => revert(args).await,
        Snapshot::Delete(args) => delete(args).await,
    }
}

async fn list(SnapshotList { vm, json }: SnapshotList) -> Outcome {
    let client = credentials::client()?;
    let snapshots = client.snapshots(resolve(&client, &vm).await?).await?;
    if json.json {
        return output::json(&snapshots);
    }
    let rows: Vec<_> = snapshots
        .iter()
        .map(|snapshot| {
            let mut of: Vec<&str> = snapshot.volumes.iter().map(String::as_str).collect();
            if snapshot.root {
                of.insert(0, "root disk");
            }
            if snapshot.memory {
                of.insert(0, "memory");
            }
            let current = if snapshot.current { "here" } else { "" };
            [
                snapshot.name.to_string(),
                snapshot.state.name().to_lowercase(),
                of.join(", "),
                snapshot.claimed_mib.to_string(),
                snapshot.owner.clone(),
                output::time(snapshot.created_at),
                snapshot.id.to_string(),
                current.to_owned(),
            ]
        })
        .collect();
    let titles = ["NAME", "STATE", "OF", "KEEPS", "OWNER", "TAKEN", "ID", ""];
    output::table(titles, &rows, "no snapshots")
}

async fn take(args: TakeSnapshot) -> Outcome {
    let TakeSnapshot {
        vm,
        name,
        memory,
        volume,
        wait,
    } = args;
    let client = credentials::client()?;
    let vm = resolve(&client, &vm).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let form = model::TakeSnapshot {
        name,
        memory,
        volume,
    };
    let accepted = client.take_snapshot(vm, &form).await?;
    follow(watch, accepted, &wait).await
}

/// Asks the person once more: what came after the snapshot is gone then.
async fn revert(Revert { which, yes, wait }: Revert) -> Outcome {
    if !yes && terminal::is_watched() {
        let question = format!(
            "Put {} back to snapshot {}, and lose what came after it? [y/N] ",
            which.vm, which.snapshot
        );
        if !terminal::confirms(&shown(&question)).map_err(|error| cannot_read(&error))? {
            return Err(Failure::Failed("nothing was changed".to_owned()));
        }
    }
    let client = credentials::client()?;
    let (vm, snapshot) = find(&client, &which).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let accepted = client.revert(vm, snapshot).await?;
    follow(watch, accepted, &wait).await
}

async fn delete(DeleteSnapshot { which, wait }: DeleteSnapshot) -> Outcome {
    let client = credentials::client()?;
    let (vm, snapshot) = find(&client, &which).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let accepted = client.delete_snapshot(vm, snapshot).await?;
    follow(watch, accepted, &wait).await
}

/// To the end of the operation, where that is waited for.
pub async fn follow(
    watch: Option<OperationWatch>,
    accepted: AcceptedView,
    wait: &WaitThrough,
) -> Outcome {
    let AcceptedView { vm, mut operation } = accepted;
    if let Some(watch) = watch {
        operation = watch.until_through(operation).await?;
    }
    if wait.json.json {
        return output::json(&operation);
    }
    let mut pairs = vec![
        ("vm", format!("{} ({})", vm.name, vm.id)),
        ("operation", line(&operation)),
    ];
    if !operation.state.is_over() {
        pairs.extend(steps(&operation).map(|step| ("", step)));
    }
    output::fields(&pairs)
}

async fn find(client: &Client, which: &WhichSnapshot) -> Outcome<(VmId, SnapshotId)> {
    let WhichSnapshot { vm, snapshot } = which;
    let id = resolve(client, vm).await?;
    if let Ok(snapshot) = snapshot.parse() {
        return Ok((id, snapshot));
    }
    let taken = client.snapshots(id).await?;
    let named = |taken: &&SnapshotView| taken.name.as_str() == snapshot;
    match taken.iter().find(named) {
        Some(found) => Ok((id, found.id)),
        None => Err(Failure::Failed(format!(
            "snapshot `{snapshot}` of `{vm}` not found"
        ))),
    }
}
