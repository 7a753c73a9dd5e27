//! Hosts; for the provider's staff alone.

use vimana_model::evacuation::{EvacuateHost, EvacuationView};
use vimana_model::event::EventView;
use vimana_model::host::{CreateJoinToken, HostView, JoinTokenView, OrphanView};
use vimana_model::{HostId, Result, VmId};

use crate::Client;
use crate::transport::Items;

impl Client {
    pub async fn hosts(&self) -> Result<Vec<HostView>> {
        let list: Items<_> = self.get("/api/v1/hosts").await?;
        Ok(list.items)
    }

    /// Oldest first.
    pub async fn host_timeline(&self, id: HostId) -> Result<Vec<EventView>> {
        let list: Items<_> = self.get(&format!("/api/v1/hosts/{id}/events")).await?;
        Ok(list.items)
    }

    /// A permission for one host to join, once.
    pub async fn create_join_token(&self, form: &CreateJoinToken) -> Result<JoinTokenView> {
        self.post_json("/api/v1/hosts/join-tokens", form).await
    }

    /// Ends what the host's certificate is good for.
    pub async fn revoke_host(&self, id: HostId) -> Result<HostView> {
        self.post(&format!("/api/v1/hosts/{id}/revoke")).await
    }

    /// Keeps new VMs from it.
    pub async fn cordon_host(&self, id: HostId) -> Result<HostView> {
        self.post(&format!("/api/v1/hosts/{id}/cordon")).await
    }

    /// Lets it take VMs again.
    pub async fn enable_host(&self, id: HostId) -> Result<HostView> {
        self.post(&format!("/api/v1/hosts/{id}/enable")).await
    }

    /// Has its VMs moved to others.
    pub async fn evacuate_host(&self, id: HostId, form: &EvacuateHost) -> Result<HostView> {
        self.post_json(&format!("/api/v1/hosts/{id}/evacuate"), form)
            .await
    }

    /// How far that is.
    pub async fn host_evacuation(&self, id: HostId) -> Result<EvacuationView> {
        self.get(&format!("/api/v1/hosts/{id}/evacuation")).await
    }

    /// The machines it holds that are not recorded there.
    pub async fn host_orphans(&self, id: HostId) -> Result<Vec<OrphanView>> {
        let list: Items<_> = self.get(&format!("/api/v1/hosts/{id}/orphans")).await?;
        Ok(list.items)
    }

    /// Has such a machine removed, with everything it holds there.
    pub async fn discard_orphan(&self, id: HostId, machine: VmId) -> Result<OrphanView> {
        self.post(&format!("/api/v1/hosts/{id}/orphans/{machine}/discard"))
            .await
    }
}
