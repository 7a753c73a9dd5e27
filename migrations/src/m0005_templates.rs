//! Templates.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0005_templates"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in TEMPLATES {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// Without a tenant a template is for all. Image and flavor are told by name:
// what they mean is looked up when a VM is made.
const TEMPLATES: &[&str] = &[
    "CREATE TABLE templates (
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT REFERENCES tenants (id),
        owner_name TEXT NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL,
        image_name TEXT,
        flavor_name TEXT,
        user_data TEXT,
        inputs TEXT NOT NULL,
        generation BIGINT NOT NULL CHECK (generation >= 0),
        created_at BIGINT NOT NULL
    )",
    "CREATE UNIQUE INDEX templates_name ON templates ((COALESCE(tenant_id, '')), name)",
];
