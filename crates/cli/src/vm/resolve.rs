//! From what a person calls a VM to its id.

use vimana_client::{Client, VmFilter};
use vimana_model::VmId;
use vimana_model::name::VmName;
use vimana_model::vm::VmView;

use crate::failure::{Failure, Outcome};
use crate::limits::MAX_LISTED_VMS;

/// An id names itself. A name means the VM that is not done, else the newest
/// that is.
pub async fn resolve(client: &Client, text: &str) -> Outcome<VmId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let name = VmName::new(text).map_err(|error| {
        Failure::Failed(format!("`{text}` is neither an id nor a name: {error}"))
    })?;
    let filter = VmFilter {
        name: Some(name.to_string()),
        states: Vec::new(),
        limit: Some(MAX_LISTED_VMS),
    };
    choose(&name, &client.vms(&filter).await?)
}

/// `vms` is newest first.
fn choose(name: &VmName, vms: &[VmView]) -> Outcome<VmId> {
    let live: Vec<VmId> = vms
        .iter()
        .filter(|vm| !vm.state.is_final())
        .map(|vm| vm.id)
        .collect();
    match (live.as_slice(), vms.first()) {
        ([id], _) => Ok(*id),
        ([], Some(done)) => Ok(done.id),
        ([], None) => Err(Failure::Failed(format!("vm `{name}` not found"))),
        (several, _) => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::Failed(format!(
                "several VMs are called `{name}`; say which by its id: {}",
                ids.join(", ")
            )))
        }
    }
}
