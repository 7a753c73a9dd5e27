//! User-visible pieces of work.

use serde::{Deserialize, Serialize};
use vimana_model::operation::{OperationKind, OperationState, StepKind, StepState};
use vimana_model::{OperationId, Timestamp, VmId};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub kind: StepKind,
    pub state: StepState,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRecord {
    pub id: OperationId,
    pub vm_id: VmId,
    pub kind: OperationKind,
    pub state: OperationState,
    /// Index of the current step.
    pub step: u32,
    pub steps: Vec<StepRecord>,
    /// Name of the user who asked.
    pub requested_by: String,
    /// Why it failed, in the user's words.
    pub error: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

pub async fn insert(_tx: &WriteTx, _operation: &OperationRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: OperationId) -> Result<Option<OperationRecord>> {
    todo!()
}
pub async fn find_many(_conn: &impl Conn, _ids: &[OperationId]) -> Result<Vec<OperationRecord>> {
    todo!()
}
pub async fn update(_tx: &WriteTx, _operation: &OperationRecord) -> Result<bool> {
    todo!()
}
pub async fn for_vm(_conn: &impl Conn, _vm_id: VmId) -> Result<Vec<OperationRecord>> {
    todo!()
}
pub async fn running(_conn: &impl Conn) -> Result<Vec<OperationRecord>> {
    todo!()
}
