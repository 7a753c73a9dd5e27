//! Backups of VMs, and what is done with a VM again and again.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0007_backups"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [BACKUPS, SCHEDULES].into_iter().flatten() {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// A backup outlives its VM: what it was of is told by value. `live_name` is its
// name while that is taken by it. `since_id` is the backup it holds the changes
// since, and needs. `claimed_mib` is claimed of the VM's host, in the VM's
// `kept_mib`, as long as the backup is being made.
const BACKUPS: &[&str] = &[
    "CREATE TABLE backups (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        vm_id TEXT NOT NULL REFERENCES vms (id),
        vm_name TEXT NOT NULL,
        owner_name TEXT NOT NULL,
        name TEXT NOT NULL,
        live_name TEXT,
        state TEXT NOT NULL,
        datastore TEXT NOT NULL,
        since_id TEXT,
        scheduled BOOLEAN NOT NULL,
        frozen BOOLEAN NOT NULL,
        vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
        memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
        disk_mib BIGINT NOT NULL CHECK (disk_mib >= 0),
        flavor_name TEXT NOT NULL,
        image_name TEXT NOT NULL,
        disks TEXT NOT NULL,
        claimed_mib BIGINT NOT NULL CHECK (claimed_mib >= 0),
        failure TEXT,
        generation BIGINT NOT NULL CHECK (generation >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE UNIQUE INDEX backups_live_name ON backups (vm_id, live_name)",
    "CREATE INDEX backups_tenant ON backups (tenant_id, created_at, id)",
    "CREATE INDEX backups_state ON backups (state)",
];

// A VM has one of each kind at most.
const SCHEDULES: &[&str] = &[
    "CREATE TABLE schedules (
        vm_id TEXT NOT NULL REFERENCES vms (id),
        kind TEXT NOT NULL,
        owner_name TEXT NOT NULL,
        every_s BIGINT NOT NULL CHECK (every_s > 0),
        keep BIGINT NOT NULL CHECK (keep > 0),
        full_every BIGINT NOT NULL CHECK (full_every > 0),
        datastore TEXT,
        next_at BIGINT NOT NULL,
        last_at BIGINT,
        trouble TEXT,
        PRIMARY KEY (vm_id, kind)
    )",
    "CREATE INDEX schedules_next ON schedules (next_at)",
    "ALTER TABLE snapshots ADD COLUMN scheduled BOOLEAN NOT NULL DEFAULT FALSE",
];
