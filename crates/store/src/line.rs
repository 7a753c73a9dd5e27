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
    state: Mutex<State>,
    options: SqliteConnectOptions,
    #[cfg(feature = "simulation")]
    medium: Option<Medium>,
}

enum State {
    Open(SqliteConnection),
    /// To be opened again by the next who needs it.
    Lost,
    Closed,
}

impl Line {
    pub async fn open(options: SqliteConnectOptions) -> Result<Self> {
        Ok(Self {
            state: Mutex::new(State::Open(options.connect().await?)),
            options,
            #[cfg(feature = "simulation")]
            medium: None,
        })
    }

    #[cfg(feature = "simulation")]
    pub fn simulated(options: SqliteConnectOptions, medium: Medium) -> Result<Self> {
        let mut line = block_on(Self::open(options))?;
        line.medium = Some(medium);
        Ok(line)
    }

    /// Waits for the statement under way; what was not committed is undone.
    pub async fn close(&self) -> Result<()> {
        let close = async {
            match std::mem::replace(&mut *self.state.lock().await, State::Closed) {
                State::Open(connection) => connection.close().await,
                State::Lost | State::Closed => Ok(()),
            }
        };
        Ok(self.in_time(close).await?)
    }

    /// Throws the connection away, with all that is not committed; there will
    /// be another.
    pub async fn renew(&self) {
        let mut state = self.state.lock().await;
        match *state {
            State::Open(_) => *state = State::Lost,
            State::Lost | State::Closed => {}
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
        let mut state = self.state.lock().await;
        if let State::Lost = *state {
            *state = State::Open(self.options.connect().await?);
        }
        match &mut *state {
            State::Open(connection) => work(connection).await,
            State::Lost | State::Closed => Err(sqlx::Error::PoolClosed),
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
            && let State::Open(connection) = std::mem::replace(self.state.get_mut(), State::Closed)
            && let Err(error) = block_on(connection.close())
        {
            tracing::debug!(%error, "closing a simulated disk failed");
        }
    }
}
