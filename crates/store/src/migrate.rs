//! Brings the tables up to date, one opener at a time.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, Statement};
use vimana_migrations::{Migrator, MigratorTrait as _};

use crate::error::is_creation_race;
use crate::limits::MAX_OPEN_TRIES;
use crate::tx::Jitter;
use crate::{Result, StoreError, store};

/// SQLite's BEGIN IMMEDIATE keeps others out. PostgreSQL has a row to lock;
/// no advisory lock, since not all databases that speak its protocol have one.
pub async fn up(writers: &DatabaseConnection) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_up(writers).await {
            Err(error) if error.is_retryable() && tries < MAX_OPEN_TRIES => {
                tracing::debug!(%error, tries, "migration is tried again");
                tokio::time::sleep(Jitter::Random.pause(tries)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Changes nothing.
///
/// # Errors
/// [`StoreError::Schema`] unless the tables are this program's.
pub async fn check(db: &DatabaseConnection) -> Result<()> {
    let known = Migrator::get_migration_files();
    let known: BTreeSet<&str> = known.iter().map(|file| file.name()).collect();
    let done = done(db).await?;
    if done.iter().any(|name| !known.contains(name.as_str())) {
        return Err(StoreError::Schema { how: "newer" });
    }
    if known.iter().any(|name| !done.contains(*name)) {
        return Err(StoreError::Schema { how: "older" });
    }
    Ok(())
}

/// The migrations that the database has seen.
async fn done(db: &DatabaseConnection) -> Result<BTreeSet<String>> {
    let backend = db.get_database_backend();
    let look = if backend == DbBackend::Postgres {
        "SELECT table_name AS name FROM information_schema.tables
        WHERE table_name = 'seaql_migrations' AND table_schema = current_schema()"
    } else {
        "SELECT name FROM sqlite_master WHERE name = 'seaql_migrations'"
    };
    let mut done = BTreeSet::new();
    if db
        .query_one_raw(Statement::from_string(backend, look))
        .await?
        .is_some()
    {
        let list = "SELECT version FROM seaql_migrations";
        let rows = db.query_all_raw(Statement::from_string(backend, list));
        for row in rows.await? {
            done.insert(row.try_get("", "version")?);
        }
    }
    Ok(done)
}

async fn try_up(writers: &DatabaseConnection) -> Result<()> {
    let postgres = writers.get_database_backend() == DbBackend::Postgres;
    if postgres {
        make_lock(writers).await?;
    }
    let tx = store::begin(writers).await?;
    if postgres {
        tx.execute_unprepared("SELECT id FROM migration_lock WHERE id = 1 FOR UPDATE")
            .await?;
    }
    Migrator::up(&tx, None).await?;
    tx.commit().await?;
    Ok(())
}

async fn make_lock(writers: &DatabaseConnection) -> Result<()> {
    let statements = [
        "CREATE TABLE IF NOT EXISTS migration_lock (id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1))",
        "INSERT INTO migration_lock (id) VALUES (1) ON CONFLICT DO NOTHING",
    ];
    for statement in statements {
        if let Err(error) = writers.execute_unprepared(statement).await {
            return Err(if is_creation_race(&error) {
                StoreError::Busy
            } else {
                error.into()
            });
        }
    }
    Ok(())
}
