//! VMs' own disks that move to another datastore of their host.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0013_disk_moves"
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

// Where a disk is on its way to, and what is claimed for it there beside what the VM's
// claim has; both or neither.
const STATEMENTS: &[&str] = &[
    "ALTER TABLE vms ADD COLUMN moving_to TEXT",
    "ALTER TABLE vms ADD COLUMN moving_mib BIGINT",
];
