//! What a first start records, without its costly password.

use vimana_model::image::ImageFormat;
use vimana_model::name::{FlavorName, ImageName, TenantName};
use vimana_model::tenant::TenantKind;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{FlavorId, ImageId, Timestamp};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::tenant::TenantRecord;
use vimana_store::user::{MembershipRecord, UserRecord};
use vimana_store::{Store, flavor, image, tenant, user, write_tx};

use super::people::{ADMIN, AUTOMATIC, MANUAL, MONA, RITA, tenant_id};

/// Records tenants, people, flavors and image `demo`.
///
/// # Panics
/// The disk does not take it.
pub async fn install(store: &Store) {
    let now = Timestamp::from_ms(0);
    let done: vimana_model::Result<()> = write_tx!(store, |tx| {
        for (number, name, kind) in [
            (AUTOMATIC, "default", TenantKind::Automatic),
            (MANUAL, "lab", TenantKind::Manual),
        ] {
            let record = TenantRecord {
                id: tenant_id(number),
                name: TenantName::new(name).unwrap(),
                kind,
                created_at: now,
            };
            tenant::insert(tx, &record).await?;
        }
        for person in [ADMIN, RITA, MONA] {
            let subject = person.subject();
            let record = UserRecord {
                id: subject.user_id,
                name: subject.user_name,
                password_hash: "nobody signs in".to_owned(),
                staff: person.staff,
                created_at: now,
            };
            user::insert(tx, &record).await?;
            let membership = MembershipRecord {
                tenant_id: subject.tenant_id,
                user_id: subject.user_id,
                role: person.role,
            };
            user::insert_membership(tx, &membership).await?;
        }
        for (number, name, memory, disk) in [(1, "tiny", 128, 1024), (2, "small", 512, 5120)] {
            let record = FlavorRecord {
                id: FlavorId::from_parts(number, [0; 10]),
                name: FlavorName::new(name).unwrap(),
                resources: Resources {
                    vcpus: 1,
                    memory_mib: MiB(memory),
                    disk_mib: MiB(disk),
                },
                created_at: now,
            };
            flavor::insert(tx, &record).await?;
        }
        let record = ImageRecord {
            id: ImageId::from_parts(1, [0; 10]),
            name: ImageName::new("demo").unwrap(),
            format: ImageFormat::Qcow2,
            size_bytes: 512,
            virtual_mib: MiB(64),
            sha256: "0".repeat(64),
            created_at: now,
        };
        image::insert(tx, &record).await?;
        Ok(())
    });
    done.unwrap();
}
