//! Brings the tables up to date, one opener at a time.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend};
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
