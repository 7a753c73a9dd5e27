//! One case's database, and things to put into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection};
use tempfile::TempDir;
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::{Accelerator, DesiredState, HostState};
use vimana_model::name::{
    DatastoreName, FlavorName, HostName, ImageName, TenantName, UserName, VmName, ZoneName,
};
use vimana_model::tenant::TenantKind;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, ImageId, OperationId, TenantId, Timestamp, UserId, VmId, VmState};
use vimana_store::event::NewEvent;
use vimana_store::host::HostRecord;
use vimana_store::simulation::SimDisk;
use vimana_store::tenant::TenantRecord;
use vimana_store::user::UserRecord;
use vimana_store::vm::{Counts, VmRecord};
use vimana_store::{Store, host, tenant, user, vm, write_tx};

use super::postgres::Server;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
    /// SQLite on virtual time.
    Simulated,
}

impl Backend {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Simulated => "simulated",
        }
    }
}

/// A store of its own, with a tenant and a user in it.
#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub url: String,
    pub disk: Option<SimDisk>,
    pub tenant: TenantRecord,
    pub user: UserRecord,
    directory: Arc<TempDir>,
    count: Arc<AtomicU64>,
}

pub const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

impl World {
    pub async fn new(backend: Backend) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = Arc::new(tempfile::tempdir()?);
        let count = Arc::new(AtomicU64::new(1));
        let (url, disk, store) = match backend {
            Backend::Sqlite | Backend::Postgres => {
                let url = address(backend, directory.path().join("vimana.db")).await?;
                let store = Store::open(&url).await?;
                (url, None, store)
            }
            Backend::Simulated => {
                let disk = SimDisk::new()?;
                let url = format!("sqlite://{}", disk.file().display());
                let store = Store::open_simulated(&disk)?;
                disk.set_pause(Some(Arc::new(|_| {
                    Box::pin(async {
                        tokio::task::yield_now().await;
                        Ok(())
                    })
                })));
                (url, Some(disk), store)
            }
        };
        let world = Self {
            store,
            url,
            disk,
            tenant: TenantRecord {
                id: TenantId::from_parts(1, [1; 10]),
                name: TenantName::new("demo")?,
                kind: TenantKind::default(),
                created_at: NOW,
            },
            user: UserRecord {
                id: UserId::from_parts(1, [1; 10]),
                name: UserName::new("ada")?,
                password_hash: "secret".to_owned(),
                staff: None,
                created_at: NOW,
            },
            directory,
            count,
        };
        write_tx!(world.store, |tx| {
            tenant::insert(tx, &world.tenant).await?;
            user::insert(tx, &world.user).await?;
            Ok(())
        })?;
        Ok(world)
    }

    /// A number that no earlier call gave.
    pub fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    fn id_parts(&self) -> (u64, [u8; 10]) {
        (self.next(), [7; 10])
    }

    pub fn tenant_id(&self) -> TenantId {
        let (ms, random) = self.id_parts();
        TenantId::from_parts(ms, random)
    }

    pub fn user_id(&self) -> UserId {
        let (ms, random) = self.id_parts();
        UserId::from_parts(ms, random)
    }

    pub fn operation_id(&self) -> OperationId {
        let (ms, random) = self.id_parts();
        OperationId::from_parts(ms, random)
    }

    pub fn image_id(&self) -> ImageId {
        let (ms, random) = self.id_parts();
        ImageId::from_parts(ms, random)
    }

    pub fn host(&self, name: &str, capacity: Resources) -> HostRecord {
        let (ms, random) = self.id_parts();
        HostRecord {
            id: HostId::from_parts(ms, random),
            name: HostName::new(name).unwrap(),
            zone: ZoneName::new("zone-a").unwrap(),
            state: HostState::Enabled,
            connected: true,
            hypervisor: "QEMU 10.0.2".to_owned(),
            accelerator: Accelerator::Kvm,
            accelerator_note: "KVM ran a kernel".to_owned(),
            capacity,
            used: Resources::default(),
            vms: 0,
            agent_version: "0.1.0".to_owned(),
            connected_since: Some(NOW),
            silent_since: None,
            hot_resize: false,
            hardware: None,
            protocol: 2,
            certificate: None,
            revoked_at: None,
            session_number: 0,
            session_offered: 0,
            orphans: 0,
            desired: DesiredState::Enabled,
            evacuation: None,
        }
    }

    /// A small pending VM, created later than those before.
    pub fn vm(&self, name: &str) -> VmRecord {
        let (ms, random) = self.id_parts();
        VmRecord {
            id: VmId::from_parts(ms, random),
            tenant_id: self.tenant.id,
            owner_id: self.user.id,
            owner_name: self.user.name.clone(),
            name: VmName::new(name).unwrap(),
            state: VmState::Pending,
            state_since: NOW,
            failure: None,
            flavor_name: FlavorName::new("tiny").unwrap(),
            resources: resources(1, 256, 1024),
            datastore: DatastoreName::local(),
            image_id: ImageId::from_parts(1, [1; 10]),
            image_name: ImageName::new("demo").unwrap(),
            ssh_key: None,
            user_data: None,
            host: None,
            run_epoch: 0,
            generation: 0,
            operation_id: None,
            explanation: None,
            explained_at: None,
            saved: None,
            moving: None,
            kept: MiB(0),
            snapshot_id: None,
            request_id: None,
            counts: Counts::default(),
            created_at: NOW.plus_ms(i64::try_from(ms).unwrap()),
        }
    }

    pub async fn insert_vm(&self, record: &VmRecord) {
        write_tx!(self.store, |tx| {
            vm::insert(tx, record).await?;
            Ok(())
        })
        .unwrap();
    }

    pub async fn new_vm(&self, name: &str) -> VmRecord {
        let record = self.vm(name);
        self.insert_vm(&record).await;
        record
    }

    pub async fn new_host(&self, name: &str, capacity: Resources) -> HostRecord {
        let record = self.host(name, capacity);
        write_tx!(self.store, |tx| {
            host::insert(tx, &record).await?;
            Ok(())
        })
        .unwrap();
        record
    }

    /// Past the store, for what it would never do itself.
    pub async fn raw(&self) -> DatabaseConnection {
        Database::connect(&self.url).await.unwrap()
    }

    pub async fn sql(&self, statement: &str) {
        if self.disk.is_some() {
            self.sql_in_real_time(statement);
            return;
        }
        let raw = self.raw().await;
        raw.execute_unprepared(statement).await.unwrap();
        raw.close().await.unwrap();
    }

    /// On a thread of its own: a pool's patience does not last in virtual time.
    fn sql_in_real_time(&self, statement: &str) {
        let run = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let raw = self.raw().await;
                raw.execute_unprepared(statement).await.unwrap();
                raw.close().await.unwrap();
            });
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    }

    /// What the next process finds.
    pub async fn reopen(self) -> Self {
        drop(self.store);
        let store = match &self.disk {
            Some(disk) => Store::open_simulated(disk).unwrap(),
            None => Store::open(&self.url).await.unwrap(),
        };
        Self { store, ..self }
    }

    /// Address of one more database, empty yet.
    pub async fn empty_database(&self) -> String {
        let backend = if self.store.is_postgres() {
            Backend::Postgres
        } else {
            Backend::Sqlite
        };
        let file = format!("{}.db", self.next());
        address(backend, self.directory.path().join(file))
            .await
            .unwrap()
    }
}

static DATABASES: AtomicU64 = AtomicU64::new(1);

async fn address(backend: Backend, file: PathBuf) -> Result<String, Box<dyn std::error::Error>> {
    if backend != Backend::Postgres {
        return Ok(format!("sqlite://{}", file.display()));
    }
    let name = format!("case_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let maintenance = Server::url("postgres")?;
    let connection = Database::connect(maintenance).await?;
    let create = format!("CREATE DATABASE {name}");
    connection.execute_unprepared(&create).await?;
    connection.close().await?;
    Ok(Server::url(&name)?)
}

pub const fn resources(vcpus: u32, memory_mib: u64, disk_mib: u64) -> Resources {
    Resources {
        vcpus,
        memory_mib: MiB(memory_mib),
        disk_mib: MiB(disk_mib),
    }
}

/// A fact that carries a number.
pub fn note(vm_id: Option<VmId>, number: u64) -> NewEvent {
    NewEvent {
        at: NOW,
        actor: Actor::System,
        tenant_id: None,
        vm_id,
        host_id: None,
        request_id: None,
        image_id: None,
        volume_id: None,
        event: EventKind::Note {
            text: number.to_string(),
        },
    }
}
