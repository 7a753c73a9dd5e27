//! What can go wrong between the engine and the database.

use vimana_model::Error;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is busy with others; the same transaction may pass when
    /// it is tried again.
    #[error("the database is busy")]
    Busy,
    /// The row changed since it was read; read it again and decide anew.
    #[error("the record changed meanwhile")]
    Conflict,
    /// A unique index already has it.
    #[error("{what} is already taken")]
    Duplicate {
        /// The thing that is unique: "vm name".
        what: &'static str,
    },
    /// A row that the model refuses, or a value the database cannot hold.
    #[error("corrupt record: {what}")]
    Corrupt {
        /// Table, row and column, never the value.
        what: String,
    },
    /// The disk below the database is full.
    #[error("the database's disk is full")]
    Full,
    #[error("database: {0}")]
    Database(#[source] Source),
}

impl StoreError {
    /// The whole transaction may be tried again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Conflict => true,
            Self::Duplicate { .. } | Self::Corrupt { .. } | Self::Full | Self::Database(_) => false,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::unavailable("the server's disk is full").with_source(error),
            StoreError::Busy | StoreError::Conflict => {
                Self::unavailable("busy, try again").with_source(error)
            }
            StoreError::Duplicate { what } => {
                Self::conflict(format!("{what} is already taken")).with_source(error)
            }
            StoreError::Corrupt { .. } | StoreError::Database(_) => Self::internal(error),
        }
    }
}
