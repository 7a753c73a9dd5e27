//! Schedulers: their sessions, and the check of what they propose.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, broadcast, mpsc};
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::HostView;
use vimana_model::operation::StepKind;
use vimana_model::pending::Explanation;
use vimana_model::state::VmState;
use vimana_model::vm::VmView;
use vimana_model::{HostId, Result, VmId};
use vimana_protocol::limits::MAX_QUEUED_FRAMES;
use vimana_protocol::scheduler::{
    DatastoreFacts, FromScheduler, HostFacts, PendingVm, ToScheduler,
};
use vimana_store::claim::{ClaimRecord, Taken};
use vimana_store::{claim, enrolment, host, host_datastore, migration, vm, write_tx};

use crate::Engine;
use crate::change::Change;
use crate::event::HubItem;
use crate::host::host_views;
use crate::limits::MAX_PROPOSALS_AT_ONCE;
use crate::migration::{host_ref, refusal_to_take};

/// The schedulers connected to this server.
#[derive(Default)]
pub struct Schedulers {
    connected: AtomicUsize,
}

impl Schedulers {
    pub fn count(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

/// One scheduler's connection.
pub struct SchedulerSession {
    /// Frames for the scheduler, the snapshot first; closed when it must
    /// connect anew.
    pub outgoing: mpsc::Receiver<ToScheduler>,
    handle: SchedulerHandle,
}

/// The receiving half of a session.
pub struct SchedulerHandle {
    engine: Engine,
    to_scheduler: mpsc::Sender<ToScheduler>,
    name: String,
    /// One for each frame that is taken in at once.
    turns: Arc<Semaphore>,
}

impl SchedulerSession {
    /// Takes the halves apart, for two tasks.
    #[must_use]
    pub fn split(self) -> (mpsc::Receiver<ToScheduler>, SchedulerHandle) {
        (self.outgoing, self.handle)
    }
}

impl SchedulerHandle {
    /// What it calls itself.
    #[must_use]
    pub fn scheduler(&self) -> &str {
        &self.name
    }

    /// Takes in one frame; ends when there is room for the next. Many proposals
    /// are checked at once, so that they share the waits for the disk.
    pub async fn receive(&self, frame: FromScheduler) {
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            // Nobody closes it.
            return;
        };
        let (engine, to_scheduler) = (self.engine.clone(), self.to_scheduler.clone());
        // To its end, even when the scheduler hangs up: what is recorded has
        // to go out to the host.
        self.engine.spawn(async move {
            let _turn = turn;
            if let Some(verdict) = engine.judge(frame).await {
                // A scheduler that is gone gets the state anew when it is back.
                let _gone = to_scheduler.send(verdict).await;
            }
        });
    }
}

impl Drop for SchedulerHandle {
    fn drop(&mut self) {
        self.engine
            .inner
            .schedulers
            .connected
            .fetch_sub(1, Ordering::Relaxed);
        tracing::info!(scheduler = self.name, "scheduler disconnected");
    }
}

impl Engine {
    /// Opens a scheduler's session: a snapshot, then every change.
    ///
    /// # Errors
    /// The database fails.
    pub async fn connect_scheduler(&self, name: String) -> Result<SchedulerSession> {
        let (to_scheduler, outgoing) = mpsc::channel(MAX_QUEUED_FRAMES);
        // Subscribed before the snapshot, so that no change falls between.
        let changes = self.inner.hub.subscribe();
        let snapshot = self.snapshot().await?;
        let pending: HashSet<VmId> = match &snapshot {
            ToScheduler::Snapshot { pending, .. } => pending.iter().map(|vm| vm.id).collect(),
            ToScheduler::Host(_)
            | ToScheduler::Pending(_)
            | ToScheduler::Gone { .. }
            | ToScheduler::Verdict { .. }
            | ToScheduler::Heartbeat => HashSet::new(),
        };
        let _fits = to_scheduler.try_send(snapshot);
        self.inner
            .schedulers
            .connected
            .fetch_add(1, Ordering::Relaxed);
        tracing::info!(scheduler = name, "scheduler connected");
        tokio::spawn(follow(changes, pending, to_scheduler.clone()));
        let handle = SchedulerHandle {
            engine: self.clone(),
            to_scheduler,
            name,
            turns: Arc::new(Semaphore::new(MAX_PROPOSALS_AT_ONCE)),
        };
        Ok(SchedulerSession { outgoing, handle })
    }

    /// Does as a scheduler says, if that is right, and gives the answer.
    async fn judge(&self, frame: FromScheduler) -> Option<ToScheduler> {
        match frame {
            FromScheduler::Heartbeat | FromScheduler::Hello { .. } => None,
            FromScheduler::Proposal {
                vm_id,
                generation,
                host_id,
                explanation,
            } => {
                let verdict = self.place(vm_id, generation, host_id, &explanation).await;
                let refused = verdict.unwrap_or_else(|error| {
                    tracing::error!(vm = %vm_id, error = ?error, "a proposal has no effect");
                    Some(error.public)
                });
                Some(ToScheduler::Verdict {
                    vm_id,
                    generation,
                    refused,
                })
            }
            FromScheduler::NoHost {
                vm_id,
                generation,
                explanation,
            } => {
                let noted = self.not_placed(vm_id, generation, explanation).await;
                if let Err(error) = noted {
                    tracing::error!(vm = %vm_id, error = ?error, "an explanation is lost");
                }
                None
            }
        }
    }

    async fn snapshot(&self) -> Result<ToScheduler> {
        let read = self.store().read();
        let found = host::list(&read).await?;
        let hosts = host_views(found, host_datastore::list(&read).await?);
        let pending = vm::pending(&read).await?;
        Ok(ToScheduler::Snapshot {
            hosts: hosts.iter().map(facts).collect(),
            pending: pending
                .into_iter()
                .map(|vm| PendingVm {
                    id: vm.id,
                    generation: vm.generation,
                    resources: vm.resources,
                    datastore: vm.datastore,
                    since: vm.created_at,
                })
                .collect(),
        })
    }

    /// Checks a proposal and claims the room, in one transaction. `Some` says
    /// why it is refused.
    async fn place(
        &self,
        id: VmId,
        generation: u64,
        host_id: HostId,
        explanation: &Explanation,
    ) -> Result<Option<String>> {
        let world = self.world();
        let placed = write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, Actor::Scheduler, id).await? else {
                return Ok(Err("there is no such VM".to_owned()));
            };
            let waits = change.vm.state == VmState::Pending
                && change
                    .current()
                    .is_some_and(|current| current.kind == StepKind::Place);
            if !waits {
                return Ok(Err("the VM is no longer pending".to_owned()));
            }
            if change.vm.generation != generation {
                return Ok(Err("the VM has changed since".to_owned()));
            }
            // Held until the end: what is wanted of it stays as it is.
            let Some(host) = enrolment::lock(tx, host_id).await? else {
                return Ok(Err("there is no such host".to_owned()));
            };
            if let Some(refusal) = refusal_to_take(&host) {
                return Ok(Err(refusal));
            }
            let left = migration::find(tx, id).await?;
            if left.is_some_and(|left| left.peer.id == host_id) {
                return Ok(Err(format!(
                    "host `{}` still holds what the VM left there",
                    host.name
                )));
            }
            let wanted = ClaimRecord {
                vm_id: id,
                host_id,
                resources: change.vm.resources,
                datastore: change.vm.datastore.clone(),
            };
            match claim::take(tx, &wanted).await? {
                Taken::Ok => {}
                Taken::NoRoom => {
                    let place = match &change.vm.datastore {
                        local if local.is_local() => format!("host `{}`", host.name),
                        other => format!("host `{}`, or its datastore `{other}`,", host.name),
                    };
                    return Ok(Err(format!("{place} has no room any more")));
                }
            }
            change.vm.host = Some(host_ref(&host));
            change.vm.run_epoch = change.vm.run_epoch.saturating_add(1);
            change.vm.explanation = Some(explanation.clone());
            change.vm.explained_at = Some(world.now());
            change.add_event(EventKind::Placed {
                host: host.name.to_string(),
            });
            change.end_step().await?;
            change.save().await.map(Ok)
        })?;
        self.inner.hub.wake();
        match placed {
            Ok((vm, operation)) => {
                self.dispatch(&vm, operation.as_ref()).await;
                Ok(None)
            }
            Err(refused) => Ok(Some(refused)),
        }
    }

    /// Records why a VM still waits; a repeated reason changes nothing.
    async fn not_placed(&self, id: VmId, generation: u64, explanation: Explanation) -> Result<()> {
        let world = self.world();
        write_tx!(self.store(), |tx| {
            let Some(mut change) = Change::lock(tx, world, Actor::Scheduler, id).await? else {
                return Ok(());
            };
            let known = change.vm.explanation.as_ref() == Some(&explanation);
            if change.vm.state != VmState::Pending || change.vm.generation != generation || known {
                return Ok(());
            }
            // Always an event: schedulers learn the new generation from it.
            let reason = vimana_placement::summary(&explanation);
            change.add_event(EventKind::NotPlaced { reason });
            change.vm.explanation = Some(explanation.clone());
            change.vm.explained_at = Some(world.now());
            change.save().await.map(|_| ())
        })?;
        self.inner.hub.wake();
        Ok(())
    }
}

/// Turns what happens into what schedulers want to know.
async fn follow(
    mut changes: broadcast::Receiver<Arc<HubItem>>,
    mut pending: HashSet<VmId>,
    to_scheduler: mpsc::Sender<ToScheduler>,
) {
    loop {
        let change = tokio::select! {
            biased;
            () = to_scheduler.closed() => return,
            change = changes.recv() => change,
        };
        // A scheduler that fell behind is cut off; a new session starts with
        // a new snapshot.
        let Ok(change) = change else { return };
        let frames = [
            change
                .item
                .host
                .as_ref()
                .map(|host| ToScheduler::Host(facts(host))),
            change
                .item
                .vm
                .as_ref()
                .and_then(|vm| vm_frame(&mut pending, vm)),
        ];
        for frame in frames.into_iter().flatten() {
            if to_scheduler.send(frame).await.is_err() {
                return;
            }
        }
    }
}

fn vm_frame(pending: &mut HashSet<VmId>, vm: &VmView) -> Option<ToScheduler> {
    if vm.state == VmState::Pending {
        pending.insert(vm.id);
        return Some(ToScheduler::Pending(PendingVm {
            id: vm.id,
            generation: vm.generation,
            resources: vm.resources,
            datastore: vm.datastore.clone(),
            since: vm.created_at,
        }));
    }
    pending
        .remove(&vm.id)
        .then_some(ToScheduler::Gone { vm_id: vm.id })
}

pub fn facts(host: &HostView) -> HostFacts {
    let reached = host.datastores.iter().filter(|known| known.present);
    let datastores = reached.map(|known| DatastoreFacts {
        name: known.name.clone(),
        id: known.id,
        capacity_mib: known.capacity_mib,
        used_mib: known.used_mib,
    });
    HostFacts {
        id: host.id,
        name: host.name.clone(),
        zone: host.zone.clone(),
        state: host.state,
        connected: host.connected,
        capacity: host.capacity,
        used: host.used,
        datastores: datastores.collect(),
    }
}
