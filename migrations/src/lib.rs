//! The database's tables, one migration after another.
//!
//! Plain SQL in the dialect that SQLite and PostgreSQL share: `TEXT` for ids,
//! names and slugs, `BIGINT` for amounts and for times (milliseconds since the
//! Unix epoch), JSON as `TEXT`. A migration that was released is never changed
//! again; the next one amends it.

mod m0001_first;
mod m0002_life_cycle;
mod m0003_images;
mod m0004_volumes;
mod m0005_templates;
mod m0006_refresh;
mod m0007_backups;
mod m0008_host_datastores;
mod m0009_volume_snapshots;
mod m0010_migrations;
mod m0011_host_states;
mod m0012_vm_datastores;
mod m0013_disk_moves;
mod m0014_quotas;

pub use sea_orm_migration::MigratorTrait;
use sea_orm_migration::{MigrationTrait, async_trait};

/// Brings a database up to date. Takes no lock of its own: the store does.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_first::Migration),
            Box::new(m0002_life_cycle::Migration),
            Box::new(m0003_images::Migration),
            Box::new(m0004_volumes::Migration),
            Box::new(m0005_templates::Migration),
            Box::new(m0006_refresh::Migration),
            Box::new(m0007_backups::Migration),
            Box::new(m0008_host_datastores::Migration),
            Box::new(m0009_volume_snapshots::Migration),
            Box::new(m0010_migrations::Migration),
            Box::new(m0011_host_states::Migration),
            Box::new(m0012_vm_datastores::Migration),
            Box::new(m0013_disk_moves::Migration),
            Box::new(m0014_quotas::Migration),
        ]
    }
}
