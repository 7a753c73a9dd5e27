//! What the ledger knows, and the records that make it up. Pure: the same
//! records give the same books.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vimana_model::{OperationId, VmId};
use vimana_protocol::agent::{CommandRef, Outcome};

use super::vm_book::{Entry, Operation, VmBook};
use crate::limits::{MAX_CLEANED_VMS, MAX_LEDGER_VMS};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Session {
        session_number: u64,
    },
    /// A command is about to have its effect.
    Begun {
        vm_id: VmId,
        run_epoch: u64,
        claim_epoch: u64,
        command: CommandRef,
        /// For people who read the file.
        work: String,
    },
    Ended {
        vm_id: VmId,
        command: CommandRef,
        outcome: Outcome,
        /// Nothing of the VM is left on the host.
        cleaned: bool,
    },
    /// A server claims an operation anew.
    Claimed {
        vm_id: VmId,
        run_epoch: u64,
        claim_epoch: u64,
        operation_id: OperationId,
    },
    /// A run of the VM is known.
    Run {
        vm_id: VmId,
        run_epoch: u64,
    },
    /// Nothing of the VM is left on the host.
    Gone {
        vm_id: VmId,
    },
    /// All that is known of a VM.
    Vm {
        vm_id: VmId,
        run_epoch: u64,
        cleaned: bool,
        /// In the order in which they came first.
        operations: Vec<Operation>,
        /// Least recent first.
        commands: Vec<Entry>,
    },
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Default)]
pub struct Books {
    pub session_number: u64,
    vms: BTreeMap<VmId, VmBook>,
    /// Grows with every record.
    now: u64,
}

impl Books {
    #[must_use]
    pub fn vm(&self, vm_id: VmId) -> Option<&VmBook> {
        self.vms.get(&vm_id)
    }

    /// The VMs something may be left of.
    pub fn held(&self) -> impl Iterator<Item = VmId> {
        self.vms
            .iter()
            .filter(|(_, vm)| !vm.cleaned)
            .map(|(vm_id, _)| *vm_id)
    }

    /// Forgets a command that could not be recorded.
    pub fn strike(&mut self, vm_id: VmId, command: CommandRef) {
        if let Some(vm) = self.vms.get_mut(&vm_id) {
            vm.commands.retain(|entry| entry.command != command);
        }
    }

    pub fn apply(&mut self, record: Record) {
        self.now += 1;
        match record {
            Record::Session { session_number } => self.session_number = session_number,
            Record::Begun {
                vm_id,
                run_epoch,
                claim_epoch,
                command,
                work: _,
            } => {
                let vm = self.touch(vm_id);
                vm.run_epoch = vm.run_epoch.max(run_epoch);
                vm.claim(command.operation_id, claim_epoch, command.undo);
                vm.cleaned = false;
                vm.put(command);
            }
            Record::Ended {
                vm_id,
                command,
                outcome,
                cleaned,
            } => {
                let vm = self.touch(vm_id);
                vm.end(command, outcome);
                vm.cleaned |= cleaned;
            }
            Record::Claimed {
                vm_id,
                run_epoch,
                claim_epoch,
                operation_id,
            } => {
                let vm = self.touch(vm_id);
                vm.run_epoch = vm.run_epoch.max(run_epoch);
                vm.claim(operation_id, claim_epoch, false);
            }
            Record::Run { vm_id, run_epoch } => {
                let vm = self.touch(vm_id);
                vm.run_epoch = vm.run_epoch.max(run_epoch);
            }
            Record::Gone { vm_id } => self.touch(vm_id).cleaned = true,
            Record::Vm {
                vm_id,
                run_epoch,
                cleaned,
                operations,
                commands,
            } => {
                *self.touch(vm_id) = VmBook {
                    run_epoch,
                    cleaned,
                    touched: self.now,
                    operations,
                    commands,
                };
            }
            Record::Unknown => {}
        }
        self.shrink();
    }

    /// The fewest records that give these books.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut vms: Vec<_> = self.vms.iter().collect();
        vms.sort_unstable_by_key(|(_, vm)| vm.touched);
        let session = Record::Session {
            session_number: self.session_number,
        };
        let vms = vms.into_iter().map(|(vm_id, vm)| Record::Vm {
            vm_id: *vm_id,
            run_epoch: vm.run_epoch,
            cleaned: vm.cleaned,
            operations: vm.operations.clone(),
            commands: vm.commands.clone(),
        });
        std::iter::once(session).chain(vms).collect()
    }

    fn touch(&mut self, vm_id: VmId) -> &mut VmBook {
        let vm = self.vms.entry(vm_id).or_default();
        vm.touched = self.now;
        vm
    }

    /// Forgets the least recent of what is above the limits; VMs that may
    /// still be here last.
    fn shrink(&mut self) {
        if self.vms.len() <= MAX_CLEANED_VMS {
            return;
        }
        let cleaned = self.vms.values().filter(|vm| vm.cleaned).count();
        if cleaned <= MAX_CLEANED_VMS && self.vms.len() <= MAX_LEDGER_VMS {
            return;
        }
        let oldest = self
            .vms
            .iter()
            .min_by_key(|(_, vm)| (!vm.cleaned, vm.touched))
            .map(|(vm_id, _)| *vm_id);
        if let Some(vm_id) = oldest {
            self.vms.remove(&vm_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use vimana_driver::{Fault, FaultKind};
    use vimana_protocol::agent::{Command, Work};

    use super::*;
    use crate::limits::{MAX_COMMANDS_PER_VM, MAX_OPERATIONS_PER_VM};

    fn vm(n: u64) -> VmId {
        VmId::from_parts(n, [0; 10])
    }

    fn command(operation: u64, step: u32, attempt: u32) -> CommandRef {
        CommandRef {
            operation_id: OperationId::from_parts(operation, [0; 10]),
            step,
            undo: false,
            attempt,
        }
    }

    fn begun(n: u64, command: CommandRef) -> Record {
        Record::Begun {
            vm_id: vm(n),
            run_epoch: 3,
            claim_epoch: 4,
            command,
            work: "boot".to_owned(),
        }
    }

    fn ended(n: u64, command: CommandRef, cleaned: bool) -> Record {
        Record::Ended {
            vm_id: vm(n),
            command,
            outcome: Outcome::Fault {
                fault: Fault::new(FaultKind::Host, "no"),
            },
            cleaned,
        }
    }

    #[test]
    fn the_fewest_records_give_the_same_books() {
        let mut books = Books::default();
        books.apply(Record::Session { session_number: 8 });
        books.apply(begun(2, command(1, 0, 1)));
        books.apply(ended(2, command(1, 0, 1), false));
        books.apply(begun(1, command(2, 1, 1)));
        books.apply(Record::Claimed {
            vm_id: vm(2),
            run_epoch: 1,
            claim_epoch: 9,
            operation_id: command(1, 0, 1).operation_id,
        });
        books.apply(Record::Run {
            vm_id: vm(1),
            run_epoch: 5,
        });
        books.apply(Record::Gone { vm_id: vm(3) });
        let records = books.records();
        let mut again = Books::default();
        for record in &records {
            let line = serde_json::to_string(record).unwrap();
            again.apply(serde_json::from_str(&line).unwrap());
        }
        assert_eq!(again.records(), records);
        assert_eq!(again.session_number, 8);
        assert_eq!(again.vm(vm(1)).unwrap().run_epoch, 5);
        let book = again.vm(vm(2)).unwrap();
        assert_eq!(book.run_epoch, 3);
        let operation_id = command(1, 0, 1).operation_id;
        assert_eq!(book.claim_epoch(operation_id), Some(9));
        assert!(book.last_try(command(1, 0, 5)).unwrap().outcome.is_some());
        assert_eq!(again.held().collect::<Vec<_>>(), [vm(1), vm(2)]);
    }

    #[test]
    fn a_record_of_a_later_version_is_passed_over() {
        let record = serde_json::from_str(r#"{"record":"moved","to":1}"#).unwrap();
        assert_eq!(record, Record::Unknown);
        Books::default().apply(record);
    }

    #[test]
    fn only_the_last_try_of_a_step_counts() {
        let mut books = Books::default();
        books.apply(begun(1, command(1, 0, 1)));
        books.apply(begun(1, command(1, 0, 2)));
        books.apply(ended(1, command(1, 0, 1), false));
        let entry = books.vm(vm(1)).unwrap().last_try(command(1, 0, 1)).unwrap();
        assert_eq!(entry.command, command(1, 0, 2));
        assert_eq!(entry.outcome, None);
    }

    fn order(operation: u64, step: u32, undo: bool) -> Command {
        Command {
            command: CommandRef {
                undo,
                ..command(operation, step, 1)
            },
            vm_id: vm(1),
            run_epoch: 3,
            claim_epoch: 4,
            work: Work::Kill,
        }
    }

    #[test]
    fn what_is_older_than_the_books_is_refused() {
        let mut books = Books::default();
        let mut write = |order: &Command| books.apply(begun(1, order.command));
        write(&order(1, 0, false));
        write(&order(1, 1, false));
        let book = books.vm(vm(1)).unwrap();
        let same = |change: fn(&mut Command)| {
            let mut order = order(1, 1, false);
            change(&mut order);
            book.judge(&order).is_ok()
        };
        assert!(same(|_| {}));
        assert!(same(|order| order.run_epoch += 1));
        assert!(same(|order| order.claim_epoch += 1));
        assert!(same(|order| order.command.attempt += 1));
        assert!(!same(|order| order.run_epoch -= 1));
        assert!(!same(|order| order.claim_epoch -= 1));
        assert!(!same(|order| order.command.attempt -= 1));
    }

    #[test]
    fn a_step_that_was_delayed_until_the_world_moved_on_is_refused() {
        let mut books = Books::default();
        let judge = |books: &Books, order: &Command| books.vm(vm(1)).unwrap().judge(order);
        books.apply(begun(1, order(1, 0, false).command));
        assert_eq!(judge(&books, &order(1, 1, false)), Ok(()));
        // Taken back: no step forward any more, however late it comes.
        books.apply(begun(1, order(1, 1, true).command));
        assert!(judge(&books, &order(1, 1, false)).is_err());
        assert_eq!(judge(&books, &order(1, 0, true)), Ok(()));
        // What is known is answered, not refused.
        assert_eq!(judge(&books, &order(1, 0, false)), Ok(()));

        // A later operation has begun.
        books.apply(begun(1, order(2, 0, false).command));
        books.apply(begun(1, order(4, 0, false).command));
        assert!(judge(&books, &order(2, 1, false)).is_err());
        assert_eq!(judge(&books, &order(4, 1, false)), Ok(()));
        // One whose id is of an earlier time may still be the later one: the
        // server's clock may have been set back.
        assert_eq!(judge(&books, &order(3, 0, false)), Ok(()));
        books.apply(begun(1, order(3, 0, false).command));
        assert_eq!(judge(&books, &order(3, 1, false)), Ok(()));
        assert_eq!(judge(&books, &order(4, 1, false)), Ok(()));
    }

    #[test]
    fn each_operation_has_claims_of_its_own() {
        let mut books = Books::default();
        let mut first = order(1, 0, false);
        first.claim_epoch = 9;
        books.apply(Record::Claimed {
            vm_id: vm(1),
            run_epoch: 3,
            claim_epoch: 9,
            operation_id: first.command.operation_id,
        });
        let book = books.vm(vm(1)).unwrap();
        assert_eq!(book.judge(&first), Ok(()));
        first.claim_epoch = 8;
        assert!(book.judge(&first).is_err());
        assert_eq!(book.judge(&order(2, 0, false)), Ok(()));
    }

    #[test]
    fn the_books_stay_bounded_and_keep_the_newest_and_what_is_still_here() {
        let mut books = Books::default();
        books.apply(begun(0, command(0, 0, 1)));
        let many = MAX_CLEANED_VMS as u64 + 10;
        for n in 1..=many {
            books.apply(begun(n, command(n, 0, 1)));
            books.apply(ended(n, command(n, 0, 1), true));
        }
        assert_eq!(books.vms.len(), MAX_CLEANED_VMS + 1);
        assert!(books.vm(vm(0)).is_some() && books.vm(vm(many)).is_some());
        assert!(books.vm(vm(1)).is_none());
        for n in 0..MAX_LEDGER_VMS as u64 + 10 {
            books.apply(begun(10_000 + n, command(n, 0, 1)));
        }
        assert_eq!(books.vms.len(), MAX_LEDGER_VMS);

        let mut books = Books::default();
        for n in 0..100 {
            books.apply(begun(1, command(n, 0, 1)));
        }
        let book = books.vm(vm(1)).unwrap();
        assert_eq!(book.commands.len(), MAX_COMMANDS_PER_VM);
        assert_eq!(book.operations.len(), MAX_OPERATIONS_PER_VM);
        assert!(book.last_try(command(99, 0, 1)).is_some());
        assert!(book.last_try(command(0, 0, 1)).is_none());
    }
}
