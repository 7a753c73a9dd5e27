//! Who is signed in, as the pages know it.

use std::sync::Arc;

use leptos::prelude::*;
use vimana_authz::{Decision, Permission, Subject, decide};
use vimana_model::action::VmAction;
use vimana_model::session::MeView;
use vimana_model::vm::VmView;
use vimana_model::{Error, ErrorKind, TenantId};

use crate::api::{ApiError, ApiResult, SessionView, current_session};

/// The session of this browser; lives in the context of the whole page.
#[derive(Clone, Copy)]
pub struct CurrentSession {
    version: RwSignal<u32>,
    pub view: Resource<ApiResult<Option<SessionView>>>,
}

impl CurrentSession {
    pub fn provide() -> Self {
        let version = RwSignal::new(0);
        let view = Resource::new_blocking(move || version.get(), |_| current_session());
        let session = Self { version, view };
        provide_context(session);
        session
    }

    /// Takes in what the server just answered, without asking again.
    pub fn set(self, view: Option<SessionView>) {
        self.view.set(Some(Ok(view)));
    }

    /// Asks the server again who is signed in.
    pub fn renew(self) {
        self.version
            .try_update(|version| *version = version.wrapping_add(1));
    }

    /// Waits for what a page shows, and for whom.
    ///
    /// # Errors
    /// Those of `data`; and `Unauthenticated` when nobody is signed in.
    pub async fn and<T: Clone + Send + Sync + 'static>(
        self,
        data: Resource<ApiResult<T>>,
    ) -> ApiResult<(Caller, T)> {
        let view = self.view.await?.ok_or_else(|| {
            ApiError::from(Error::new(ErrorKind::Unauthenticated, "sign in first"))
        })?;
        Ok((Caller::new(view.me), data.await?))
    }

    /// Looks at an error of any server function: a session that is over leads
    /// to the sign-in page.
    pub fn notice(self, error: &ApiError) {
        if error.kind() == ErrorKind::Unauthenticated {
            self.renew();
        }
    }
}

/// The signed-in user; in the context of every page behind the sign-in.
#[derive(Clone)]
pub struct Caller {
    pub me: Arc<MeView>,
    subject: Arc<Subject>,
}

impl Caller {
    #[must_use]
    pub fn new(me: MeView) -> Self {
        let subject = Subject {
            user_id: me.user_id,
            user_name: me.user_name.clone(),
            staff: me.staff,
            tenant_id: me.tenant_id,
            role: me.role,
        };
        Self {
            me: Arc::new(me),
            subject: Arc::new(subject),
        }
    }

    #[must_use]
    pub fn may(&self, permission: Permission, tenant: Option<TenantId>) -> bool {
        decide(&self.subject, permission, tenant) == Decision::Allowed
    }

    #[must_use]
    pub fn may_see_hosts(&self) -> bool {
        self.may(Permission::ViewHosts, None)
    }

    #[must_use]
    pub fn may_create(&self) -> bool {
        self.may(Permission::CreateVm, Some(self.me.tenant_id))
    }

    /// Why `action` is not possible on `vm` now; `None` where it is.
    #[must_use]
    pub fn refusal(&self, action: VmAction, vm: &VmView) -> Option<String> {
        if !self.may(Permission::ActOnVm(action), Some(vm.tenant_id)) {
            return Some(NOT_ALLOWED.to_owned());
        }
        action
            .judge(vm.state)
            .err()
            .map(|refusal| format!("{} {refusal}.", vm.name))
    }
}

/// What a button says to someone whose role is too weak.
pub const NOT_ALLOWED: &str = "Your role only lets you look; ask for the operator role.";
