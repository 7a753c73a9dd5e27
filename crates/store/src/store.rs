//! The two pools and the way to a transaction.

use std::fmt;
use std::sync::Arc;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, IsolationLevel, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::group::Group;
use crate::limits::{POSTGRES_WRITERS, TURN};
use crate::line::Line;
use crate::link::Link;
use crate::pool::{Company, Pools, SqliteFile};
#[cfg(feature = "simulation")]
use crate::simulation::SimDisk;
use crate::tx::Jitter;
use crate::{Result, StoreError, migrate, pool};

/// The database of one installation. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// Never lent to a transaction: so one who reads while a transaction of
    /// his own is open does not wait for himself.
    readers: Link,
    writers: Writers,
    jitter: Jitter,
}

enum Writers {
    Postgres {
        pool: DatabaseConnection,
        /// One permit per connection. Who waits, waits here and in order, not
        /// in the pool, whose patience ends in an error.
        turns: Arc<Semaphore>,
    },
    Sqlite(Group),
}

/// Reads what is committed; each call sees a moment of its own.
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

/// Reads one moment of the database, however long that takes.
///
/// Keep it short: a SQLite log grows for as long as it is open.
pub struct Snapshot {
    link: Link,
}

/// An open transaction; dropping it rolls it back. After a statement that
/// failed, nothing else is left to do.
///
/// On SQLite it holds the one connection that writes: keep it short, begin no
/// second one inside of it, and wait in it for nothing that may itself wait
/// for another's commit, which may have to wait for this one.
pub struct WriteTx {
    // Declared before the permit, hence dropped before it: the next in line
    // finds the connection on its way back.
    link: Link,
    _turn: Option<OwnedSemaphorePermit>,
}

/// Where a query runs: a [`Reader`], a [`Snapshot`] or a [`WriteTx`].
#[expect(private_bounds, reason = "sealed: sea_orm stays inside this crate")]
pub trait Conn: Raw {}

impl Conn for Reader {}
impl Conn for Snapshot {}
impl Conn for WriteTx {}

pub(crate) trait Raw: Send + Sync {
    fn raw(&self) -> &Link;
}

impl Raw for Reader {
    fn raw(&self) -> &Link {
        &self.inner.readers
    }
}

impl Raw for Snapshot {
    fn raw(&self) -> &Link {
        &self.link
    }
}

impl Raw for WriteTx {
    fn raw(&self) -> &Link {
        &self.link
    }
}

impl Store {
    /// Opens the database at `url` and brings its tables up to date; on
    /// PostgreSQL many may do so at once.
    ///
    /// `sqlite:///path/to/file.db` is created where it is missing, readable by
    /// its owner alone. `postgres://user:password@host/database` must exist.
    ///
    /// A SQLite file is this store's alone until its last clone, reader and
    /// transaction are dropped, or it is closed.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another server has the SQLite file; or the
    /// database cannot be reached, read or migrated.
    pub async fn open(url: &str) -> Result<Self> {
        let pools = pool::open(url, Company::None).await?;
        migrate::up(&pools.writers).await?;
        Self::of(pools).await
    }

    /// Opens a database that a server may have open, too, for tools beside it.
    /// Writes are to be few and short, for on SQLite the server waits for them.
    ///
    /// # Errors
    /// [`StoreError::Schema`] unless a server of this version has made the
    /// tables; or the database does not exist or cannot be reached.
    pub async fn open_beside(url: &str) -> Result<Self> {
        let pools = pool::open(url, Company::Server).await?;
        migrate::check(&pools.readers).await?;
        Self::of(pools).await
    }

    async fn of(pools: Pools) -> Result<Self> {
        let Pools {
            readers,
            writers,
            file,
        } = pools;
        let writers = match file {
            Some(SqliteFile { options, lock }) => {
                writers.close().await?;
                Writers::Sqlite(Group::start(Arc::new(Line::open(options).await?), lock)?)
            }
            None => Writers::Postgres {
                pool: writers,
                turns: Arc::new(Semaphore::new(
                    usize::try_from(POSTGRES_WRITERS).unwrap_or(1),
                )),
            },
        };
        Ok(Self {
            inner: Arc::new(Inner {
                readers: Link::Pool(readers),
                writers,
                jitter: Jitter::Random,
            }),
        })
    }

    /// Opens a fresh SQLite file in a directory that goes away with the second
    /// half of the pair.
    ///
    /// # Errors
    /// No directory could be made, or the database does not open.
    #[cfg(feature = "testing")]
    pub async fn open_temporary() -> Result<(Self, tempfile::TempDir)> {
        let directory = tempfile::tempdir().map_err(|error| StoreError::Database(error.into()))?;
        let file = directory.path().join("vimana.db");
        let store = Self::open(&format!("sqlite://{}", file.display())).await?;
        Ok((store, directory))
    }

    /// Opens what is committed on a simulated disk. Whoever opened it before is
    /// cut off, as by a crash: what he did not commit is gone, and all he still
    /// tries fails.
    ///
    /// # Errors
    /// The file cannot be made or opened, or there is no tokio runtime here.
    #[cfg(feature = "simulation")]
    pub fn open_simulated(disk: &SimDisk) -> Result<Self> {
        let (reader, group) = disk.open()?;
        Ok(Self {
            inner: Arc::new(Inner {
                readers: Link::Line(reader),
                writers: Writers::Sqlite(group),
                jitter: Jitter::Simulated(disk.clone()),
            }),
        })
    }

    #[must_use]
    pub fn read(&self) -> Reader {
        Reader {
            inner: Arc::clone(&self.inner),
        }
    }

    /// What is committed at the first read, for all reads that follow.
    ///
    /// # Errors
    /// The database's.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let link = match &self.inner.readers {
            Link::Pool(readers) => {
                let options = TransactionOptions {
                    // One of SQLite's that reads sees one moment anyway.
                    isolation_level: self.is_postgres().then_some(IsolationLevel::RepeatableRead),
                    ..TransactionOptions::default()
                };
                Link::Tx(readers.begin_with_options(options).await?)
            }
            // There, who reads without a pause sees one moment.
            #[cfg(feature = "simulation")]
            Link::Line(line) => Link::Line(Arc::clone(line)),
            Link::Tx(_) | Link::Turn(_) => return Err(StoreError::Busy),
        };
        Ok(Snapshot { link })
    }

    /// Opens a transaction, in the order of asking. Most callers want
    /// [`write_tx!`](crate::write_tx) instead, which also tries again.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when no turn came within [`TURN`], or the store is
    /// closed; or the database's.
    pub async fn begin(&self) -> Result<WriteTx> {
        match &self.inner.writers {
            Writers::Postgres { pool, turns } => {
                let turn = timeout(TURN, Arc::clone(turns).acquire_owned())
                    .await
                    .map_err(|_| StoreError::Busy)?
                    .map_err(|_| StoreError::Busy)?;
                Ok(WriteTx {
                    link: Link::Tx(begin(pool).await?),
                    _turn: Some(turn),
                })
            }
            Writers::Sqlite(group) => Ok(WriteTx {
                link: Link::Turn(group.turn().await?),
                _turn: None,
            }),
        }
    }

    pub(crate) fn jitter(&self) -> &Jitter {
        &self.inner.jitter
    }

    /// Closes all connections, once the transactions under way have ended.
    /// SQLite then folds its log into the file. Clones are closed with it.
    ///
    /// # Errors
    /// The database's.
    pub async fn close(&self) -> Result<()> {
        match &self.inner.writers {
            Writers::Postgres { pool, turns } => {
                turns.close();
                self.inner.readers.close().await?;
                Ok(pool.close_by_ref().await?)
            }
            Writers::Sqlite(group) => {
                self.inner.readers.close().await?;
                group.close().await
            }
        }
    }

    #[must_use]
    pub fn is_postgres(&self) -> bool {
        match self.inner.writers {
            Writers::Postgres { .. } => true,
            Writers::Sqlite(_) => false,
        }
    }
}

/// The only way a transaction begins: SQLite's default, a deferred one, would
/// fail unretryably when it turns from reading to writing.
pub(crate) async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction> {
    let options = TransactionOptions {
        // Has no meaning elsewhere.
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    Ok(db.begin_with_options(options).await?)
}

impl WriteTx {
    /// Makes everything durable, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another transaction was preferred; or the
    /// database's.
    pub async fn commit(self) -> Result<()> {
        match self.link {
            Link::Tx(tx) => Ok(tx.commit().await?),
            Link::Turn(turn) => turn.commit().await,
            Link::Pool(_) => Ok(()),
            #[cfg(feature = "simulation")]
            Link::Line(_) => Ok(()),
        }
    }

    /// Undoes everything, and waits for it.
    ///
    /// # Errors
    /// The database's; nothing is left even so. [`StoreError::Busy`] when what
    /// was found here was another's, and never became durable.
    pub async fn rollback(self) -> Result<()> {
        match self.link {
            Link::Tx(tx) => Ok(tx.rollback().await?),
            Link::Turn(turn) => turn.rollback().await,
            Link::Pool(_) => Ok(()),
            #[cfg(feature = "simulation")]
            Link::Line(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.inner.writers {
            Writers::Postgres { .. } => "Postgres",
            Writers::Sqlite(_) => "Sqlite",
        };
        write!(f, "Store({kind})")
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTx")
    }
}
