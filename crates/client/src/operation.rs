//! Operations.

use vimana_model::operation::OperationView;
use vimana_model::{OperationId, Result};

use crate::Client;

impl Client {
    pub async fn operation(&self, id: OperationId) -> Result<OperationView> {
        self.get(&format!("/api/v1/operations/{id}")).await
    }

    /// Has what it did taken back, where that is still possible.
    pub async fn cancel_operation(&self, id: OperationId) -> Result<OperationView> {
        self.post(&format!("/api/v1/operations/{id}/cancel")).await
    }
}
