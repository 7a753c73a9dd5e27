//! A whole Vimana inside one test: the real engine on a real database, the
//! real scheduler's decisions, and hosts that run the simulated driver. What
//! is left out is the network between them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's world may give up loudly"
)]

mod host;
mod scheduler;
pub mod sim;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vimana_authz::Subject;
use vimana_datastore::{DatastoreDriver, DirDatastore};
use vimana_engine::{
    Acted, ActionArgs, Datastores, Engine, EngineConfig, OpContext, Settings, WatchItem, World,
};
use vimana_model::action::VmAction;
use vimana_model::name::{DatastoreName, ImageName, UserName};
use vimana_model::operation::OperationState;
use vimana_model::vm::{AcceptedView, CreateVm, VmView};
use vimana_model::{VmId, VmState};
use vimana_pki::{Authority, Serial};
use vimana_repository::{DirRepository, Terms};
use vimana_store::{Store, user};

pub use host::TestHost;
pub use scheduler::TestScheduler;

/// The administrator's password in every test's world.
pub const PASSWORD: &str = "correct horse battery staple";

/// How long a world waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An installation with image `demo`, the first flavors, and user `admin`.
pub struct TestWorld {
    pub engine: Engine,
    pub admin: OpContext,
    pub dir: TempDir,
    cancel: CancellationToken,
}

impl TestWorld {
    /// On SQLite in a temporary directory.
    pub async fn new() -> Self {
        Self::with_settings(Settings::default()).await
    }

    pub async fn with_settings(settings: Settings) -> Self {
        let dir = TempDir::new().unwrap();
        let engine = open(dir.path(), settings.clone()).await;
        engine.bootstrap(Some(PASSWORD)).await.unwrap();
        let image = dir.path().join("demo.qcow2");
        std::fs::write(&image, qcow2_of(64 << 20)).unwrap();
        engine
            .import_image_file(&ImageName::new("demo").unwrap(), &image)
            .await
            .unwrap();
        let admin = OpContext::new(admin(&engine).await);
        let cancel = start(&engine);
        Self {
            engine,
            admin,
            dir,
            cancel,
        }
    }

    /// The server stops, wherever it is, and another starts on its data.
    pub async fn restart_engine(&mut self, settings: Settings) {
        self.cancel.cancel();
        // The file is its server's alone.
        self.engine.store().close().await.unwrap();
        self.engine = open(self.dir.path(), settings).await;
        self.cancel = start(&self.engine);
    }

    /// Asks for a VM of flavor `tiny`.
    pub async fn create(&self, name: &str) -> VmView {
        let form = CreateVm {
            name: name.to_owned(),
            image: "demo".to_owned(),
            flavor: "tiny".to_owned(),
            ..CreateVm::default()
        };
        self.engine.create_vm(&self.admin, &form).await.unwrap().vm
    }

    /// Does something with a VM that takes no arguments.
    ///
    /// # Errors
    /// The engine's.
    pub async fn act(&self, id: VmId, action: VmAction) -> vimana_model::Result<Acted> {
        let args = ActionArgs::None;
        self.engine.act_on_vm(&self.admin, id, action, args).await
    }

    /// As [`TestWorld::act`], for what becomes an operation.
    ///
    /// # Panics
    /// It is refused.
    pub async fn operate(&self, id: VmId, action: VmAction) -> AcceptedView {
        match self.act(id, action).await.unwrap() {
            Acted::Accepted(accepted) => *accepted,
            Acted::Vm(vm) => panic!("{action} of {} is no operation", vm.name),
        }
    }

    /// Waits until nothing is in flight for the VM.
    ///
    /// # Panics
    /// It does not come to rest in time.
    pub async fn until_rest(&self, id: VmId) -> VmView {
        self.until_vm(id, "the operation's end", |vm| {
            let state = vm.operation.as_ref().map(|operation| operation.state);
            state.is_none_or(OperationState::is_over)
        })
        .await
    }

    pub async fn vm(&self, id: VmId) -> VmView {
        self.engine.vm(&self.admin, id).await.unwrap()
    }

    /// Waits on the event stream until the VM is in `state`.
    ///
    /// # Panics
    /// It does not get there in time.
    pub async fn until(&self, id: VmId, state: VmState) -> VmView {
        self.until_vm(id, &format!("state {state}"), |vm| vm.state == state)
            .await
    }

    /// Waits on the event stream until the VM looks as wanted.
    ///
    /// # Panics
    /// It does not get there in time.
    pub async fn until_vm(&self, id: VmId, what: &str, wanted: impl Fn(&VmView) -> bool) -> VmView {
        let watch = self.engine.watch(&self.admin, None);
        let found = async {
            let now = self.vm(id).await;
            if wanted(&now) {
                return now;
            }
            let mut watch = std::pin::pin!(watch);
            while let Some(item) = watch.next().await {
                if let WatchItem::Item(item) = item
                    && let Some(vm) = item.vm
                    && vm.id == id
                    // The stream may still tell of what was before.
                    && vm.generation >= now.generation
                    && wanted(&vm)
                {
                    return vm;
                }
            }
            panic!("the event stream ended");
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(vm) => vm,
            Err(_) => panic!("waited for {what}, found {:#?}", self.vm(id).await),
        }
    }
}

impl Drop for TestWorld {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn open(dir: &Path, settings: Settings) -> Engine {
    let store = Store::open(&format!("sqlite://{}", dir.join("vimana.db").display())).await;
    let at = |name: &str| {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Arc::new(DirDatastore::new(dir))
    };
    let backups = DatastoreName::new("backups").unwrap();
    let others: Vec<(DatastoreName, Arc<dyn DatastoreDriver>)> = vec![(backups, at("backups"))];
    let config = EngineConfig {
        store: store.unwrap(),
        authority: Arc::new(Authority::generate(Serial::from_random([7; _])).unwrap()),
        repository: Arc::new(DirRepository::new(dir.join("images"), Terms::default())),
        datastores: Datastores::new(at("saved"), others).unwrap(),
        settings,
        world: World::system(),
    };
    Engine::open(config).await.unwrap()
}

fn start(engine: &Engine) -> CancellationToken {
    let cancel = CancellationToken::new();
    let (engine, token) = (engine.clone(), cancel.clone());
    tokio::spawn(async move { Box::pin(engine.run(token)).await });
    cancel
}

async fn admin(engine: &Engine) -> Subject {
    let name = UserName::new("admin").unwrap();
    let user = user::find_by_name(&engine.store().read(), &name)
        .await
        .unwrap();
    engine
        .subject_of_user(user.expect("user admin").id)
        .await
        .unwrap()
}

/// An empty qcow2 image as far as its header goes, with clusters of 64 KiB:
/// enough for whoever only looks at that.
#[must_use]
pub fn qcow2_of(virtual_bytes: u64) -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    let l1_entries = virtual_bytes.div_ceil(CLUSTER * CLUSTER / 8);
    let mut bytes = vec![0; 3 * (1 << 16)];
    let mut put = |at: usize, value: &[u8]| {
        bytes.splice(at..at + value.len(), value.iter().copied());
    };
    put(0, b"QFI\xfb\0\0\0\x02");
    put(20, &16_u32.to_be_bytes());
    put(24, &virtual_bytes.to_be_bytes());
    put(36, &u32::try_from(l1_entries).unwrap().to_be_bytes());
    put(40, &(2 * CLUSTER).to_be_bytes());
    put(48, &CLUSTER.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    bytes
}
