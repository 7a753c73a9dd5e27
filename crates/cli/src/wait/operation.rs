//! Waiting for an operation to end.

use vimana_client::{Client, Notice};
use vimana_model::event::EventView;
use vimana_model::operation::{Object, OperationState, OperationView};

use super::Notices;
use crate::args::Timeout;
use crate::failure::{Failure, Outcome};

pub struct OperationWatch(Notices);

fn is_about(event: &EventView, object: Object) -> bool {
    match object {
        Object::Vm(id) => event.vm_id == Some(id),
        Object::Image(id) => event.image_id == Some(id),
    }
}

impl OperationWatch {
    /// Opens the stream where waiting is asked for.
    pub async fn open(client: &Client, wait: bool, timeout: Timeout) -> Outcome<Option<Self>> {
        if !wait {
            return Ok(None);
        }
        Ok(Some(Self(Notices::open(client, timeout).await?)))
    }

    /// Follows an operation to its end, which must be a good one.
    pub async fn until_through(self, operation: OperationView) -> Outcome<OperationView> {
        let operation = self.until_over(operation).await?;
        match operation.state {
            OperationState::Succeeded => Ok(operation),
            OperationState::Running
            | OperationState::Undoing
            | OperationState::Failed
            | OperationState::Cancelled => {
                let why = operation.error.as_deref().unwrap_or("it was cancelled");
                Err(Failure::Failed(format!(
                    "the {} failed: {why}",
                    operation.kind
                )))
            }
        }
    }

    /// Follows an operation to its end.
    pub async fn until_over(mut self, mut operation: OperationView) -> Outcome<OperationView> {
        let id = operation.id;
        while !operation.state.is_over() {
            match self.0.next().await? {
                None => {
                    return Err(Failure::Failed(format!(
                        "operation `{id}` is still {} after {} s",
                        operation.state.name(),
                        self.0.seconds
                    )));
                }
                Some(Notice::Item(item)) if !is_about(&item.event, operation.object) => {}
                Some(Notice::Progress(_)) => {}
                Some(Notice::Connected | Notice::Reset { .. } | Notice::Item(_)) => {
                    operation = self
                        .0
                        .look(async |client| client.operation(id).await)
                        .await?;
                }
            }
        }
        Ok(operation)
    }
}
