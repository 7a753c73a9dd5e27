//! Hosts whose VMs are moved away.

use serde::{Deserialize, Serialize};

use crate::error::FieldError;
use crate::host::HostState;
use crate::migration::CopyProgress;
use crate::name::HostName;
use crate::vm::HostRef;
use crate::volume::VmRef;
use crate::{Error, HostId, OperationId, Timestamp};

/// VMs on their way at once, where nobody says how many.
pub const DEFAULT_LIMIT: u32 = 2;
/// Most VMs on their way from one host at once.
pub const MAX_LIMIT: u32 = 16;
/// How often one VM is sent on its way in one evacuation.
pub const MAX_TRIES: u32 = 3;

/// The form that has a host's VMs moved away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EvacuateHost {
    /// How many VMs are on their way at once, from 1 to 16. Where absent: 2, and
    /// as before where the host is being evacuated already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl EvacuateHost {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<Option<u32>, Error> {
        match self.limit {
            Some(limit) if !(1..=MAX_LIMIT).contains(&limit) => {
                let message = format!("from 1 to {MAX_LIMIT} VMs at once");
                Err(FieldError::new("limit", message).into())
            }
            limit => Ok(limit),
        }
    }
}

/// How far the evacuation of a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvacuationView {
    pub host_id: HostId,
    pub host: HostName,
    pub state: HostState,
    pub begun_at: Timestamp,
    /// Name of the user who asked for it.
    pub by: String,
    /// VMs on their way at once.
    pub limit: u32,
    /// Nothing is on the host any more.
    pub over: bool,
    /// VMs that were moved away since it began.
    pub moved: u32,
    pub moving: Vec<LeavingVm>,
    /// Those whose turn comes, or that are waited for.
    pub waiting: Vec<WaitingVm>,
    /// Those that cannot be moved as things are.
    pub stuck: Vec<StuckVm>,
    /// Machines the host holds that are not recorded there; as long as there are
    /// any, it is not through.
    pub orphans: u32,
}

impl EvacuationView {
    /// Nothing more happens by itself, and it is not through.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let left = !self.stuck.is_empty() || self.orphans > 0;
        !self.over && left && self.moving.is_empty() && self.waiting.is_empty()
    }
}

/// A VM on its way to another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeavingVm {
    pub vm: VmRef,
    pub to: HostRef,
    pub operation_id: OperationId,
    /// What is being copied, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyProgress>,
}

/// A VM that is still to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingVm {
    pub vm: VmRef,
    /// What is waited for; nothing where it goes when its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A VM that cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StuckVm {
    pub vm: VmRef,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_vms_go_at_once_as_is_sensible() {
        let check = |limit| EvacuateHost { limit }.check();
        for right in [None, Some(1), Some(16)] {
            assert_eq!(check(right).unwrap(), right);
        }
        for wrong in [0, 17, u32::MAX] {
            let refused = check(Some(wrong)).unwrap_err();
            assert_eq!(refused.fields[0].field, "limit", "{wrong}");
        }
    }
}
