//! What can go wrong between the engine and the database.

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};
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
    /// The database cannot be reached, or went away in between: what was asked
    /// of it last may be done or not.
    #[error("the database cannot be reached")]
    Away,
    /// Another server has the database's file.
    #[error("{file} is in use by another vimana-server")]
    InUse { file: String },
    /// The tables are not those of this program.
    #[error("the database's tables are {how} than this program's")]
    Schema {
        /// "older" or "newer".
        how: &'static str,
    },
    /// What the database said, as one text and without its details: those of
    /// PostgreSQL repeat the whole row, secrets and all.
    #[error("database: {0}")]
    Database(Source),
}

impl StoreError {
    /// The whole transaction may be tried again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Conflict => true,
            Self::Duplicate { .. }
            | Self::Corrupt { .. }
            | Self::Full
            | Self::Away
            | Self::InUse { .. }
            | Self::Schema { .. }
            | Self::Database(_) => false,
        }
    }
}

impl StoreError {
    /// The same, for one more of those whose transactions failed together.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Busy | Self::Conflict => Self::Busy,
            Self::Full => Self::Full,
            Self::Away => Self::Away,
            Self::Database(source) => Self::Database(source.to_string().into()),
            Self::Duplicate { .. }
            | Self::Corrupt { .. }
            | Self::InUse { .. }
            | Self::Schema { .. } => Self::Database(self.to_string().into()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::unavailable("the server's disk is full").with_source(error),
            StoreError::Away => {
                Self::unavailable("the server's database is away; try again").with_source(error)
            }
            StoreError::Busy | StoreError::Conflict => {
                Self::unavailable("busy, try again").with_source(error)
            }
            StoreError::Duplicate { what } => {
                Self::conflict(format!("{what} is already taken")).with_source(error)
            }
            // The last two are for who starts the program: nobody else meets them.
            StoreError::Corrupt { .. }
            | StoreError::Database(_)
            | StoreError::InUse { .. }
            | StoreError::Schema { .. } => Self::internal(error),
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        if let DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) = error {
            return Self::Busy;
        }
        // The texts of these may repeat the value.
        if let DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } = error {
            return Self::Corrupt {
                what: "a column of another type".to_owned(),
            };
        }
        match sqlx_error(&error).and_then(known) {
            Some(known) => known,
            None => Self::Database(error.to_string().into()),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match known(&error) {
            Some(known) => known,
            None => Self::Database(error.to_string().into()),
        }
    }
}

/// What a simulated disk's hook refused, on its way to `StoreError` again.
#[cfg(feature = "simulation")]
pub(crate) fn injected(error: StoreError) -> DbErr {
    match error {
        StoreError::Busy | StoreError::Conflict => {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)
        }
        StoreError::Full => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            DbErr::Exec(RuntimeErr::SqlxError(std::sync::Arc::new(sqlx::Error::Io(
                full,
            ))))
        }
        StoreError::Duplicate { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Away
        | StoreError::InUse { .. }
        | StoreError::Schema { .. }
        | StoreError::Database(_) => DbErr::Custom(error.to_string()),
    }
}

/// Whether a unique index refused the statement.
pub(crate) fn is_unique_violation(error: &DbErr) -> bool {
    sqlx_error(error)
        .and_then(sqlx::Error::as_database_error)
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Whether another session created the same thing at the same moment.
/// PostgreSQL's IF NOT EXISTS looks before it leaps, and may then find the
/// table, its row type or its catalogue entry there.
pub(crate) fn is_creation_race(error: &DbErr) -> bool {
    let code = sqlx_error(error)
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("42P07" | "42710" | "23505"))
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    if let DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error)) = error
    {
        Some(error)
    } else {
        None
    }
}

fn known(error: &sqlx::Error) -> Option<StoreError> {
    if let sqlx::Error::PoolTimedOut = error {
        return Some(StoreError::Busy);
    }
    if let sqlx::Error::ColumnDecode { index, .. } = error {
        return Some(StoreError::Corrupt {
            what: format!("column {index} of another type"),
        });
    }
    if let sqlx::Error::Io(error) = error {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        return Some(if full {
            StoreError::Full
        } else {
            StoreError::Away
        });
    }
    let code = error.as_database_error()?.code()?;
    if code.len() == SQLSTATE_LENGTH {
        known_sqlstate(&code)
    } else {
        known_sqlite(code.parse().ok()?)
    }
}

/// SQLite's codes are shorter numbers.
const SQLSTATE_LENGTH: usize = 5;

fn known_sqlstate(code: &str) -> Option<StoreError> {
    match code {
        // Serialization failure, deadlock, lock not available, admin shutdown,
        // starting up, too many connections.
        "40001" | "40P01" | "55P03" | "57P01" | "57P03" | "53300" => Some(StoreError::Busy),
        // Another session crashed, and took the rest down.
        "57P02" => Some(StoreError::Away),
        "53100" => Some(StoreError::Full),
        _ => None,
    }
}

fn known_sqlite(code: u32) -> Option<StoreError> {
    // The low byte is the primary code; 517 is a BUSY, for one.
    match code & 0xff {
        5 | 6 => Some(StoreError::Busy),
        13 => Some(StoreError::Full),
        _ => None,
    }
}
