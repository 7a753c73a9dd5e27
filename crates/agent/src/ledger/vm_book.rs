//! What is known of one VM, and what is out of date by it.

use serde::{Deserialize, Serialize};
use vimana_model::OperationId;
use vimana_protocol::agent::{Command, CommandRef, Outcome};

use crate::limits::{MAX_COMMANDS_PER_VM, MAX_OPERATIONS_PER_VM};

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    /// The highest claim under which the server acted.
    pub claim_epoch: u64,
    /// It is being taken back.
    pub undoing: bool,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub command: CommandRef,
    /// None where it had begun and was never seen to end.
    pub outcome: Option<Outcome>,
}

/// What is known of one VM.
#[derive(Debug, Default)]
pub struct VmBook {
    pub run_epoch: u64,
    pub cleaned: bool,
    /// When it was last told of.
    pub touched: u64,
    /// In the order in which they came first.
    pub operations: Vec<Operation>,
    /// Least recent first; the last try of each step.
    pub commands: Vec<Entry>,
}

impl VmBook {
    /// Whether a command is up to date.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(&self, command: &Command) -> Result<(), &'static str> {
        if command.run_epoch < self.run_epoch {
            return Err("a later run of the machine is known");
        }
        let (claim_epoch, command) = (command.claim_epoch, command.command);
        let known = self.operation(command.operation_id);
        if known.is_some_and(|operation| claim_epoch < operation.claim_epoch) {
            return Err("another server has taken the operation over");
        }
        let last_try = self.last_try(command);
        if last_try.is_some_and(|last| command.attempt < last.command.attempt) {
            return Err("a later try of the step is known");
        }
        if command.undo || last_try.is_some_and(|last| last.command == command) {
            return Ok(());
        }
        // A step forward that was delayed on its way must not have its effect
        // after the world has moved on.
        if known.is_some_and(|operation| operation.undoing) {
            return Err("the operation is being taken back");
        }
        if known.is_some() && self.has_later(command.operation_id) {
            return Err("a later operation of the VM is known");
        }
        Ok(())
    }

    /// The highest claim on an operation; None where it is not known.
    #[must_use]
    pub fn claim_epoch(&self, operation_id: OperationId) -> Option<u64> {
        Some(self.operation(operation_id)?.claim_epoch)
    }

    /// How a command ended.
    #[must_use]
    pub fn outcome(&self, command: CommandRef) -> Option<&Outcome> {
        let entry = self.last_try(command);
        entry
            .filter(|entry| entry.command == command)?
            .outcome
            .as_ref()
    }

    /// The last try of the step that `command` is a try of.
    pub fn last_try(&self, command: CommandRef) -> Option<&Entry> {
        self.commands
            .iter()
            .find(|entry| step(entry.command) == step(command))
    }

    fn operation(&self, id: OperationId) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// Whether an operation began after the one that is meant. It came later
    /// and its id is of a later time: each alone may deceive.
    fn has_later(&self, id: OperationId) -> bool {
        let mut since = self.operations.iter().skip_while(|known| known.id != id);
        since.any(|known| known.id > id)
    }

    pub fn claim(&mut self, id: OperationId, claim_epoch: u64, undo: bool) {
        let known = self.operations.iter_mut().find(|known| known.id == id);
        if let Some(operation) = known {
            operation.claim_epoch = operation.claim_epoch.max(claim_epoch);
            operation.undoing |= undo;
            return;
        }
        if self.operations.len() >= MAX_OPERATIONS_PER_VM {
            self.operations.remove(0);
        }
        self.operations.push(Operation {
            id,
            claim_epoch,
            undoing: undo,
        });
    }

    pub fn put(&mut self, command: CommandRef) {
        self.commands
            .retain(|entry| step(entry.command) != step(command));
        if self.commands.len() >= MAX_COMMANDS_PER_VM {
            self.commands.remove(0);
        }
        self.commands.push(Entry {
            command,
            outcome: None,
        });
    }

    /// The outcome of a try that was followed by another is of no interest.
    pub fn end(&mut self, command: CommandRef, outcome: Outcome) {
        let entry = self.commands.iter_mut();
        if let Some(entry) = entry.rev().find(|entry| entry.command == command) {
            entry.outcome = Some(outcome);
        }
    }
}

fn step(command: CommandRef) -> (OperationId, u32, bool) {
    (command.operation_id, command.step, command.undo)
}
