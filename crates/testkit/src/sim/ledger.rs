//! A host's ledger, and somebody who reads along: what an agent takes on it
//! writes down first, so that there it shows whether that was out of date.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use vimana_agent::{Journal as Records, MemoryJournal};
use vimana_model::{OperationId, VmId};
use vimana_protocol::agent::CommandRef;

use super::journal::Journal;

/// Clones are the same disk, which outlives the agent.
#[derive(Clone)]
pub struct Ledger {
    host: Arc<str>,
    disk: MemoryJournal,
    read: Arc<Mutex<Books>>,
    journal: Journal,
}

impl Ledger {
    #[must_use]
    pub fn new(host: &str, journal: Journal) -> Self {
        Self {
            host: Arc::from(host),
            disk: MemoryJournal::new(),
            read: Arc::default(),
            journal,
        }
    }

    /// From now on it takes this long until something is durable.
    pub fn sync_takes(&self, long: Duration) {
        self.disk.sync_takes(long);
    }

    /// The host loses power: of what was not yet synced, only the first
    /// `kept` records made it.
    pub fn lose_power(&self, kept: usize) {
        self.disk.lose_power(kept);
    }
}

#[async_trait]
impl Records for Ledger {
    async fn read(&self) -> io::Result<Vec<String>> {
        self.disk.read().await
    }

    async fn append(&self, records: &[String]) -> io::Result<()> {
        self.disk.append(records).await?;
        let mut books = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            if let Some(why) = books.follow(record) {
                let what = format!("{} took on what was out of date: {why}", self.host);
                self.journal.breach(7, what);
            }
        }
        Ok(())
    }

    async fn replace(&self, records: &[String]) -> io::Result<()> {
        self.disk.replace(records).await
    }
}

/// What of a record matters here.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    Begun {
        vm_id: VmId,
        run_epoch: u64,
        claim_epoch: u64,
        command: CommandRef,
    },
    Claimed {
        vm_id: VmId,
        run_epoch: u64,
        claim_epoch: u64,
        operation_id: OperationId,
    },
    Run {
        vm_id: VmId,
        run_epoch: u64,
    },
    #[serde(other)]
    Other,
}

/// The highest of everything, for as long as the host lives: nothing is
/// forgotten here.
#[derive(Default)]
struct Books {
    runs: BTreeMap<VmId, u64>,
    claims: BTreeMap<OperationId, u64>,
    /// The last try of each step, and of each step's way back.
    tries: BTreeMap<(OperationId, u32, bool), u32>,
}

impl Books {
    /// Takes a record in; tells where it is of something out of date.
    fn follow(&mut self, record: &str) -> Option<String> {
        let record = match serde_json::from_str(record) {
            Ok(record) => record,
            Err(error) => return Some(format!("nobody can read `{record}`: {error}")),
        };
        match record {
            Record::Begun {
                vm_id,
                run_epoch,
                claim_epoch,
                command,
            } => {
                let old = self.is_old(vm_id, run_epoch, claim_epoch, command);
                self.learn(vm_id, run_epoch);
                let CommandRef {
                    operation_id,
                    step,
                    undo,
                    attempt,
                } = command;
                raise(&mut self.claims, operation_id, claim_epoch);
                raise(&mut self.tries, (operation_id, step, undo), attempt);
                old
            }
            Record::Claimed {
                vm_id,
                run_epoch,
                claim_epoch,
                operation_id,
            } => {
                self.learn(vm_id, run_epoch);
                raise(&mut self.claims, operation_id, claim_epoch);
                None
            }
            Record::Run { vm_id, run_epoch } => {
                self.learn(vm_id, run_epoch);
                None
            }
            Record::Other => None,
        }
    }

    fn is_old(
        &self,
        vm: VmId,
        run_epoch: u64,
        claim_epoch: u64,
        command: CommandRef,
    ) -> Option<String> {
        let CommandRef {
            operation_id,
            step,
            undo,
            attempt,
        } = command;
        let what = format!("step {step} of {operation_id} for {vm}");
        if let Some(known) = self.runs.get(&vm).filter(|known| **known > run_epoch) {
            return Some(format!("{what} is of run {run_epoch}, known is {known}"));
        }
        let claim = self.claims.get(&operation_id);
        if let Some(known) = claim.filter(|known| **known > claim_epoch) {
            return Some(format!("{what} has claim {claim_epoch}, known is {known}"));
        }
        let last = self.tries.get(&(operation_id, step, undo));
        if let Some(last) = last.filter(|last| **last > attempt) {
            return Some(format!("{what} is try {attempt}, known is {last}"));
        }
        let mut tries = self.tries.keys();
        let goes_back = !undo && tries.any(|(of, _, undo)| *of == operation_id && *undo);
        let is_new = last.is_none_or(|last| *last < attempt);
        (goes_back && is_new).then(|| format!("{what} goes forward on the way back"))
    }

    fn learn(&mut self, vm: VmId, run_epoch: u64) {
        raise(&mut self.runs, vm, run_epoch);
    }
}

fn raise<K: Ord, V: Ord + Default + Copy>(known: &mut BTreeMap<K, V>, key: K, to: V) {
    let at = known.entry(key).or_default();
    *at = to.max(*at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(run_epoch: u64, claim_epoch: u64, step: u32, undo: bool, attempt: u32) -> String {
        let command = CommandRef {
            operation_id: OperationId::from_parts(1, [1; 10]),
            step,
            undo,
            attempt,
        };
        serde_json::json!({
            "record": "begun",
            "vm_id": VmId::from_parts(1, [1; 10]),
            "run_epoch": run_epoch,
            "claim_epoch": claim_epoch,
            "command": command,
            "work": "boot",
        })
        .to_string()
    }

    #[test]
    fn what_is_out_of_date_is_seen() {
        let mut books = Books::default();
        let mut is_fine = |record: String| books.follow(&record).is_none();
        assert!(is_fine(begun(2, 3, 0, false, 1)));
        // Asked anew after the agent was killed.
        assert!(is_fine(begun(2, 3, 0, false, 1)));
        assert!(is_fine(begun(2, 4, 1, false, 2)));
        assert!(!is_fine(begun(1, 4, 1, false, 2)), "an earlier run");
        assert!(!is_fine(begun(2, 3, 1, false, 2)), "an earlier claim");
        assert!(!is_fine(begun(2, 4, 1, false, 1)), "an earlier try");
        assert!(is_fine(begun(2, 4, 1, true, 1)));
        assert!(is_fine(begun(2, 4, 1, false, 2)));
        assert!(
            !is_fine(begun(2, 4, 2, false, 1)),
            "forward on the way back"
        );
    }

    #[test]
    fn a_record_that_nobody_can_read_is_told() {
        assert!(Books::default().follow("no record").is_some());
        let later = r#"{"record":"moved","to":1}"#;
        assert!(Books::default().follow(later).is_none());
    }
}
