//! The datastores of an installation, and what hosts bring to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::fs::File;
use vimana_authz::Permission;
use vimana_datastore::{DatastoreDriver, ItemFile, Received, Receiving, ResumeError};
use vimana_model::backup::{BackupState, DiskId};
use vimana_model::datastore::{
    DatastoreRoom, DatastoreState, DatastoreView, MAIN, StorageUse, TenantUse,
};
use vimana_model::name::DatastoreName;
use vimana_model::operation::{OperationKind, Piece, StepKind};
use vimana_model::saved::{Part, SavedMachine};
use vimana_model::snapshot::MAX_SNAPSHOTS;
use vimana_model::unit::MiB;
use vimana_model::{
    BackupId, Error, ErrorKind, FieldError, HostId, Result, TenantId, VmId, VolumeId,
};
use vimana_store::operation::OperationRecord;
use vimana_store::vm::VmRecord;
use vimana_store::{backup, image, operation, tenant, vm};

use crate::Engine;
use crate::authorize::permit;
use crate::context::OpContext;
use crate::migration::{disks_on_their_way, host_of_step};
use crate::saga::{Current, current, piece_of};

/// The datastores that this server has, as its operator names them.
#[derive(Clone)]
pub struct Datastores {
    main_name: DatastoreName,
    /// Where stopped VMs are kept.
    main: Arc<dyn DatastoreDriver>,
    /// Where backups go, beside; the first one where nothing is said.
    others: Arc<[(DatastoreName, Arc<dyn DatastoreDriver>)]>,
}

/// How the sending of a file begins.
pub enum Begun {
    /// At most so many bytes of it may come, with those that are here.
    Receiving {
        receiving: Box<Receiving>,
        most: u64,
    },
    /// Refused: so many bytes are here.
    Elsewhere { at: u64 },
}

/// Which way bytes go between a host and the datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Upload,
    Download,
}

impl Datastores {
    /// One that every installation has, and others, for backups.
    ///
    /// # Errors
    /// Two have one name.
    pub fn new(
        main: Arc<dyn DatastoreDriver>,
        others: Vec<(DatastoreName, Arc<dyn DatastoreDriver>)>,
    ) -> Result<Self> {
        let main_name = DatastoreName::new(MAIN).map_err(Error::internal)?;
        let mut names = vec![&main_name];
        for (name, _) in &others {
            if names.contains(&name) {
                return Err(Error::conflict(format!(
                    "two datastores are called `{name}`"
                )));
            }
            names.push(name);
        }
        Ok(Self {
            main_name,
            main,
            others: others.into(),
        })
    }

    pub(crate) fn main(&self) -> &dyn DatastoreDriver {
        &*self.main
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&DatastoreName, &dyn DatastoreDriver)> {
        let main = std::iter::once((&self.main_name, &*self.main));
        main.chain(self.others.iter().map(|(name, driver)| (name, &**driver)))
    }

    pub(crate) fn find(&self, name: &DatastoreName) -> Option<&dyn DatastoreDriver> {
        let found = self.all().find(|(found, _)| *found == name);
        found.map(|(_, driver)| driver)
    }

    /// Whether backups go there. Beside the machines they protect from little:
    /// only where there is no other place.
    fn takes_backups(&self, name: &DatastoreName) -> bool {
        self.others.is_empty() || *name != self.main_name
    }

    /// Where a backup goes.
    ///
    /// # Errors
    /// `Invalid` where there is no such datastore, or it takes no backups.
    pub(crate) fn for_backups(&self, asked: Option<&DatastoreName>) -> Result<DatastoreName> {
        let Some(asked) = asked else {
            let first = self.others.first().map(|(name, _)| name);
            return Ok(first.unwrap_or(&self.main_name).clone());
        };
        if self.find(asked).is_none() {
            let message = format!("there is no datastore `{asked}`");
            return Err(FieldError::new("datastore", message).into());
        }
        if !self.takes_backups(asked) {
            let message =
                format!("datastore `{asked}` takes no backups; there are others for that");
            return Err(FieldError::new("datastore", message).into());
        }
        Ok(asked.clone())
    }
}

impl Engine {
    /// The datastores, and what they hold of the caller's tenant; for the
    /// provider's staff how much room they have, and what they hold of all.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn datastores(&self, cx: &OpContext) -> Result<Vec<DatastoreView>> {
        let tenant = cx.subject.tenant_id;
        permit(cx, Permission::ViewVm, Some(tenant))?;
        let is_staff = permit(cx, Permission::ViewHosts, None).is_ok();
        let mut used = self.storage_used().await?;
        let tenants = match is_staff {
            true => tenant::list(&self.store().read()).await?,
            false => Vec::new(),
        };
        let mut views = Vec::new();
        for (name, datastore) in self.inner.datastores.all() {
            let of = used.remove(name).unwrap_or_default();
            let room = match datastore.room().await {
                Ok(room) => Some(room),
                Err(error) => {
                    tracing::warn!(datastore = %name, %error, "a datastore cannot be looked at");
                    None
                }
            };
            let state = room.map_or(DatastoreState::Away, |room| {
                DatastoreState::of(room.capacity, room.free, room.reserve)
            });
            let by_tenant = of.iter().filter_map(|(id, used)| {
                let tenant = match id {
                    None => None,
                    Some(id) => Some(tenants.iter().find(|found| found.id == *id)?.name.clone()),
                };
                Some(TenantUse {
                    tenant,
                    used: *used,
                })
            });
            views.push(DatastoreView {
                name: name.clone(),
                state,
                takes_backups: self.inner.datastores.takes_backups(name),
                used: of.get(&Some(tenant)).copied().unwrap_or_default(),
                room: room.filter(|_| is_staff).map(|room| DatastoreRoom {
                    capacity_bytes: room.capacity,
                    free_bytes: room.free,
                    reserve_bytes: room.reserve,
                    tenants: by_tenant.collect(),
                }),
            });
        }
        Ok(views)
    }

    /// What each datastore holds of each tenant, as recorded.
    async fn storage_used(
        &self,
    ) -> Result<BTreeMap<DatastoreName, BTreeMap<Option<TenantId>, StorageUse>>> {
        let read = self.store().read();
        let mut all: BTreeMap<DatastoreName, BTreeMap<Option<TenantId>, StorageUse>> =
            BTreeMap::new();
        let mut main: BTreeMap<Option<TenantId>, StorageUse> = BTreeMap::new();
        for (tenant, bytes) in image::sizes(&read).await? {
            add(&mut main.entry(tenant).or_default().image_bytes, bytes);
        }
        for record in vm::all_saved(&read).await? {
            let bytes = record.saved.as_ref().map_or(0, SavedMachine::size_bytes);
            let of = main.entry(Some(record.tenant_id)).or_default();
            add(&mut of.saved_bytes, bytes);
        }
        all.insert(self.inner.datastores.main_name.clone(), main);
        for record in backup::with_content(&read).await? {
            let of = all.entry(record.datastore.clone()).or_default();
            let of = of.entry(Some(record.tenant_id)).or_default();
            add(&mut of.backup_bytes, record.stored_bytes());
        }
        Ok(all)
    }

    /// Begins to take in a part of a saved machine, from the host that was
    /// asked for it: anew, or after the first `offset` bytes.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, `Unavailable` where the
    /// datastore has no room.
    pub async fn receive_saved(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        part: Part,
        offset: Option<u64>,
    ) -> Result<Begun> {
        let vm = self
            .transferred(host, id, run_epoch, Transfer::Upload)
            .await?;
        let amount = match part {
            Part::Disk => with_snapshots(vm.resources.disk_mib),
            Part::Memory => vm.resources.memory_mib,
            Part::Volume(volume_id) => with_snapshots(self.volume_that_goes(id, volume_id).await?),
        };
        let most = at_most(amount.bytes().unwrap_or(u64::MAX));
        let file = saved_file(id, run_epoch, part);
        let main = self.inner.datastores.main();
        let receiving = match offset {
            None => main.receive(file).await.map_err(ResumeError::Io),
            Some(offset) => main.resume(file, offset).await,
        };
        match receiving {
            Ok(receiving) => Ok(Begun::Receiving {
                receiving: Box::new(receiving),
                most,
            }),
            Err(ResumeError::Elsewhere { at }) => Ok(Begun::Elsewhere { at }),
            Err(ResumeError::Io(error)) => Err(datastore_error(error)),
        }
    }

    /// What is here of a part of a saved machine, for the host that was asked
    /// for it and goes on with it. Reads all of that.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, `Unavailable` where the
    /// datastore cannot be read.
    pub async fn received_saved(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        part: Part,
    ) -> Result<Received> {
        self.transferred(host, id, run_epoch, Transfer::Upload)
            .await?;
        let file = saved_file(id, run_epoch, part);
        let received = self.inner.datastores.main().received(file).await;
        received.map_err(datastore_error)
    }

    /// A part of a saved machine, for the host that was asked to take it.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, or it is not there.
    pub async fn open_saved(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        part: Part,
    ) -> Result<(File, u64)> {
        self.transferred(host, id, run_epoch, Transfer::Download)
            .await?;
        let file = saved_file(id, run_epoch, part);
        match self.inner.datastores.main().open(file).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("saved machine `{id}`")))
            }
            other => other.map_err(datastore_error),
        }
    }

    /// Begins to take in a disk of a backup, from the host that was asked for
    /// it; at most as much as may come, in bytes.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, `Unavailable` where the
    /// datastore has no room, or is not there.
    pub async fn receive_backup(
        &self,
        host: HostId,
        id: BackupId,
        disk: DiskId,
    ) -> Result<(Receiving, u64)> {
        let (record, size) = self.backed_up(host, id, disk).await?;
        let name = &record.datastore;
        let away = || {
            let message = format!("this server has no datastore `{name}`");
            Error::new(ErrorKind::Unavailable, message)
        };
        let datastore = self.inner.datastores.find(name).ok_or_else(away)?;
        let file = ItemFile::Backup { backup: id, disk };
        let receiving = datastore.receive(file).await;
        Ok((receiving.map_err(datastore_error)?, at_most(size)))
    }

    /// Whether `host` has been asked to carry the saved machine that way, for
    /// datastores that hosts reach by themselves.
    ///
    /// # Errors
    /// `NotFound` where it has not.
    pub async fn check_transfer(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        way: Transfer,
    ) -> Result<()> {
        self.transferred(host, id, run_epoch, way).await.map(drop)
    }

    /// The same of a disk of a backup: the datastore that it goes to.
    ///
    /// # Errors
    /// `NotFound` where it has not.
    pub async fn check_backup(
        &self,
        host: HostId,
        id: BackupId,
        disk: DiskId,
    ) -> Result<DatastoreName> {
        let (record, _) = self.backed_up(host, id, disk).await?;
        Ok(record.datastore)
    }

    /// The VM, if `host` has been asked to carry it that way.
    ///
    /// # Errors
    /// `NotFound` where it has not.
    async fn transferred(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        way: Transfer,
    ) -> Result<VmRecord> {
        let refused = || Error::not_found(format!("saved machine `{id}`"));
        let (vm, operation, step) = self.asked(host, id).await?.ok_or_else(refused)?;
        let asked = match (operation.kind, step.kind, way) {
            (OperationKind::Stop | OperationKind::Migrate, StepKind::Upload, Transfer::Upload) => {
                vm.run_epoch == run_epoch
            }
            (OperationKind::Resume, StepKind::Download, Transfer::Download)
            | (OperationKind::Migrate, StepKind::Arrive, Transfer::Download) => vm
                .saved
                .as_ref()
                .is_some_and(|saved| saved.run_epoch == run_epoch),
            _ => false,
        };
        if asked { Ok(vm) } else { Err(refused()) }
    }

    /// The size of a volume that is copied with the VM.
    async fn volume_that_goes(&self, id: VmId, volume_id: VolumeId) -> Result<MiB> {
        let disks = disks_on_their_way(&self.store().read(), id).await?;
        let mut copied = disks.copied_volumes();
        let plan = copied.find(|plan| plan.volume_id == volume_id);
        plan.map(|plan| plan.size_mib)
            .ok_or_else(|| Error::not_found(format!("saved machine `{id}`")))
    }

    /// The backup and the size of the disk in bytes, if `host` has been asked
    /// to make it.
    async fn backed_up(
        &self,
        host: HostId,
        id: BackupId,
        disk: DiskId,
    ) -> Result<(backup::BackupRecord, u64)> {
        let refused = || Error::not_found(format!("backup `{id}`"));
        let found = backup::find(&self.store().read(), id).await?;
        let making = found.filter(|found| found.state == BackupState::Making);
        let record = making.ok_or_else(refused)?;
        let (_, operation, step) = self.asked(host, record.vm_id).await?.ok_or_else(refused)?;
        let of_it = matches!(piece_of(&operation), Some(Piece::Backup { id: of, .. }) if of == id);
        let found = record.disks.iter().find(|found| found.disk == disk);
        match (step.kind, found) {
            (StepKind::Backup, Some(found)) if of_it => {
                let size = found.size_mib.bytes().unwrap_or(u64::MAX);
                Ok((record, size))
            }
            _ => Err(refused()),
        }
    }

    /// What `host` is asked to do for the VM right now, and is not to take back.
    async fn asked(
        &self,
        host: HostId,
        id: VmId,
    ) -> Result<Option<(VmRecord, OperationRecord, Current)>> {
        let read = self.store().read();
        let Some(vm) = vm::find(&read, id).await? else {
            return Ok(None);
        };
        let operation = match vm.operation_id {
            Some(id) => operation::find(&read, id).await?,
            None => None,
        };
        let Some(operation) = operation else {
            return Ok(None);
        };
        let Some(step) = current(&operation).filter(|current| !current.undo) else {
            return Ok(None);
        };
        let here = host_of_step(&read, &vm, step.kind).await? == Some(host);
        Ok(here.then_some((vm, operation, step)))
    }
}

fn add(sum: &mut u64, bytes: u64) {
    *sum = sum.saturating_add(bytes);
}

const fn saved_file(vm: VmId, run_epoch: u64, part: Part) -> ItemFile {
    ItemFile::Saved {
        vm,
        run_epoch,
        part,
    }
}

/// How large the file of a disk may be with as many snapshots in it as there can be; it
/// stays as long when they are gone.
fn with_snapshots(disk: MiB) -> MiB {
    let most = u64::try_from(MAX_SNAPSHOTS).unwrap_or(u64::MAX);
    MiB(disk.0.saturating_mul(most.saturating_add(1)))
}

/// Tables of the formats, and devices' state, come on top.
const fn at_most(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 16).saturating_add(256 << 20)
}

/// What the datastore's file system says, for whoever asked.
#[must_use]
pub fn datastore_error(error: io::Error) -> Error {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let message = if full.contains(&error.kind()) {
        "the datastore is full"
    } else {
        "the datastore cannot be used now"
    };
    let mut told = Error::new(ErrorKind::Unavailable, message);
    told.source = Some(error.into());
    told
}
