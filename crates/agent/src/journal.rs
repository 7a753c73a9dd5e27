//! Where the ledger is kept: records, one after another, on something that
//! outlives the agent.

mod file;
mod memory;

use std::io;

use async_trait::async_trait;

pub use file::FileJournal;
pub use memory::MemoryJournal;

/// Keeps records. One caller at a time; a call that was dropped half way may
/// still have its effect.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// All records, oldest first. One that an earlier agent was just writing
    /// when it died may be missing.
    ///
    /// # Errors
    /// Where they cannot be read.
    async fn read(&self) -> io::Result<Vec<String>>;

    /// Adds records, which hold no line break; they are durable when it
    /// returns.
    ///
    /// # Errors
    /// Then any part of them may be there, and only [`Self::replace`] brings
    /// the journal back in order.
    async fn append(&self, records: &[String]) -> io::Result<()>;

    /// Puts `records` in the place of all there are, all at once and durably.
    ///
    /// # Errors
    /// Then the journal is what it was.
    async fn replace(&self, records: &[String]) -> io::Result<()>;
}
