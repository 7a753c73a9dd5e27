//! VMs.

use reqwest::Method;
use vimana_model::action::VmAction;
use vimana_model::event::EventView;
use vimana_model::migration::MigrateVm;
use vimana_model::operation::OperationView;
use vimana_model::session::TicketView;
use vimana_model::vm::{AcceptedView, CreateVm, PowerOffVm, ResizeVm, VmView};
use vimana_model::{Result, VmId, VmState};

use crate::Client;
use crate::transport::Items;

/// Which VMs to list; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// In one of these states; empty means any.
    pub states: Vec<VmState>,
    /// At most this many; the server has a limit of its own.
    pub limit: Option<u32>,
}

impl VmFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            name,
            states,
            limit,
        } = self;
        let slugs: Vec<&str> = states.iter().map(|state| state.slug()).collect();
        [
            ("name", name.clone()),
            ("state", (!slugs.is_empty()).then(|| slugs.join(","))),
            ("limit", limit.map(|limit| limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

impl Client {
    /// Newest first.
    pub async fn vms(&self, filter: &VmFilter) -> Result<Vec<VmView>> {
        let request = self.prepare(Method::GET, "/api/v1/vms")?;
        let list: Items<_> = self.call(request.query(&filter.query())).await?;
        Ok(list.items)
    }

    pub async fn create_vm(&self, form: &CreateVm) -> Result<AcceptedView> {
        self.post_json("/api/v1/vms", form).await
    }

    pub async fn vm(&self, id: VmId) -> Result<VmView> {
        self.get(&format!("/api/v1/vms/{id}")).await
    }

    /// Keeps it from being placed.
    pub async fn hold_vm(&self, id: VmId) -> Result<VmView> {
        self.post(&action(id, VmAction::Hold)).await
    }

    /// Lets it be placed.
    pub async fn release_vm(&self, id: VmId) -> Result<VmView> {
        self.post(&action(id, VmAction::Release)).await
    }

    pub async fn suspend_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Suspend)).await
    }

    pub async fn stop_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Stop)).await
    }

    pub async fn resume_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Resume)).await
    }

    pub async fn power_off_vm(&self, id: VmId, form: PowerOffVm) -> Result<AcceptedView> {
        self.post_json(&action(id, VmAction::PowerOff), &form).await
    }

    pub async fn start_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Start)).await
    }

    pub async fn reboot_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Reboot)).await
    }

    pub async fn reset_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Reset)).await
    }

    pub async fn resize_vm(&self, id: VmId, form: &ResizeVm) -> Result<AcceptedView> {
        self.post_json(&action(id, VmAction::Resize), form).await
    }

    pub async fn migrate_vm(&self, id: VmId, form: &MigrateVm) -> Result<AcceptedView> {
        self.post_json(&action(id, VmAction::Migrate), form).await
    }

    /// Tries again what failed.
    pub async fn retry_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Retry)).await
    }

    pub async fn shutdown_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.post(&action(id, VmAction::Shutdown)).await
    }

    pub async fn delete_vm(&self, id: VmId) -> Result<AcceptedView> {
        self.delete(&format!("/api/v1/vms/{id}")).await
    }

    /// Oldest first.
    pub async fn vm_timeline(&self, id: VmId) -> Result<Vec<EventView>> {
        let list: Items<_> = self.get(&format!("/api/v1/vms/{id}/timeline")).await?;
        Ok(list.items)
    }

    /// Newest first.
    pub async fn vm_operations(&self, id: VmId) -> Result<Vec<OperationView>> {
        let list: Items<_> = self.get(&format!("/api/v1/vms/{id}/operations")).await?;
        Ok(list.items)
    }

    /// A ticket that opens the serial console once; see [`Client::console`].
    pub async fn console_ticket(&self, id: VmId) -> Result<TicketView> {
        self.post(&format!("/api/v1/vms/{id}/console")).await
    }
}

fn action(id: VmId, action: VmAction) -> String {
    format!("/api/v1/vms/{id}/{action}")
}
