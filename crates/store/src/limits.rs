//! Every number that bounds the store.

use std::time::Duration;

/// How often a transaction is tried in all.
pub const MAX_TRIES: u32 = 10;
/// Step of the pause between tries, in milliseconds; the n-th pause is a
/// random time up to n steps.
pub const PAUSE_MS: u64 = 20;

/// Connections that read a SQLite file, besides the one that writes.
pub const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL that read, and as many transactions at once.
pub const POSTGRES_READERS: u32 = 16;
pub const POSTGRES_WRITERS: u32 = 16;

/// Longest wait for a connection to read on, and for another process's lock.
pub const WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a turn to write.
pub const TURN: Duration = Duration::from_secs(30);
/// Most writers that share one wait for a SQLite file's disk, and the age of a
/// group that takes no more: the first would wait too long for the last.
pub const MAX_GROUP: usize = 64;
pub const MAX_GROUP_AGE: Duration = Duration::from_millis(25);
/// How long PostgreSQL lets a transaction do nothing before it ends it: a
/// server that died without a word must not hold its locks for ever.
pub const MAX_IDLE_IN_TX: Duration = Duration::from_secs(60);

/// How often, and how long apart, a SQLite file is tried that another server
/// has: the one before may be leaving.
pub const MAX_LOCK_TRIES: u32 = 50;
pub const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often opening is tried while others open or migrate the same database.
pub const MAX_OPEN_TRIES: u32 = 30;

/// Values per `IN` list and rows per `INSERT`; all databases take far more
/// bound values than this times the columns of the widest table.
pub const CHUNK: usize = 500;

/// Rows of a table that are in memory at once when all of it is read.
pub const SURVEY_PAGE: u64 = 1000;
