//! Images have a life of their own: imported, kept, put in the trash. An
//! operation works on a VM or on an image.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0003_images"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [OPERATIONS, IMAGES, EVENTS].into_iter().flatten() {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// Made anew: SQLite takes no NOT NULL from a column that is there.
const OPERATIONS: &[&str] = &[
    "CREATE TABLE operations_of_all (
        id TEXT NOT NULL PRIMARY KEY,
        vm_id TEXT REFERENCES vms (id),
        image_id TEXT,
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        step BIGINT NOT NULL CHECK (step >= 0),
        steps TEXT NOT NULL,
        requested_by TEXT NOT NULL,
        error TEXT,
        created_at BIGINT NOT NULL,
        ended_at BIGINT,
        claim_epoch BIGINT NOT NULL DEFAULT 0,
        undo TEXT,
        due_at BIGINT,
        CHECK ((vm_id IS NULL) <> (image_id IS NULL))
    )",
    "INSERT INTO operations_of_all (id, vm_id, kind, state, step, steps, requested_by, error,
            created_at, ended_at, claim_epoch, undo, due_at)
        SELECT id, vm_id, kind, state, step, steps, requested_by, error,
            created_at, ended_at, claim_epoch, undo, due_at FROM operations",
    "DROP TABLE operations",
    "ALTER TABLE operations_of_all RENAME TO operations",
    "CREATE INDEX operations_vm ON operations (vm_id, created_at, id)",
    "CREATE INDEX operations_image ON operations (image_id, id)",
    "CREATE INDEX operations_state ON operations (state, created_at, id)",
    "CREATE INDEX operations_due ON operations (due_at)",
];

// Without a tenant an image is for all. `live_name` is its name while that is
// taken by it. `source` may hold a password: it goes when the import is
// through. `format` and what follows are known from then on.
const IMAGES: &[&str] = &[
    "CREATE TABLE images_alive (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT REFERENCES tenants (id),
        owner_name TEXT,
        name TEXT NOT NULL,
        live_name TEXT,
        state TEXT NOT NULL,
        state_since BIGINT NOT NULL,
        failure TEXT,
        origin TEXT NOT NULL,
        source TEXT,
        checksum TEXT,
        declared TEXT,
        format TEXT,
        size_bytes BIGINT CHECK (size_bytes >= 0),
        virtual_mib BIGINT CHECK (virtual_mib >= 0),
        sha256 TEXT,
        operation_id TEXT,
        generation BIGINT NOT NULL CHECK (generation >= 0),
        created_at BIGINT NOT NULL
    )",
    "INSERT INTO images_alive (id, name, live_name, state, state_since, origin, format, size_bytes,
            virtual_mib, sha256, generation, created_at)
        SELECT id, name, name, 'ready', created_at, '{\"kind\":\"file\",\"path\":\"\"}', format,
            size_bytes, virtual_mib, sha256, 1, created_at FROM images",
    "DROP TABLE images",
    "ALTER TABLE images_alive RENAME TO images",
    "CREATE UNIQUE INDEX images_live_name ON images ((COALESCE(tenant_id, '')), live_name)",
    "CREATE INDEX images_state ON images (state, state_since)",
    "CREATE INDEX vms_image ON vms (image_id, state)",
];

const EVENTS: &[&str] = &[
    "ALTER TABLE events ADD COLUMN image_id TEXT",
    "CREATE INDEX events_image ON events (image_id, seq)",
];
