//! The two pools and the way to a transaction.

use std::fmt;
use std::sync::Arc;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::TURN;
use crate::link::Link;
#[cfg(feature = "simulation")]
use crate::simulation::{OpenTx, SimDisk};
use crate::tx::Jitter;
use crate::{Result, StoreError, migrate, pool};

/// The database of one installation. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: DbBackend,
    /// Never lent to a transaction: so one who reads while a transaction of
    /// his own is open does not wait for himself.
    readers: Link,
    writers: Link,
    jitter: Jitter,
    /// One permit per connection that writes. Who waits, waits here and in
    /// order, not in the pool, whose patience ends in an error.
    turns: Arc<Semaphore>,
}

/// Reads what is committed; each call sees a moment of its own.
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

/// An open transaction; dropping it rolls it back.
///
/// On SQLite it holds the one connection that writes: keep it short, and begin
/// no second one inside of it.
pub struct WriteTx {
    // Declared before the permit, hence dropped before it: the next in line
    // finds the connection on its way back.
    link: Link,
    #[cfg(feature = "simulation")]
    simulated: Option<OpenTx>,
    _turn: OwnedSemaphorePermit,
}

/// Where a query runs: a [`Reader`] or a [`WriteTx`].
#[expect(private_bounds, reason = "sealed: sea_orm stays inside this crate")]
pub trait Conn: Raw {}

impl Conn for Reader {}
impl Conn for WriteTx {}

pub(crate) trait Raw: Send + Sync {
    fn raw(&self) -> &Link;
}

impl Raw for Reader {
    fn raw(&self) -> &Link {
        &self.inner.readers
    }
}

impl Raw for WriteTx {
    fn raw(&self) -> &Link {
        &self.link
    }
}

impl Store {
    /// Opens the database at `url` and brings its tables up to date; many may
    /// do so at once.
    ///
    /// `sqlite:///path/to/file.db` is created where it is missing, readable by
    /// its owner alone. `postgres://user:password@host/database` must exist.
    ///
    /// # Errors
    /// The database cannot be reached, read or migrated.
    pub async fn open(url: &str) -> Result<Self> {
        let pools = pool::open(url).await?;
        migrate::up(&pools.writers).await?;
        let turns = usize::try_from(pools.max_writers).unwrap_or(1);
        Ok(Self {
            inner: Arc::new(Inner {
                backend: pools.writers.get_database_backend(),
                readers: Link::Pool(pools.readers),
                writers: Link::Pool(pools.writers),
                jitter: Jitter::Random,
                turns: Arc::new(Semaphore::new(turns)),
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
    /// The file cannot be made or opened.
    #[cfg(feature = "simulation")]
    pub fn open_simulated(disk: &SimDisk) -> Result<Self> {
        let [reader, writer] = disk.open()?;
        Ok(Self {
            inner: Arc::new(Inner {
                backend: DbBackend::Sqlite,
                readers: Link::Line(reader),
                writers: Link::Line(writer),
                jitter: Jitter::Simulated(disk.clone()),
                turns: Arc::new(Semaphore::new(1)),
            }),
        })
    }

    #[must_use]
    pub fn read(&self) -> Reader {
        Reader {
            inner: Arc::clone(&self.inner),
        }
    }

    /// Opens a transaction, in the order of asking. Most callers want
    /// [`write_tx!`](crate::write_tx) instead, which also tries again.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when no turn came within [`TURN`], or the store is
    /// closed; or the database's.
    pub async fn begin(&self) -> Result<WriteTx> {
        let turn = Arc::clone(&self.inner.turns).acquire_owned();
        let turn = tokio::time::timeout(TURN, turn)
            .await
            .map_err(|_| StoreError::Busy)?
            .map_err(|_| StoreError::Busy)?;
        match &self.inner.writers {
            Link::Pool(pool) => Ok(WriteTx {
                link: Link::Tx(begin(pool).await?),
                #[cfg(feature = "simulation")]
                simulated: None,
                _turn: turn,
            }),
            #[cfg(feature = "simulation")]
            Link::Line(line) => Ok(WriteTx {
                link: Link::Line(Arc::clone(line)),
                simulated: Some(OpenTx::begin(line).await?),
                _turn: turn,
            }),
            Link::Tx(_) => Err(StoreError::Busy),
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
        self.inner.turns.close();
        self.inner.readers.close().await?;
        self.inner.writers.close().await
    }

    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.inner.backend == DbBackend::Postgres
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
        #[cfg(feature = "simulation")]
        if let Some(open) = self.simulated {
            return open.commit().await;
        }
        if let Link::Tx(tx) = self.link {
            tx.commit().await?;
        }
        Ok(())
    }

    /// Undoes everything, and waits for it.
    ///
    /// # Errors
    /// The database's; nothing is left even so.
    pub async fn rollback(self) -> Result<()> {
        #[cfg(feature = "simulation")]
        if let Some(open) = self.simulated {
            return open.rollback().await;
        }
        if let Link::Tx(tx) = self.link {
            tx.rollback().await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?})", self.inner.backend)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTx")
    }
}
