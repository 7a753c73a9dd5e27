//! Proof by lookup: what the engine changes, it holds as [`Authorized`], and
//! that can only be had by asking the table.

use std::fmt::Display;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use vimana_authz::{Decision, Permission, Subject, decide};
use vimana_model::{Error, ErrorKind, TenantId};
use vimana_store::{TxError, WriteTx, user};

use crate::context::OpContext;

/// Something its reader is allowed to act on.
#[derive(Debug)]
pub struct Authorized<T>(T);

impl<T> Authorized<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Authorized<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Authorized<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Something that belongs to a tenant.
pub trait Owned {
    /// None for what is the provider's own.
    fn tenant_id(&self) -> Option<TenantId>;
}

impl Owned for vimana_store::vm::VmRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.tenant_id)
    }
}

impl Owned for crate::change::Change<'_> {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.vm.tenant_id)
    }
}

/// Turns what a lookup found into a proof. What is absent and what is hidden
/// get the same answer.
///
/// # Errors
/// `NotFound` naming `what`; `Forbidden` where it may be seen but not this done.
pub fn authorized<T: Owned>(
    cx: &OpContext,
    permission: Permission,
    what: impl Display,
    found: Option<T>,
) -> Result<Authorized<T>, Error> {
    let Some(found) = found else {
        return Err(Error::not_found(what));
    };
    match decide(&cx.subject, permission, found.tenant_id()) {
        Decision::Allowed => Ok(Authorized(found)),
        Decision::Hidden => Err(Error::not_found(what)),
        Decision::Forbidden => Err(forbidden()),
    }
}

/// The caller with the rights that are recorded now. Asked in the transaction
/// of a change: what was so when the call came may have been taken away since.
///
/// # Errors
/// `Unauthenticated` for an account that is gone or in this tenant no more.
pub async fn current(tx: &WriteTx, cx: &OpContext) -> Result<OpContext, TxError> {
    let OpContext {
        subject,
        idempotency,
    } = cx;
    let found = user::standing(tx, subject.user_id, subject.tenant_id).await?;
    let Some((staff, role)) = found else {
        let message = "this account has no place here any more; sign in again";
        return Err(Error::new(ErrorKind::Unauthenticated, message).into());
    };
    let subject = Subject {
        staff,
        role,
        ..Subject::clone(subject)
    };
    Ok(OpContext {
        subject: Arc::new(subject),
        idempotency: idempotency.clone(),
    })
}

/// Asks about the provider's own things, or about a tenant as a whole.
///
/// # Errors
/// `Forbidden`.
pub fn permit(
    cx: &OpContext,
    permission: Permission,
    tenant: Option<TenantId>,
) -> Result<(), Error> {
    match decide(&cx.subject, permission, tenant) {
        Decision::Allowed => Ok(()),
        Decision::Hidden | Decision::Forbidden => Err(forbidden()),
    }
}

fn forbidden() -> Error {
    Error::new(
        ErrorKind::Forbidden,
        "your role does not allow this; ask an administrator",
    )
}
