//! Named sizes.

use vimana_authz::Permission;
use vimana_model::flavor::{ChangeFlavor, CreateFlavor, FlavorView};
use vimana_model::name::FlavorName;
use vimana_model::{Error, Result};
use vimana_store::flavor::{self, FlavorRecord};
use vimana_store::{TxError, WriteTx, write_tx};

use crate::Engine;
use crate::authorize::{current, permit};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::limits::MAX_FLAVORS;
use crate::name;

impl Engine {
    /// All flavors, the smallest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn flavors(&self, cx: &OpContext) -> Result<Vec<FlavorView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = flavor::list(&self.store().read()).await?;
        Ok(found.into_iter().map(view).collect())
    }

    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Forbidden`.
    pub async fn create_flavor(&self, cx: &OpContext, form: &CreateFlavor) -> Result<FlavorView> {
        let (name, resources) = form.check()?;
        let record = FlavorRecord {
            id: new_id!(self.world(), FlavorId),
            name,
            resources,
            created_at: self.world().now(),
        };
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageFlavors, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            if flavor::list(tx).await?.len() >= MAX_FLAVORS {
                let message = format!("at most {MAX_FLAVORS} flavors");
                return Err(Error::conflict(message).into());
            }
            let inserted = flavor::insert(tx, &record).await;
            inserted.map_err(|e| name::in_use(e, "a flavor", record.name.as_str()))?;
            let answer = view(record.clone());
            remember(tx, cx, record.created_at, &answer).await?;
            Ok(answer)
        })
    }

    /// Gives a flavor another size; VMs that were made from it keep theirs.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `NotFound`, `Forbidden`.
    pub async fn change_flavor(
        &self,
        cx: &OpContext,
        name: &FlavorName,
        form: &ChangeFlavor,
    ) -> Result<FlavorView> {
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageFlavors, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let mut record = lock(tx, name).await?;
            record.resources = form.over(record.resources)?;
            flavor::update(tx, &record).await?;
            let answer = view(record);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }

    /// Takes a flavor out of the offer; VMs that were made from it keep their
    /// size and its name.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn retire_flavor(&self, cx: &OpContext, name: &FlavorName) -> Result<FlavorView> {
        write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageFlavors, None)?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let record = lock(tx, name).await?;
            flavor::delete(tx, record.id).await?;
            let answer = view(record);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })
    }
}

async fn lock(tx: &WriteTx, name: &FlavorName) -> Result<FlavorRecord, TxError> {
    let found = flavor::lock_by_name(tx, name).await?;
    found.ok_or_else(|| Error::not_found(format!("flavor `{name}`")).into())
}

fn view(record: FlavorRecord) -> FlavorView {
    let FlavorRecord {
        id,
        name,
        resources,
        created_at: _,
    } = record;
    FlavorView {
        id,
        name,
        resources,
    }
}
