//! The two pools and the way to a transaction.

use crate::Result;

/// The database of one installation. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Store;

/// Reads what is committed; each call sees its own moment.
#[derive(Clone, Debug)]
pub struct Reader;

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct WriteTx;

/// Where a query runs: a [`Reader`] or a [`WriteTx`].
pub trait Conn: Send + Sync {}
impl Conn for Reader {}
impl Conn for WriteTx {}

impl Store {
    /// Opens and migrates.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(_url: &str) -> Result<Self> {
        todo!()
    }
    #[must_use]
    pub fn read(&self) -> Reader {
        todo!()
    }
    /// # Errors
    /// The database's.
    pub async fn begin(&self) -> Result<WriteTx> {
        todo!()
    }
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        todo!()
    }
}

impl WriteTx {
    /// # Errors
    /// The database's.
    pub async fn commit(self) -> Result<()> {
        todo!()
    }
    /// # Errors
    /// The database's.
    pub async fn rollback(self) -> Result<()> {
        todo!()
    }
}
