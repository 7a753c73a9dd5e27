//! The watchdog itself: one thread that waits for an agent's word or for the
//! end of the lease, whichever comes first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use crate::clock::Alarm;
use crate::fencing::{Fencing, Place};
use crate::limits::{ACCEPT_RETRY, MAX_CLIENTS, MAX_LEASE, ROUND_CAP};
use crate::log::Log;
use crate::protocol::{FRAME_BYTES, Message, Request, State, VERSION};
use crate::{BootTime, MACHINES, SOCKET, client, machines};

const LOCK: &str = "watchdog.lock";

/// Why a watchdog does not run.
#[derive(Debug)]
pub enum StartError {
    /// Another one guards this data directory.
    Running,
    Io {
        what: &'static str,
        error: io::Error,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running => f.write_str("another watchdog guards this data directory"),
            Self::Io { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

enum Mode {
    Disarmed,
    Armed { until: BootTime },
    Fenced(Fencing),
}

/// A watchdog that can be spoken to.
pub struct Guard {
    place: Place,
    linger: Duration,
    mode: Mode,
    /// Killed machines of an earlier fencing that have not ended yet.
    leaving: Option<Fencing>,
    listener: UnixListener,
    /// No connection is taken before.
    deaf_until: Option<BootTime>,
    clients: Vec<Talk>,
    alarm: Alarm,
    /// Since when nobody needs it.
    idle_since: Option<BootTime>,
    ended: bool,
    /// Held until it is gone.
    _lock: File,
}

/// One connection.
struct Talk {
    stream: UnixStream,
    greeted: bool,
    heard: Vec<u8>,
    over: bool,
}

impl Guard {
    /// Takes the data directory over. With nothing to guard and nobody
    /// connected it will end after `linger`.
    ///
    /// # Errors
    /// [`StartError::Running`] where there is one already.
    pub fn open(data_dir: &Path, linger: Duration) -> Result<Self, StartError> {
        let io = |what| move |error| StartError::Io { what, error };
        let dir = data_dir
            .canonicalize()
            .map_err(io("use the data directory"))?;
        let lock = lock(&dir)?;
        let listener = listen(&dir).map_err(io("listen"))?;
        let place = Place {
            machines: dir.join(MACHINES),
            boot_id: machines::host_boot().map_err(io("identify this run of the host"))?,
            log: Log::open(&dir).map_err(io("open the log"))?,
            dir,
        };
        let mut guard = Self {
            place,
            linger,
            mode: Mode::Disarmed,
            leaving: None,
            listener,
            deaf_until: None,
            clients: Vec::with_capacity(MAX_CLIENTS),
            alarm: Alarm::new().map_err(io("make an alarm"))?,
            // Whoever started it may be gone before it says a word.
            idle_since: Some(BootTime::now()),
            ended: false,
            _lock: lock,
        };
        guard.find_machines();
        guard.place.log.say(format_args!("the watchdog is ready"));
        Ok(guard)
    }

    /// Works until nobody needs it.
    pub fn run(mut self) {
        while !self.ended {
            self.wait();
            let now = BootTime::now();
            self.accept(now);
            // Before the time is looked at: a lease that came counts.
            let mut clients = std::mem::take(&mut self.clients);
            clients.iter_mut().for_each(|talk| self.hear(talk, now));
            self.clients = clients;
            self.act(now);
            self.clients.retain(|talk| !talk.over);
            self.idle(now);
        }
        // While the lock is still held: it is this watchdog's.
        let _ = fs::remove_file(self.place.dir.join(SOCKET));
        self.place.log.say(format_args!("the watchdog ends"));
    }

    /// Until somebody speaks or it is time for something.
    fn wait(&self) {
        let rings = self.alarm.set(self.deadline()).is_ok();
        let mut watched = Vec::with_capacity(MAX_CLIENTS.saturating_add(2));
        watched.push(PollFd::new(&self.alarm, PollFlags::IN));
        if self.deaf_until.is_none() {
            watched.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for talk in &self.clients {
            watched.push(PollFd::new(&talk.stream, PollFlags::IN));
        }
        let soon = Timespec::try_from(ROUND_CAP).unwrap_or_default();
        // Without an alarm it looks again and again; any error of poll is as
        // good as an event.
        let _ = poll(&mut watched, (!rings).then_some(&soon));
    }

    fn deadline(&self) -> Option<BootTime> {
        let duty = match &self.mode {
            Mode::Disarmed => None,
            Mode::Armed { until } => Some(*until),
            // An agent that is there may start machines; nobody else does.
            Mode::Fenced(fencing) if self.clients.is_empty() && fencing.is_settled() => None,
            Mode::Fenced(fencing) => Some(fencing.next()),
        };
        let leaving = self.leaving.as_ref().map(Fencing::next);
        let end = self.idle_since.map(|since| since.plus(self.linger));
        [duty, leaving, end, self.deaf_until]
            .into_iter()
            .flatten()
            .min()
    }

    fn accept(&mut self, now: BootTime) {
        if self.deaf_until.is_some_and(|until| now < until) {
            return;
        }
        self.deaf_until = None;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // It would be told again at once.
                    self.place
                        .log
                        .say(format_args!("a connection is lost: {error}"));
                    self.deaf_until = Some(now.plus(ACCEPT_RETRY));
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        let is_ours = socket_peercred(&stream).is_ok_and(|peer| peer.uid == geteuid());
        if !is_ours || self.clients.len() >= MAX_CLIENTS || stream.set_nonblocking(true).is_err() {
            self.place.log.say(format_args!("a connection is refused"));
            return;
        }
        let mut talk = Talk {
            stream,
            greeted: false,
            heard: Vec::new(),
            over: false,
        };
        talk.say(&[VERSION]);
        talk.say(&Message::State(self.state()).encode());
        self.clients.push(talk);
    }

    /// Takes in and answers what one connection has to say.
    fn hear(&mut self, talk: &mut Talk, now: BootTime) {
        talk.read();
        if !talk.greeted && !talk.heard.is_empty() {
            talk.greeted = true;
            if talk.heard.remove(0) != VERSION {
                talk.over = true;
                talk.heard.clear();
            }
        }
        while let Some(frame) = talk.heard.first_chunk::<FRAME_BYTES>().copied() {
            talk.heard.drain(..FRAME_BYTES);
            let Some(request) = Request::decode(frame) else {
                self.place
                    .log
                    .say(format_args!("a connection talks nonsense"));
                talk.over = true;
                return;
            };
            self.obey(request, now);
            talk.say(&Message::State(self.state()).encode());
        }
    }

    fn obey(&mut self, request: Request, now: BootTime) {
        match request {
            Request::Lease { until } => self.lease(until.min(now.plus(MAX_LEASE)), now),
            Request::Disarm => self.disarm(),
            Request::End => {
                self.disarm();
                self.ended = true;
            }
        }
    }

    fn lease(&mut self, until: BootTime, now: BootTime) {
        match &mut self.mode {
            Mode::Armed { until: old } => *old = until.max(*old),
            // It comes too late to end anything.
            Mode::Fenced(_) if until <= now => {}
            Mode::Disarmed | Mode::Fenced(_) => {
                let held = now.until(until).as_millis();
                self.place
                    .log
                    .say(format_args!("armed; the lease holds {held} ms"));
                self.turn(Mode::Armed { until });
                self.find_machines();
            }
        }
    }

    fn disarm(&mut self) {
        match self.mode {
            Mode::Disarmed => {}
            Mode::Armed { .. } | Mode::Fenced(_) => {
                self.place.log.say(format_args!("disarmed"));
                self.turn(Mode::Disarmed);
            }
        }
    }

    fn turn(&mut self, mode: Mode) {
        match std::mem::replace(&mut self.mode, mode) {
            Mode::Fenced(mut fencing) if !fencing.is_settled() => {
                if let Some(earlier) = self.leaving.take() {
                    fencing.absorb(earlier);
                }
                self.leaving = Some(fencing);
            }
            Mode::Disarmed | Mode::Armed { .. } | Mode::Fenced(_) => {}
        }
    }

    /// What the time demands.
    fn act(&mut self, now: BootTime) {
        if let Mode::Armed { until } = self.mode
            && until <= now
        {
            self.turn(Mode::Fenced(Fencing::new(until)));
            let alarm = Message::Alarm { at: until }.encode();
            self.clients.iter_mut().for_each(|talk| talk.say(&alarm));
        }
        if let Mode::Fenced(fencing) = &mut self.mode
            && fencing.next() <= now
        {
            fencing.round(&self.place, now);
        }
        if let Some(fencing) = &mut self.leaving
            && fencing.next() <= now
        {
            fencing.see_off(&self.place, now);
        }
        if self.leaving.as_ref().is_some_and(Fencing::is_settled) {
            self.leaving = None;
        }
    }

    fn idle(&mut self, now: BootTime) {
        let duty = match &self.mode {
            Mode::Disarmed => false,
            Mode::Armed { .. } => true,
            Mode::Fenced(fencing) => !fencing.is_settled(),
        };
        if duty || self.leaving.is_some() || !self.clients.is_empty() {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert(now);
        self.ended |= since.until(now) >= self.linger;
    }

    fn state(&self) -> State {
        match &self.mode {
            Mode::Disarmed => State::Disarmed,
            Mode::Armed { until } => State::Armed { until: *until },
            Mode::Fenced(fencing) => State::Fenced { at: fencing.at() },
        }
    }

    /// Where the machines are without links on the way: processes are
    /// recognized by it. Asked early: when it is needed, the disk may hang.
    fn find_machines(&mut self) {
        if let Ok(machines) = self.place.dir.join(MACHINES).canonicalize() {
            self.place.machines = machines;
        }
    }
}

impl Talk {
    /// Reads what is here, a bounded amount of it.
    fn read(&mut self) {
        let mut bytes = [0; 16 * FRAME_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.over = true,
            Ok(count) => self.heard.extend(bytes.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.over = true,
        }
    }

    /// Who does not take a few bytes at once is not listened to any more.
    fn say(&mut self, bytes: &[u8]) {
        self.over |= !matches!(self.stream.write(bytes), Ok(count) if count == bytes.len());
    }
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let locking = |error| StartError::Io {
        what: "lock the data directory",
        error,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK))
        .map_err(locking)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running),
        Err(TryLockError::Error(error)) => Err(locking(error)),
    }
}

/// Binds the socket in the place of one that a predecessor left.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let (_dir, path): (File, PathBuf) = client::socket_in(dir)?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
