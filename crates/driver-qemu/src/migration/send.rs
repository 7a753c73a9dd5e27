//! The source's side: disk, memory, and the moment in which the guest stands
//! still; and the way back, as long as nobody lets it run elsewhere.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vimana_driver::{CopyWatcher, DiskPlan, Fault, FaultKind, Power, Sending};
use vimana_model::migration::{CopyPhase, Sent};

use super::mirror::{self, Mirror, mirrors};
use super::tls::{self, End};
use super::watch::Watch;
use super::{Journey, Leaving, able, hypervisor, on_disk};
use crate::argv::ROOT_DEVICE;
use crate::guest;
use crate::host::{Turn, not_running, overtaken};
use crate::limits::{
    FIRST_DOWNTIME_MS, REACH_TIMEOUT, ROUNDS_AT_FIRST, ROUNDS_BEFORE, ROUNDS_IN_VAIN, SEND_TIMEOUT,
    SWITCHOVER_TIMEOUT, WATCH_EVERY,
};
use crate::machine::{self, Intent, Machine};
use crate::qmp::{Migration, Moving, Passage, Port, Qmp, QmpError, RunState, Terms};
use crate::record;

/// What QEMU says of a connection that is gone.
const BROKEN_CONNECTION: [&str; 6] = [
    "Input/output error",
    "TLS channel",
    "Connection reset",
    "Broken pipe",
    "from socket",
    "to socket",
];
/// What who serves disks says first, before anything is encrypted.
const NBD_MAGIC: [u8; 8] = *b"NBDMAGIC";

/// See [`vimana_driver::HostDriver::send`].
pub async fn send(turn: Turn, sending: Sending, watcher: CopyWatcher) -> Result<Sent, Fault> {
    let (machine, before) = may_send(&turn, &sending)?;
    if let Some(sent) = before.and_then(|leaving| leaving.sent) {
        return Ok(sent);
    }
    turn.still_wanted()?;
    let leaving = match before {
        Some(leaving) => leaving,
        None => begin(&turn, &sending).await?,
    };
    let volumes = turn.host.volumes.of(turn.vm.id);
    let mut sender = Sender {
        turn: &turn,
        machine: &machine,
        qmp: machine.qmp(),
        leaving,
        mirrors: Vec::new(),
        watch: Watch::new(watcher),
        since: Instant::now(),
        stands_since: None,
        disk_bytes: None,
        downtime_ms: sending.max_downtime_ms.min(FIRST_DOWNTIME_MS),
        most_since: None,
        sending,
    };
    let going = async {
        let root = sender.qmp.node_of(ROOT_DEVICE).await;
        let root = root.map_err(|error| unsent(&error))?;
        sender.mirrors = mirrors(turn.vm.id, &root, &volumes, &sender.sending.disks);
        match before {
            Some(_) => sender.go_on().await,
            None => sender.go().await,
        }
    };
    let gone = turn.cancelled.run_until_cancelled(going).await;
    let gone = gone.unwrap_or_else(|| Err(overtaken()));
    if gone.is_err()
        && let Err(error) = take_back(&turn, &machine).await
    {
        // The supervisor lets it run on as soon as QEMU answers.
        tracing::warn!(vm = %turn.vm.id, %error, "a machine that was not sent does not run on");
    }
    gone
}

/// See [`vimana_driver::HostDriver::call_off`].
pub async fn call_off(turn: Turn) -> Result<(), Fault> {
    let held = turn.held()?;
    let Some(machine) = held.machine else {
        return Ok(());
    };
    match held.journey {
        Some(Journey::Leaving(_)) => return take_back(&turn, &machine).await,
        // It never was here to leave.
        Some(Journey::Arriving(_)) => return Ok(()),
        None => {}
    }
    // It may have been tried before.
    let _motion = machine.motion().await;
    let qmp = machine.qmp();
    let runs = match qmp.query_status().await {
        Ok(RunState::Paused | RunState::FinishMigrate | RunState::Postmigrate)
            if machine.intent() == Intent::None =>
        {
            machine::run_on(&qmp).await
        }
        other => other.map(drop),
    };
    ran_on(&machine, runs)
}

/// All that refuses a sending from its beginning; and how far an earlier agent
/// got with it.
fn may_send(turn: &Turn, to: &Sending) -> Result<(Arc<Machine>, Option<Leaving>), Fault> {
    let conflict = |message: &str| Err(Fault::new(FaultKind::Conflict, message));
    let held = turn.held()?;
    let machine = match (held.power, held.machine) {
        (Power::Saved, _) => return conflict("the machine's memory is saved"),
        (_, Some(machine)) if machine.intent() == Intent::Saved => {
            return conflict("the machine's memory is saved");
        }
        (Power::Running | Power::Left, Some(machine)) => machine,
        _ => return Err(not_running()),
    };
    match held.journey {
        Some(Journey::Leaving(leaving)) if leaving.endpoint == to.endpoint => {
            return Ok((machine, Some(leaving)));
        }
        Some(_) => return conflict("the machine is on its way to another place"),
        None => {}
    }
    able(&turn.host)?;
    let plain = turn.host.config.migration.tls.is_none();
    if plain != to.endpoint.plain {
        let message = "of the two hosts, one sends machines encrypted and the other one does not";
        return Err(Fault::new(FaultKind::Unsupported, message));
    }
    let volumes = turn.host.volumes.of(turn.vm.id);
    if !to.disks.names_all(volumes.iter().map(|plug| plug.volume)) {
        return Err(DiskPlan::other_volumes());
    }
    let snapshots = turn.host.snapshots.of(turn.vm.id);
    snapshots.may_leave(&to.disks)?;
    if !snapshots.taken.is_empty() && !to.disks.shares_all() {
        return Err(DiskPlan::copies_without_snapshots());
    }
    Ok((machine, None))
}

/// First the record: from now on nobody else lets the guest run on.
async fn begin(turn: &Turn, sending: &Sending) -> Result<Leaving, Fault> {
    let leaving = Leaving {
        run_epoch: turn.epoch,
        to: sending.to,
        endpoint: sending.endpoint,
        began_ms: now_ms(),
        sent: None,
        switched: None,
        gone: false,
    };
    let dir = turn.dir();
    let what = "recording that the machine leaves";
    on_disk(what, move || record::write(&dir, &leaving)).await?;
    turn.vm.change(&turn.host, |held| {
        held.journey = Some(Journey::Leaving(leaving));
    });
    Ok(leaving)
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    ms(now.unwrap_or_default())
}

pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A sending under way.
struct Sender<'a> {
    turn: &'a Turn,
    machine: &'a Arc<Machine>,
    qmp: Qmp,
    sending: Sending,
    leaving: Leaving,
    /// Of the disks that are copied.
    mirrors: Vec<Mirror>,
    watch: Watch,
    since: Instant,
    /// When the guest was seen to stand still.
    stands_since: Option<Instant>,
    /// Of the disks, once their copies have ended.
    disk_bytes: Option<u64>,
    /// What is allowed by now of the time that the guest may stand still.
    downtime_ms: u64,
    /// Since when it may for as long as is allowed at all, and after how many rounds.
    most_since: Option<(Instant, u64)>,
}

impl Sender<'_> {
    async fn go(&mut self) -> Result<Sent, Fault> {
        self.copy_disks().await?;
        // One that stands still here would do so there, where nobody knows.
        guest::goes_on(self.machine, &self.turn.dir()).await?;
        let machine = self.machine;
        let _motion = machine.motion().await;
        let events = self.begin_memory().await.map_err(|error| unsent(&error))?;
        self.copy_memory(events).await
    }

    /// Where an agent that died has begun.
    async fn go_on(&mut self) -> Result<Sent, Fault> {
        let machine = self.machine;
        let _motion = machine.motion().await;
        let found = async {
            let events = self.qmp.events().ok_or(QmpError::Closed)?;
            let state = self.qmp.query_migrate().await?;
            let status = self.qmp.query_status().await?;
            let in_step = mirror::stand(&self.qmp, &self.mirrors).await?.in_step;
            let goes_on = match state {
                Migration::Setup | Migration::Underway | Migration::Waiting => true,
                // That of an earlier sending says nothing.
                Migration::Completed => status == RunState::Postmigrate,
                Migration::PostCopy
                | Migration::None
                | Migration::Cancelled
                | Migration::Failed { .. } => false,
            };
            Ok((in_step && goes_on).then_some(events))
        };
        let found: Result<_, QmpError> = found.await;
        let Some(events) = found.map_err(|error| unsent(&error))? else {
            return Err(failed("the agent was started anew in the middle"));
        };
        self.copy_memory(events).await
    }

    /// Has QEMU copy the disks, and keep both hosts in step from then on.
    async fn copy_disks(&mut self) -> Result<(), Fault> {
        give_up(&self.qmp).await.map_err(|error| unsent(&error))?;
        let (host, dir) = (&self.turn.host, self.turn.dir());
        if self.mirrors.is_empty() {
            tls::provide(host, &dir, &self.qmp, End::Client).await?;
            return Ok(());
        }
        let to = Port {
            address: self.sending.endpoint.address,
            port: self.sending.endpoint.disk_port,
        };
        // QEMU would stand still as a whole for as long as nobody answers there.
        let answers = timeout(REACH_TIMEOUT, answers(to)).await;
        if !matches!(answers, Ok(Ok(true))) {
            return Err(failed("the other host does not wait for it"));
        }
        let tls = tls::provide(host, &dir, &self.qmp, End::Client).await?;
        let peer = tls.then(|| self.sending.to.to_string());
        let (qmp, mirrors) = (self.qmp.clone(), self.mirrors.clone());
        let speed = self.sending.max_bytes_per_s;
        let copying = mirror::begin(&qmp, &mirrors, to, peer.as_deref(), speed);
        tokio::pin!(copying);
        loop {
            tokio::select! {
                copied = &mut copying => {
                    copied.map_err(|error| unsent(&error))?;
                    break;
                }
                () = sleep(WATCH_EVERY) => self.look_at_disks().await?,
            }
        }
        self.look_at_disks().await
    }

    async fn look_at_disks(&mut self) -> Result<(), Fault> {
        if let Ok(stand) = mirror::stand(&self.qmp, &self.mirrors).await {
            let left = stand.total.saturating_sub(stand.done);
            self.watch.tell(CopyPhase::Disks, left, stand.done, (0, 0));
        }
        self.watch.goes_on()
    }

    /// Has QEMU begin to copy the memory; what it says from then on.
    async fn begin_memory(&self) -> Result<broadcast::Receiver<String>, QmpError> {
        let qmp = &self.qmp;
        match qmp.query_status().await? {
            // Left so by something that was interrupted before.
            RunState::Paused
            | RunState::FinishMigrate
            | RunState::Postmigrate
            | RunState::Prelaunch
            | RunState::Other => machine::run_on(qmp).await?,
            RunState::Running
            | RunState::Inmigrate
            | RunState::Shutdown
            | RunState::IoError
            | RunState::InternalError => {}
        }
        let tls = self.turn.host.config.migration.tls.is_some();
        let name = self.sending.to.to_string();
        let passage = Passage::Out {
            limit: self.sending.max_bytes_per_s,
            downtime_ms: self.downtime_ms,
            tls: tls.then_some((tls::CREDENTIALS, &name)),
            pauses: !self.mirrors.is_empty() || self.sending.endpoint.post_copy,
            how: Terms {
                channels: self.sending.endpoint.channels,
                post_copy: self.sending.endpoint.post_copy,
            },
        };
        qmp.prepare_migration(passage).await?;
        let events = qmp.events().ok_or(QmpError::Closed)?;
        let to = Port {
            address: self.sending.endpoint.address,
            port: self.sending.endpoint.memory_port,
        };
        qmp.migrate_to(to).await?;
        Ok(events)
    }

    /// Sees the memory to its end. From the moment in which the guest stands still
    /// all is done as fast as QEMU says how far it is.
    async fn copy_memory(
        &mut self,
        mut events: broadcast::Receiver<String>,
    ) -> Result<Sent, Fault> {
        let deadline = Instant::now() + SEND_TIMEOUT;
        let still = Duration::from_millis(self.sending.max_downtime_ms);
        let still = SWITCHOVER_TIMEOUT.saturating_add(still);
        let mut told_to_go_on = false;
        let mut at_once = false;
        loop {
            let moving = self.qmp.query_moving().await;
            let moving = moving.map_err(|error| unsent(&error))?;
            // All that was said before that answer, and maybe after it.
            let changed = self.hear(&mut events, Duration::ZERO).await?;
            match &moving.state {
                Migration::Completed => return self.arrived(&moving).await,
                Migration::Waiting if !told_to_go_on => {
                    self.stands_since.get_or_insert_with(Instant::now);
                    let ended = mirror::end(&self.qmp, &self.mirrors).await;
                    self.disk_bytes = Some(ended.map_err(|error| unsent(&error))?);
                    let goes_on = self.qmp.migrate_continue().await;
                    goes_on.map_err(|error| unsent(&error))?;
                    told_to_go_on = true;
                }
                Migration::Underway
                    if self.sending.endpoint.post_copy
                        && moving.memory.dirty_sync_count > ROUNDS_BEFORE
                        && self.stands_by().await? =>
                {
                    return self.arrived(&moving).await;
                }
                Migration::PostCopy => return Err(failed("nobody has asked for its rest yet")),
                Migration::Setup | Migration::Underway | Migration::Waiting => {
                    if !at_once && moving.state == Migration::Underway {
                        at_once = true;
                        self.send_at_once();
                    }
                    self.tell_memory(&moving);
                    if !self.sending.endpoint.post_copy {
                        self.allow_more(&moving).await;
                        self.gets_anywhere(&moving)?;
                    }
                    self.watch.goes_on()?;
                    if self.stands_since.is_none() {
                        self.stays_in_step().await?;
                    }
                }
                Migration::Failed { reason } => return Err(broke(reason)),
                Migration::None | Migration::Cancelled => {
                    return Err(failed("QEMU cancelled it"));
                }
            }
            let late = self
                .stands_since
                .is_some_and(|since| since.elapsed() > still);
            if late || Instant::now() > deadline {
                return Err(failed("the other host takes too long"));
            }
            if !changed {
                self.hear(&mut events, WATCH_EVERY).await?;
            }
        }
    }

    /// A guest goes on writing where the other host takes no more: nothing would come
    /// of its memory.
    async fn stays_in_step(&self) -> Result<(), Fault> {
        if self.mirrors.is_empty() {
            return Ok(());
        }
        let stand = mirror::stand(&self.qmp, &self.mirrors).await;
        match stand.map_err(|error| unsent(&error))?.broken {
            Some(reason) => Err(broke(&reason)),
            None => Ok(()),
        }
    }

    /// By post-copy: stops the guest, and ends the mirrors. Whether both have its disks
    /// and it stands still; not where QEMU is at the end of all of it just now. It is
    /// stopped before QEMU does it, which would let it run on where the rest fails:
    /// that is for us to decide alone.
    async fn stands_by(&mut self) -> Result<bool, Fault> {
        let stopping = async {
            self.qmp.stop().await?;
            if self.qmp.query_status().await? != RunState::Paused {
                return Ok(false);
            }
            self.stands_since.get_or_insert_with(Instant::now);
            self.disk_bytes = Some(mirror::end(&self.qmp, &self.mirrors).await?);
            Ok(true)
        };
        let stopping: Result<_, QmpError> = stopping.await;
        stopping.map_err(|error| unsent(&error))
    }

    /// A memory that is changed faster than the short end takes gets a longer one,
    /// round after round: no guest stands still for longer than it has to.
    async fn allow_more(&mut self, moving: &Moving) {
        let most = self.sending.max_downtime_ms;
        let late = moving
            .memory
            .dirty_sync_count
            .saturating_sub(ROUNDS_AT_FIRST);
        let doublings = u32::try_from(late).unwrap_or(u32::MAX).min(63);
        let allowed = FIRST_DOWNTIME_MS
            .saturating_mul(1_u64 << doublings)
            .min(most);
        if allowed > self.downtime_ms {
            self.downtime_ms = allowed;
            if let Err(error) = self.qmp.allow_downtime(allowed).await {
                tracing::debug!(vm = %self.turn.vm.id, %error, "a longer end is not allowed yet");
            }
        }
    }

    /// Nobody waits for ever for a guest that changes its memory faster than it is copied.
    fn gets_anywhere(&mut self, moving: &Moving) -> Result<(), Fault> {
        if self.downtime_ms < self.sending.max_downtime_ms || self.stands_since.is_some() {
            return Ok(());
        }
        let rounds = moving.memory.dirty_sync_count;
        let (since, first) = *self.most_since.get_or_insert((Instant::now(), rounds));
        let in_vain = self.turn.host.config.migration.in_vain;
        if since.elapsed() < in_vain || rounds.saturating_sub(first) < ROUNDS_IN_VAIN {
            return Ok(());
        }
        let reason = "its guest changes its memory faster than it is copied; send it at a \
                      quieter time, with more bandwidth, a longer downtime, or by post-copy";
        Err(failed(reason))
    }

    /// It is connected now.
    fn send_at_once(&self) {
        let endpoint = self.sending.endpoint;
        let to = (endpoint.address, endpoint.memory_port).into();
        if let Err(error) = self.machine.process.send_at_once(to) {
            tracing::debug!(vm = %self.turn.vm.id, %error, "a machine's last bytes may wait for others");
        }
    }

    /// Returns once the move is said to be further, or when the time is over: which
    /// of the two it was.
    async fn hear(
        &mut self,
        events: &mut broadcast::Receiver<String>,
        within: Duration,
    ) -> Result<bool, Fault> {
        let deadline = Instant::now() + within;
        let mut further = false;
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Lagged(_)) => return Ok(true),
                Err(TryRecvError::Empty | TryRecvError::Closed) if further || within.is_zero() => {
                    return Ok(further);
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => {
                    match timeout_at(deadline, events.recv()).await {
                        Ok(Ok(event)) => event,
                        Ok(Err(_)) | Err(_) => return Ok(false),
                    }
                }
            };
            match event.as_str() {
                "SHUTDOWN" => return Err(failed("its guest has just switched itself off")),
                "STOP" => {
                    self.stands_since.get_or_insert_with(Instant::now);
                }
                "RESUME" => self.stands_since = None,
                "MIGRATION" => further = true,
                // By post-copy, whoever has been through the memory once waits no longer.
                "MIGRATION_PASS" => further |= self.sending.endpoint.post_copy,
                _ => {}
            }
        }
    }

    fn tell_memory(&mut self, moving: &Moving) {
        let memory = &moving.memory;
        let dirty = memory.dirty_pages_rate.saturating_mul(memory.page_size);
        let phase = match self.stands_since {
            Some(_) => CopyPhase::Switchover,
            None => CopyPhase::Memory,
        };
        let rounds = memory.dirty_sync_count;
        self.watch
            .tell(phase, memory.remaining, memory.transferred, (dirty, rounds));
    }

    /// Everything is there that is to be before the other host has it, and nothing of
    /// it runs.
    async fn arrived(&mut self, moving: &Moving) -> Result<Sent, Fault> {
        let stood = self.stands_since.map(|since| ms(since.elapsed()));
        let disk_bytes = match self.disk_bytes {
            Some(bytes) => bytes,
            None if self.mirrors.is_empty() => 0,
            // An earlier agent has ended them.
            None => {
                let stand = mirror::stand(&self.qmp, &self.mirrors).await;
                stand.map_or(0, |stand| stand.done)
            }
        };
        let clock = now_ms().saturating_sub(self.leaving.began_ms);
        let sent = Sent {
            transferred_bytes: moving.memory.transferred.saturating_add(disk_bytes),
            total_ms: ms(self.since.elapsed()).max(clock).max(1),
            downtime_ms: moving.downtime_ms,
            // QEMU may know it better: it has stopped the guest before it says so.
            paused_ms: stood.unwrap_or(0).max(moving.downtime_ms),
        };
        self.leaving.sent = Some(sent);
        let (dir, leaving) = (self.turn.dir(), self.leaving);
        // What has left as a whole, QEMU tells whoever asks after us: the guest, which
        // stands still, does not wait for the disk.
        if leaving.endpoint.post_copy {
            // It counts for as long as the process lives.
            let what = "recording that the machine has left";
            on_disk(what, move || record::write_for_now(&dir, &leaving)).await?;
        }
        let _ending = self.machine.ending.lock().await;
        if self.machine.is_gone() {
            return Err(unsent(&QmpError::Closed));
        }
        self.turn.vm.change(&self.turn.host, |held| {
            held.journey = Some(Journey::Leaving(leaving));
            held.power = Power::Left;
        });
        Ok(sent)
    }
}

/// The machine runs on here, and QEMU does nothing any more for its leaving.
/// Where the driver is dropped everything stays as it is, for the next one.
async fn take_back(turn: &Turn, machine: &Arc<Machine>) -> Result<(), Fault> {
    let back = async {
        let _motion = machine.motion().await;
        let qmp = machine.qmp();
        // A guest that writes waits for the other host until then.
        let _ = mirror::cancel(&qmp).await;
        let runs = machine::run_on(&qmp).await;
        if let Err(error) = give_up(&qmp).await {
            // The next sending tries again.
            tracing::warn!(vm = %turn.vm.id, %error, "something of a machine's leaving is left");
        }
        let dir = turn.dir();
        let what = "recording that the machine stays";
        let erased = on_disk(what, move || record::erase::<Leaving>(&dir)).await;
        let _ending = machine.ending.lock().await;
        turn.vm.change(&turn.host, |held| {
            held.journey = None;
            if held.machine.is_some() {
                held.power = Power::Running;
            }
        });
        ran_on(machine, runs).and(erased)
    };
    let back = turn.host.closing.run_until_cancelled(back).await;
    back.unwrap_or_else(|| Err(overtaken()))
}

/// A machine that has ended, or is about to, needs not run on.
fn ran_on(machine: &Machine, runs: Result<(), QmpError>) -> Result<(), Fault> {
    match runs {
        Err(_) if machine.is_gone() => Ok(()),
        runs => runs.map_err(|error| hypervisor("the machine does not run on", &error)),
    }
}

/// Ends what QEMU still does for the disks, and lets go of the other host.
async fn give_up(qmp: &Qmp) -> Result<(), QmpError> {
    mirror::give_up(qmp).await?;
    tls::withdraw(qmp).await
}

/// Whether a QEMU serves disks there, and is awake.
async fn answers(at: Port) -> io::Result<bool> {
    let mut stream = TcpStream::connect((at.address, at.port)).await?;
    let mut greeting = [0; NBD_MAGIC.len()];
    stream.read_exact(&mut greeting).await?;
    Ok(greeting == NBD_MAGIC)
}

fn unsent(error: &QmpError) -> Fault {
    if let QmpError::Refused { description, .. } = error {
        return broke(description);
    }
    hypervisor("the machine was not sent", error)
}

/// In words for people, what QEMU says of the two hosts.
fn broke(reason: &str) -> Fault {
    // It has no other way of saying it.
    if reason.contains("No space left") || reason.contains("quota exceeded") {
        let message = "the machine was not sent: the disk of the host that it goes to is full";
        return Fault::new(FaultKind::NoSpace, message);
    }
    let cut = BROKEN_CONNECTION.iter().any(|words| reason.contains(words));
    if cut {
        tracing::info!(reason, "a machine's way to another host broke");
        return failed("the connection to the other host broke, or its machine ended there");
    }
    failed(reason)
}

pub fn failed(reason: &str) -> Fault {
    let message = format!("the machine was not sent: {reason}");
    Fault::new(FaultKind::Hypervisor, message)
}
