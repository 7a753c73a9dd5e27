//! What administrators want of hosts.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0011_host_states"
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

// What is wanted of a host, beside the state that it is shown in; and for a host
// that is drained, or was until now, how. How far that is, is read off the
// migrations since.
const STATEMENTS: &[&str] = &[
    "ALTER TABLE hosts ADD COLUMN desired TEXT NOT NULL DEFAULT 'enabled'",
    "ALTER TABLE hosts ADD COLUMN evacuation TEXT",
    "CREATE INDEX hosts_desired ON hosts (desired)",
    "CREATE INDEX operations_migrations ON operations (created_at, id) WHERE kind = 'migrate'",
];
