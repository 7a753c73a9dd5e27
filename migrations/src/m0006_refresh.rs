//! Images are asked for anew at their source, on a schedule; what is new there
//! takes their name.

use sea_orm_migration::sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0006_refresh"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in IMAGES {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

// Everything of a refresh stands beside `refresh_seconds`, and nothing without
// it. While an image has that, its `source` stays, with a password that may be
// in it. `successor` is what is being brought in, JSON.
const IMAGES: &[&str] = &[
    "ALTER TABLE images ADD COLUMN refresh_seconds BIGINT CHECK (refresh_seconds >= 0)",
    "ALTER TABLE images ADD COLUMN refresh_at BIGINT",
    "ALTER TABLE images ADD COLUMN refreshed_at BIGINT",
    "ALTER TABLE images ADD COLUMN refresh_failure TEXT",
    "ALTER TABLE images ADD COLUMN source_version TEXT",
    "ALTER TABLE images ADD COLUMN successor TEXT",
    "ALTER TABLE images ADD COLUMN superseded_at BIGINT",
    "CREATE INDEX images_refresh ON images (refresh_at)",
];
