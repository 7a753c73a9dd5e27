//! How a backup is made: an operation of its VM.

use vimana_model::backup::{BackupRequest, BackupState, DiskId, MAX_BACKUPS, MadeBackup};
use vimana_model::event::EventKind;
use vimana_model::name::{BackupName, DatastoreName};
use vimana_model::operation::{OperationKind, OperationState, Piece, StepKind};
use vimana_model::quota::Measure;
use vimana_model::schedule::ScheduleKind;
use vimana_model::unit::MiB;
use vimana_model::{BackupId, Error, Timestamp};
use vimana_store::backup::{BackupRecord, DiskRecord, StoredFile};
use vimana_store::operation::OperationRecord;
use vimana_store::{TxError, backup, schedule, volume};

use crate::change::Change;
use crate::context::new_id;
use crate::limits::MAX_BACKUP_CHAIN;
use crate::name;

/// A backup that is to be made, and where.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    pub name: Option<BackupName>,
    pub datastore: DatastoreName,
    pub full: bool,
    /// By the VM's schedule, of which every so many is a full one.
    pub scheduled: Option<u32>,
}

impl BackupPlan {
    /// What a person asks for.
    pub fn asked(request: BackupRequest, datastore: DatastoreName) -> Self {
        Self {
            name: request.name,
            datastore,
            full: request.full,
            scheduled: None,
        }
    }
}

impl Change<'_> {
    /// Records a backup that is to be made, claims its room and begins.
    pub(crate) async fn begin_backup(
        &mut self,
        by: &str,
        plan: &BackupPlan,
    ) -> Result<(), TxError> {
        let vm = &self.vm;
        let before = backup::for_vm(self.tx, vm.id).await?;
        if before.len() >= MAX_BACKUPS {
            let message = format!("`{}` has {MAX_BACKUPS} backups already", vm.name);
            return Err(Error::conflict(message).into());
        }
        let most = plan.scheduled.unwrap_or(MAX_BACKUP_CHAIN);
        let since = base(&before, plan, most);
        let volumes = volume::of_vm(self.tx, vm.id).await?;
        let root = DiskRecord {
            disk: DiskId::Root,
            volume: None,
            size_mib: vm.resources.disk_mib,
            stored: None,
        };
        let volumes = volumes.into_iter().map(|volume| DiskRecord {
            disk: DiskId::Volume(volume.id),
            volume: Some(volume.name),
            size_mib: volume.size,
            stored: None,
        });
        let disks: Vec<DiskRecord> = std::iter::once(root).chain(volumes).collect();
        let sizes = disks.iter().map(|disk| disk.size_mib.0);
        let claimed = MiB(sizes.fold(0, u64::saturating_add));
        let record = BackupRecord {
            id: new_id!(self.world, BackupId),
            tenant_id: vm.tenant_id,
            vm_id: vm.id,
            vm_name: vm.name.clone(),
            owner_name: by.to_owned().try_into().map_err(Error::internal)?,
            name: match &plan.name {
                Some(name) => name.clone(),
                None => unused_name(&before, self.now)?,
            },
            state: BackupState::Making,
            datastore: plan.datastore.clone(),
            since,
            scheduled: plan.scheduled.is_some(),
            frozen: false,
            resources: vm.resources,
            flavor_name: vm.flavor_name.clone(),
            image_name: vm.image_name.clone(),
            disks,
            claimed,
            failure: None,
            generation: 1,
            created_at: self.now,
        };
        backup::insert(self.tx, &record)
            .await
            .map_err(|error| name::in_use(error, "a backup", record.name.as_str()))?;
        // How large it becomes, nobody knows yet: something must be left for it.
        let one_more = [
            (Measure::Backups.into(), 1),
            (Measure::BackupBytes.into(), 0),
        ];
        self.take_more(record.owner_name.clone(), one_more.into());
        // Its copies are on the host beside the disks.
        self.keep(MiB(self.vm.kept.0.saturating_add(claimed.0)))
            .await?;
        let kind = OperationKind::Backup;
        self.begin(kind, &[StepKind::Backup], by).await?;
        self.set_piece(Piece::Backup {
            id: record.id,
            name: record.name,
        });
        Ok(())
    }

    /// Whether a backup is being made, and not taken back.
    pub(crate) fn backs_up(&self) -> bool {
        self.current()
            .is_some_and(|current| current.kind == StepKind::Backup && !current.undo)
    }

    /// What its host answered is recorded; the step is over after it.
    pub(crate) async fn backup_made(&mut self, made: &MadeBackup) -> Result<(), TxError> {
        let Some(Piece::Backup { id, .. }) = self.piece() else {
            return Ok(());
        };
        let Some(mut record) = self.making(id).await? else {
            return Ok(());
        };
        record.since = made.since;
        record.frozen = made.frozen;
        for disk in &mut record.disks {
            let kept = made.disks.iter().find(|kept| kept.disk == disk.disk);
            let missing = || Error::internal("a disk is missing in a backup that was made");
            let kept = kept.ok_or_else(missing)?;
            disk.size_mib = kept.size_mib;
            disk.stored = Some(StoredFile {
                size_bytes: kept.size_bytes,
                sha256: kept.sha256.clone(),
            });
        }
        record.state = BackupState::Ready;
        let claimed = record.claimed;
        backup::update(self.tx, &mut record).await?;
        self.keep(MiB(self.vm.kept.0.saturating_sub(claimed.0)))
            .await?;
        self.add_event(EventKind::BackedUp { name: record.name });
        if record.scheduled {
            self.prune_backups().await?;
        }
        Ok(())
    }

    /// Whatever ended a backup's operation before it was made: its record says
    /// so, and its room is given back.
    pub(crate) async fn end_backups(&mut self) -> Result<(), TxError> {
        let over = |operation: &&OperationRecord| {
            operation.kind == OperationKind::Backup && operation.state != OperationState::Succeeded
        };
        let ended: Vec<(BackupId, String)> = self
            .ended
            .iter()
            .filter(over)
            .filter_map(|operation| {
                let piece = crate::saga::piece_of(operation)?;
                let Piece::Backup { id, .. } = piece else {
                    return None;
                };
                let why = match (operation.state, &operation.error) {
                    (_, Some(error)) => error.clone(),
                    (_, None) => "it was cancelled".to_owned(),
                };
                Some((id, why))
            })
            .collect();
        for (id, why) in ended {
            let Some(mut record) = self.making(id).await? else {
                continue;
            };
            let claimed = record.claimed;
            record.state = BackupState::Failed;
            record.failure = Some(why);
            record.since = None;
            backup::update(self.tx, &mut record).await?;
            self.keep(MiB(self.vm.kept.0.saturating_sub(claimed.0)))
                .await?;
            if record.scheduled {
                let schedule = (self.vm.id, ScheduleKind::Backup);
                let why = record.failure.as_deref();
                schedule::tell(self.tx, schedule, self.now, why).await?;
            }
        }
        Ok(())
    }

    async fn making(&self, id: BackupId) -> Result<Option<BackupRecord>, TxError> {
        let found = backup::lock(self.tx, id).await?;
        let making = found.filter(|record| record.state == BackupState::Making);
        Ok(making.filter(|record| record.vm_id == self.vm.id))
    }
}

/// The backup that a new one may hold the changes since: the latest of the VM,
/// where it is in the same datastore and its chain is not too long. Of an
/// earlier one the host knows no changes any more.
fn base(before: &[BackupRecord], plan: &BackupPlan, most: u32) -> Option<BackupId> {
    let ready = |record: &&BackupRecord| record.state == BackupState::Ready;
    let latest = before.iter().find(ready)?;
    if plan.full || latest.datastore != plan.datastore {
        return None;
    }
    let mut length: u32 = 1;
    let mut link = latest;
    while let Some(since) = link.since {
        link = before.iter().find(|record| record.id == since)?;
        length = length.saturating_add(1);
    }
    (length < most).then_some(latest.id)
}

/// A name after the time, or after the next moment whose name is free.
fn unused_name(before: &[BackupRecord], now: Timestamp) -> Result<BackupName, Error> {
    let mut at = now;
    loop {
        let name = dated("backup", at)?;
        if before.iter().all(|record| record.name != name) {
            return Ok(name);
        }
        at = at.plus_ms(1);
    }
}

/// `backup-20261129-141503-207`.
pub fn dated<T: TryFrom<String>>(what: &str, at: Timestamp) -> Result<T, Error>
where
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let text = at.to_string();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (day, rest) = digits.split_at_checked(8).unwrap_or((digits.as_str(), ""));
    let (time, ms) = rest.split_at_checked(6).unwrap_or((rest, ""));
    let name = [what, day, time, ms].join("-");
    T::try_from(name.trim_end_matches('-').to_owned()).map_err(Error::internal)
}
