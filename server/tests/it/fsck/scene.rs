//! A small installation at work: the real server with real agents on
//! simulated hosts and a real scheduler, and the command beside it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};
use vimana_driver::{HostDriver, ImageRef, IncarnationSpec, Seed};
use vimana_driver_sim::SimDriver;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::CreateVm;
use vimana_model::{ImageId, TenantId, VmId, VmState};
use vimana_protocol::dial::{Retry, Server};
use vimana_store::testing::deface;

use crate::machine::{Machine, Running};
use crate::watch::Watch;
use crate::world::World;

pub struct Scene {
    pub world: World,
    pub watch: Watch,
    pub machines: Vec<Machine>,
    /// One for each machine, in the same order.
    pub agents: Vec<Running>,
    scheduler: DropGuard,
}

/// What is left of it when everything has stopped.
pub struct Stopped {
    dir: TempDir,
}

/// What the command said.
#[derive(Debug)]
pub struct Told {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Scene {
    pub async fn new(names: &[&'static str]) -> Self {
        let world = World::new().await;
        let mut watch = Watch::new(&world).await;
        let (mut machines, mut agents) = (Vec::new(), Vec::new());
        for name in names {
            let machine = Machine::new(name);
            machine.give_token(&world).await;
            agents.push(machine.start(&world));
            machines.push(machine);
            watch.until_connected().await;
        }
        let scheduler = schedule(&world);
        Self {
            world,
            watch,
            machines,
            agents,
            scheduler,
        }
    }

    /// A VM that runs.
    pub async fn vm(&mut self, name: &str) -> VmId {
        let made = self.watch.client.create_vm(&tiny(name)).await.unwrap();
        self.watch.until_vm(made.vm.id, VmState::Running).await;
        made.vm.id
    }

    pub async fn tenant_of(&self, vm: VmId) -> TenantId {
        self.watch.client.vm(vm).await.unwrap().tenant_id
    }

    pub fn machine_without(&self, vm: VmId) -> &Machine {
        let without = |machine: &&Machine| machine.sim.power(vm).is_none();
        self.machines.iter().find(without).unwrap()
    }

    /// A machine that nobody asked that host for.
    pub async fn runs(&self, machine: &Machine, vm_id: VmId) {
        let resources = Resources {
            vcpus: 1,
            memory_mib: MiB(512),
            disk_mib: MiB(1024),
        };
        let spec = IncarnationSpec {
            vm_id,
            run_epoch: 1,
            resources,
            datastore: DatastoreName::local(),
            image: ImageRef {
                id: ImageId::from_parts(1, [1; 10]),
                format: ImageFormat::Qcow2,
                size_bytes: 1,
                sha256: String::new(),
            },
            seed: Seed {
                host_name: "stranger".to_owned(),
                ssh_key: None,
                user_data: None,
            },
        };
        let driver = SimDriver::new(Arc::clone(&machine.sim));
        driver.prepare(&spec, Path::new("")).await.unwrap();
        driver.boot(vm_id, 1, &resources).await.unwrap();
    }

    /// Everything stops, and stays as it is.
    pub async fn stop(self) -> Stopped {
        let Self {
            world,
            machines: _machines,
            agents,
            scheduler,
            watch,
        } = self;
        drop((scheduler, watch));
        for agent in agents {
            agent.stop().await;
        }
        let World { running, dir, .. } = world;
        running.stop().await.unwrap();
        Stopped { dir }
    }
}

/// What can be looked at and spoilt, whether the server runs or not.
pub trait Installation {
    fn data(&self) -> PathBuf;

    fn saved(&self) -> PathBuf {
        self.data().join("saved")
    }

    /// Changes the database behind the server's back.
    async fn plant(&self, statements: &str) {
        let database = self.data().join("vimana.db");
        deface(&database, statements).await.unwrap();
    }

    async fn fsck(&self, args: &[&str]) -> Told {
        fsck(&self.data(), args).await
    }

    /// The command's answer for programs, and that it ends with this status.
    async fn report(&self, status: i32, args: &[&str]) -> Value {
        let told = self.fsck(&[&["--json"], args].concat()).await;
        assert_eq!((told.status, told.err.as_str()), (status, ""), "{told:#?}");
        serde_json::from_str(&told.out).unwrap()
    }
}

impl Installation for Scene {
    fn data(&self) -> PathBuf {
        self.world.dir.path().join("data")
    }
}

impl Installation for Stopped {
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

pub fn tiny(name: &str) -> CreateVm {
    CreateVm {
        name: name.to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    }
}

/// A scheduler, until the guard is dropped.
fn schedule(world: &World) -> DropGuard {
    let secret = world.dir.path().join("data/secrets/scheduler");
    let server = Server::new(&world.running.url(), &secret, None).unwrap();
    let retry = Retry {
        first: Duration::from_millis(10),
        cap: Duration::from_millis(100),
    };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move { vimana_scheduler::run(&server, "test", retry, token).await });
    shutdown.drop_guard()
}

/// The command, as a process of its own.
pub async fn fsck(data: &Path, args: &[&str]) -> Told {
    let output = Command::new(env!("CARGO_BIN_EXE_vimana-server"))
        .arg("fsck")
        .arg("--data-dir")
        .arg(data)
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Told {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
