//! What statements go through, whatever the database.

#[cfg(feature = "simulation")]
use std::sync::Arc;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement,
};

use crate::group::Turn;
#[cfg(feature = "simulation")]
use crate::line::Line;

pub enum Link {
    Pool(DatabaseConnection),
    Tx(DatabaseTransaction),
    Turn(Turn),
    #[cfg(feature = "simulation")]
    Line(Arc<Line>),
}

macro_rules! each {
    ($link:expr, $inner:ident => $run:expr) => {
        match $link {
            Link::Pool($inner) => $run,
            Link::Tx($inner) => $run,
            Link::Turn($inner) => $run,
            #[cfg(feature = "simulation")]
            Link::Line($inner) => $run,
        }
    };
}

impl Link {
    /// For those that read; a transaction ends otherwise.
    pub async fn close(&self) -> crate::Result<()> {
        match self {
            Self::Pool(pool) => Ok(pool.close_by_ref().await?),
            #[cfg(feature = "simulation")]
            Self::Line(line) => line.close().await,
            Self::Tx(_) | Self::Turn(_) => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Link {
    fn get_database_backend(&self) -> DbBackend {
        each!(self, link => link.get_database_backend())
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        each!(self, link => link.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        each!(self, link => link.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        each!(self, link => link.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        each!(self, link => link.query_all_raw(statement).await)
    }
}
