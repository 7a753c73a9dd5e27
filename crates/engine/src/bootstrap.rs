//! The first start: a tenant, flavors, and an administrator.

use vimana_model::name::{FlavorName, TenantName, UserName};
use vimana_model::session::{MAX_PASSWORD_BYTES, Role, StaffRole};
use vimana_model::tenant::TenantKind;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{Error, FieldError, Result};
use vimana_store::flavor::FlavorRecord;
use vimana_store::tenant::TenantRecord;
use vimana_store::user::{MembershipRecord, UserRecord};
use vimana_store::{WriteTx, flavor, tenant, user, write_tx};

use crate::context::new_id;
use crate::session::password_record;
use crate::{Engine, secret};

/// Name, vCPUs, memory and disk in MiB.
const FLAVORS: [(&str, u32, u64, u64); 5] = [
    ("tiny", 1, 128, 1024),
    ("small", 1, 512, 5 * 1024),
    ("medium", 2, 2048, 20 * 1024),
    ("large", 4, 8192, 80 * 1024),
    ("huge", 16, 65_536, 320 * 1024),
];

impl Engine {
    /// Makes what an empty installation needs, once: tenant `default`, the
    /// usual flavors, and user `admin`. Later calls change nothing.
    ///
    /// Returns the administrator's password where it was generated, that is,
    /// on the first start without `preset`.
    ///
    /// # Errors
    /// `Invalid` for a preset password that is empty or too long.
    pub async fn bootstrap(&self, preset: Option<&str>) -> Result<Option<String>> {
        let admin = UserName::new("admin").map_err(Error::internal)?;
        if user::find_by_name(&self.store().read(), &admin)
            .await?
            .is_some()
        {
            return Ok(None);
        }
        if preset.is_some_and(|text| text.is_empty() || text.len() > MAX_PASSWORD_BYTES) {
            return Err(FieldError::new(
                "VIMANA_ADMIN_PASSWORD",
                format!("must have 1 to {MAX_PASSWORD_BYTES} characters"),
            )
            .into());
        }
        let generated = match preset {
            Some(_) => None,
            None => Some(secret::typeable(self.world())),
        };
        let password = preset.or(generated.as_deref()).unwrap_or_default();
        let now = self.world().now();
        let tenant = TenantRecord {
            id: new_id!(self.world(), TenantId),
            name: TenantName::new("default").map_err(Error::internal)?,
            kind: TenantKind::Automatic,
            created_at: now,
        };
        let user = UserRecord {
            id: new_id!(self.world(), UserId),
            name: admin,
            password_hash: password_record(self.world(), password)?,
            staff: Some(StaffRole::Admin),
            created_at: now,
        };
        let flavors = self.first_flavors()?;
        write_tx!(self.store(), |tx| {
            tenant::insert(tx, &tenant).await?;
            user::insert(tx, &user).await?;
            let membership = MembershipRecord {
                tenant_id: tenant.id,
                user_id: user.id,
                role: Role::Manager,
            };
            user::insert_membership(tx, &membership).await?;
            insert_flavors(tx, &flavors).await?;
            Ok(())
        })?;
        Ok(generated)
    }

    fn first_flavors(&self) -> Result<Vec<FlavorRecord>> {
        FLAVORS
            .into_iter()
            .map(|(name, vcpus, memory, disk)| {
                Ok(FlavorRecord {
                    id: new_id!(self.world(), FlavorId),
                    name: FlavorName::new(name).map_err(Error::internal)?,
                    resources: Resources {
                        vcpus,
                        memory_mib: MiB(memory),
                        disk_mib: MiB(disk),
                    },
                    created_at: self.world().now(),
                })
            })
            .collect()
    }
}

async fn insert_flavors(
    tx: &WriteTx,
    flavors: &[FlavorRecord],
) -> Result<(), vimana_store::StoreError> {
    for record in flavors {
        flavor::insert(tx, record).await?;
    }
    Ok(())
}
