//! What hosts hold, beside what is recorded there.

use std::collections::{BTreeMap, HashSet};

use vimana_driver::{Observed, Power};
use vimana_model::state::VmState;
use vimana_model::{HostId, VmId};
use vimana_store::host::HostRecord;
use vimana_store::orphan::OrphanRecord;
use vimana_store::vm::VmRecord;

use super::books::Books;
use super::{Check, Findings, Outside};

pub fn check_hosts(books: &Books, outside: &Outside, found: &mut Findings) {
    let twice = check_writers(books, outside, found);
    for (host, inventory) in &outside.inventories {
        let quarantine = quarantine(books, *host);
        for observed in inventory {
            let id = observed.vm_id;
            // Said already, and graver than anything that is left to say.
            if twice.contains(&id) && observed.power == Power::Running {
                continue;
            }
            let quarantined = quarantine.iter().any(|orphan| orphan.vm_id == id);
            check_held(books, *host, observed, quarantined, found);
        }
        check_lost(books, *host, inventory, found);
    }
    for (id, record) in &books.hosts {
        check_quarantine(books, record, outside.inventories.get(id), found);
    }
}

fn quarantine(books: &Books, host: HostId) -> &[OrphanRecord] {
    books.orphans.get(&host).map_or(&[], Vec::as_slice)
}

/// The VMs that run more than once.
fn check_writers(books: &Books, outside: &Outside, found: &mut Findings) -> HashSet<VmId> {
    let mut runs: BTreeMap<VmId, Vec<String>> = BTreeMap::new();
    for (host, inventory) in &outside.inventories {
        for observed in inventory {
            if observed.power == Power::Running {
                let run = format!("host {} in run {}", books.host(*host), observed.run_epoch);
                runs.entry(observed.vm_id).or_default().push(run);
            }
        }
    }
    runs.retain(|_, runs| runs.len() > 1);
    for (id, runs) in &runs {
        let what = format!("it runs on {} at once", runs.join(" and on "));
        found.add(Check::RunsTwice, books.about_vm(*id), what);
    }
    runs.into_keys().collect()
}

/// Something that a host holds.
fn check_held(
    books: &Books,
    host: HostId,
    observed: &Observed,
    quarantined: bool,
    found: &mut Findings,
) {
    let id = observed.vm_id;
    let run = observed.run_epoch;
    let known = if quarantined { ", in quarantine" } else { "" };
    let named = books.host(host);
    let mut add = |check, what: String| found.add(check, books.about_vm(id), what);
    let Some(vm) = books.vms.get(&id) else {
        if books.is_no_vm(id) {
            let what = format!("host {named} holds it, and it is not recorded{known}");
            add(Check::HeldUnrecorded, what);
        }
        return;
    };
    if vm.state == VmState::Done {
        let what = format!("it is done, and host {named} still holds it{known}");
        return add(Check::DoneStillHeld, what);
    }
    // Tells nothing of the record, which may move on while this stays.
    let moves = books.migrations.get(&id);
    if moves.is_some_and(|migration| migration.peer.id == host) {
        return;
    }
    if vm.host.as_ref().is_none_or(|on| on.id != host) {
        let what = format!("host {named} holds its run {run}, and is not its host{known}");
        return add(Check::HeldElsewhere, what);
    }
    if run > vm.run_epoch {
        let what = format!(
            "host {named} has it in run {run}, recorded is run {}",
            vm.run_epoch
        );
        return add(Check::RunsLaterEpoch, what);
    }
    if books.rests(vm) && !agrees(vm, observed) {
        let what = format!(
            "it is {} in run {}, host {named} says {:?} in run {run}",
            vm.state, vm.run_epoch, observed.power
        );
        add(Check::PowerDiffers, what);
    }
}

/// Whether a VM at rest is what its host says.
fn agrees(vm: &VmRecord, observed: &Observed) -> bool {
    // What is not understood says nothing for or against the record.
    if observed.power == Power::Unknown {
        return true;
    }
    match vm.state {
        VmState::Running => observed.power == Power::Running && observed.run_epoch == vm.run_epoch,
        // Its host speaks.
        VmState::Unknown => false,
        VmState::PoweredOff => matches!(observed.power, Power::Off | Power::Crashed { .. }),
        VmState::Suspended => observed.power == Power::Saved,
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Failed => true,
    }
}

/// What a host does not hold of that which is recorded there.
fn check_lost(books: &Books, host: HostId, inventory: &[Observed], found: &mut Findings) {
    let held: HashSet<VmId> = inventory.iter().map(|observed| observed.vm_id).collect();
    for vm in books.vms.values() {
        let here = vm.host.as_ref().is_some_and(|on| on.id == host);
        let certain = books.rests(vm) && vm.state != VmState::Failed;
        if here && certain && !held.contains(&vm.id) {
            let (named, run) = (books.host(host), vm.run_epoch);
            let what = format!("host {named} does not hold it, in run {run} or any other");
            found.add(Check::HostLostIt, books.about_vm(vm.id), what);
        }
    }
}

/// What is recorded as held by a host without a record; `inventory` is what
/// the host says, if it was heard.
fn check_quarantine(
    books: &Books,
    record: &HostRecord,
    inventory: Option<&Vec<Observed>>,
    found: &mut Findings,
) {
    let host = record.id;
    let named = books.host(host);
    let quarantine = quarantine(books, host);
    for orphan in quarantine {
        let id = orphan.vm_id;
        let on = books.vms.get(&id).and_then(|vm| vm.host.as_ref());
        let held = inventory.map(|held| held.iter().any(|observed| observed.vm_id == id));
        if on.is_some_and(|on| on.id == host) {
            let what = format!("it is in quarantine on host {named}, which is its host");
            found.add(Check::QuarantinedAtHome, books.about_vm(id), what);
        } else if held == Some(false) {
            let what = format!("it is in quarantine on host {named}, which does not hold it");
            found.add(Check::QuarantinedAndGone, books.about_vm(id), what);
        } else if held.is_none() {
            // The host was not heard; the last that it said is recorded.
            let last = Observed {
                vm_id: id,
                run_epoch: orphan.run_epoch,
                power: Power::Unknown,
            };
            check_held(books, host, &last, true, found);
        }
    }
    let count = u32::try_from(quarantine.len()).unwrap_or(u32::MAX);
    if record.orphans != count && !books.doubts("orphans", host) {
        let what = format!(
            "{} machines are counted in quarantine there, {count} are recorded",
            record.orphans
        );
        found.add(Check::QuarantineCountIsOff, books.about_host(host), what);
    }
}
