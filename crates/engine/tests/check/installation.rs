//! A whole installation at rest, of which everything is known: what plants are
//! planted into.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::timeout;
use vimana_datastore::{DatastoreDriver as _, DirDatastore, Disks};
use vimana_driver::{Observed, Power};
use vimana_driver_sim::Call;
use vimana_engine::check::{Breach, Outside, check};
use vimana_engine::{ActionArgs, IdempotencyKey, OpContext, VmQuery, WatchItem};
use vimana_model::action::VmAction;
use vimana_model::backup::{BackupState, DiskId, TakeBackup};
use vimana_model::host::CreateJoinToken;
use vimana_model::image::ImageAction;
use vimana_model::name::{DatastoreName, ImageName};
use vimana_model::request::{CreateRequest, RequestAction, RequestDecision};
use vimana_model::session::Role;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::tenant::{CreateTenant, CreateUser, TenantKind};
use vimana_model::unit::MiB;
use vimana_model::vm::CreateVm;
use vimana_model::volume::{AttachVolume, CreateVolume};
use vimana_model::{
    BackupId, HostId, ImageId, OperationId, RequestId, TenantId, Timestamp, TokenId, UserId, VmId,
    VmState, VolumeId,
};
use vimana_repository::{DirRepository, Repository as _, Terms};
use vimana_store::session::SessionRecord;
use vimana_store::survey;
use vimana_store::testing::deface;
use vimana_store::token::TokenRecord;
use vimana_store::{Store, session, token, write_tx};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

/// The sums of the hosts follow the claims again.
const RECOUNT: &str = "UPDATE hosts SET \
    used_vcpus = (SELECT coalesce(sum(vcpus), 0) FROM claims WHERE host_id = hosts.id), \
    used_memory_mib = (SELECT coalesce(sum(memory_mib), 0) FROM claims WHERE host_id = hosts.id), \
    used_disk_mib = (SELECT coalesce(sum(disk_mib), 0) FROM claims WHERE host_id = hosts.id) \
        + (SELECT coalesce(sum(size_mib), 0) FROM volumes WHERE host_id = hosts.id AND datastore = 'local'), \
    vms = (SELECT count(*) FROM claims WHERE host_id = hosts.id)";

pub struct Installation {
    /// The engine's store is closed.
    world: TestWorld,
    copies: AtomicU32,
    /// What hosts and datastore hold.
    pub outside: Outside,
    /// Every id, by what plants call it.
    ids: BTreeMap<String, String>,
}

const PATIENCE: Duration = Duration::from_secs(60);

struct Building {
    world: TestWorld,
    hosts: [TestHost; 2],
    /// Files requests in tenant `lab`.
    rita: OpContext,
    /// Decides about them.
    mona: OpContext,
    ids: BTreeMap<String, String>,
    backups: BTreeMap<String, BackupId>,
}

impl Installation {
    /// With a VM, a request, an operation in every state that lasts.
    pub async fn new() -> Self {
        let mut building = Building::new().await;
        let scheduler = TestScheduler::connect(&building.world.engine).await;
        building.settle_vms().await;
        building.give_disks().await;
        building.back_up().await;
        building.settle_requests().await;
        building.start_for_ever().await;
        drop(scheduler);
        building.wait_for_ever().await;
        building.credentials().await;
        building.finish().await
    }

    pub fn id(&self, name: &str) -> &str {
        let id = self.ids.get(name);
        id.unwrap_or_else(|| panic!("nothing is called {name}"))
    }

    pub fn vm(&self, name: &str) -> VmId {
        self.id(name).parse().unwrap()
    }

    pub fn backup(&self, name: &str) -> BackupId {
        self.id(name).parse().unwrap()
    }

    pub fn hosts(&self) -> [HostId; 2] {
        ["host-1", "host-2"].map(|name| self.id(name).parse().unwrap())
    }

    /// The host that holds the VM.
    pub fn host_of(&self, name: &str) -> HostId {
        let vm = self.vm(name);
        let held = |of: &&HostId| self.outside.inventories[of].iter().any(|o| o.vm_id == vm);
        *self.outside.inventories.keys().find(held).unwrap()
    }

    pub fn other_host(&self, name: &str) -> HostId {
        let on = self.host_of(name);
        self.hosts().into_iter().find(|id| *id != on).unwrap()
    }

    /// `{name}` becomes the id of that.
    pub fn filled(&self, text: &str, quote: &str) -> String {
        let mut text = text.replace("{recount}", RECOUNT);
        for (name, id) in &self.ids {
            text = text.replace(&format!("{{{name}}}"), &format!("{quote}{id}{quote}"));
        }
        assert!(!text.contains("{unknown"), "{text}");
        text
    }

    /// What is found in a copy of the database after these statements.
    pub async fn breaches(&self, statements: &str, outside: &Outside) -> Vec<Breach> {
        let dir = self.world.dir.path();
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let file = dir.join(format!("copy-{number}.db"));
        std::fs::copy(dir.join("vimana.db"), &file).unwrap();
        deface(&file, &self.filled(statements, "'")).await.unwrap();
        let url = format!("sqlite://{}", file.display());
        let store = Store::open_beside(&url).await.unwrap();
        let found = check(&store.snapshot().await.unwrap(), outside).await;
        store.close().await.unwrap();
        found.unwrap()
    }
}

impl Building {
    async fn new() -> Self {
        let world = TestWorld::new().await;
        let mut hosts =
            [1, 2].map(|number| TestHost::new(number).with_datastore("fast", number, MiB(1000)));
        for host in &mut hosts {
            host.connect(&world.engine).await;
        }
        let tenant = CreateTenant {
            name: "lab".to_owned(),
            kind: TenantKind::Manual,
        };
        let engine = &world.engine;
        engine.create_tenant(&world.admin, &tenant).await.unwrap();
        let mut people = Vec::new();
        for (name, role) in [("rita", Role::Operator), ("mona", Role::Manager)] {
            let form = CreateUser {
                name: name.to_owned(),
                password: "correct horse battery".to_owned(),
                tenant: "lab".to_owned(),
                role,
            };
            let made = engine.create_user(&world.admin, &form).await.unwrap();
            people.push(OpContext::new(
                engine.subject_of_user(made.id).await.unwrap(),
            ));
        }
        let mona = people.pop().unwrap();
        let rita = people.pop().unwrap();
        // In the trash.
        let file = world.dir.path().join("old.raw");
        std::fs::write(&file, [7; 3000]).unwrap();
        let old = ImageName::new("old").unwrap();
        let old = engine.import_image_file(&old, &file).await.unwrap();
        let trashed = engine.act_on_image(&world.admin, old.id, ImageAction::Delete);
        trashed.await.unwrap();
        Self {
            world,
            hosts,
            rita,
            mona,
            ids: BTreeMap::new(),
            backups: BTreeMap::new(),
        }
    }

    /// The administrator, with a key of that name.
    fn keyed(&self, key: &str) -> OpContext {
        self.world.admin.clone().with_idempotency(IdempotencyKey {
            key: key.to_owned(),
            fingerprint: key.to_owned(),
        })
    }

    async fn create(&self, name: &str, hold: bool) -> VmId {
        let form = CreateVm {
            name: name.to_owned(),
            image: "demo".to_owned(),
            flavor: "tiny".to_owned(),
            hold,
            ..CreateVm::default()
        };
        let key = self.keyed(name);
        let made = self.world.engine.create_vm(&key, &form).await;
        made.unwrap().vm.id
    }

    /// VMs at rest, named after what they are.
    async fn settle_vms(&self) {
        let mut vms = BTreeMap::new();
        for name in [
            "runs", "off", "sleeps", "stopped", "gone", "broken", "keeps",
        ] {
            vms.insert(name, self.create(name, false).await);
        }
        for id in vms.values() {
            self.world.until(*id, VmState::Running).await;
        }
        for (name, action) in [
            ("off", VmAction::PowerOff),
            ("sleeps", VmAction::Suspend),
            ("stopped", VmAction::Stop),
            ("gone", VmAction::Delete),
        ] {
            let args = ActionArgs::None;
            let engine = &self.world.engine;
            let key = self.keyed(&format!("{action} {name}"));
            let acted = engine.act_on_vm(&key, vms[name], action, args);
            acted.await.unwrap();
            self.world.until_rest(vms[name]).await;
        }
        let broken = vms["broken"];
        assert!(
            self.hosts
                .iter()
                .any(|host| host.sim.crash(broken, "its process died"))
        );
        self.world.until(broken, VmState::Failed).await;
        // The tests' hosts keep what they upload in memory, and say one byte.
        let stopped = vms["stopped"];
        let run = self.world.vm(stopped).await.run_epoch;
        let saved = self.world.dir.path().join("saved");
        let dir = saved.join(stopped.to_string()).join(run.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        for part in ["disk", "memory"] {
            std::fs::write(dir.join(part), "1").unwrap();
        }
    }

    /// Snapshot `good` of VM `keeps`, which has volume `data`; volume `spare`,
    /// in datastore `fast`, was its, too.
    async fn give_disks(&self) {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let found = engine.vms(admin, &VmQuery::default()).await.unwrap();
        let vm = found.iter().find(|vm| vm.name.as_str() == "keeps").unwrap();
        for name in ["data", "spare"] {
            let form = CreateVolume {
                name: name.to_owned(),
                size_mib: MiB(10),
                datastore: (name == "spare").then(|| "fast".to_owned()),
                ..CreateVolume::default()
            };
            let made = engine.create_volume(admin, &form).await.unwrap();
            let to = AttachVolume { vm_id: vm.id };
            engine.attach_volume(admin, made.id, to).await.unwrap();
            self.world.until_rest(vm.id).await;
            if name == "spare" {
                engine.detach_volume(admin, made.id).await.unwrap();
                self.world.until_rest(vm.id).await;
            }
        }
        let args = ActionArgs::TakeSnapshot(TakeSnapshot {
            name: "good".to_owned(),
            memory: true,
            volume: None,
        });
        let taken = engine.act_on_vm(admin, vm.id, VmAction::Snapshot, args);
        taken.await.unwrap();
        self.world.until_rest(vm.id).await;
    }

    /// Backups `whole` and `changes` of VM `runs`.
    async fn back_up(&mut self) {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let found = engine.vms(admin, &VmQuery::default()).await.unwrap();
        let vm = found.iter().find(|vm| vm.name.as_str() == "runs").unwrap();
        for name in ["whole", "changes"] {
            let args = ActionArgs::Backup(TakeBackup {
                name: name.to_owned(),
                ..TakeBackup::default()
            });
            let made = engine.act_on_vm(admin, vm.id, VmAction::Backup, args);
            made.await.unwrap();
            self.world.until_rest(vm.id).await;
        }
        for backup in engine.backups(admin).await.unwrap() {
            assert_eq!(backup.state, BackupState::Ready);
            self.backups.insert(backup.name.to_string(), backup.id);
        }
    }

    async fn file(&self, name: &str) -> RequestId {
        let form = CreateRequest {
            terms: CreateVm {
                name: name.to_owned(),
                image: "demo".to_owned(),
                flavor: "tiny".to_owned(),
                ..CreateVm::default()
            },
            purpose: "to be looked at".to_owned(),
        };
        let made = self.world.engine.create_request(&self.rita, &form);
        made.await.unwrap().id
    }

    async fn decide(&self, id: RequestId, action: RequestAction) {
        let form = RequestDecision {
            remark: Some("decided".to_owned()),
            ..RequestDecision::default()
        };
        let engine = &self.world.engine;
        let asks = action == RequestAction::AskRelease;
        let by = if asks { &self.rita } else { &self.mona };
        engine.act_on_request(by, id, action, &form).await.unwrap();
    }

    async fn requested(&self, id: RequestId, state: VmState) {
        let engine = &self.world.engine;
        let mut watch = pin!(engine.watch(&self.mona, None));
        let request = engine.request(&self.mona, id).await.unwrap();
        let vm = request.vm.unwrap().id;
        let mut now = engine.vm(&self.mona, vm).await.unwrap().state;
        while now != state {
            let item = timeout(PATIENCE, watch.next()).await.unwrap();
            if let Some(WatchItem::Item(item)) = item
                && let Some(seen) = item.vm.filter(|seen| seen.id == vm)
            {
                now = seen.state;
            }
        }
    }

    /// Requests named after where they are; their VMs are called the same.
    async fn settle_requests(&self) {
        let asked = self.file("asked").await;
        self.decide(asked, RequestAction::Approve).await;
        self.requested(asked, VmState::Running).await;
        let returned = self.file("given-back").await;
        self.decide(returned, RequestAction::Approve).await;
        self.requested(returned, VmState::Running).await;
        self.decide(returned, RequestAction::AskRelease).await;
        self.decide(returned, RequestAction::ConfirmRelease).await;
        self.requested(returned, VmState::Done).await;
        self.file("open").await;
        let refused = self.file("refused").await;
        self.decide(refused, RequestAction::Reject).await;
    }

    /// A VM that is being started, and is for as long as the test takes.
    async fn start_for_ever(&self) {
        for host in &self.hosts {
            host.sim.delay(Call::Boot, Duration::from_secs(24 * 3600));
        }
        let boots = self.create("boots", false).await;
        self.world.until(boots, VmState::Boot).await;
    }

    /// VMs that nobody places.
    async fn wait_for_ever(&self) {
        self.create("held", true).await;
        let waits = self.create("waits", false).await;
        let args = ActionArgs::None;
        let engine = &self.world.engine;
        let key = self.keyed("hold");
        let hold = engine.act_on_vm(&key, waits, VmAction::Hold, args);
        hold.await.unwrap();
        self.world.act(waits, VmAction::Release).await.unwrap();
        let making = self.file("making").await;
        self.decide(making, RequestAction::Approve).await;
    }

    async fn credentials(&self) {
        let form = CreateJoinToken::default();
        let engine = &self.world.engine;
        let key = self.keyed("join");
        engine.create_join_token(&key, &form).await.unwrap();
        let user_id = self.world.admin.subject.user_id;
        let expires_at = Timestamp::from_ms(i64::MAX);
        let session = SessionRecord {
            id_hash: "hash of a session".to_owned(),
            data: "{}".to_owned(),
            expires_at,
        };
        let token = TokenRecord {
            id: TokenId::from_parts(1, [1; 10]),
            user_id,
            hash: "hash of a token".to_owned(),
            expires_at,
            created_at: expires_at,
        };
        let written: vimana_model::Result<()> = write_tx!(engine.store(), |tx| {
            session::insert(tx, &session).await?;
            token::insert(tx, &token).await?;
            Ok(())
        });
        written.unwrap();
    }

    async fn finish(mut self) -> Installation {
        let heard = self.world.engine.inventories(Duration::from_secs(20)).await;
        let saved = DirDatastore::new(self.world.dir.path().join("saved"));
        let mut backups: BTreeMap<BackupId, Disks> = BTreeMap::new();
        for (name, id) in &self.backups {
            // The tests' hosts say one byte, and carry none.
            backups.insert(*id, [(DiskId::Root, 1)].into());
            self.ids.insert(format!("backup {name}"), id.to_string());
        }
        let images = DirRepository::new(self.world.dir.path().join("images"), Terms::default());
        let outside = Outside {
            in_datastore: Some(saved.contents().await.unwrap().saved),
            backups: [(DatastoreName::new("backups").unwrap(), backups)].into(),
            in_repository: Some(images.contents().await.unwrap()),
            ..heard.into_iter().collect()
        };
        assert_eq!(outside.inventories.len(), self.hosts.len());
        self.name_all().await;
        for host in &mut self.hosts {
            host.disconnect();
        }
        self.world.engine.store().close().await.unwrap();
        Installation {
            world: self.world,
            copies: AtomicU32::new(0),
            outside,
            ids: self.ids,
        }
    }

    async fn name_all(&mut self) {
        let read = self.world.engine.store().read();
        let ids = &mut self.ids;
        survey::vms(&read, |row| {
            let vm = row.unwrap();
            ids.insert(vm.name.to_string(), vm.id.to_string());
            let operation = vm.operation_id.unwrap().to_string();
            ids.insert(format!("operation of {}", vm.name), operation);
        })
        .await
        .unwrap();
        survey::images(&read, |row| {
            let image = row.unwrap();
            ids.insert(format!("image {}", image.name), image.id.to_string());
        })
        .await
        .unwrap();
        survey::requests(&read, |row| {
            let request = row.unwrap();
            let name = format!("request {}", request.terms.name);
            ids.insert(name, request.id.to_string());
        })
        .await
        .unwrap();
        survey::volumes(&read, |row| {
            let volume = row.unwrap();
            ids.insert(format!("volume {}", volume.name), volume.id.to_string());
        })
        .await
        .unwrap();
        survey::hosts(&read, |row| {
            let host = row.unwrap();
            ids.insert(host.name.to_string(), host.id.to_string());
        })
        .await
        .unwrap();
        survey::tenants(&read, |row| {
            let tenant = row.unwrap();
            ids.insert(format!("tenant {}", tenant.name), tenant.id.to_string());
        })
        .await
        .unwrap();
        survey::users(&read, |row| {
            let user = row.unwrap();
            ids.insert(format!("user {}", user.name), user.id.to_string());
        })
        .await
        .unwrap();
        let (ms, random) = (1, [9; 10]);
        for (name, id) in [
            ("no vm", VmId::from_parts(ms, random).to_string()),
            ("no host", HostId::from_parts(ms, random).to_string()),
            (
                "no operation",
                OperationId::from_parts(ms, random).to_string(),
            ),
            ("no request", RequestId::from_parts(ms, random).to_string()),
            ("no tenant", TenantId::from_parts(ms, random).to_string()),
            ("no volume", VolumeId::from_parts(ms, random).to_string()),
            ("no backup", BackupId::from_parts(ms, random).to_string()),
            ("no image", ImageId::from_parts(ms, random).to_string()),
            ("no user", UserId::from_parts(ms, random).to_string()),
            ("the token", TokenId::from_parts(1, [1; 10]).to_string()),
        ] {
            ids.insert(name.to_owned(), id);
        }
    }
}

/// A machine in its first run.
pub const fn observed(vm_id: VmId, power: Power) -> Observed {
    Observed {
        vm_id,
        run_epoch: 1,
        power,
    }
}
