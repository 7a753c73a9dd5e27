//! Templates: presets a user starts from.

mod cloud_config;
mod yaml;

use vimana_authz::Permission;
use vimana_model::template::{
    ChangeTemplate, CreateTemplate, InputKind, InputValue, Inputs, Kept, TemplateRequest,
    TemplateView, check_inputs,
};
use vimana_model::user_data::UserData;
use vimana_model::vm::CreateVm;
use vimana_model::{Error, ErrorKind, FieldError, Result, TemplateId, TenantId};
use vimana_store::template::TemplateRecord;
use vimana_store::{Conn, TxError, WriteTx, flavor, image, template, write_tx};

use crate::Engine;
use crate::authorize::{Owned, authorized, current, permit};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::limits::MAX_TEMPLATES;
use crate::name;
use cloud_config::CloudConfig;

impl Owned for TemplateRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        self.tenant_id
    }
}

impl Engine {
    /// The templates that the caller may start from, by name: the tenant's own
    /// and those for all.
    ///
    /// # Errors
    /// The database fails.
    pub async fn templates(&self, cx: &OpContext) -> Result<Vec<TemplateView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = template::list(&self.store().read(), cx.subject.tenant_id).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// One template.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn template(&self, cx: &OpContext, id: TemplateId) -> Result<TemplateView> {
        let found = template::find(&self.store().read(), id).await?;
        let found = authorized(cx, Permission::ViewCatalogue, what(id), found)?;
        Ok(view(found.into_inner()))
    }

    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Forbidden`.
    pub async fn create_template(
        &self,
        cx: &OpContext,
        form: &CreateTemplate,
    ) -> Result<TemplateView> {
        let wanted = checked(form)?;
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let tenant_id = (!wanted.public).then_some(cx.subject.tenant_id);
            permit(cx, Permission::ManageTemplates, tenant_id)?;
            refuse_absent(tx, tenant_id, &wanted).await?;
            if template::count(tx, tenant_id).await? >= MAX_TEMPLATES {
                let message = format!("at most {MAX_TEMPLATES} templates");
                return Err(Error::conflict(message).into());
            }
            let TemplateRequest {
                name,
                description,
                image,
                flavor,
                user_data,
                inputs,
                public: _,
            } = wanted.clone();
            let record = TemplateRecord {
                id: new_id!(self.world(), TemplateId),
                tenant_id,
                owner_name: cx.subject.user_name.clone(),
                name,
                description,
                image,
                flavor,
                user_data,
                inputs,
                generation: 1,
                created_at: now,
            };
            let inserted = template::insert(tx, &record).await;
            inserted.map_err(|e| name::in_use(e, "a template", record.name.as_str()))?;
            let answer = view(record);
            remember(tx, cx, now, &answer).await?;
            Ok(answer)
        })
    }

    /// Changes a template; VMs that were made from it keep what they have.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Stale` where it changed since, `NotFound`, `Forbidden`.
    pub async fn change_template(
        &self,
        cx: &OpContext,
        id: TemplateId,
        form: &ChangeTemplate,
    ) -> Result<TemplateView> {
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let found = template::lock(tx, id).await?;
            let found = authorized(cx, Permission::ManageTemplates, what(id), found)?;
            let mut record = found.into_inner();
            if form
                .generation
                .is_some_and(|seen| seen != record.generation)
            {
                let message = "the template has changed since you looked at it";
                return Err(Error::new(ErrorKind::Stale, message).into());
            }
            let wanted = checked(&form.over(&view(record.clone())))?;
            refuse_absent(tx, record.tenant_id, &wanted).await?;
            let TemplateRequest {
                name,
                description,
                image,
                flavor,
                user_data,
                inputs,
                public: _,
            } = wanted;
            record = TemplateRecord {
                name,
                description,
                image,
                flavor,
                user_data,
                inputs,
                ..record
            };
            let updated = template::update(tx, &mut record).await;
            updated.map_err(|e| name::in_use(e, "a template", record.name.as_str()))?;
            let answer = view(record);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }

    /// Deletes a template; VMs that were made from it go on.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn delete_template(&self, cx: &OpContext, id: TemplateId) -> Result<TemplateView> {
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let found = template::lock(tx, id).await?;
            let found = authorized(cx, Permission::ManageTemplates, what(id), found)?;
            template::delete(tx, id).await?;
            let answer = view(found.into_inner());
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }
}

/// Looks up what a form names.
pub async fn named(
    conn: &impl Conn,
    tenant: TenantId,
    name: &vimana_model::name::TemplateName,
) -> Result<TemplateRecord, TxError> {
    let found = template::find_by_name(conn, tenant, name).await?;
    let absent = || FieldError::new("template", format!("there is no template `{name}`"));
    found.ok_or_else(|| Error::from(absent()).into())
}

/// A template's user-data with what was filled in.
pub fn user_data(template: &TemplateRecord, inputs: &Inputs) -> Result<Option<UserData>> {
    let values = check_inputs(&template.inputs, inputs)?;
    let Some(data) = &template.user_data else {
        return Ok(None);
    };
    let config = CloudConfig::parse(data.as_str());
    let data = config.and_then(|config| config.fill(&values));
    let data = data.map_err(|error| FieldError::new("inputs", error))?;
    Ok(Some(data))
}

/// Makes terms that wait for a decision say what they leave to their template,
/// and keeps the passwords among what was filled in apart: those that `before`
/// had are not said again.
pub async fn settle(
    conn: &impl Conn,
    tenant: TenantId,
    terms: &mut CreateVm,
    before: Option<&CreateVm>,
) -> Result<(), TxError> {
    let Some(name) = terms.check()?.template else {
        return Ok(());
    };
    let template = named(conn, tenant, &name).await?;
    let before = before.filter(|before| before.template == terms.template);
    for (name, value) in &mut terms.inputs {
        if *value == InputValue::HIDDEN
            && let Some(known @ InputValue::Kept(_)) =
                before.and_then(|terms| terms.inputs.get(name))
        {
            *value = known.clone();
        }
    }
    user_data(&template, &terms.inputs)?;
    for input in &template.inputs {
        if let Some(value) = terms.inputs.get_mut(&input.name)
            && input.kind == InputKind::Password
            && let InputValue::Text(text) = value
        {
            let kept = Some(std::mem::take(text));
            *value = InputValue::Kept(Kept { kept });
        }
    }
    if let (true, Some(image)) = (terms.image.is_empty(), &template.image) {
        terms.image = image.to_string();
    }
    if let (true, Some(flavor)) = (terms.flavor.is_empty(), &template.flavor) {
        terms.flavor = flavor.to_string();
    }
    Ok(())
}

/// The form with its user-data understood: every place in it is an input's, and
/// every input has one.
fn checked(form: &CreateTemplate) -> Result<TemplateRequest> {
    let wanted = form.check()?;
    let text = wanted.user_data.as_ref().map_or("", UserData::as_str);
    let config = CloudConfig::parse(text).map_err(|error| FieldError::new("user_data", error))?;
    let mut wrong = Vec::new();
    let declared = |name: &String| wanted.inputs.iter().any(|input| input.name == *name);
    if let Some(name) = config.inputs().iter().find(|name| !declared(name)) {
        let message = format!("there is no input `{name}`");
        wrong.push(FieldError::new("user_data", message));
    }
    for (index, input) in wanted.inputs.iter().enumerate() {
        if !config.inputs().contains(&input.name) {
            let message = format!("the user-data has no `{{input: {}}}`", input.name);
            wrong.push(FieldError::new(&format!("inputs.{index}.name"), message));
        }
    }
    if wrong.is_empty() {
        Ok(wanted)
    } else {
        Err(Error::invalid(wrong))
    }
}

/// What a template is to name has to be there.
async fn refuse_absent(
    tx: &WriteTx,
    tenant: Option<TenantId>,
    wanted: &TemplateRequest,
) -> Result<(), TxError> {
    let mut wrong = Vec::new();
    if let Some(name) = &wanted.image
        && image::find_by_name(tx, tenant, name).await?.is_none()
    {
        let message = format!("there is no image `{name}`");
        wrong.push(FieldError::new("image", message));
    }
    if let Some(name) = &wanted.flavor
        && flavor::find_by_name(tx, name).await?.is_none()
    {
        let message = format!("there is no flavor `{name}`");
        wrong.push(FieldError::new("flavor", message));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong).into())
    }
}

fn what(id: TemplateId) -> String {
    format!("template `{id}`")
}

fn view(record: TemplateRecord) -> TemplateView {
    let TemplateRecord {
        id,
        tenant_id,
        owner_name,
        name,
        description,
        image,
        flavor,
        user_data,
        inputs,
        generation,
        created_at,
    } = record;
    TemplateView {
        id,
        name,
        tenant_id,
        owner: owner_name,
        description,
        image,
        flavor,
        user_data,
        inputs,
        generation,
        created_at,
    }
}
