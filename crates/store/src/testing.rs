//! What only tests may do.

use std::path::Path;

use sea_orm::ConnectionTrait as _;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sea_orm::sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::limits::WAIT;
use crate::store::Raw as _;
use crate::{Result, Store};

impl Store {
    /// Runs a statement as it is, to plant what the store itself would refuse.
    ///
    /// # Errors
    /// The database's.
    pub async fn plant(&self, statement: &str) -> Result<()> {
        let tx = self.begin().await?;
        tx.raw().execute_unprepared(statement).await?;
        tx.commit().await
    }
}

/// Runs statements on a SQLite file beside whoever has it open, to plant what
/// its keys and its own checks would refuse.
///
/// # Errors
/// The database's.
pub async fn deface(file: &Path, statements: &str) -> Result<()> {
    let mut connection = open(file).await?;
    let statements = format!("PRAGMA ignore_check_constraints = ON; {statements}");
    connection.execute(AssertSqlSafe(statements)).await?;
    Ok(connection.close().await?)
}

/// The names of the tables in a SQLite file.
///
/// # Errors
/// The database's.
pub async fn tables(file: &Path) -> Result<Vec<String>> {
    let mut connection = open(file).await?;
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let rows = sea_orm::sqlx::query_scalar(names).fetch_all(&mut connection);
    let names = rows.await?;
    connection.close().await?;
    Ok(names)
}

async fn open(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(false)
        .busy_timeout(WAIT);
    Ok(options.connect().await?)
}
