//! The few shapes that every table's queries have.

use sea_orm::sea_query::OnConflict;
use sea_orm::{DbErr, EntityTrait, IntoActiveModel};

use crate::error::is_unique_violation;
use crate::store::Raw as _;
use crate::{Result, StoreError, WriteTx};

/// Inserts one row; a unique index that already has it is
/// [`StoreError::Duplicate`]. The transaction stays usable on all databases:
/// an error of the statement itself would end PostgreSQL's.
pub async fn insert<E>(tx: &WriteTx, row: E::Model, what: &'static str) -> Result<()>
where
    E: EntityTrait,
    E::Model: IntoActiveModel<E::ActiveModel>,
    E::ActiveModel: Send,
{
    let insert = E::insert(row.into_active_model())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(tx.raw());
    match insert.await? {
        0 => Err(StoreError::Duplicate { what }),
        _ => Ok(()),
    }
}

/// For updates that may run into a unique index.
pub fn unique(what: &'static str) -> impl Fn(DbErr) -> StoreError {
    move |error| {
        if is_unique_violation(&error) {
            StoreError::Duplicate { what }
        } else {
            error.into()
        }
    }
}

/// Converts every row, or none.
pub fn all<M, R>(rows: Vec<M>, convert: impl Fn(M) -> Result<R>) -> Result<Vec<R>> {
    rows.into_iter().map(convert).collect()
}
