//! The few shapes that every table's queries have.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, Condition, DbErr, EntityTrait, IntoActiveModel,
    ModelTrait, QueryFilter as _,
};
use vimana_model::Timestamp;

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

/// Writes a row if it is still the generation that it says, and makes it the
/// next one.
///
/// # Errors
/// [`StoreError::Conflict`] when somebody else wrote it meanwhile, or when it
/// is gone; `Duplicate` where `what` is taken.
pub async fn replace<E>(
    tx: &WriteTx,
    row: E::Model,
    id: E::Column,
    (generation, read): (E::Column, i64),
    what: &'static str,
) -> Result<()>
where
    E: EntityTrait,
    E::Model: ModelTrait<Entity = E> + IntoActiveModel<E::ActiveModel>,
{
    let same = Condition::all()
        .add(id.eq(row.get(id)))
        .add(generation.eq(read));
    let mut next = row.into_active_model().reset_all();
    next.not_set(id);
    next.not_set(generation);
    let update = E::update_many()
        .set(next)
        .col_expr(generation, Expr::value(read.saturating_add(1)))
        .filter(same)
        .exec(tx.raw());
    let updated = update.await.map_err(unique(what))?;
    if updated.rows_affected == 0 {
        return Err(StoreError::Conflict);
    }
    Ok(())
}

/// None is from the future: where the clock was set back, rows count from now
/// on, and live as long as they were to.
pub async fn bring_back<E: EntityTrait>(
    tx: &WriteTx,
    created: E::Column,
    expires: E::Column,
    now: Timestamp,
) -> Result<()> {
    let ahead = Expr::col(created).sub(now.as_ms());
    let update = E::update_many()
        .col_expr(expires, Expr::col(expires).sub(ahead))
        .col_expr(created, Expr::value(now.as_ms()))
        .filter(created.gt(now.as_ms()));
    update.exec(tx.raw()).await?;
    Ok(())
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
