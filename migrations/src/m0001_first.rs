//! The first tables.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [PEOPLE, CATALOGUE, HOSTS, VMS, OPERATIONS, EVENTS];
        for statement in tables.into_iter().flatten() {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

const PEOPLE: &[&str] = &[
    "CREATE TABLE tenants (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at BIGINT NOT NULL
    )",
    "CREATE TABLE users (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        staff TEXT,
        created_at BIGINT NOT NULL
    )",
    "CREATE TABLE memberships (
        user_id TEXT NOT NULL REFERENCES users (id),
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        role TEXT NOT NULL,
        PRIMARY KEY (user_id, tenant_id)
    )",
    "CREATE TABLE tokens (
        id TEXT NOT NULL PRIMARY KEY,
        user_id TEXT NOT NULL REFERENCES users (id),
        hash TEXT NOT NULL UNIQUE,
        expires_at BIGINT NOT NULL,
        created_at BIGINT NOT NULL
    )",
    "CREATE INDEX tokens_expires_at ON tokens (expires_at)",
    "CREATE TABLE sessions (
        id_hash TEXT NOT NULL PRIMARY KEY,
        data TEXT NOT NULL,
        expires_at BIGINT NOT NULL
    )",
    "CREATE INDEX sessions_expires_at ON sessions (expires_at)",
];

const CATALOGUE: &[&str] = &[
    "CREATE TABLE flavors (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
        memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
        disk_mib BIGINT NOT NULL CHECK (disk_mib >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE TABLE images (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        format TEXT NOT NULL,
        size_bytes BIGINT NOT NULL CHECK (size_bytes >= 0),
        virtual_mib BIGINT NOT NULL CHECK (virtual_mib >= 0),
        sha256 TEXT NOT NULL,
        created_at BIGINT NOT NULL
    )",
];

// `used_…` and `vms` are the sums over `claims`, kept by conditional updates.
const HOSTS: &[&str] = &["CREATE TABLE hosts (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        zone TEXT NOT NULL,
        state TEXT NOT NULL,
        connected BOOLEAN NOT NULL,
        hypervisor TEXT NOT NULL,
        accelerator TEXT NOT NULL,
        accelerator_note TEXT NOT NULL,
        cap_vcpus BIGINT NOT NULL CHECK (cap_vcpus >= 0),
        cap_memory_mib BIGINT NOT NULL CHECK (cap_memory_mib >= 0),
        cap_disk_mib BIGINT NOT NULL CHECK (cap_disk_mib >= 0),
        used_vcpus BIGINT NOT NULL CHECK (used_vcpus >= 0),
        used_memory_mib BIGINT NOT NULL CHECK (used_memory_mib >= 0),
        used_disk_mib BIGINT NOT NULL CHECK (used_disk_mib >= 0),
        vms BIGINT NOT NULL CHECK (vms >= 0),
        agent_version TEXT NOT NULL,
        connected_since BIGINT,
        silent_since BIGINT
    )"];

// `live_name` is the name until the VM is done, then null: so a name is free
// again, and the record keeps it. Image, host and operation are told by value
// or by bare id: a record outlives what it points to.
const VMS: &[&str] = &[
    "CREATE TABLE vms (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        owner_id TEXT NOT NULL REFERENCES users (id),
        owner_name TEXT NOT NULL,
        name TEXT NOT NULL,
        live_name TEXT,
        state TEXT NOT NULL,
        state_since BIGINT NOT NULL,
        failure TEXT,
        flavor_name TEXT NOT NULL,
        vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
        memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
        disk_mib BIGINT NOT NULL CHECK (disk_mib >= 0),
        image_id TEXT NOT NULL,
        image_name TEXT NOT NULL,
        ssh_key TEXT,
        user_data TEXT,
        host_id TEXT,
        host_name TEXT,
        host_zone TEXT,
        run_epoch BIGINT NOT NULL CHECK (run_epoch >= 0),
        generation BIGINT NOT NULL CHECK (generation >= 0),
        operation_id TEXT,
        explanation TEXT,
        explained_at BIGINT,
        created_at BIGINT NOT NULL,
        CHECK ((host_id IS NULL) = (host_name IS NULL)),
        CHECK ((host_id IS NULL) = (host_zone IS NULL))
    )",
    "CREATE UNIQUE INDEX vms_live_name ON vms (tenant_id, live_name)",
    "CREATE INDEX vms_created ON vms (created_at, id)",
    "CREATE INDEX vms_tenant ON vms (tenant_id, created_at, id)",
    "CREATE INDEX vms_tenant_name ON vms (tenant_id, name)",
    "CREATE INDEX vms_state ON vms (state, created_at, id)",
    "CREATE INDEX vms_host ON vms (host_id)",
    "CREATE TABLE claims (
        vm_id TEXT NOT NULL PRIMARY KEY REFERENCES vms (id),
        host_id TEXT NOT NULL REFERENCES hosts (id),
        vcpus BIGINT NOT NULL CHECK (vcpus >= 0),
        memory_mib BIGINT NOT NULL CHECK (memory_mib >= 0),
        disk_mib BIGINT NOT NULL CHECK (disk_mib >= 0)
    )",
    "CREATE INDEX claims_host ON claims (host_id)",
];

const OPERATIONS: &[&str] = &[
    "CREATE TABLE operations (
        id TEXT NOT NULL PRIMARY KEY,
        vm_id TEXT NOT NULL REFERENCES vms (id),
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        step BIGINT NOT NULL CHECK (step >= 0),
        steps TEXT NOT NULL,
        requested_by TEXT NOT NULL,
        error TEXT,
        created_at BIGINT NOT NULL,
        ended_at BIGINT
    )",
    "CREATE INDEX operations_vm ON operations (vm_id, created_at, id)",
    "CREATE INDEX operations_state ON operations (state, created_at, id)",
];

// The counter's row is locked from the first append of a transaction to its
// end: so numbers are given in the order of commits, and a rollback gives its
// numbers back.
const EVENTS: &[&str] = &[
    "CREATE TABLE event_counter (
        id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
        seq BIGINT NOT NULL CHECK (seq >= 0)
    )",
    "INSERT INTO event_counter (id, seq) VALUES (1, 0)",
    "CREATE TABLE events (
        seq BIGINT NOT NULL PRIMARY KEY CHECK (seq > 0),
        at BIGINT NOT NULL,
        actor TEXT NOT NULL,
        tenant_id TEXT,
        vm_id TEXT,
        host_id TEXT,
        event TEXT NOT NULL
    )",
    "CREATE INDEX events_vm ON events (vm_id, seq)",
];
