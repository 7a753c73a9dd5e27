//! Backups.

use vimana_client::Client;
use vimana_model::BackupId;
use vimana_model::backup::{self as model, AcceptedRestore, BackupView, DiskId};
use vimana_model::name::VolumeName;

use crate::args::{
    Backup, BackupList, BackupShown, DeleteBackup, Json, RestoreBackup, TakeBackup, Timeout,
};
use crate::failure::{Failure, Outcome};
use crate::image::{follow as follow_image, imported, stored};
use crate::input::{cannot_read, ssh_key};
use crate::snapshot::follow;
use crate::text::shown;
use crate::vm::{print as print_vm, resolve as resolve_vm};
use crate::wait::OperationWatch;
use crate::{credentials, output, terminal};

pub async fn run(command: Backup) -> Outcome {
    match command {
        Backup::List(args) => list(args).await,
        Backup::Show(args) => show(args).await,
        Backup::Create(args) => take(args).await,
        Backup::Restore(args) => restore(args).await,
        Backup::Delete(args) => delete(args).await,
    }
}

async fn list(BackupList { vm, json }: BackupList) -> Outcome {
    let client = credentials::client()?;
    let backups = match vm {
        Some(vm) => client.vm_backups(resolve_vm(&client, &vm).await?).await?,
        None => client.backups().await?,
    };
    if json.json {
        return output::json(&backups);
    }
    let rows: Vec<_> = backups
        .iter()
        .map(|backup| {
            [
                backup.name.to_string(),
                backup.vm_name.to_string(),
                backup.state.name().to_lowercase(),
                kind(backup).to_owned(),
                stored(backup.stored_bytes),
                backup.datastore.to_string(),
                output::time(backup.created_at),
                backup.id.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NAME",
        "VM",
        "STATE",
        "HOLDS",
        "STORED",
        "DATASTORE",
        "MADE",
        "ID",
    ];
    output::table(titles, &rows, "no backups")
}

const fn kind(backup: &BackupView) -> &'static str {
    if backup.since.is_some() {
        "changes"
    } else {
        "all"
    }
}

async fn show(BackupShown { which, json }: BackupShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.backup).await?;
    print(&client.backup(id).await?, json)
}

fn print(backup: &BackupView, Json { json }: Json) -> Outcome {
    if json {
        return output::json(backup);
    }
    let mut pairs = vec![
        ("backup", backup.name.to_string()),
        ("id", backup.id.to_string()),
        ("vm", format!("{} ({})", backup.vm_name, backup.vm_id)),
        ("state", backup.state.name().to_lowercase()),
    ];
    if let Some(failure) = &backup.failure {
        pairs.push(("failure", failure.clone()));
    }
    pairs.push(("datastore", backup.datastore.to_string()));
    pairs.push((
        "holds",
        match backup.since {
            Some(since) => format!("what has changed since {since}"),
            None => "all of the disks".to_owned(),
        },
    ));
    if backup.frozen {
        let rest = "its file systems stood still: the guest's agent saw to it";
        pairs.push(("guest", rest.to_owned()));
    }
    pairs.push(("stored", stored(backup.stored_bytes)));
    for disk in &backup.disks {
        let name = match (disk.disk, &disk.volume) {
            (DiskId::Root, _) => "root disk".to_owned(),
            (DiskId::Volume(id), Some(name)) => format!("volume {name} ({id})"),
            (DiskId::Volume(id), None) => format!("volume {id}"),
        };
        let size = disk.size_mib;
        pairs.push((
            "disk",
            format!("{name}: {size}, {}", stored(disk.stored_bytes)),
        ));
    }
    let owner = match backup.scheduled {
        true => format!("{}, by schedule", backup.owner),
        false => backup.owner.clone(),
    };
    pairs.push(("owner", owner));
    pairs.push(("made", output::time(backup.created_at)));
    output::fields(&pairs)
}

async fn take(args: TakeBackup) -> Outcome {
    let TakeBackup {
        vm,
        name,
        datastore,
        full,
        wait,
    } = args;
    let client = credentials::client()?;
    let vm = resolve_vm(&client, &vm).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let form = model::TakeBackup {
        name,
        datastore,
        full,
    };
    let accepted = client.back_up(vm, &form).await?;
    follow(watch, accepted, &wait).await
}

async fn restore(args: RestoreBackup) -> Outcome {
    let RestoreBackup {
        which,
        name,
        flavor,
        ssh_key: key_file,
        root_only,
        wait,
    } = args;
    let client = credentials::client()?;
    let id = resolve(&client, &which.backup).await?;
    let form = model::RestoreBackup {
        name,
        flavor,
        ssh_key: ssh_key(key_file)?,
        root_only,
    };
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let AcceptedRestore { image, volumes, .. } = client.restore_backup(id, &form).await?;
    let Some(watch) = watch else {
        return follow_image(&client, None, image, wait.json).await;
    };
    let image = imported(&client, Some(watch), image).await?;
    let made = resolve_vm(&client, &form.name).await.map_err(|_| {
        let (vm, image) = (&form.name, image.id);
        Failure::Failed(format!(
            "`{vm}` was not made of it; `vimana image timeline {image}` says why"
        ))
    })?;
    let watch = OperationWatch::open(&client, true, wait.timeout).await?;
    if let (Some(watch), Some(operation)) = (watch, client.vm(made).await?.operation) {
        watch.until_through(operation).await?;
    }
    for name in &volumes {
        filled(&client, name, wait.timeout).await?;
    }
    print_vm(&client.vm(made).await?, wait.json)
}

/// Waits until what a new volume begins as is there.
async fn filled(client: &Client, name: &VolumeName, timeout: Timeout) -> Outcome {
    let watch = OperationWatch::open(client, true, timeout).await?;
    let volumes = client.volumes().await?;
    let mut named = volumes
        .into_iter()
        .filter(|volume| volume.name == *name && volume.state.holds_name());
    let begins_as = named.next().and_then(|volume| volume.image);
    let images = client.images().await?;
    let mut images = images.into_iter();
    if let Some(image) = images.find(|image| Some(&image.name) == begins_as.as_ref()) {
        imported(client, watch, image).await?;
    }
    Ok(())
}

/// Asks the person once more: afterwards it is gone.
async fn delete(DeleteBackup { which, yes, json }: DeleteBackup) -> Outcome {
    if !yes && terminal::is_watched() {
        let question = format!("Delete backup {}? [y/N] ", which.backup);
        if !terminal::confirms(&shown(&question)).map_err(|error| cannot_read(&error))? {
            return Err(Failure::Failed("nothing was deleted".to_owned()));
        }
    }
    let client = credentials::client()?;
    let id = resolve(&client, &which.backup).await?;
    print(&client.delete_backup(id).await?, json)
}

/// An id, or the name of one backup.
pub async fn resolve(client: &Client, text: &str) -> Outcome<BackupId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let backups = client.backups().await?;
    let named: Vec<&BackupView> = backups
        .iter()
        .filter(|backup| backup.name.as_str() == text)
        .collect();
    match named.as_slice() {
        [backup] => Ok(backup.id),
        [] => Err(Failure::Failed(format!("backup `{text}` not found"))),
        several => {
            let ids: Vec<String> = several.iter().map(|found| found.id.to_string()).collect();
            Err(Failure::Failed(format!(
                "several backups are called `{text}`; say which by its id: {}",
                ids.join(", ")
            )))
        }
    }
}
