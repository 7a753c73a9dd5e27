//! Volumes, and snapshots of VMs.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0004_volumes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [VOLUMES, SNAPSHOTS].into_iter().flatten() {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// `live_name` is its name while that is taken by it. A volume has a host from
// its first attachment on, where `size_mib` is claimed of it; `made` says that
// it was attached once, and needs its image no more.
const VOLUMES: &[&str] = &[
    "CREATE TABLE volumes (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        owner_name TEXT NOT NULL,
        name TEXT NOT NULL,
        live_name TEXT,
        state TEXT NOT NULL,
        size_mib BIGINT NOT NULL CHECK (size_mib > 0),
        image_id TEXT REFERENCES images (id),
        image_name TEXT,
        made BOOLEAN NOT NULL,
        delete_with_vm BOOLEAN NOT NULL,
        host_id TEXT REFERENCES hosts (id),
        host_name TEXT,
        host_zone TEXT,
        vm_id TEXT REFERENCES vms (id),
        vm_name TEXT,
        generation BIGINT NOT NULL CHECK (generation >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE UNIQUE INDEX volumes_live_name ON volumes (tenant_id, live_name)",
    "CREATE INDEX volumes_vm ON volumes (vm_id)",
    "CREATE INDEX volumes_state ON volumes (state, host_id)",
    "CREATE INDEX volumes_image ON volumes (image_id, state)",
    "ALTER TABLE events ADD COLUMN volume_id TEXT",
    "CREATE INDEX events_volume ON events (volume_id, seq)",
];

// `kept_mib` is what the snapshots of a VM claim of its host's disk, in sum;
// `snapshot_id` is the one that its disks have come from.
const SNAPSHOTS: &[&str] = &[
    "CREATE TABLE snapshots (
        id TEXT NOT NULL PRIMARY KEY,
        vm_id TEXT NOT NULL REFERENCES vms (id),
        parent_id TEXT,
        owner_name TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        memory BOOLEAN NOT NULL,
        vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
        memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
        disk_mib BIGINT NOT NULL CHECK (disk_mib >= 0),
        volumes TEXT NOT NULL,
        claimed_mib BIGINT NOT NULL CHECK (claimed_mib >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE UNIQUE INDEX snapshots_name ON snapshots (vm_id, name)",
    "ALTER TABLE vms ADD COLUMN kept_mib BIGINT NOT NULL DEFAULT 0 CHECK (kept_mib >= 0)",
    "ALTER TABLE vms ADD COLUMN snapshot_id TEXT",
];
