//! A host: the simulated driver behind an agent without a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vimana_driver::{
    Arrival, Fault, FaultKind, GuestEnd, HostDriver, Keep, Observed, VolumeSource, VolumeSpec,
    unwatched,
};
use vimana_driver_sim::{RunLog, SimDatastore, SimDriver, SimHost};
use vimana_engine::Engine;
use vimana_model::backup::{DiskId, KeptDisk, MadeBackup};
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::saved::{Part, SavedMachine, SavedPart};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{DatastoreId, HostId, VmId};
use vimana_protocol::agent::{
    Command, Disks, FromAgent, Hello, HostDatastore, Outcome, PROTOCOL_VERSIONS, ToAgent, Work,
};

/// What all hosts of all worlds have uploaded; VM ids differ.
static DATASTORE: Mutex<BTreeMap<(VmId, Part), Bytes>> = Mutex::new(BTreeMap::new());

/// One simulated host; its machines outlive its agent.
pub struct TestHost {
    pub id: HostId,
    pub name: String,
    pub capacity: Resources,
    /// What the host "really" holds, and where faults are injected.
    pub sim: Arc<SimHost>,
    /// Besides its own directory; see [`TestHost::with_datastore`].
    datastores: Vec<HostDatastore>,
    agent: Option<CancellationToken>,
    session_number: Arc<AtomicU64>,
}

impl TestHost {
    /// A host with room for 8 vCPUs, 4 GiB and 100 GiB, not yet connected.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            id: HostId::from_parts(u64::from(number), [number; 10]),
            ..Self::numbered(u32::from(number))
        }
    }

    /// As [`TestHost::new`], for more hosts than a byte counts.
    #[must_use]
    pub fn numbered(number: u32) -> Self {
        Self {
            id: HostId::from_parts(u64::from(number), [0; 10]),
            name: format!("host-{number}"),
            capacity: Resources {
                vcpus: 8,
                memory_mib: MiB(4096),
                disk_mib: MiB(100 << 10),
            },
            sim: SimHost::new(),
            datastores: Vec::new(),
            agent: None,
            session_number: Arc::default(),
        }
    }

    /// The same host as one of those that share `log`: machines go from one to the
    /// other.
    #[must_use]
    pub fn beside(mut self, log: &Arc<RunLog>) -> Self {
        self.sim = SimHost::logged(&self.name, Arc::clone(log));
        self
    }

    /// The same host with a further place for volumes, of that size; `number`
    /// is the datastore's own.
    #[must_use]
    pub fn with_datastore(self, name: &str, number: u8, capacity_mib: MiB) -> Self {
        self.sharing(name, number, capacity_mib, &SimDatastore::default())
    }

    /// The same, which other hosts reach as well.
    #[must_use]
    pub fn sharing(
        mut self,
        name: &str,
        number: u8,
        capacity_mib: MiB,
        with: &SimDatastore,
    ) -> Self {
        let name = DatastoreName::new(name).unwrap();
        self.sim.share_datastore(name.clone(), with);
        self.datastores.push(HostDatastore {
            name,
            id: DatastoreId::from_parts(u64::from(number), [number; 10]),
            capacity_mib,
        });
        self
    }

    /// It does not reach that datastore any more.
    pub fn loses_datastore(&mut self, name: &str) {
        self.datastores.retain(|known| known.name.as_str() != name);
    }

    /// Other directories have the names of its datastores from now on.
    pub fn rename_datastores(&mut self, number: u8) {
        for datastore in &mut self.datastores {
            datastore.id = DatastoreId::from_parts(u64::from(number), [number; 10]);
        }
    }

    /// Starts the agent and connects it.
    ///
    /// # Panics
    /// The server refuses it.
    pub async fn connect(&mut self, engine: &Engine) {
        let driver = Arc::new(SimDriver::new(Arc::clone(&self.sim)));
        let changes = driver.subscribe();
        let hello = Hello {
            protocol: PROTOCOL_VERSIONS,
            agent_version: "test".to_owned(),
            host_id: self.id,
            name: HostName::new(self.name.as_str()).unwrap(),
            zone: ZoneName::new("default").unwrap(),
            capabilities: driver.capabilities().clone(),
            capacity: self.capacity.into(),
            datastores: self.datastores.clone(),
            inventory: driver.inventory().await.unwrap(),
            session_number: self.session_number.load(Ordering::SeqCst),
            fenced: 0,
        };
        let session = engine
            .connect_agent(hello)
            .await
            .expect("the host is welcome");
        let (outgoing, handle) = session.split();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let number = Arc::clone(&self.session_number);
        tokio::spawn(async move {
            tokio::select! {
                () = serve(driver, changes, outgoing, &handle, &number) => {}
                () = token.cancelled() => {}
            }
        });
        self.agent = Some(cancel);
    }

    /// The next session is with an installation that has never seen the host.
    pub fn forget_session(&mut self) {
        self.session_number = Arc::default();
    }

    /// The agent is gone; its machines run on.
    pub fn disconnect(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.cancel();
        }
    }
}

async fn serve(
    driver: Arc<SimDriver>,
    mut changes: tokio::sync::broadcast::Receiver<Observed>,
    mut outgoing: mpsc::Receiver<ToAgent>,
    handle: &vimana_engine::AgentHandle,
    number: &AtomicU64,
) {
    let (to_server, mut answers) = mpsc::channel(64);
    loop {
        tokio::select! {
            // A machine's change goes before the outcome that it belongs to.
            biased;
            Ok(observed) = changes.recv() => handle.receive(FromAgent::Observed(observed)),
            frame = outgoing.recv() => match frame {
                None => return,
                Some(ToAgent::Command(command)) => {
                    let (driver, to_server) = (Arc::clone(&driver), to_server.clone());
                    tokio::spawn(async move {
                        let outcome = match carry_out(&driver, &command).await {
                            Ok(outcome) => outcome,
                            Err(fault) => Outcome::Fault { fault },
                        };
                        let done = FromAgent::Done {
                            command: command.command,
                            claim_epoch: command.claim_epoch,
                            outcome,
                        };
                        let _gone = to_server.send(done).await;
                    });
                }
                Some(ToAgent::Welcome { session_number, .. }) => {
                    number.store(session_number, Ordering::SeqCst);
                    handle.receive(FromAgent::Ready { session_number });
                }
                Some(ToAgent::Discard {
                    vm_id,
                    run_epoch,
                    elsewhere,
                }) => {
                    driver.kill(vm_id, run_epoch).await.unwrap();
                    match elsewhere {
                        Some(disks) => driver.leave(vm_id, run_epoch, &disks).await.unwrap(),
                        None => driver.clean(vm_id, run_epoch).await.unwrap(),
                    }
                    handle.receive(FromAgent::Discarded { vm_id });
                }
                Some(ToAgent::RemoveVolume { volume_id, .. }) => {
                    driver.remove_volume(volume_id).await.unwrap();
                    handle.receive(FromAgent::VolumeRemoved { volume_id });
                }
                Some(ToAgent::SendVolume(order)) => {
                    // Bytes go another way, which such a host does not have.
                    let message = "the volume cannot be read";
                    let fault = Fault::new(FaultKind::Host, message);
                    handle.receive(FromAgent::VolumeNotSent { order, fault });
                }
                Some(ToAgent::TakeInventory) => {
                    let inventory = driver.inventory().await.unwrap();
                    let disks = Some(Disks {
                        volumes: driver.volumes().await.unwrap(),
                        snapshots: driver.snapshots().await.unwrap(),
                    });
                    handle.receive(FromAgent::Inventory { inventory, disks });
                }
                Some(
                    ToAgent::Refused { .. }
                    | ToAgent::OpenConsole { .. }
                    | ToAgent::Heartbeat { .. }
                    | ToAgent::Unknown,
                ) => {}
            },
            Some(answer) = answers.recv() => handle.receive(answer),
        }
    }
}

async fn carry_out(driver: &SimDriver, command: &Command) -> Result<Outcome, Fault> {
    let (vm, epoch) = (command.vm_id, command.run_epoch);
    match &command.work {
        Work::Prepare { spec } => driver.prepare(spec, Path::new("")).await?,
        Work::Boot { resources } => driver.boot(vm, epoch, resources).await?,
        Work::Shutdown { grace_ms } => {
            let grace = Duration::from_millis(*grace_ms);
            if driver.shutdown(vm, epoch, grace).await? == GuestEnd::Forced {
                return Ok(Outcome::Ok {
                    note: Some("switched off by force".to_owned()),
                    saved: None,
                    backup: None,
                    endpoint: None,
                    sent: None,
                    place: None,
                });
            }
        }
        Work::Kill => driver.kill(vm, epoch).await?,
        Work::Clean => driver.clean(vm, epoch).await?,
        Work::Save => driver.save(vm, epoch).await?,
        Work::Load => driver.load(vm, epoch).await?,
        Work::Upload { disks } => {
            let parts = driver.export(vm, epoch, disks).await?.into_iter();
            let saved = SavedMachine {
                run_epoch: epoch,
                hypervisor: driver.capabilities().hypervisor.clone(),
                parts: parts
                    .map(|(part, _)| SavedPart {
                        part,
                        size_bytes: 1,
                        sha256: String::new(),
                    })
                    .collect(),
            };
            for (part, path) in driver.export(vm, epoch, disks).await? {
                let bytes = driver.host().read_file(&path).unwrap();
                DATASTORE.lock().unwrap().insert((vm, part), bytes);
            }
            return Ok(Outcome::Ok {
                note: None,
                saved: Some(saved),
                backup: None,
                endpoint: None,
                sent: None,
                place: None,
            });
        }
        Work::Download { spec, saved, disks } => {
            let mut files = Vec::new();
            for SavedPart { part, .. } in &saved.parts {
                let path = PathBuf::from(format!("/download/{vm}/{part}"));
                let bytes = DATASTORE.lock().unwrap().get(&(vm, *part)).cloned();
                driver.host().write_file(&path, bytes.unwrap());
                files.push((*part, path));
            }
            driver.import(spec, Path::new(""), &files, disks).await?;
        }
        Work::Reboot { grace_ms } => {
            let grace = Duration::from_millis(*grace_ms);
            driver.reboot(vm, epoch, grace).await?;
        }
        Work::Reset => driver.reset(vm, epoch).await?,
        Work::Resize { resources } => driver.resize(vm, epoch, resources).await?,
        Work::Snapshot {
            snapshot_id,
            memory,
        } => {
            let keep = if *memory { Keep::Memory } else { Keep::Disks };
            driver.snapshot(vm, epoch, *snapshot_id, keep).await?;
        }
        Work::SnapshotVolume {
            snapshot_id,
            volume_id,
        } => {
            let keep = Keep::Volume(*volume_id);
            driver.snapshot(vm, epoch, *snapshot_id, keep).await?;
        }
        Work::Revert { snapshot_id } => driver.revert(vm, epoch, *snapshot_id).await?,
        Work::RemoveSnapshot { snapshot_id } => {
            driver.remove_snapshot(vm, epoch, *snapshot_id).await?;
        }
        Work::Backup { backup_id, since } => {
            let made = driver.back_up(vm, epoch, *backup_id, *since).await?;
            let disks = made.files.iter().map(|file| KeptDisk {
                disk: file.disk,
                size_mib: file.size,
                size_bytes: 1,
                sha256: String::new(),
            });
            let backup = MadeBackup {
                since: made.since,
                frozen: made.frozen,
                disks: disks.collect(),
            };
            driver.end_backup(vm, epoch, *backup_id, true).await?;
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: Some(backup),
                endpoint: None,
                sent: None,
                place: None,
            });
        }
        Work::DropBackup { backup_id } => {
            driver.end_backup(vm, epoch, *backup_id, false).await?;
        }
        Work::Attach { volume } => {
            let VolumeSpec {
                volume_id,
                size_mib,
                image,
                datastore,
                made,
            } = volume;
            let from = match image {
                Some(image) => VolumeSource::Image {
                    path: PathBuf::new(),
                    format: image.format,
                },
                None => VolumeSource::Empty,
            };
            let held = driver.volumes().await?;
            if *made && held.iter().all(|held| held.volume_id != *volume_id) {
                let message = "the host no longer holds the volume";
                return Err(Fault::new(FaultKind::NoSuchVolume, message));
            }
            driver
                .create_volume(*volume_id, *size_mib, &from, datastore)
                .await?;
            driver.grow_volume(*volume_id, *size_mib).await?;
            let place = driver.attach(vm, epoch, *volume_id).await?;
            let disk = DiskId::Volume(*volume_id);
            let moved = driver.move_disk(vm, epoch, disk, datastore, unwatched());
            moved.await?;
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: None,
                endpoint: None,
                sent: None,
                place: Some(place),
            });
        }
        Work::Detach { volume_id } => driver.detach(vm, epoch, *volume_id).await?,
        Work::Grow {
            volume_id,
            size_mib,
        } => driver.grow_volume(*volume_id, *size_mib).await?,
        Work::Move { disk, to } => {
            let moved = driver.move_disk(vm, epoch, *disk, to, unwatched());
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: None,
                endpoint: None,
                sent: Some(moved.await?),
                place: None,
            });
        }
        Work::Receive {
            spec,
            from,
            disks,
            post_copy,
        } => {
            let arrival = Arrival {
                from: *from,
                disks: disks.clone(),
                post_copy: *post_copy,
            };
            let endpoint = driver.receive(spec, Path::new(""), &arrival).await?;
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: None,
                endpoint: Some(endpoint),
                sent: None,
                place: None,
            });
        }
        Work::Send { sending } => {
            let sent = driver.send(vm, epoch, sending, unwatched()).await?;
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: None,
                endpoint: None,
                sent: Some(sent),
                place: None,
            });
        }
        Work::CallOff => driver.call_off(vm, epoch).await?,
        Work::Switch => {
            return Ok(Outcome::Ok {
                note: None,
                saved: None,
                backup: None,
                endpoint: None,
                sent: Some(driver.switch(vm, epoch).await?),
                place: None,
            });
        }
        Work::Run => driver.run(vm, epoch).await?,
        Work::Complete => driver.complete(vm, epoch).await?,
        Work::Leave { disks } => {
            driver.kill(vm, epoch).await?;
            driver.leave(vm, epoch, disks).await?;
        }
        Work::Unknown => return Err(Fault::new(FaultKind::Unsupported, "what is that?")),
    }
    Ok(Outcome::DONE)
}
