//! Hosts between which VMs go, and what administrators ask of them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use vimana_driver_sim::RunLog;
use vimana_engine::{ActionArgs, Settings};
use vimana_model::action::VmAction;
use vimana_model::evacuation::{EvacuateHost, EvacuationView};
use vimana_model::event::EventKind;
use vimana_model::host::{HostState, HostView};
use vimana_model::migration::MigrateVm;
use vimana_model::{Result, VmId, VmState};
use vimana_testkit::{TestHost, TestScheduler, TestWorld};

pub const WITHIN: Duration = Duration::from_secs(20);

/// Hosts that machines can go between, and VMs that are all on the first.
pub struct Fleet {
    pub world: TestWorld,
    pub hosts: Vec<TestHost>,
    pub vms: Vec<VmId>,
    pub log: Arc<RunLog>,
    _scheduler: TestScheduler,
}

impl Fleet {
    pub async fn new(hosts: u8, vms: usize) -> Self {
        Self::with_settings(hosts, vms, Settings::default()).await
    }

    pub async fn with_settings(hosts: u8, vms: usize, settings: Settings) -> Self {
        let world = TestWorld::with_settings(settings).await;
        let log = RunLog::new();
        let mut fleet = Self {
            hosts: Vec::new(),
            vms: Vec::new(),
            _scheduler: TestScheduler::connect(&world.engine).await,
            log,
            world,
        };
        for number in 1..=hosts {
            let mut host = TestHost::new(number).beside(&fleet.log);
            host.capacity.vcpus = 16;
            host.connect(&fleet.world.engine).await;
            fleet.hosts.push(host);
            if number == 1 {
                for vm in 1..=vms {
                    let vm = fleet.world.create(&format!("web-{vm}")).await.id;
                    fleet.world.until(vm, VmState::Running).await;
                    fleet.vms.push(vm);
                }
            }
        }
        fleet
    }

    pub async fn host(&self, index: usize) -> HostView {
        let id = self.hosts[index].id;
        let hosts = self.world.engine.hosts(&self.world.admin).await.unwrap();
        hosts.into_iter().find(|host| host.id == id).unwrap()
    }

    pub async fn cordon(&self, index: usize) -> HostView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let id = self.hosts[index].id;
        engine.cordon_host(admin, id).await.unwrap()
    }

    pub async fn enable(&self, index: usize) -> HostView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let id = self.hosts[index].id;
        engine.enable_host(admin, id).await.unwrap()
    }

    pub async fn evacuate(&self, index: usize, limit: Option<u32>) -> HostView {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let (id, form) = (self.hosts[index].id, EvacuateHost { limit });
        engine.evacuate_host(admin, id, &form).await.unwrap()
    }

    pub async fn evacuation(&self, index: usize) -> Result<EvacuationView> {
        let id = self.hosts[index].id;
        self.world.engine.evacuation(&self.world.admin, id).await
    }

    pub async fn migrate(&self, vm: VmId, to: usize) -> Result<()> {
        let args = ActionArgs::Migrate(MigrateVm {
            host: Some(self.hosts[to].name.clone()),
            ..MigrateVm::default()
        });
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let acted = engine.act_on_vm(admin, vm, VmAction::Migrate, args);
        acted.await.map(|_| ())
    }

    /// Follows the event stream until the host looks as wanted.
    pub async fn until_host(&self, index: usize, wanted: impl Fn(&HostView) -> bool) -> HostView {
        let mut watch = Box::pin(self.world.engine.watch(&self.world.admin, None));
        let found = async {
            loop {
                let now = self.host(index).await;
                if wanted(&now) {
                    return now;
                }
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, found).await.unwrap()
    }

    pub async fn until_state(&self, index: usize, state: HostState) -> HostView {
        self.until_host(index, |host| host.state == state).await
    }

    /// Follows the event stream until the evacuation looks as wanted.
    pub async fn until(
        &self,
        index: usize,
        wanted: impl Fn(&EvacuationView) -> bool,
    ) -> EvacuationView {
        let mut watch = Box::pin(self.world.engine.watch(&self.world.admin, None));
        let found = async {
            loop {
                let now = self.evacuation(index).await.unwrap();
                if wanted(&now) {
                    return now;
                }
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, found).await.unwrap()
    }

    pub async fn on(&self, vm: VmId) -> String {
        self.world.vm(vm).await.host.unwrap().name
    }

    pub async fn sound(&self) {
        assert_eq!(self.world.engine.check().await.unwrap(), []);
        assert_eq!(self.log.breaches(), [""; 0]);
    }

    /// Follows the event stream until that was the host's latest.
    pub async fn until_told(&self, index: usize, event: &EventKind) {
        let mut watch = Box::pin(self.world.engine.watch(&self.world.admin, None));
        let found = async {
            while self.told(index).await.last() != Some(event) {
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, found).await.unwrap();
    }

    pub async fn told(&self, index: usize) -> Vec<EventKind> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let told = engine.host_timeline(admin, self.hosts[index].id).await;
        told.unwrap().into_iter().map(|event| event.event).collect()
    }
}
