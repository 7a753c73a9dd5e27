//! Who is signed in, as the pages know it.

use std::sync::Arc;

use leptos::prelude::*;
use vimana_authz::{Decision, Permission, Subject, decide};
use vimana_model::action::VmAction;
use vimana_model::image::{ImageAction, ImageView};
use vimana_model::operation::{Object, OperationKind, OperationView};
use vimana_model::request::{RequestAction, RequestState, RequestView, Side};
use vimana_model::session::MeView;
use vimana_model::tenant::TenantKind;
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
        data: ArcResource<ApiResult<T>>,
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
    pub fn may_see_tenants(&self) -> bool {
        self.may(Permission::ViewTenants, None)
    }

    #[must_use]
    pub fn may_manage_tenants(&self) -> bool {
        self.may(Permission::ManageTenants, None)
    }

    #[must_use]
    pub fn may_set_quota(&self, tenant: TenantId) -> bool {
        self.may(Permission::SetQuota, Some(tenant))
    }

    /// Whether they set the limits of the tenant's users.
    #[must_use]
    pub fn may_share_quota(&self, tenant: TenantId) -> bool {
        self.may(Permission::ShareQuota, Some(tenant))
    }

    #[must_use]
    pub fn may_manage_volumes(&self) -> bool {
        self.may(Permission::ManageVolumes, Some(self.subject.tenant_id))
    }

    /// Whether they delete backups and set schedules.
    #[must_use]
    pub fn may_manage_backups(&self) -> bool {
        self.may(Permission::ManageBackups, Some(self.subject.tenant_id))
    }

    #[must_use]
    pub fn may_keep_flavors(&self) -> bool {
        self.may(Permission::ManageFlavors, None)
    }

    /// Whether they make and change templates; those for all tenants, where
    /// `public`.
    #[must_use]
    pub fn may_keep_templates(&self, public: bool) -> bool {
        let tenant = (!public).then_some(self.subject.tenant_id);
        self.may(Permission::ManageTemplates, tenant)
    }

    /// Whether they say what is wanted of hosts, and let orphans be removed.
    #[must_use]
    pub fn may_manage_hosts(&self) -> bool {
        self.may(Permission::ManageHosts, None)
    }

    /// Whether what they ask for waits for a decision.
    #[must_use]
    pub fn asks_first(&self) -> bool {
        self.me.tenant_kind == TenantKind::Manual
    }

    #[must_use]
    pub fn may_create(&self) -> bool {
        let permission = if self.asks_first() {
            Permission::CreateRequest
        } else {
            Permission::CreateVm
        };
        self.may(permission, Some(self.me.tenant_id))
    }

    /// What asking for a machine is called for them.
    #[must_use]
    pub fn new_title(&self) -> &'static str {
        if self.asks_first() {
            "New request"
        } else {
            "New VM"
        }
    }

    /// Whether there is anything for them on the page of requests.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        self.asks_first()
    }

    /// Why `action` is not possible on `vm` now; `None` where it is.
    #[must_use]
    pub fn refusal(&self, action: VmAction, vm: &VmView) -> Option<String> {
        if !self.may(Permission::ActOnVm(action), Some(vm.tenant_id)) {
            return Some(too_weak(action).to_owned());
        }
        let ends = matches!(action, VmAction::Shutdown | VmAction::Delete);
        let released = self.may(Permission::DecideRequest, Some(vm.tenant_id));
        if ends && vm.request_id.is_some() && !released && action.judge(vm.state).is_ok() {
            let name = &vm.name;
            return Some(format!(
                "{name} was requested; ask for its release instead."
            ));
        }
        let in_flight = vm.operation.as_ref();
        let in_flight = in_flight.filter(|operation| !operation.state.is_over());
        action
            .accept(vm.state, in_flight.map(|operation| operation.kind))
            .err()
            .map(|refusal| format!("{} {refusal}.", vm.name))
    }

    /// Why `operation` on something of `tenant`, or for all tenants, cannot be
    /// cancelled now.
    #[must_use]
    pub fn cancel_refusal(
        &self,
        operation: &OperationView,
        tenant: Option<TenantId>,
    ) -> Option<String> {
        let permission = match operation.object {
            Object::Vm(_) if operation.kind == OperationKind::Migrate => {
                Permission::ActOnVm(VmAction::Migrate)
            }
            Object::Vm(_) => Permission::CancelOperation,
            Object::Image(_) => Permission::ManageImages,
        };
        if !self.may(permission, tenant) {
            let refusal = if let Permission::ActOnVm(action) = permission {
                too_weak(action)
            } else {
                not_allowed(tenant)
            };
            return Some(refusal.to_owned());
        }
        operation
            .judge_cancel()
            .err()
            .map(|refusal| format!("The {} {refusal}.", operation.kind))
    }

    /// Whether they bring images into the catalogue; for all tenants, where
    /// `public`.
    #[must_use]
    pub fn may_import(&self, public: bool) -> bool {
        self.may_change_image((!public).then_some(self.me.tenant_id))
    }

    /// Whether they decide about an image of `tenant`, or for all.
    #[must_use]
    pub fn may_change_image(&self, tenant: Option<TenantId>) -> bool {
        self.may(Permission::ManageImages, tenant)
    }

    /// Why `action` is not possible on `image` now; `None` where it is.
    #[must_use]
    pub fn image_refusal(&self, action: ImageAction, image: &ImageView) -> Option<String> {
        if !self.may_change_image(image.tenant_id) {
            return Some(not_allowed(image.tenant_id).to_owned());
        }
        let name = &image.name;
        if let Err(refusal) = action.judge(image.state) {
            return Some(format!("{name} {refusal}."));
        }
        let users = image.used_by.filter(|users| *users > 0)?;
        (action == ImageAction::Purge)
            .then(|| format!("{name} cannot be removed yet: {} made from it.", vms(users)))
    }

    #[must_use]
    pub fn asked_for(&self, request: &RequestView) -> bool {
        request.requester == self.me.user_name
    }

    #[must_use]
    pub fn decides_about(&self, request: &RequestView) -> bool {
        self.may(Permission::DecideRequest, Some(request.tenant_id))
    }

    /// Whether the action is theirs at all, on this request.
    #[must_use]
    pub fn takes_part(&self, action: RequestAction, request: &RequestView) -> bool {
        match action.side() {
            Side::Requester => self.asked_for(request),
            Side::Manager => self.decides_about(request),
            Side::Either => self.asked_for(request) || self.decides_about(request),
        }
    }

    /// Why `action` is not possible on `request` now; `None` where it is.
    #[must_use]
    pub fn request_refusal(&self, action: RequestAction, request: &RequestView) -> Option<String> {
        if !self.takes_part(action, request) {
            return Some(NOT_ALLOWED.to_owned());
        }
        action
            .judge(request.state)
            .err()
            .map(|refusal| format!("The request {refusal}."))
    }

    /// Whether the request does not go on before they do something. Staff may
    /// decide everywhere; only their own tenant's requests wait for them.
    #[must_use]
    pub fn waits_for(&self, request: &RequestView) -> bool {
        let ours = request.tenant_id == self.me.tenant_id && self.decides_about(request);
        match request.state {
            RequestState::Request | RequestState::Release => ours,
            RequestState::Returned => self.asked_for(request),
            RequestState::Rejected
            | RequestState::Withdrawn
            | RequestState::Provision
            | RequestState::Operation
            | RequestState::Released => false,
        }
    }
}

/// "1 VM is", "2 VMs are".
fn vms(count: u32) -> String {
    match count {
        1 => "1 VM is".to_owned(),
        count => format!("{count} VMs are"),
    }
}

/// Why someone whose role is too weak cannot change what is `tenant`'s, or
/// everybody's.
const fn not_allowed(tenant: Option<TenantId>) -> &'static str {
    match tenant {
        Some(_) => NOT_ALLOWED,
        None => "It is for all tenants; only an administrator changes it.",
    }
}

/// The same of what is to be done with a VM.
fn too_weak(action: VmAction) -> &'static str {
    if action == VmAction::Migrate {
        return "Only an administrator moves VMs from host to host.";
    }
    NOT_ALLOWED
}

/// What a button says to someone whose role is too weak.
pub const NOT_ALLOWED: &str = "Your role only lets you look; ask for the operator role.";
