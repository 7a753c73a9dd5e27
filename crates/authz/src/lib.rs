//! Who may do what: one table, read by the engine inside the transaction of
//! the change and by the portal to leave out what would be refused.
//!
//! Pure and safe for wasm.

use vimana_model::action::VmAction;
use vimana_model::name::UserName;
use vimana_model::session::{Role, StaffRole};
use vimana_model::{TenantId, UserId};

/// A signed-in user with everything that decides what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub user_id: UserId,
    pub user_name: UserName,
    pub staff: Option<StaffRole>,
    /// The tenant they act in, and as what.
    pub tenant_id: TenantId,
    pub role: Role,
}

/// Something that can be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// See a VM, its timeline and its operations.
    ViewVm,
    CreateVm,
    ActOnVm(VmAction),
    CancelOperation,
    /// See a tenant's requests; one's own are always seen.
    ViewRequests,
    /// Ask for a VM under the manual life-cycle, answer, withdraw, let go.
    CreateRequest,
    /// Approve, reject, ask back, confirm a release.
    DecideRequest,
    /// See images and flavors.
    ViewCatalogue,
    /// Import images, delete and restore them.
    ManageImages,
    /// Make flavors, change and retire them.
    ManageFlavors,
    /// Make templates, change and delete them.
    ManageTemplates,
    ViewVolume,
    /// Make volumes, change and delete them.
    ManageVolumes,
    /// Delete backups, set what is made again and again.
    ManageBackups,
    ViewHosts,
    /// Let hosts join, revoke them, have orphans removed.
    ManageHosts,
    /// See tenants and who belongs to them.
    ViewTenants,
    /// Make and change tenants and users.
    ManageTenants,
    /// See a tenant's limits and what is used of them.
    ViewQuota,
    /// Set a tenant's limits, and those of all tenants.
    SetQuota,
    /// Set the limits of a tenant's users.
    ShareQuota,
}

/// The answer to a permission asked about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// The object must look as if it did not exist.
    Hidden,
    /// The object may be seen, this may not be done.
    Forbidden,
}

/// Decides about an object of `tenant`, or about one of the provider's own
/// when `tenant` is `None`.
#[must_use]
pub fn decide(subject: &Subject, permission: Permission, tenant: Option<TenantId>) -> Decision {
    let Some(tenant) = tenant else {
        return decide_provider(subject, permission);
    };
    if subject.staff == Some(StaffRole::Admin) {
        return Decision::Allowed;
    }
    if subject.tenant_id != tenant {
        return match (subject.staff, permission) {
            (
                Some(StaffRole::Auditor),
                Permission::ViewVm
                | Permission::ViewRequests
                | Permission::ViewCatalogue
                | Permission::ViewVolume
                | Permission::ViewQuota
                | Permission::ViewTenants,
            ) => Decision::Allowed,
            (Some(_), _) => Decision::Forbidden,
            (None, _) => Decision::Hidden,
        };
    }
    let needed = match permission {
        // Which host a VM is on is the provider's.
        Permission::ActOnVm(VmAction::Migrate) => return Decision::Forbidden,
        Permission::ViewVm
        | Permission::ViewCatalogue
        | Permission::ViewVolume
        | Permission::ViewQuota
        | Permission::ViewTenants => Role::Viewer,
        Permission::CreateVm
        | Permission::ActOnVm(_)
        | Permission::CancelOperation
        | Permission::ManageImages
        | Permission::ManageVolumes
        | Permission::ManageBackups
        | Permission::CreateRequest => Role::Operator,
        Permission::ViewRequests
        | Permission::DecideRequest
        | Permission::ManageTemplates
        | Permission::ShareQuota => Role::Manager,
        Permission::ViewHosts
        | Permission::ManageHosts
        | Permission::ManageFlavors
        | Permission::ManageTenants
        | Permission::SetQuota => return Decision::Forbidden,
    };
    if subject.role >= needed {
        Decision::Allowed
    } else {
        Decision::Forbidden
    }
}

fn decide_provider(subject: &Subject, permission: Permission) -> Decision {
    match permission {
        Permission::ViewCatalogue => Decision::Allowed,
        Permission::ViewHosts | Permission::ViewQuota | Permission::ViewTenants
            if subject.staff.is_some() =>
        {
            Decision::Allowed
        }
        Permission::ManageHosts
        | Permission::ManageTenants
        | Permission::SetQuota
        | Permission::ManageImages
        | Permission::ManageFlavors
        | Permission::ManageTemplates
            if subject.staff == Some(StaffRole::Admin) =>
        {
            Decision::Allowed
        }
        Permission::ViewHosts
        | Permission::ViewQuota
        | Permission::ViewTenants
        | Permission::SetQuota
        | Permission::ShareQuota
        | Permission::ManageHosts
        | Permission::ManageTenants
        | Permission::ManageImages
        | Permission::ManageFlavors
        | Permission::ManageTemplates
        | Permission::ViewVolume
        | Permission::ManageVolumes
        | Permission::ManageBackups
        | Permission::ViewVm
        | Permission::CreateVm
        | Permission::ActOnVm(_)
        | Permission::CancelOperation
        | Permission::ViewRequests
        | Permission::CreateRequest
        | Permission::DecideRequest => Decision::Forbidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u8) -> TenantId {
        TenantId::from_parts(u64::from(n), [n; 10])
    }

    fn subject(staff: Option<StaffRole>, role: Role) -> Subject {
        Subject {
            user_id: UserId::from_parts(0, [0; 10]),
            user_name: UserName::new("ann").unwrap(),
            staff,
            tenant_id: tenant(1),
            role,
        }
    }

    #[test]
    fn a_viewer_sees_and_does_not_touch() {
        let viewer = subject(None, Role::Viewer);
        assert_eq!(
            decide(&viewer, Permission::ViewVm, Some(tenant(1))),
            Decision::Allowed
        );
        assert_eq!(
            decide(&viewer, Permission::CreateVm, Some(tenant(1))),
            Decision::Forbidden
        );
        let console = Permission::ActOnVm(VmAction::Console);
        assert_eq!(
            decide(&viewer, console, Some(tenant(1))),
            Decision::Forbidden
        );
    }

    #[test]
    fn what_is_anothers_does_not_exist() {
        let manager = subject(None, Role::Manager);
        for permission in [Permission::ViewVm, Permission::ActOnVm(VmAction::Delete)] {
            assert_eq!(
                decide(&manager, permission, Some(tenant(2))),
                Decision::Hidden
            );
        }
    }

    #[test]
    fn templates_are_a_managers_and_flavors_an_administrators() {
        let asked = |subject: &Subject, permission, of: Option<u8>| {
            decide(subject, permission, of.map(tenant))
        };
        let (flavors, templates) = (Permission::ManageFlavors, Permission::ManageTemplates);
        let operator = subject(None, Role::Operator);
        assert_eq!(asked(&operator, templates, Some(1)), Decision::Forbidden);
        let manager = subject(None, Role::Manager);
        assert_eq!(asked(&manager, templates, Some(1)), Decision::Allowed);
        assert_eq!(asked(&manager, templates, Some(2)), Decision::Hidden);
        assert_eq!(asked(&manager, templates, None), Decision::Forbidden);
        assert_eq!(asked(&manager, flavors, None), Decision::Forbidden);
        let admin = subject(Some(StaffRole::Admin), Role::Viewer);
        assert_eq!(asked(&admin, templates, None), Decision::Allowed);
        assert_eq!(asked(&admin, flavors, None), Decision::Allowed);
    }

    #[test]
    fn hosts_are_for_staff() {
        assert_eq!(
            decide(&subject(None, Role::Manager), Permission::ViewHosts, None),
            Decision::Forbidden
        );
        let auditor = subject(Some(StaffRole::Auditor), Role::Viewer);
        assert_eq!(
            decide(&auditor, Permission::ViewHosts, None),
            Decision::Allowed
        );
    }
}
