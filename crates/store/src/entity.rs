//! The rows as sea-orm sees them. Nothing here leaves the crate.

use sea_orm::entity::prelude::*;

/// No relation is followed by sea-orm: every query names its columns itself.
macro_rules! plain {
    () => {
        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}
        impl ActiveModelBehavior for ActiveModel {}
    };
}

pub mod tenant {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenants")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub created_at: i64,
        pub kind: String,
    }
    plain!();
}

pub mod user {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub password_hash: String,
        pub staff: Option<String>,
        pub created_at: i64,
    }
    plain!();
}

pub mod membership {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "memberships")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        pub role: String,
    }
    plain!();
}

pub mod token {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub hash: String,
        pub expires_at: i64,
        pub created_at: i64,
    }
    plain!();
}

pub mod session {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "sessions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id_hash: String,
        pub data: String,
        pub expires_at: i64,
    }
    plain!();
}

pub mod flavor {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "flavors")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub created_at: i64,
    }
    plain!();
}

pub mod template {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "templates")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: Option<String>,
        pub owner_name: String,
        pub name: String,
        pub description: String,
        pub image_name: Option<String>,
        pub flavor_name: Option<String>,
        pub user_data: Option<String>,
        pub inputs: String,
        pub generation: i64,
        pub created_at: i64,
    }
    plain!();
}

pub mod image {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "images")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: Option<String>,
        pub owner_name: Option<String>,
        pub name: String,
        pub live_name: Option<String>,
        pub state: String,
        pub state_since: i64,
        pub failure: Option<String>,
        pub origin: String,
        pub source: Option<String>,
        pub checksum: Option<String>,
        pub declared: Option<String>,
        pub format: Option<String>,
        pub size_bytes: Option<i64>,
        pub virtual_mib: Option<i64>,
        pub sha256: Option<String>,
        pub operation_id: Option<String>,
        pub generation: i64,
        pub created_at: i64,
        pub refresh_seconds: Option<i64>,
        pub refresh_at: Option<i64>,
        pub refreshed_at: Option<i64>,
        pub refresh_failure: Option<String>,
        pub source_version: Option<String>,
        pub successor: Option<String>,
        pub superseded_at: Option<i64>,
    }
    plain!();
}

pub mod host {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "hosts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub zone: String,
        pub state: String,
        pub connected: bool,
        pub hypervisor: String,
        pub accelerator: String,
        pub accelerator_note: String,
        pub cap_vcpus: i64,
        pub cap_memory_mib: i64,
        pub cap_disk_mib: i64,
        pub used_vcpus: i64,
        pub used_memory_mib: i64,
        pub used_disk_mib: i64,
        pub vms: i64,
        pub agent_version: String,
        pub connected_since: Option<i64>,
        pub silent_since: Option<i64>,
        pub hot_resize: bool,
        pub protocol: i64,
        pub certificate: Option<String>,
        pub revoked_at: Option<i64>,
        pub session_number: i64,
        pub session_offered: i64,
        pub orphans: i64,
        pub desired: String,
        pub evacuation: Option<String>,
        pub hardware: Option<String>,
    }
    plain!();
}

pub mod claim {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "claims")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub vm_id: String,
        pub host_id: String,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub datastore: String,
    }
    plain!();
}

pub mod migration {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "migrations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub vm_id: String,
        pub operation_id: String,
        pub host_id: String,
        pub host_name: String,
        pub host_zone: String,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub committed: bool,
        pub datastore: String,
        pub disks: String,
    }
    plain!();
}

pub mod vm {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "vms")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: String,
        pub owner_id: String,
        pub owner_name: String,
        pub name: String,
        pub live_name: Option<String>,
        pub state: String,
        pub state_since: i64,
        pub failure: Option<String>,
        pub flavor_name: String,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub image_id: String,
        pub image_name: String,
        pub ssh_key: Option<String>,
        pub user_data: Option<String>,
        pub host_id: Option<String>,
        pub host_name: Option<String>,
        pub host_zone: Option<String>,
        pub run_epoch: i64,
        pub generation: i64,
        pub operation_id: Option<String>,
        pub explanation: Option<String>,
        pub explained_at: Option<i64>,
        pub created_at: i64,
        pub saved: Option<String>,
        pub request_id: Option<String>,
        pub kept_mib: i64,
        pub snapshot_id: Option<String>,
        pub datastore: String,
        pub moving_to: Option<String>,
        pub moving_mib: Option<i64>,
        pub counts_running: bool,
        pub counts_operation: bool,
        pub counts_vcpus: i64,
        pub counts_memory_mib: i64,
        pub counts_disk_mib: i64,
    }
    plain!();
}

pub mod snapshot {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "snapshots")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub vm_id: String,
        pub parent_id: Option<String>,
        pub owner_name: String,
        pub name: String,
        pub state: String,
        pub memory: bool,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub volumes: String,
        pub claimed_mib: i64,
        pub created_at: i64,
        pub scheduled: bool,
        pub root: bool,
    }
    plain!();
}

pub mod backup {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "backups")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: String,
        pub vm_id: String,
        pub vm_name: String,
        pub owner_name: String,
        pub name: String,
        pub live_name: Option<String>,
        pub state: String,
        pub datastore: String,
        pub since_id: Option<String>,
        pub scheduled: bool,
        pub frozen: bool,
        pub vcpus: i64,
        pub memory_mib: i64,
        pub disk_mib: i64,
        pub flavor_name: String,
        pub image_name: String,
        pub disks: String,
        pub claimed_mib: i64,
        pub failure: Option<String>,
        pub generation: i64,
        pub created_at: i64,
    }
    plain!();
}

pub mod schedule {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "schedules")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub vm_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub kind: String,
        pub owner_name: String,
        pub every_s: i64,
        pub keep: i64,
        pub full_every: i64,
        pub datastore: Option<String>,
        pub next_at: i64,
        pub last_at: Option<i64>,
        pub trouble: Option<String>,
    }
    plain!();
}

pub mod host_datastore {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "host_datastores")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub host_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub datastore_id: String,
        pub cap_mib: i64,
        pub used_mib: i64,
        pub present: bool,
    }
    plain!();
}

pub mod quota {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "quotas")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_name: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub measure: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub datastore: String,
        pub soft: Option<i64>,
        pub hard: Option<i64>,
    }
    plain!();
}

pub mod volume {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "volumes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: String,
        pub owner_name: String,
        pub name: String,
        pub live_name: Option<String>,
        pub state: String,
        pub size_mib: i64,
        pub image_id: Option<String>,
        pub image_name: Option<String>,
        pub made: bool,
        pub delete_with_vm: bool,
        pub host_id: Option<String>,
        pub host_name: Option<String>,
        pub host_zone: Option<String>,
        pub datastore: String,
        pub moving_to: Option<String>,
        pub vm_id: Option<String>,
        pub vm_name: Option<String>,
        pub generation: i64,
        pub created_at: i64,
        pub place: Option<i64>,
    }
    plain!();
}

pub mod operation {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub vm_id: Option<String>,
        pub image_id: Option<String>,
        pub kind: String,
        pub state: String,
        pub step: i64,
        pub steps: String,
        pub requested_by: String,
        pub error: Option<String>,
        pub created_at: i64,
        pub ended_at: Option<i64>,
        pub claim_epoch: i64,
        pub undo: Option<String>,
        pub due_at: Option<i64>,
    }
    plain!();
}

pub mod event_counter {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "event_counter")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub seq: i64,
    }
    plain!();
}

pub mod event {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        pub at: i64,
        pub actor: String,
        pub tenant_id: Option<String>,
        pub vm_id: Option<String>,
        pub host_id: Option<String>,
        pub event: String,
        pub request_id: Option<String>,
        pub image_id: Option<String>,
        pub volume_id: Option<String>,
    }
    plain!();
}

pub mod request {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: String,
        pub requester_id: String,
        pub requester_name: String,
        pub state: String,
        pub state_since: i64,
        pub terms: String,
        pub vm_id: Option<String>,
        pub remarks: String,
        pub generation: i64,
        pub created_at: i64,
    }
    plain!();
}

pub mod idempotency {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub idempotency_key: String,
        pub fingerprint: String,
        pub answer: String,
        pub created_at: i64,
    }
    plain!();
}

pub mod orphan {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "orphans")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub host_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub vm_id: String,
        pub run_epoch: i64,
        pub power: String,
        pub discarding: bool,
        pub first_seen_at: i64,
    }
    plain!();
}

pub mod join_token {
    use super::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "join_tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub secret_hash: String,
        pub host_name: Option<String>,
        pub created_by: String,
        pub created_at: i64,
        pub expires_at: i64,
        pub used_at: Option<i64>,
        pub host_id: Option<String>,
    }
    plain!();
}
