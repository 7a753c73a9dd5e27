//! Backups of simulated machines, each made in one moment.
//!
//! A file tells what its disk held; one with changes alone tells that, too, so
//! that a chain with a wrong link can be told from a right one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vimana_driver::{BackupFile, BackupFiles, Fault};
use vimana_model::backup::DiskId;
use vimana_model::unit::MiB;
use vimana_model::{BackupId, VmId, VolumeId};

use crate::host::{SimHost, no_such_vm};
use crate::volume::saved;

/// Since when the changes of which volumes are known, beside those of the root
/// disk.
#[derive(Default)]
pub(crate) struct Marks {
    by_backup: BTreeMap<BackupId, BTreeSet<VolumeId>>,
    made: Option<(BackupId, BackupFiles)>,
}

impl Marks {
    /// Nobody knows any more what has changed.
    pub fn forget(&mut self) {
        self.by_backup.clear();
    }

    /// Nor of that volume alone.
    pub fn forget_volume(&mut self, id: VolumeId) {
        for marked in self.by_backup.values_mut() {
            marked.remove(&id);
        }
    }
}

impl SimHost {
    pub(crate) fn back_up(
        &self,
        id: VmId,
        epoch: u64,
        backup: BackupId,
        since: Option<BackupId>,
    ) -> Result<BackupFiles, Fault> {
        self.of_disks(id, epoch)?;
        let mut state = self.state();
        let state = &mut *state;
        if state.is_saved(id) {
            return Err(saved());
        }
        let volumes: BTreeMap<VolumeId, (MiB, bool)> = state
            .volumes
            .iter()
            .filter(|(_, volume)| volume.attached_to == Some(id))
            .map(|(id, volume)| (*id, (volume.size, volume.written)))
            .collect();
        let vm = state.vms.entry(id).or_default();
        if let Some((made, files)) = &vm.marks.made
            && *made == backup
        {
            return Ok(files.clone());
        }
        let machine = vm.machine.as_ref().ok_or_else(no_such_vm)?;
        let known = |since: &BackupId| {
            let marked = vm.marks.by_backup.get(since);
            marked.is_some_and(|marked| volumes.keys().all(|volume| marked.contains(volume)))
        };
        let since = since.filter(known);
        vm.marks.by_backup.retain(|mark, _| Some(*mark) == since);
        let marked = volumes.keys().copied().collect();
        vm.marks.by_backup.insert(backup, marked);
        let root = (
            DiskId::Root,
            machine.resources.disk_mib,
            machine.contents.boots,
        );
        let rest = volumes
            .into_iter()
            .map(|(id, (size, written))| (DiskId::Volume(id), size, u32::from(written)));
        let disks: Vec<_> = std::iter::once(root).chain(rest).collect();
        state.files.remove_backup(id);
        let mut files = Vec::new();
        for (disk, size, value) in disks {
            let over = since.map_or_else(|| "all".to_owned(), |since| format!("since {since}"));
            let text = format!("{disk} of {id} in {backup}, {over}: {value}\n");
            let name = disk.to_string();
            let path = state.files.put_backup(id, &name, Bytes::from(text));
            let path = path.map_err(|error| Fault::io("making the backup", &error))?;
            files.push(BackupFile { disk, path, size });
        }
        let made = BackupFiles {
            since,
            frozen: false,
            files,
        };
        vm.marks.made = Some((backup, made.clone()));
        vm.effects.backed_up += 1;
        Ok(made)
    }

    pub(crate) fn end_backup(&self, id: VmId, backup: BackupId, kept: bool) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(vm) = state.vms.get_mut(&id) else {
            return;
        };
        if kept {
            vm.marks.by_backup.retain(|mark, _| *mark == backup);
        } else {
            vm.marks.by_backup.remove(&backup);
        }
        if vm
            .marks
            .made
            .as_ref()
            .is_some_and(|(made, _)| *made == backup)
        {
            vm.marks.made = None;
            state.files.remove_backup(id);
        }
    }
}
