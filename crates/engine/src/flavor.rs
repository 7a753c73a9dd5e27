//! Named sizes.

use vimana_authz::Permission;
use vimana_model::Result;
use vimana_model::flavor::FlavorView;
use vimana_store::flavor::{self, FlavorRecord};

use crate::Engine;
use crate::authorize::permit;
use crate::context::OpContext;

impl Engine {
    /// All flavors, the smallest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn flavors(&self, cx: &OpContext) -> Result<Vec<FlavorView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = flavor::list(&self.store().read()).await?;
        Ok(found
            .into_iter()
            .map(
                |FlavorRecord {
                     id,
                     name,
                     resources,
                     created_at: _,
                 }| FlavorView {
                    id,
                    name,
                    resources,
                },
            )
            .collect())
    }
}
