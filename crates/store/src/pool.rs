//! Connections to the two kinds of database.
//!
//! sqlx's own options are used, not sea-orm's, whose errors repeat the URL and
//! the password in it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::str::FromStr as _;

use sea_orm::sqlx::Executor as _;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector};

use crate::limits::{
    MAX_IDLE_IN_TX, MAX_OPEN_TRIES, POSTGRES_READERS, POSTGRES_WRITERS, SQLITE_READERS, WAIT,
};
use crate::lock::FileLock;
use crate::tx::Jitter;
use crate::{Result, StoreError};

pub struct Pools {
    pub readers: DatabaseConnection,
    pub writers: DatabaseConnection,
    pub file: Option<SqliteFile>,
}

/// What SQLite has that others have not.
pub struct SqliteFile {
    /// How to open what writes once the pool of writers has migrated.
    pub options: SqliteConnectOptions,
    pub lock: Option<FileLock>,
}

/// Who else may have the same SQLite file open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody but tools.
    None,
    /// A server, which made the file.
    Server,
}

pub async fn open(url: &str, company: Company) -> Result<Pools> {
    if url.starts_with("sqlite:") {
        sqlite(url, company).await
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        postgres(url).await
    } else {
        Err(refused(
            "a database URL starts with `sqlite://` or `postgres://`",
        ))
    }
}

fn refused(why: &'static str) -> StoreError {
    StoreError::Database(why.into())
}

async fn sqlite(url: &str, company: Company) -> Result<Pools> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(refused(
            "a database in memory cannot be shared by two pools; name a file",
        ));
    }
    let file = SqliteConnectOptions::from_str(url)?
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(WAIT);
    make_private(&file, company)?;
    let lock = match company {
        Company::None => Some(FileLock::take(file.get_filename()).await?),
        Company::Server => None,
    };

    let lasting = SqlitePoolOptions::new()
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false);
    // Two processes that switch a new file to WAL at once: one is refused
    // without SQLite's own waiting.
    let mut tries = 0;
    let writers = loop {
        tries += 1;
        let one = lasting.clone().min_connections(1).max_connections(1);
        match one
            .connect_with(file.clone())
            .await
            .map_err(StoreError::from)
        {
            Err(error) if error.is_retryable() && tries < MAX_OPEN_TRIES => {
                tokio::time::sleep(Jitter::Random.pause(tries)).await;
            }
            outcome => break outcome?,
        }
    };
    let readers = lasting
        .max_connections(SQLITE_READERS)
        .connect_with(file.clone().pragma("query_only", "ON"))
        .await?;
    Ok(Pools {
        readers: SqlxSqliteConnector::from_sqlx_sqlite_pool(readers),
        writers: SqlxSqliteConnector::from_sqlx_sqlite_pool(writers),
        file: Some(SqliteFile {
            options: file,
            lock,
        }),
    })
}

/// Creates a missing file, unless it is a server's to do so, for its owner
/// alone: it holds password hashes. SQLite gives the files beside it the same
/// mode.
fn make_private(options: &SqliteConnectOptions, company: Company) -> Result<()> {
    let file = options.get_filename();
    OpenOptions::new()
        .write(true)
        .create(company == Company::None)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .map(drop)
        .map_err(|error| {
            let told = std::io::Error::new(error.kind(), format!("{}: {error}", file.display()));
            StoreError::Database(told.into())
        })
}

async fn postgres(url: &str) -> Result<Pools> {
    let server = PgConnectOptions::from_str(url)
        .map_err(|_| refused("not a PostgreSQL URL: postgres://user:password@host/database"))?
        .application_name("vimana");
    let pool = |max: u32, read_only: bool| {
        PgPoolOptions::new()
            .max_connections(max)
            .acquire_timeout(WAIT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    for setting in session_settings(read_only) {
                        connection
                            .execute(sea_orm::sqlx::AssertSqlSafe(setting))
                            .await?;
                    }
                    Ok(())
                })
            })
            .connect_with(server.clone())
    };
    let writers = pool(POSTGRES_WRITERS, false).await?;
    let readers = pool(POSTGRES_READERS, true).await?;
    Ok(Pools {
        readers: SqlxPostgresConnector::from_sqlx_postgres_pool(readers),
        writers: SqlxPostgresConnector::from_sqlx_postgres_pool(writers),
        file: None,
    })
}

/// What the store relies on, whatever the server's defaults are.
fn session_settings(read_only: bool) -> Vec<String> {
    let access = if read_only { "READ ONLY" } else { "READ WRITE" };
    vec![
        format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}"
        ),
        format!("SET lock_timeout = {}", WAIT.as_millis()),
        format!(
            "SET idle_in_transaction_session_timeout = {}",
            MAX_IDLE_IN_TX.as_millis()
        ),
    ]
}
