//! One SQLite connection that is kept for good, without sqlx's pool: its
//! transactions are this crate's own statements.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use crate::Result;
#[cfg(feature = "simulation")]
use crate::simulation::{DiskCall, Medium, block_on};

type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;
type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqlxValues>;

/// A connection that its users take turns on.
pub struct Line {
    /// `None` once it is closed.
    connection: Mutex<Option<SqliteConnection>>,
    #[cfg(feature = "simulation")]
    medium: Option<Medium>,
}

impl Line {
    #[cfg(feature = "simulation")]
    pub fn simulated(options: &SqliteConnectOptions, medium: Medium) -> Result<Self> {
        let connection = block_on(options.connect())?;
        Ok(Self {
            connection: Mutex::new(Some(connection)),
            medium: Some(medium),
        })
    }

    /// Waits for the statement under way; what was not committed is undone.
    pub async fn close(&self) -> Result<()> {
        match self.connection.lock().await.take() {
            Some(connection) => Ok(connection.close().await?),
            None => Ok(()),
        }
    }

    /// Runs a statement of this crate.
    pub async fn run(&self, statement: &'static str) -> Result<(), DbErr> {
        let work = self.locked(|connection| connection.execute(statement));
        self.in_time(work).await.map_err(exec_error)?;
        Ok(())
    }

    /// Asks the simulation, if this is one, for its say about the next call.
    #[cfg(feature = "simulation")]
    pub async fn pause(&self, call: DiskCall) -> Result<()> {
        match &self.medium {
            Some(medium) => medium.pause(call).await,
            None => Ok(()),
        }
    }

    #[cfg(feature = "simulation")]
    async fn pause_statement(&self) -> Result<(), DbErr> {
        match &self.medium {
            Some(medium) => {
                let paused = medium.pause(medium.statement()).await;
                paused.map_err(crate::error::injected)
            }
            None => Ok(()),
        }
    }

    #[cfg(not(feature = "simulation"))]
    #[expect(clippy::unused_async, reason = "the simulation waits here")]
    async fn pause_statement(&self) -> Result<(), DbErr> {
        Ok(())
    }

    async fn locked<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T>,
    ) -> Result<T, sqlx::Error> {
        match self.connection.lock().await.as_mut() {
            Some(connection) => work(connection).await,
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    /// In a simulation the calling thread waits for sqlx's: virtual time stands
    /// still meanwhile, and nobody else gets ahead.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> T {
        #[cfg(feature = "simulation")]
        if self.medium.is_some() {
            return block_on(work);
        }
        work.await
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Line {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Sqlite
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.pause_statement().await?;
        let query = to_query(statement);
        let work = self.locked(|connection| connection.execute(query));
        let done = self.in_time(work).await.map_err(exec_error)?;
        Ok(done.into())
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.pause_statement().await?;
        let sql = AssertSqlSafe(sql.to_owned());
        let work = self.locked(|connection| connection.execute(sql));
        let done = self.in_time(work).await.map_err(exec_error)?;
        Ok(done.into())
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.pause_statement().await?;
        let query = to_query(statement);
        let work = self.locked(|connection| connection.fetch_optional(query));
        let row = self.in_time(work).await.map_err(query_error)?;
        Ok(row.map(QueryResult::from))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.pause_statement().await?;
        let query = to_query(statement);
        let work = self.locked(|connection| connection.fetch_all(query));
        let rows = self.in_time(work).await.map_err(query_error)?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }
}

fn to_query(statement: Statement) -> Query {
    let Statement { sql, values, .. } = statement;
    let values = values.unwrap_or_else(|| sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(sql), SqlxValues(values))
}

fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

/// A simulated disk may be opened again at once: the last user's thread must
/// have let go of it by then.
#[cfg(feature = "simulation")]
impl Drop for Line {
    fn drop(&mut self) {
        if self.medium.is_some()
            && let Some(connection) = self.connection.get_mut().take()
            && let Err(error) = block_on(connection.close())
        {
            tracing::debug!(%error, "closing a simulated disk failed");
        }
    }
}
