//! Hosts.

use vimana_model::Result;
use vimana_model::host::HostView;

use crate::Client;
use crate::transport::Items;

impl Client {
    /// All hosts; for the provider's staff alone.
    pub async fn hosts(&self) -> Result<Vec<HostView>> {
        let list: Items<_> = self.get("/api/v1/hosts").await?;
        Ok(list.items)
    }
}
