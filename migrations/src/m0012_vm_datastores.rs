//! VMs whose root disk is in one of the further datastores of their host, and what
//! of a VM goes along with it to another host.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0012_vm_datastores"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in STATEMENTS {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// What a claim has of disk, it has of that datastore of its host. `disks`: those
// that a VM on its way takes along, as JSON. `place`: where the guest of its VM finds
// a volume, where its host has told; `hardware`: what machines see of a host, as JSON.
const STATEMENTS: &[&str] = &[
    "ALTER TABLE vms ADD COLUMN datastore TEXT NOT NULL DEFAULT 'local'",
    "ALTER TABLE claims ADD COLUMN datastore TEXT NOT NULL DEFAULT 'local'",
    "ALTER TABLE migrations ADD COLUMN datastore TEXT NOT NULL DEFAULT 'local'",
    "ALTER TABLE migrations ADD COLUMN disks TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE volumes ADD COLUMN place BIGINT",
    "ALTER TABLE hosts ADD COLUMN hardware TEXT",
];
