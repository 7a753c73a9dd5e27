//! VMs that go from one host to another.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0010_migrations"
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

// The other host of a VM that moves, and what it holds there: that where it goes
// to until it is committed, and from then on that where it was.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE migrations (
        vm_id TEXT NOT NULL PRIMARY KEY,
        operation_id TEXT NOT NULL,
        host_id TEXT NOT NULL,
        host_name TEXT NOT NULL,
        host_zone TEXT NOT NULL,
        vcpus BIGINT NOT NULL,
        memory_mib BIGINT NOT NULL,
        disk_mib BIGINT NOT NULL,
        committed BOOLEAN NOT NULL
    )",
    "CREATE INDEX migrations_by_host ON migrations (host_id)",
];
