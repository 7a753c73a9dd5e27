//! Backups: what is recorded, and what the datastores hold.

use std::collections::BTreeMap;

use vimana_datastore::Disks;
use vimana_model::backup::BackupState;
use vimana_model::operation::Piece;
use vimana_model::{BackupId, OperationId};
use vimana_store::backup::{BackupRecord, DiskRecord};

use super::books::Books;
use super::subject::{Kind, Named, Subject};
use super::{Check, Findings, Outside};
use crate::saga::piece_of;

pub fn check_backups(books: &Books, outside: &Outside, found: &mut Findings) {
    for backup in books.backups.values() {
        check_record(books, backup, found);
    }
    for (datastore, held) in &outside.backups {
        for id in held.keys().filter(|id| !books.doubts("backups", **id)) {
            match books.backups.get(id) {
                Some(backup) => {
                    let here = backup.datastore == *datastore && backup.state.has_content();
                    if !here {
                        let what = format!(
                            "datastore `{datastore}` holds files of it, which no record wants there"
                        );
                        found.add(Check::BackupOfNobody, books.about_backup(backup), what);
                    }
                }
                None => {
                    let what = format!("datastore `{datastore}` holds it, and it is not recorded");
                    let subject = Subject::new(Kind::Backup, Named::new(id, None::<&str>));
                    found.add(Check::BackupOfNobody, subject, what);
                }
            }
        }
        let ready = books
            .backups
            .values()
            .filter(|backup| backup.state == BackupState::Ready && backup.datastore == *datastore);
        for backup in ready {
            for what in missing(backup, held) {
                found.add(Check::BackupGone, books.about_backup(backup), what);
            }
        }
    }
}

/// What the record alone tells.
fn check_record(books: &Books, backup: &BackupRecord, found: &mut Findings) {
    let mut add = |check, what: String| found.add(check, books.about_backup(backup), what);
    if backup.state == BackupState::Making && making(books, backup).is_none() {
        let what = "it is being made, and no operation makes it".to_owned();
        add(Check::BackupStuck, what);
    }
    let base = backup.since.filter(|_| backup.state == BackupState::Ready);
    if let Some(since) = base
        && !books.doubts("backups", since)
        && books
            .backups
            .get(&since)
            .is_none_or(|base| base.state != BackupState::Ready)
    {
        let what = "it holds only what changed since one that is gone".to_owned();
        add(Check::BackupBaseGone, what);
    }
    if backup.state == BackupState::Ready && backup.disks.iter().any(|disk| disk.stored.is_none()) {
        let what = "of a disk in it no file is recorded".to_owned();
        add(Check::BackupBaseGone, what);
    }
}

/// The operation that makes it.
fn making(books: &Books, backup: &BackupRecord) -> Option<OperationId> {
    let id = books.vms.get(&backup.vm_id)?.operation_id?;
    let operation = books.in_flight.get(&id)?;
    let of_it = matches!(piece_of(operation), Some(Piece::Backup { id, .. }) if id == backup.id);
    of_it.then_some(id)
}

/// What a datastore does not have of a backup that is recorded there.
fn missing(backup: &BackupRecord, held: &BTreeMap<BackupId, Disks>) -> Vec<String> {
    let nothing = Disks::new();
    let files = held.get(&backup.id).unwrap_or(&nothing);
    let wrong = |disk: &DiskRecord| {
        let promised = disk.stored.as_ref()?.size_bytes;
        let what = disk.disk;
        match files.get(&disk.disk) {
            None => Some(format!("the file of {what} is missing")),
            Some(is) if *is != promised => {
                Some(format!("the file of {what} is {is} bytes, not {promised}"))
            }
            Some(_) => None,
        }
    };
    backup.disks.iter().filter_map(wrong).collect()
}
