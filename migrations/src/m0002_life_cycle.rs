//! The whole life-cycle: taking back, saved machines, requests, idempotency
//! keys, host certificates, orphans.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0002_life_cycle"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [OPERATIONS, VMS, REQUESTS, IDEMPOTENCY, HOSTS];
        for statement in tables.into_iter().flatten() {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// `claim_epoch` grows whenever a server takes the operation on; answers to an
// older one have no effect. `undo` says why what was done is taken back, while
// it is and afterwards. `due_at` is when a step that failed is tried again.
const OPERATIONS: &[&str] = &[
    "ALTER TABLE operations ADD COLUMN claim_epoch BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE operations ADD COLUMN undo TEXT",
    "ALTER TABLE operations ADD COLUMN due_at BIGINT",
    "CREATE INDEX operations_due ON operations (due_at)",
];

// `saved` is what the datastore holds of a stopped VM.
const VMS: &[&str] = &[
    "ALTER TABLE vms ADD COLUMN saved TEXT",
    "ALTER TABLE vms ADD COLUMN request_id TEXT",
    "ALTER TABLE events ADD COLUMN request_id TEXT",
    "CREATE INDEX events_request ON events (request_id, seq)",
];

const REQUESTS: &[&str] = &[
    "ALTER TABLE tenants ADD COLUMN kind TEXT NOT NULL DEFAULT 'automatic'",
    "CREATE TABLE requests (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        requester_id TEXT NOT NULL REFERENCES users (id),
        requester_name TEXT NOT NULL,
        state TEXT NOT NULL,
        state_since BIGINT NOT NULL,
        terms TEXT NOT NULL,
        vm_id TEXT,
        remarks TEXT NOT NULL,
        generation BIGINT NOT NULL CHECK (generation >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE INDEX requests_tenant ON requests (tenant_id, created_at, id)",
    "CREATE INDEX requests_state ON requests (state, created_at, id)",
    "CREATE UNIQUE INDEX requests_vm ON requests (vm_id)",
];

// What was answered to a request with that key, so that it is answered the
// same again and has one effect.
const IDEMPOTENCY: &[&str] = &[
    "CREATE TABLE idempotency_keys (
        user_id TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        answer TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        PRIMARY KEY (user_id, idempotency_key)
    )",
    "CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at)",
];

// `session_number` is the host's last session, `session_offered` one that the
// host may not have heard of.
const HOSTS: &[&str] = &[
    "ALTER TABLE hosts ADD COLUMN hot_resize BOOLEAN NOT NULL DEFAULT FALSE",
    "ALTER TABLE hosts ADD COLUMN protocol BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE hosts ADD COLUMN certificate TEXT",
    "ALTER TABLE hosts ADD COLUMN revoked_at BIGINT",
    "ALTER TABLE hosts ADD COLUMN session_number BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE hosts ADD COLUMN session_offered BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE hosts ADD COLUMN orphans BIGINT NOT NULL DEFAULT 0 CHECK (orphans >= 0)",
    "CREATE TABLE orphans (
        host_id TEXT NOT NULL REFERENCES hosts (id),
        vm_id TEXT NOT NULL,
        run_epoch BIGINT NOT NULL CHECK (run_epoch >= 0),
        power TEXT NOT NULL,
        discarding BOOLEAN NOT NULL,
        first_seen_at BIGINT NOT NULL,
        PRIMARY KEY (host_id, vm_id)
    )",
    "CREATE TABLE join_tokens (
        id TEXT NOT NULL PRIMARY KEY,
        secret_hash TEXT NOT NULL UNIQUE,
        host_name TEXT,
        created_by TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL,
        used_at BIGINT,
        host_id TEXT
    )",
    "CREATE INDEX join_tokens_expires_at ON join_tokens (expires_at)",
];
