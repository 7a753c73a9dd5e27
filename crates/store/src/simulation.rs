//! A disk for tests on virtual time: a real SQLite file, used by one task at a
//! time while time stands still, and a hook before every call.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tempfile::TempDir;

use crate::group::Group;
use crate::limits::WAIT;
use crate::line::Line;
use crate::pool::Company;
use crate::{Result, StoreError, migrate, pool};

/// Where a store is about to touch its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// A transaction is about to begin.
    Begin,
    /// A query outside of any transaction.
    Read,
    /// A statement of an open transaction, a query too.
    Write,
    /// Nothing of the transaction is durable yet.
    Commit,
    /// All of it is, but nobody was told; an error here is one that comes too
    /// late.
    Committed,
}

/// Awaited before each call: it may take (virtual) time, let others run, or
/// refuse with an error that the store then reports as its own.
pub type Pause =
    Arc<dyn Fn(DiskCall) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync>;

/// What outlives a crash of the store that was opened on it. Clones are the
/// same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Inner>,
}

struct Inner {
    directory: TempDir,
    pause: Mutex<Option<Pause>>,
    /// Of the store that was opened last.
    lines: Mutex<[Weak<Line>; 2]>,
    tries: AtomicU64,
}

impl SimDisk {
    /// An empty disk; the first store opened on it makes its tables.
    ///
    /// # Errors
    /// No directory could be made.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir().map_err(io)?;
        Ok(Self {
            inner: Arc::new(Inner {
                directory,
                pause: Mutex::new(None),
                lines: Mutex::new([Weak::new(), Weak::new()]),
                tries: AtomicU64::new(0),
            }),
        })
    }

    /// Replaces the hook, for open stores too; `None` lets everything pass.
    pub fn set_pause(&self, pause: Option<Pause>) {
        *lock(&self.inner.pause) = pause;
    }

    /// The SQLite file, for those who want to look past the store.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.inner.file()
    }

    /// The connection that reads, and the turns on the one that writes. Whoever still has
    /// those of before finds them closed, and undone what he did not commit.
    pub(crate) fn open(&self) -> Result<(Arc<Line>, Group)> {
        let mut lines = lock(&self.inner.lines);
        for line in lines.iter().filter_map(Weak::upgrade) {
            block_on(line.close())?;
        }
        let file = self.inner.file();
        if !file.exists() {
            std::fs::write(&file, template()?).map_err(io)?;
        }
        let options = options(&file)?;
        let medium = |statement| Medium {
            disk: Arc::clone(&self.inner),
            statement,
        };
        let writer = Line::simulated(options.clone(), medium(DiskCall::Write))?;
        let options = options.pragma("query_only", "ON");
        let reader = Line::simulated(options, medium(DiskCall::Read))?;
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        *lines = [Arc::downgrade(&reader), Arc::downgrade(&writer)];
        Ok((reader, Group::start(writer, None)?))
    }

    /// Stands in for chance, the same in every run.
    pub(crate) fn next_try(&self) -> u64 {
        self.inner.tries.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({})", self.inner.file().display())
    }
}

impl Inner {
    fn file(&self) -> PathBuf {
        self.directory.path().join("vimana.db")
    }
}

/// A line's way to its disk's hook; keeps the disk.
pub(crate) struct Medium {
    disk: Arc<Inner>,
    statement: DiskCall,
}

impl Medium {
    pub async fn pause(&self, call: DiskCall) -> Result<()> {
        // A task that only ever asks the disk would otherwise never let another
        // one run.
        tokio::task::coop::consume_budget().await;
        let pause = lock(&self.disk.pause).clone();
        match pause {
            Some(pause) => pause(call).await,
            None => Ok(()),
        }
    }

    /// What statements on this line are to the hook.
    pub const fn statement(&self) -> DiskCall {
        self.statement
    }
}

/// Waits on the calling thread, wherever that is called from: tokio's own way
/// refuses inside of tokio.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    // Tokio would have a spent task wait for its scheduler, which waits here.
    let mut future = pin!(tokio::task::coop::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn options(file: &Path) -> Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", file.display()))?
        .journal_mode(SqliteJournalMode::Wal)
        // The machine below does not crash, only the store.
        .synchronous(SqliteSynchronous::Off)
        .foreign_keys(true)
        .busy_timeout(WAIT)
        .disable_statement_logging();
    Ok(options)
}

/// A file with all tables and nothing in them. Made once in a process: opening
/// is then a copy.
fn template() -> Result<&'static [u8]> {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(template) = TEMPLATE.get() {
        return Ok(template);
    }
    // On a thread of its own: the pool's patience is measured in the time of
    // its runtime, and the caller's may be virtual.
    let made = std::thread::spawn(make_template)
        .join()
        .map_err(|_| StoreError::Database("migrating a simulated disk panicked".into()))??;
    Ok(TEMPLATE.get_or_init(|| made))
}

fn make_template() -> Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io)?;
    let directory = tempfile::tempdir().map_err(io)?;
    let file = directory.path().join("template.db");
    runtime.block_on(async {
        let pools = pool::open(&format!("sqlite://{}", file.display()), Company::None).await?;
        migrate::up(&pools.writers).await?;
        pools.readers.close().await?;
        pools.writers.close().await?;
        std::fs::read(&file).map_err(io)
    })
}

fn io(error: std::io::Error) -> StoreError {
    StoreError::Database(error.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
