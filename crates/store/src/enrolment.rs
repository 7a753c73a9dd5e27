//! What a host proves itself with: the columns of `hosts` that nothing else
//! writes.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _, UpdateMany};
use vimana_model::{HostId, Timestamp};

use crate::column::Row;
use crate::entity::host::{Column, Entity};
use crate::host::{HostCertificate, HostRecord, from_row};
use crate::store::Raw as _;
use crate::{Result, WriteTx};

/// The host, held until the transaction ends.
pub async fn lock(tx: &WriteTx, id: HostId) -> Result<Option<HostRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// The host has joined, for the first time or anew: the certificate is the
/// only one, and its sessions are counted on from `session_number`.
pub async fn admit(
    tx: &WriteTx,
    id: HostId,
    certificate: &HostCertificate,
    session_number: u64,
) -> Result<()> {
    let row = Row {
        table: "hosts",
        key: &id.to_string(),
    };
    let number = row.to_amount("session_number", session_number)?;
    certified(id, certificate)?
        .col_expr(Column::RevokedAt, Expr::value(Option::<i64>::None))
        .col_expr(Column::SessionNumber, Expr::value(number))
        .col_expr(Column::SessionOffered, Expr::value(number))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// Replaces the certificate and what comes after it.
pub async fn set_certificate(
    tx: &WriteTx,
    id: HostId,
    certificate: &HostCertificate,
) -> Result<()> {
    certified(id, certificate)?.exec(tx.raw()).await?;
    Ok(())
}

/// Whether the host was there and not revoked before.
pub async fn revoke(tx: &WriteTx, id: HostId, now: Timestamp) -> Result<bool> {
    let update = of(id)
        .col_expr(Column::RevokedAt, Expr::value(now.as_ms()))
        .filter(Column::RevokedAt.is_null());
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// Compare and swap: a host that names the last session it had, as recorded or
/// as offered, is offered the next one, and gets its number. `None` where it
/// names any other, is revoked, or is not there.
pub async fn offer_session(tx: &WriteTx, id: HostId, named: u64) -> Result<Option<u64>> {
    let row = Row {
        table: "hosts",
        key: &id.to_string(),
    };
    // What no column holds is no number of a session either.
    let Ok(named) = i64::try_from(named) else {
        return Ok(None);
    };
    let known = Column::SessionNumber
        .eq(named)
        .or(Column::SessionOffered.eq(named));
    let rows = of(id)
        // Whoever names the number that was offered has it on disk.
        .col_expr(Column::SessionNumber, Expr::value(named))
        .col_expr(
            Column::SessionOffered,
            Expr::col(Column::SessionOffered).add(1_i64),
        )
        .filter(known)
        .filter(Column::RevokedAt.is_null())
        .exec_with_returning(tx.raw())
        .await?;
    let offered = rows.into_iter().next().map(|host| host.session_offered);
    offered
        .map(|number| row.amount("session_offered", number))
        .transpose()
}

/// The host has the number on its disk. False where it was not the last one
/// offered: another session began meanwhile.
pub async fn confirm_session(tx: &WriteTx, id: HostId, number: u64) -> Result<bool> {
    let Ok(number) = i64::try_from(number) else {
        return Ok(false);
    };
    let update = of(id)
        .col_expr(Column::SessionNumber, Expr::value(number))
        .filter(Column::SessionOffered.eq(number));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

fn of(id: HostId) -> UpdateMany<Entity> {
    Entity::update_many().filter(Column::Id.eq(id.to_string()))
}

fn certified(id: HostId, certificate: &HostCertificate) -> Result<UpdateMany<Entity>> {
    let row = Row {
        table: "hosts",
        key: &id.to_string(),
    };
    let text = row.to_json("certificate", certificate)?;
    Ok(of(id).col_expr(Column::Certificate, Expr::value(text)))
}
