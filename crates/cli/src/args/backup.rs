//! What can be asked of backups, schedules and datastores.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vimana_model::schedule::ScheduleKind;

use super::{Json, WaitImport, WaitThrough};

#[derive(Subcommand)]
pub enum Backup {
    /// List the backups, the newest first; also those of VMs that are gone
    List(BackupList),
    /// Show one backup
    Show(BackupShown),
    /// Copy a VM's disks to a datastore, or what has changed since the last
    /// backup; the VM runs on meanwhile
    Create(TakeBackup),
    /// Make a new VM from a backup
    Restore(RestoreBackup),
    /// Delete a backup
    Delete(DeleteBackup),
}

#[derive(Args)]
pub struct BackupList {
    /// Name or id of a VM: its backups alone
    #[arg(value_name = "VM")]
    pub vm: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct WhichBackup {
    /// Id of the backup, or its name where only one VM has a backup of it
    #[arg(value_name = "BACKUP")]
    pub backup: String,
}

#[derive(Args)]
pub struct BackupShown {
    #[command(flatten)]
    pub which: WhichBackup,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct TakeBackup {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    /// What the backup is to be called [default: after the time]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Where it goes [default: the first datastore for backups]
    #[arg(long)]
    pub datastore: Option<String>,
    /// Copy all of the disks, even where the changes would do
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct RestoreBackup {
    #[command(flatten)]
    pub which: WhichBackup,
    /// What the new VM is to be called
    pub name: String,
    /// Its size [default: that of the VM then]
    #[arg(long)]
    pub flavor: Option<String>,
    /// File with SSH public keys for it
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Make no volumes of the backup's other disks
    #[arg(long)]
    pub root_only: bool,
    #[command(flatten)]
    pub wait: WaitImport,
}

#[derive(Args)]
pub struct DeleteBackup {
    #[command(flatten)]
    pub which: WhichBackup,
    /// Do not ask; without a terminal nobody is asked
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Subcommand)]
pub enum Schedule {
    /// List the schedules of a VM
    List(ScheduleList),
    /// Have snapshots or backups made again and again
    Set(SetSchedule),
    /// Have them made no more; those that were made stay
    Remove(RemoveSchedule),
}

#[derive(Args)]
pub struct ScheduleList {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct SetSchedule {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    /// What is made: snapshot or backup
    pub kind: ScheduleKind,
    /// How often: 30m, 12h or 1d
    #[arg(long, value_parser = seconds)]
    pub every: u64,
    /// How many of them are kept
    #[arg(long, value_name = "N")]
    pub keep: u32,
    /// Of backups, every so many is a full one [default: 7]
    #[arg(long, value_name = "N")]
    pub full_every: Option<u32>,
    /// Of backups: where they go [default: the first datastore for backups]
    #[arg(long)]
    pub datastore: Option<String>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct RemoveSchedule {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    /// What is made no more: snapshot or backup
    pub kind: ScheduleKind,
}

#[derive(Subcommand)]
pub enum Datastore {
    /// List the places where images, stopped VMs and backups are kept
    List(Json),
}

/// A number and its unit.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number and a unit: 30m, 12h or 1d".to_owned();
    let units = [('m', 60), ('h', 3600), ('d', 86_400)];
    let (digits, length) = units
        .into_iter()
        .find_map(|(unit, length)| Some((text.strip_suffix(unit)?, length)))
        .ok_or_else(wrong)?;
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(length).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_a_unit() {
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1d"), Ok(86_400));
        for wrong in ["", "1", "d", "-1h", "1w", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
