//! Places for volumes that hosts have besides their own directories.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0008_host_datastores"
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

// `present`: its host has named it when it connected last. Where a volume moves,
// `size_mib` is claimed of both.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE host_datastores (
        host_id TEXT NOT NULL REFERENCES hosts (id),
        name TEXT NOT NULL,
        datastore_id TEXT NOT NULL,
        cap_mib BIGINT NOT NULL CHECK (cap_mib >= 0),
        used_mib BIGINT NOT NULL CHECK (used_mib >= 0),
        present BOOLEAN NOT NULL,
        PRIMARY KEY (host_id, name)
    )",
    "ALTER TABLE volumes ADD COLUMN datastore TEXT NOT NULL DEFAULT 'local'",
    "ALTER TABLE volumes ADD COLUMN moving_to TEXT",
];
