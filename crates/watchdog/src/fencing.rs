//! What happens when a lease is over: round after round until no machine is
//! left, and further looks as long as there is no new lease.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::{ROUND_CAP, ROUND_FIRST};
use crate::log::Log;
use crate::machines::{self, Killed};
use crate::{BootTime, Fenced};

/// What is needed beside the time.
pub struct Place {
    /// The data directory.
    pub dir: PathBuf,
    /// The machines' directory, as the system spells it.
    pub machines: PathBuf,
    pub boot_id: String,
    pub log: Log,
}

pub struct Fencing {
    at: BootTime,
    begun: bool,
    vms: BTreeSet<String>,
    /// Killed and not yet seen to have ended, by pid.
    ending: BTreeMap<i32, Killed>,
    complete: bool,
    /// What is on disk.
    marked: Option<Fenced>,
    /// When to look again.
    next: BootTime,
    pause: Duration,
    /// Said once, not at every round.
    complaint: Option<String>,
}

impl Fencing {
    /// The lease was over at `at`.
    pub fn new(at: BootTime) -> Self {
        Self {
            at,
            begun: false,
            vms: BTreeSet::new(),
            ending: BTreeMap::new(),
            complete: false,
            marked: None,
            next: at,
            pause: ROUND_FIRST,
            complaint: None,
        }
    }

    pub fn at(&self) -> BootTime {
        self.at
    }

    pub fn next(&self) -> BootTime {
        self.next
    }

    /// No machine is left, and the disk says so.
    pub fn is_settled(&self) -> bool {
        self.complete && self.is_marked()
    }

    /// Kills what lives. The record comes after the deed, unlike elsewhere: a
    /// disk that hangs must not keep a machine alive.
    pub fn round(&mut self, place: &Place, now: BootTime) {
        let (killed, seen) = machines::kill_all(&place.machines, &place.boot_id);
        self.pause = self.pause.saturating_mul(2).min(ROUND_CAP);
        if !std::mem::replace(&mut self.begun, true) {
            let at = self.at;
            place.log.say(format_args!("the lease was over at {at}"));
        }
        let none_lived = killed.is_empty();
        for one in killed {
            if self.vms.insert(one.vm.clone()) {
                place.log.say(format_args!("{} is killed", one.vm));
                self.pause = ROUND_FIRST;
            }
            self.ending.insert(one.pid, one);
        }
        if let Err(error) = &seen {
            let text = format!("not all machines can be seen and killed: {error}");
            self.complain(place, text);
        }
        self.close(place, now, none_lived && seen.is_ok());
    }

    /// Kills nothing more, because machines may run again; only sees the
    /// killed ones off.
    pub fn see_off(&mut self, place: &Place, now: BootTime) {
        self.pause = self.pause.saturating_mul(2).min(ROUND_CAP);
        self.close(place, now, true);
    }

    /// Takes over what an earlier one has not brought to its end.
    pub fn absorb(&mut self, earlier: Self) {
        self.vms.extend(earlier.vms);
        self.ending.extend(earlier.ending);
        self.complete = false;
    }

    fn close(&mut self, place: &Place, now: BootTime, none_lives: bool) {
        self.ending.retain(|_, one| !one.has_ended());
        self.complete = none_lives && self.ending.is_empty();
        self.next = now.plus(self.pause);
        if !self.is_marked() {
            self.mark(place);
        }
    }

    fn is_marked(&self) -> bool {
        self.marked.as_ref().is_some_and(|marked| {
            let has = |vm| marked.vms.binary_search(vm).is_ok();
            marked.complete == self.complete && self.vms.iter().all(has)
        })
    }

    fn mark(&mut self, place: &Place) {
        let mut vms = self.vms.clone();
        // What the agent has not yet read is not forgotten; a record that
        // makes no sense is.
        if let Ok(Some(earlier)) = Fenced::read(&place.dir) {
            vms.extend(earlier.vms);
        }
        let fenced = Fenced {
            boot_id: place.boot_id.clone(),
            at_ms: self.at,
            vms: vms.into_iter().collect(),
            complete: self.complete,
        };
        if let Err(error) = write(&fenced, &place.dir) {
            self.complain(place, format!("the record cannot be written: {error}"));
            return;
        }
        if self.complete {
            let text = format_args!("no process is left of {} machines", self.vms.len());
            place.log.say(text);
        }
        self.marked = Some(fenced);
    }

    fn complain(&mut self, place: &Place, text: String) {
        if self.complaint.as_ref() != Some(&text) {
            place.log.say(format_args!("{text}"));
            self.complaint = Some(text);
        }
    }
}

/// A directory that is gone needs no record.
fn write(fenced: &Fenced, dir: &Path) -> io::Result<()> {
    match fenced.write(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => Ok(()),
        written => written,
    }
}
