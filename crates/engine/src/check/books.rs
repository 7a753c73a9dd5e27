//! What is recorded, read as a whole. A row that makes no sense is a breach of
//! its own, and what hangs on it is in doubt: nothing is said about that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use vimana_model::operation::Object;
use vimana_model::{
    BackupId, HostId, ImageId, OperationId, RequestId, Result, TenantId, UserId, VmId, VolumeId,
};
use vimana_store::backup::BackupRecord;
use vimana_store::claim::ClaimRecord;
use vimana_store::host::HostRecord;
use vimana_store::host_datastore::HostDatastoreRecord;
use vimana_store::image::ImageRecord;
use vimana_store::migration::MigrationRecord;
use vimana_store::operation::OperationRecord;
use vimana_store::orphan::OrphanRecord;
use vimana_store::request::RequestRecord;
use vimana_store::snapshot::SnapshotRecord;
use vimana_store::survey::{self, CorruptRow, Surveyed};
use vimana_store::vm::VmRecord;
use vimana_store::volume::VolumeRecord;
use vimana_store::{Conn, tenant, user};

use super::subject::{Kind, Named, Subject};
use super::{Check, Findings};

#[derive(Default)]
pub struct Books {
    pub tenants: HashMap<TenantId, String>,
    pub users: HashSet<UserId>,
    pub hosts: BTreeMap<HostId, HostRecord>,
    pub vms: BTreeMap<VmId, VmRecord>,
    pub claims: Vec<ClaimRecord>,
    /// What VMs hold of hosts that are not their own.
    pub migrations: BTreeMap<VmId, MigrationRecord>,
    /// Whose each operation is, whether it is over or not.
    pub operations: HashMap<OperationId, Object>,
    pub in_flight: BTreeMap<OperationId, OperationRecord>,
    pub images: BTreeMap<ImageId, ImageRecord>,
    pub volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// Where hosts keep volumes besides their own directories.
    pub places: Vec<HostDatastoreRecord>,
    pub snapshots: Vec<SnapshotRecord>,
    pub backups: BTreeMap<BackupId, BackupRecord>,
    pub requests: BTreeMap<RequestId, RequestRecord>,
    pub orphans: BTreeMap<HostId, Vec<OrphanRecord>>,
    doubts: Doubts,
}

/// The ids that corrupt rows name, by their table.
#[derive(Default)]
struct Doubts(HashMap<&'static str, HashSet<String>>);

impl Books {
    pub async fn read(conn: &impl Conn, found: &mut Findings) -> Result<Self> {
        let mut books = Self::default();
        let mut corrupt = Vec::new();
        let mut people = |row: tenant::TenantRecord| {
            books.tenants.insert(row.id, row.name.to_string());
        };
        survey::tenants(conn, sorting(&mut corrupt, &mut people)).await?;
        let mut people = |row: user::UserRecord| {
            books.users.insert(row.id);
        };
        survey::users(conn, sorting(&mut corrupt, &mut people)).await?;
        let mut hosts = |row: HostRecord| {
            books.hosts.insert(row.id, row);
        };
        survey::hosts(conn, sorting(&mut corrupt, &mut hosts)).await?;
        let mut vms = |row: VmRecord| {
            books.vms.insert(row.id, lighter(row));
        };
        survey::vms(conn, sorting(&mut corrupt, &mut vms)).await?;
        let mut claims = |row: ClaimRecord| books.claims.push(row);
        survey::claims(conn, sorting(&mut corrupt, &mut claims)).await?;
        let mut migrations = |row: MigrationRecord| {
            books.migrations.insert(row.vm_id, row);
        };
        survey::migrations(conn, sorting(&mut corrupt, &mut migrations)).await?;
        let mut operations = |row: OperationRecord| {
            books.operations.insert(row.id, row.object);
            if !row.state.is_over() {
                books.in_flight.insert(row.id, row);
            }
        };
        survey::operations(conn, sorting(&mut corrupt, &mut operations)).await?;
        let mut images = |row: ImageRecord| {
            // A password is of no use here.
            let order = None;
            books.images.insert(row.id, ImageRecord { order, ..row });
        };
        survey::images(conn, sorting(&mut corrupt, &mut images)).await?;
        let mut volumes = |row: VolumeRecord| {
            books.volumes.insert(row.id, row);
        };
        survey::volumes(conn, sorting(&mut corrupt, &mut volumes)).await?;
        let mut places = |row: HostDatastoreRecord| books.places.push(row);
        survey::host_datastores(conn, sorting(&mut corrupt, &mut places)).await?;
        let mut snapshots = |row: SnapshotRecord| books.snapshots.push(row);
        survey::snapshots(conn, sorting(&mut corrupt, &mut snapshots)).await?;
        let mut backups = |row: BackupRecord| {
            books.backups.insert(row.id, row);
        };
        survey::backups(conn, sorting(&mut corrupt, &mut backups)).await?;
        let mut requests = |row: RequestRecord| {
            books.requests.insert(row.id, row);
        };
        survey::requests(conn, sorting(&mut corrupt, &mut requests)).await?;
        let mut orphans = |row: OrphanRecord| {
            books.orphans.entry(row.host_id).or_default().push(row);
        };
        survey::orphans(conn, sorting(&mut corrupt, &mut orphans)).await?;
        for row in &corrupt {
            books.doubts.note(row);
        }
        for row in corrupt {
            books.name_corrupt(&row, found);
        }
        Ok(books)
    }

    /// A row of any table that makes no sense.
    pub fn name_corrupt(&self, row: &CorruptRow, found: &mut Findings) {
        let kind = match row.table {
            "vms" => Kind::Vm,
            "hosts" => Kind::Host,
            "operations" => Kind::Operation,
            "requests" => Kind::Request,
            "images" => Kind::Image,
            "volumes" => Kind::Volume,
            "backups" => Kind::Backup,
            "events" => Kind::Events,
            _ => Kind::Row,
        };
        let name = (kind == Kind::Row).then_some(row.table);
        let key = row.key.as_deref().unwrap_or_default();
        let subject = Subject::new(kind, Named::new(key, name));
        let what = format!("{} makes no sense", row.what);
        found.add(Check::CorruptRow, subject, what);
    }

    /// Whether a corrupt row of this table names it.
    pub fn doubts(&self, table: &'static str, id: impl fmt::Display) -> bool {
        let Doubts(by_table) = &self.doubts;
        by_table
            .get(table)
            .is_some_and(|ids| ids.contains(&id.to_string()))
    }

    /// There is no such VM; one that cannot be read is there.
    pub fn is_no_vm(&self, id: VmId) -> bool {
        !self.vms.contains_key(&id) && !self.doubts("vms", id)
    }

    pub fn is_no_image(&self, id: ImageId) -> bool {
        !self.images.contains_key(&id) && !self.doubts("images", id)
    }

    pub fn is_no_volume(&self, id: VolumeId) -> bool {
        !self.volumes.contains_key(&id) && !self.doubts("volumes", id)
    }

    pub fn is_no_host(&self, id: HostId) -> bool {
        !self.hosts.contains_key(&id) && !self.doubts("hosts", id)
    }

    pub fn is_no_request(&self, id: RequestId) -> bool {
        !self.requests.contains_key(&id) && !self.doubts("requests", id)
    }

    pub fn is_no_operation(&self, id: OperationId) -> bool {
        !self.operations.contains_key(&id) && !self.doubts("operations", id)
    }

    pub fn is_no_tenant(&self, id: TenantId) -> bool {
        !self.tenants.contains_key(&id) && !self.doubts("tenants", id)
    }

    pub fn is_no_user(&self, id: UserId) -> bool {
        !self.users.contains(&id) && !self.doubts("users", id)
    }

    pub fn operation_of(&self, vm: &VmRecord) -> Option<&OperationRecord> {
        let operation = self.in_flight.get(&vm.operation_id?)?;
        (operation.object == Object::Vm(vm.id)).then_some(operation)
    }

    /// Nothing is in flight for the VM, for certain.
    pub fn rests(&self, vm: &VmRecord) -> bool {
        let unreadable = vm
            .operation_id
            .is_some_and(|id| self.doubts("operations", id));
        self.operation_of(vm).is_none() && !unreadable
    }

    pub fn host(&self, id: HostId) -> Named {
        Named::new(id, self.hosts.get(&id).map(|host| &host.name))
    }

    pub fn tenant(&self, id: TenantId) -> Named {
        Named::new(id, self.tenants.get(&id))
    }

    pub fn vm(&self, id: VmId) -> Named {
        Named::new(id, self.vms.get(&id).map(|vm| &vm.name))
    }

    pub fn image(&self, id: ImageId) -> Named {
        Named::new(id, self.images.get(&id).map(|image| &image.name))
    }

    pub fn about_image(&self, image: &ImageRecord) -> Subject {
        Subject {
            tenant: image.tenant_id.map(|id| self.tenant(id)),
            ..Subject::new(Kind::Image, self.image(image.id))
        }
    }

    pub fn about_volume(&self, volume: &VolumeRecord) -> Subject {
        let on = volume.host.as_ref();
        Subject {
            vm: volume.vm.as_ref().map(|vm| self.vm(vm.id)),
            tenant: Some(self.tenant(volume.tenant_id)),
            host: on.map(|host| Named::new(host.id, Some(&host.name))),
            ..Subject::new(Kind::Volume, Named::new(volume.id, Some(&volume.name)))
        }
    }

    pub fn about_backup(&self, backup: &BackupRecord) -> Subject {
        Subject {
            vm: Some(self.vm(backup.vm_id)),
            tenant: Some(self.tenant(backup.tenant_id)),
            ..Subject::new(Kind::Backup, Named::new(backup.id, Some(&backup.name)))
        }
    }

    pub fn about_vm(&self, id: VmId) -> Subject {
        let vm = self.vms.get(&id);
        let on = vm.and_then(|vm| vm.host.as_ref());
        Subject {
            tenant: vm.map(|vm| self.tenant(vm.tenant_id)),
            host: on.map(|host| Named::new(host.id, Some(&host.name))),
            ..Subject::new(Kind::Vm, self.vm(id))
        }
    }

    pub fn about_host(&self, id: HostId) -> Subject {
        Subject::new(Kind::Host, self.host(id))
    }

    pub fn about_operation(&self, operation: &OperationRecord) -> Subject {
        let vm = operation.object.vm();
        let about = vm.map(|id| self.about_vm(id));
        let (tenant, host) = about.map_or((None, None), |about| (about.tenant, about.host));
        Subject {
            vm: vm.map(|id| self.vm(id)),
            tenant,
            host,
            ..Subject::new(
                Kind::Operation,
                Named::new(operation.id, Some(operation.kind)),
            )
        }
    }

    pub fn about_request(&self, request: &RequestRecord) -> Subject {
        Subject {
            vm: request.vm_id.map(|id| self.vm(id)),
            tenant: Some(self.tenant(request.tenant_id)),
            ..Subject::new(
                Kind::Request,
                Named::new(request.id, Some(&request.terms.name)),
            )
        }
    }
}

impl Doubts {
    fn note(&mut self, row: &CorruptRow) {
        let ids = self.0.entry(row.table).or_default();
        ids.extend(row.ids.iter().cloned());
    }
}

/// Keeps the rows that make sense, and names the others.
pub fn sorting<R>(
    corrupt: &mut Vec<CorruptRow>,
    keep: &mut impl FnMut(R),
) -> impl FnMut(Surveyed<R>) {
    |row| match row {
        Ok(row) => keep(row),
        Err(row) => corrupt.push(row),
    }
}

/// Without what no check looks at, and nobody shall be shown.
fn lighter(vm: VmRecord) -> VmRecord {
    VmRecord {
        ssh_key: None,
        user_data: None,
        explanation: None,
        ..vm
    }
}
