//! Quotas, and what each VM counts of them.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0014_quotas"
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

// The limits of all tenants have no tenant, those of a tenant no user, those of all
// of its users the user `*`, which is nobody's name. A limit that is absent is none.
// What VMs count is summed up when a quota is asked about: the index holds all of it.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE quotas (
        tenant_id TEXT NOT NULL,
        user_name TEXT NOT NULL,
        measure TEXT NOT NULL,
        datastore TEXT NOT NULL,
        soft BIGINT,
        hard BIGINT,
        PRIMARY KEY (tenant_id, user_name, measure, datastore)
    )",
    "ALTER TABLE vms ADD COLUMN counts_running BOOLEAN NOT NULL DEFAULT FALSE",
    "ALTER TABLE vms ADD COLUMN counts_operation BOOLEAN NOT NULL DEFAULT FALSE",
    "ALTER TABLE vms ADD COLUMN counts_vcpus BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE vms ADD COLUMN counts_memory_mib BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE vms ADD COLUMN counts_disk_mib BIGINT NOT NULL DEFAULT 0",
    "UPDATE vms SET counts_vcpus = vcpus, counts_memory_mib = memory_mib,
        counts_disk_mib = disk_mib",
    "UPDATE vms SET counts_running = TRUE
        WHERE state IN ('pending', 'prolog', 'boot', 'running', 'migrate', 'shutdown', 'unknown')
        OR state IN ('suspended', 'stopped', 'powered_off', 'failed')
            AND operation_id IN (SELECT id FROM operations
                WHERE state IN ('running', 'undoing') AND kind IN ('create', 'start', 'resume'))
        OR state = 'suspended'
            AND operation_id IN (SELECT id FROM operations
                WHERE state IN ('running', 'undoing') AND kind = 'stop'
                AND steps LIKE '%\"save\"%')",
    "UPDATE vms SET counts_operation = TRUE
        WHERE state <> 'hold' AND operation_id IN (SELECT id FROM operations
            WHERE state IN ('running', 'undoing') AND kind NOT IN ('suspend', 'stop', 'poweroff',
                'shutdown', 'delete', 'remove-snapshot', 'detach', 'move', 'migrate'))",
    "CREATE INDEX vms_counted ON vms (tenant_id, owner_name, counts_running, counts_operation,
        counts_vcpus, counts_memory_mib, counts_disk_mib) WHERE live_name IS NOT NULL",
];
