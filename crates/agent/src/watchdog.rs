//! The agent's side of the watchdog: has one run beside it, and tells it what
//! lease the server granted.
//!
//! The watchdog outlives the agent, as the machines do. An agent that ends in
//! an orderly way disarms it; after any other end it finds it as it was.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use vimana_watchdog::limits::MAX_LEASE;
use vimana_watchdog::protocol::{FRAME_BYTES, Message, Request, VERSION};
use vimana_watchdog::{Client, READY, socket_in};

pub use vimana_watchdog::{BootTime, Fenced};

use crate::limits::{
    WATCHDOG_ANSWER_TIMEOUT, WATCHDOG_ATTACH_TIMEOUT, WATCHDOG_LINE_BYTES, WATCHDOG_POLL,
    WATCHDOG_RETRY,
};

/// The binary's name, beside the agent's own.
const BINARY: &str = "vimana-watchdog";

/// Why there is no watchdog.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    #[error("cannot start `{path}`: {error}")]
    Spawn { path: PathBuf, error: io::Error },
    #[error("the watchdog did not start: {0}")]
    Start(String),
    #[error("the watchdog speaks version {0} of its protocol, this agent {VERSION}")]
    Version(u8),
    #[error("the watchdog did not answer within {} s", WATCHDOG_ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("no connection to the watchdog: {0}")]
    Io(#[from] io::Error),
}

/// A host's watchdog, or the lack of one. Clones are the same.
#[derive(Clone, Default)]
pub struct Watchdog(Option<Arc<Handle>>);

struct Handle {
    data_dir: PathBuf,
    orders: watch::Sender<Order>,
    /// The number of the last order the watchdog has heard; `None` while
    /// there is no connection.
    heard: watch::Receiver<Option<u64>>,
    _keeper: AbortOnDropHandle<()>,
}

/// What the watchdog is to know.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// Grows with every order.
    number: u64,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    /// It stays as an earlier agent left it.
    #[default]
    AsItIs,
    Lease {
        until: BootTime,
    },
    Disarmed,
}

impl Watchdog {
    /// No watchdog: no lease is taken.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Connects to the data directory's watchdog, and starts one where none
    /// runs: `binary`, or the one beside the agent's own binary. From then on
    /// there is one as long as the agent lives, if at all possible.
    ///
    /// # Errors
    /// Where there is none and none can be started.
    pub async fn start(data_dir: &Path, binary: Option<&Path>) -> Result<Self, WatchdogError> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => std::env::current_exe()?.with_file_name(BINARY),
        };
        let stream = attach(data_dir, &binary).await?;
        let (sender, orders) = watch::channel(Order::default());
        let (ears, heard) = watch::channel(Some(0));
        let keeper = Keeper {
            data_dir: data_dir.to_owned(),
            binary,
            orders,
            heard: ears,
        };
        Ok(Self(Some(Arc::new(Handle {
            data_dir: data_dir.to_owned(),
            orders: sender,
            heard,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep(stream))),
        }))))
    }

    /// Whether the host's machines would be stopped when a lease is over. If
    /// not, the host must not count as fenced then.
    #[must_use]
    pub fn guards(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|handle| handle.heard.borrow().is_some())
    }

    /// Takes a lease that runs from when the agent sent what the server
    /// answers with it; says whether the host is guarded by it now. One that
    /// is over already is not taken.
    pub fn lease(&self, from: BootTime, lease: Duration) -> bool {
        let until = from.plus(lease.min(MAX_LEASE));
        let Some(handle) = self.0.as_ref().filter(|_| until > BootTime::now()) else {
            return false;
        };
        handle.orders.send_if_modified(|order| {
            let is_news = match order.wanted {
                // What was granted before holds on.
                Wanted::Lease { until: old } => until > old,
                Wanted::AsItIs | Wanted::Disarmed => true,
            };
            if is_news {
                order.renew(Wanted::Lease { until });
            }
            is_news
        });
        self.guards()
    }

    /// The lease is over, and the machines are, too: nothing that the server
    /// said under it may be carried out any more.
    #[must_use]
    pub fn lease_is_over(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|handle| match handle.orders.borrow().wanted {
                Wanted::Lease { until } => until <= BootTime::now(),
                Wanted::AsItIs | Wanted::Disarmed => false,
            })
    }

    /// There is no lease: the machines run on, whatever becomes of the agent
    /// and the server. Does not wait.
    pub fn no_lease(&self) {
        if let Some(handle) = &self.0 {
            handle
                .orders
                .send_modify(|order| order.renew(Wanted::Disarmed));
        }
    }

    /// The same, and waits until the watchdog has heard it: for an agent that
    /// ends in an orderly way.
    pub async fn disarm(&self) {
        let Some(handle) = &self.0 else { return };
        self.no_lease();
        let number = handle.orders.borrow().number;
        let mut heard = handle.heard.clone();
        let heard = heard.wait_for(|heard| heard.is_some_and(|heard| heard >= number));
        if !matches!(timeout(WATCHDOG_ANSWER_TIMEOUT, heard).await, Ok(Ok(_))) {
            tracing::error!("the watchdog cannot be disarmed: it may stop this host's machines");
        }
    }

    /// What a watchdog did that nobody was told yet.
    #[must_use]
    pub fn fenced(&self) -> Option<Fenced> {
        self.0.as_ref().and_then(|handle| fenced(&handle.data_dir))
    }

    /// The server knows.
    pub fn forget(&self, fenced: &Fenced) {
        if let Some(handle) = &self.0
            && let Err(error) = fenced.forget(&handle.data_dir)
        {
            tracing::warn!(%error, "it stays on record that the watchdog stopped machines");
        }
    }
}

/// What a watchdog of this data directory did that nobody was told yet.
#[must_use]
pub fn fenced(data_dir: &Path) -> Option<Fenced> {
    Fenced::read(data_dir).unwrap_or_else(|error| {
        tracing::error!(%error, "what the watchdog did cannot be read");
        None
    })
}

/// Disarms the watchdog of a data directory whose agent does not run, if there
/// is one.
///
/// # Errors
/// Where it does not hear.
pub async fn disarm(data_dir: &Path) -> io::Result<()> {
    let data_dir = data_dir.to_owned();
    let disarmed = tokio::task::spawn_blocking(move || match Client::connect(&data_dir) {
        Ok((mut client, _)) => client.ask(Request::Disarm).map(drop),
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
    });
    disarmed.await?
}

/// Ends the watchdog of a data directory whose agent does not run; says
/// whether there was one.
///
/// # Errors
/// Where it does not end.
pub async fn end_watchdog(data_dir: &Path) -> io::Result<bool> {
    let data_dir = data_dir.to_owned();
    let ended = tokio::task::spawn_blocking(move || match Client::connect(&data_dir) {
        Ok((client, _)) => client.end().map(|()| true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    });
    ended.await?
}

impl Order {
    fn renew(&mut self, wanted: Wanted) {
        self.number = self.number.saturating_add(1);
        self.wanted = wanted;
    }
}

/// The task that keeps a watchdog and the connection to it.
struct Keeper {
    data_dir: PathBuf,
    binary: PathBuf,
    orders: watch::Receiver<Order>,
    heard: watch::Sender<Option<u64>>,
}

impl Keeper {
    async fn keep(mut self, mut stream: UnixStream) {
        loop {
            let Err(error) = self.talk(stream).await else {
                return;
            };
            tracing::error!(%error, "the watchdog is lost");
            self.heard.send_replace(None);
            stream = self.find_again().await;
        }
    }

    /// Ok when the agent is done with it.
    async fn talk(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let mut bytes = Vec::new();
        // What this connection was told, and what was not answered yet.
        let (mut told, mut asked) = (None, None);
        loop {
            let order = *self.orders.borrow_and_update();
            if asked.is_none() && told != Some(order.number) {
                if let Some(request) = request(order.wanted) {
                    stream.write_all(&request.encode()).await?;
                    asked = Some((order.number, Instant::now() + WATCHDOG_ANSWER_TIMEOUT));
                }
                told = Some(order.number);
            }
            let deadline = asked.map_or_else(Instant::now, |(_, deadline)| deadline);
            tokio::select! {
                count = stream.read_buf(&mut bytes) => {
                    if count? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                changed = self.orders.changed(), if asked.is_none() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = sleep_until(deadline), if asked.is_some() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            while let Some(frame) = bytes.first_chunk::<FRAME_BYTES>().copied() {
                bytes.drain(..FRAME_BYTES);
                match Message::decode(frame).ok_or(io::ErrorKind::InvalidData)? {
                    Message::State(_) => {
                        if let Some((number, _)) = asked.take() {
                            self.heard.send_replace(Some(number));
                        }
                    }
                    Message::Alarm { at } => {
                        tracing::error!(%at, "the lease is over: the watchdog stops this host's machines");
                    }
                }
            }
        }
    }

    async fn find_again(&self) -> UnixStream {
        let mut said = String::new();
        loop {
            match attach(&self.data_dir, &self.binary).await {
                Ok(stream) => {
                    tracing::info!("there is a watchdog again");
                    self.heard.send_replace(Some(0));
                    return stream;
                }
                Err(error) => {
                    // Every try fails the same: said once.
                    let says = error.to_string();
                    if says != said {
                        tracing::error!(error = says, "this host is not fenced");
                    }
                    said = says;
                }
            }
            sleep(WATCHDOG_RETRY).await;
        }
    }
}

/// How it is told; even a lease that is over, for a new watchdog has to know.
fn request(wanted: Wanted) -> Option<Request> {
    match wanted {
        Wanted::AsItIs => None,
        Wanted::Lease { until } => Some(Request::Lease { until }),
        Wanted::Disarmed => Some(Request::Disarm),
    }
}

/// A connection to the one watchdog of the data directory, whoever started it.
async fn attach(data_dir: &Path, binary: &Path) -> Result<UnixStream, WatchdogError> {
    let deadline = Instant::now() + WATCHDOG_ATTACH_TIMEOUT;
    loop {
        match timeout(WATCHDOG_ANSWER_TIMEOUT, connect(data_dir)).await {
            Err(_) => return Err(WatchdogError::Silent),
            Ok(Err(WatchdogError::Io(error))) if is_absent(&error) => {}
            Ok(connected) => return connected,
        }
        match start(data_dir, binary).await {
            // A predecessor that is just ending does not take connections
            // any more, and does not let another one begin.
            Err(WatchdogError::Start(_)) if Instant::now() < deadline => {
                sleep(WATCHDOG_POLL).await;
            }
            started => started?,
        }
    }
}

/// Whether none runs, or one that has just ended.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

async fn connect(data_dir: &Path) -> Result<UnixStream, WatchdogError> {
    let (_dir, path) = socket_in(data_dir)?;
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(&[VERSION]).await?;
    let version = stream.read_u8().await?;
    if version != VERSION {
        return Err(WatchdogError::Version(version));
    }
    let mut frame = [0; FRAME_BYTES];
    stream.read_exact(&mut frame).await?;
    // How it stands is of no matter: it is told what it is to be.
    match Message::decode(frame) {
        Some(Message::State(_) | Message::Alarm { .. }) => Ok(stream),
        None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// Starts one and waits until it can be spoken to.
async fn start(data_dir: &Path, binary: &Path) -> Result<(), WatchdogError> {
    let mut child = Command::new(binary)
        .arg("--data-dir")
        .arg(data_dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It lives longer than whoever reads ours.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| WatchdogError::Spawn {
            path: binary.to_owned(),
            error,
        })?;
    let said = child.stdout.take();
    // So that it does not stay as a zombie when it ends.
    tokio::spawn(async move { child.wait().await });
    let mut line = String::new();
    if let Some(said) = said {
        let mut said = BufReader::new(said.take(WATCHDOG_LINE_BYTES));
        timeout(WATCHDOG_ANSWER_TIMEOUT, said.read_line(&mut line))
            .await
            .map_err(|_| WatchdogError::Silent)??;
    }
    match line.trim() {
        READY => Ok(()),
        "" => Err(WatchdogError::Start("it ended at once".to_owned())),
        reason => Err(WatchdogError::Start(reason.to_owned())),
    }
}
