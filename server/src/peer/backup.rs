//! Disks of backups, to their datastore.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use vimana_model::BackupId;
use vimana_model::backup::DiskId;

use super::AgentCaller;
use super::saved::{Stored, take_in};
use crate::api::problem::ApiResult;
use crate::state::App;

pub async fn upload(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Path((backup_id, disk)): Path<(BackupId, DiskId)>,
    body: Body,
) -> ApiResult<Json<Stored>> {
    let host = proof.host_id;
    let receiving = app.engine.receive_backup(host, backup_id, disk);
    let (receiving, most) = receiving.await?;
    let too_large = "the copy is larger than the disk can have made it".to_owned();
    take_in(&proof, receiving, (most, too_large), body).await
}
