//! Tenants and their members.

use vimana_authz::Permission;
use vimana_model::name::{TenantName, UserName};
use vimana_model::session::MAX_PASSWORD_BYTES;
use vimana_model::tenant::{CreateTenant, CreateUser, TenantView, UpdateTenant, UserView};
use vimana_model::{Error, FieldError, Result, TenantId};
use vimana_store::tenant::TenantRecord;
use vimana_store::user::{MembershipRecord, UserRecord};
use vimana_store::{StoreError, TxError, tenant, user, write_tx};

use crate::Engine;
use crate::authorize::{authorized, current, permit};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::session::password_record;

/// Shortest password a new user may have, in bytes.
const MIN_PASSWORD_BYTES: usize = 8;

impl Engine {
    /// All tenants, by name.
    ///
    /// # Errors
    /// `Forbidden` for anyone but the provider's staff.
    pub async fn tenants(&self, cx: &OpContext) -> Result<Vec<TenantView>> {
        permit(cx, Permission::ViewTenants, None)?;
        let found = tenant::list(&self.store().read()).await?;
        Ok(found.into_iter().map(tenant_view).collect())
    }

    /// One's own tenant; any, for the provider's staff.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn tenant(&self, cx: &OpContext, id: TenantId) -> Result<TenantView> {
        let found = tenant::find(&self.store().read(), id).await?;
        let what = format!("tenant `{id}`");
        let found = authorized(cx, Permission::ViewTenants, what, found)?;
        Ok(tenant_view(found.into_inner()))
    }

    /// Who belongs to a tenant, by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn members(&self, cx: &OpContext, id: TenantId) -> Result<Vec<UserView>> {
        self.tenant(cx, id).await?;
        let found = user::members(&self.store().read(), id).await?;
        Ok(found
            .into_iter()
            .map(|(user, membership)| user_view(&user, &membership))
            .collect())
    }

    /// # Errors
    /// `Invalid`, `Conflict` for a name in use, `Forbidden`.
    pub async fn create_tenant(&self, cx: &OpContext, form: &CreateTenant) -> Result<TenantView> {
        let name = TenantName::new(form.name.as_str());
        let name = name.map_err(|error| FieldError::new("name", error))?;
        let record = TenantRecord {
            id: new_id!(self.world(), TenantId),
            name,
            kind: form.kind,
            created_at: self.world().now(),
        };
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageTenants, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let inserted = tenant::insert(tx, &record).await;
            inserted.map_err(in_use("tenant", record.name.as_str()))?;
            let answer = tenant_view(record.clone());
            remember(tx, cx, record.created_at, &answer).await?;
            Ok(answer)
        })
    }

    /// Changes a tenant's life-cycle; what runs there goes on as it is.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn update_tenant(
        &self,
        cx: &OpContext,
        id: TenantId,
        form: &UpdateTenant,
    ) -> Result<TenantView> {
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageTenants, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let absent = || Error::not_found(format!("tenant `{id}`"));
            tenant::set_kind(tx, id, form.kind).await?;
            let found = tenant::find(tx, id).await?.ok_or_else(absent)?;
            let answer = tenant_view(found);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }

    /// All users with their tenants, by name.
    ///
    /// # Errors
    /// `Forbidden` for anyone but the provider's staff.
    pub async fn users(&self, cx: &OpContext) -> Result<Vec<UserView>> {
        permit(cx, Permission::ViewTenants, None)?;
        let found = user::list(&self.store().read()).await?;
        Ok(found
            .into_iter()
            .map(|(user, membership)| user_view(&user, &membership))
            .collect())
    }

    /// Makes a user, member of one tenant.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Forbidden`.
    pub async fn create_user(&self, cx: &OpContext, form: &CreateUser) -> Result<UserView> {
        permit(cx, Permission::ManageTenants, None)?;
        let name = UserName::new(form.name.as_str()).map_err(|e| FieldError::new("name", e));
        let tenant = TenantName::new(form.tenant.as_str());
        let tenant = tenant.map_err(|error| FieldError::new("tenant", error));
        let length = MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES;
        let password = if length.contains(&form.password.len()) {
            Ok(())
        } else {
            let message = format!("{MIN_PASSWORD_BYTES} to {MAX_PASSWORD_BYTES} bytes");
            Err(FieldError::new("password", message))
        };
        let (name, tenant) = match (name, tenant, password) {
            (Ok(name), Ok(tenant), Ok(())) => (name, tenant),
            (name, tenant, password) => {
                let wrong = [name.err(), tenant.err(), password.err()];
                return Err(Error::invalid(wrong.into_iter().flatten().collect()));
            }
        };
        let record = UserRecord {
            id: new_id!(self.world(), UserId),
            name,
            password_hash: password_record(self.world(), &form.password)?,
            staff: None,
            created_at: self.world().now(),
        };
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageTenants, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let absent = || FieldError::new("tenant", format!("there is no tenant `{tenant}`"));
            let found = tenant::find_by_name(tx, &tenant).await?;
            let found = found.ok_or_else(|| Error::from(absent()))?;
            let inserted = user::insert(tx, &record).await;
            inserted.map_err(in_use("user", record.name.as_str()))?;
            let membership = MembershipRecord {
                tenant_id: found.id,
                user_id: record.id,
                role: form.role,
            };
            user::insert_membership(tx, &membership).await?;
            let answer = user_view(&record, &membership);
            remember(tx, cx, record.created_at, &answer).await?;
            Ok(answer)
        })
    }
}

fn in_use(what: &'static str, name: &str) -> impl Fn(StoreError) -> TxError + use<> {
    let message = format!("there is already a {what} named `{name}`");
    move |error| {
        if !matches!(error, StoreError::Duplicate { .. }) {
            return error.into();
        }
        let mut refusal = Error::conflict(message.clone());
        refusal.fields = vec![FieldError::new("name", &message)];
        refusal.into()
    }
}

fn tenant_view(record: TenantRecord) -> TenantView {
    let TenantRecord {
        id,
        name,
        kind,
        created_at,
    } = record;
    TenantView {
        id,
        name,
        kind,
        created_at,
    }
}

fn user_view(user: &UserRecord, membership: &MembershipRecord) -> UserView {
    UserView {
        id: user.id,
        name: user.name.clone(),
        tenant_id: membership.tenant_id,
        role: membership.role,
        created_at: user.created_at,
    }
}
