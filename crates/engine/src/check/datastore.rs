//! Copies of stopped VMs, beside what is recorded of them.

use vimana_model::saved::SavedMachine;
use vimana_model::state::VmState;
use vimana_store::vm::VmRecord;

use super::books::Books;
use super::{Check, Findings, Outside};
use crate::migration::disk_plan;
use vimana_datastore::Copies;

pub fn check_copies(books: &Books, outside: &Outside, found: &mut Findings) {
    for vm in books.vms.values() {
        check_record(books, vm, found);
    }
    let Some(held) = &outside.in_datastore else {
        return;
    };
    for id in held.keys() {
        let vm = books.vms.get(id);
        let wanted = vm.is_some_and(|vm| vm.saved.is_some() || !books.rests(vm));
        if !wanted && !books.doubts("vms", id) {
            let what = "the datastore holds a copy of it that no record points to";
            found.add(Check::CopyOfNobody, books.about_vm(*id), what);
        }
    }
    let nothing = Copies::default();
    for vm in books.vms.values().filter(|vm| books.rests(vm)) {
        if let Some(saved) = &vm.saved {
            let copies = held.get(&vm.id).unwrap_or(&nothing);
            check_copy(books, vm, saved, copies, found);
        }
    }
}

/// What the record alone tells.
fn check_record(books: &Books, vm: &VmRecord, found: &mut Findings) {
    let mut add = |check, what: String| found.add(check, books.about_vm(vm.id), what);
    let Some(saved) = &vm.saved else {
        if vm.state == VmState::Stopped {
            let what = "it is stopped, and no copy in the datastore is recorded".to_owned();
            add(Check::StoppedWithoutCopy, what);
        }
        return;
    };
    if vm.state == VmState::Done {
        let what = "it is done, and a copy in the datastore is still recorded".to_owned();
        add(Check::DoneWithCopy, what);
    }
    let on_host = matches!(
        vm.state,
        VmState::Running | VmState::PoweredOff | VmState::Suspended
    );
    if on_host && books.rests(vm) {
        let what = format!(
            "it is {} on its host, and a copy of run {} in the datastore is still recorded",
            vm.state, saved.run_epoch
        );
        add(Check::CopyBesideMachine, what);
    }
    if saved.run_epoch > vm.run_epoch {
        let what = format!(
            "its copy is of run {}, its latest run is {}",
            saved.run_epoch, vm.run_epoch
        );
        add(Check::CopyOfLaterRun, what);
    }
    // One that is off, on its way to another host, has a disk alone.
    let has_memory = matches!(
        vm.state,
        VmState::Pending
            | VmState::Hold
            | VmState::Prolog
            | VmState::Boot
            | VmState::Suspended
            | VmState::Stopped
    );
    let disks = books.migrations.get(&vm.id).map(disk_plan);
    // What goes back after a migration that failed is what that was to copy.
    if disks.is_none() && vm.host.is_some() && !books.rests(vm) {
        return;
    }
    for part in disks.unwrap_or_default().parts(has_memory) {
        if !saved.has(part) {
            let what = format!("of its copy no {part} is recorded");
            add(Check::CopyIncomplete, what);
        }
    }
}

/// What the datastore really has of a copy that is recorded.
fn check_copy(
    books: &Books,
    vm: &VmRecord,
    saved: &SavedMachine,
    copies: &Copies,
    found: &mut Findings,
) {
    let mut add = |check, what: String| found.add(check, books.about_vm(vm.id), what);
    let run = saved.run_epoch;
    for other in copies.keys().filter(|other| **other != run) {
        let what = format!("the datastore holds run {other} of it beside run {run}");
        add(Check::CopyOfOtherRun, what);
    }
    let Some(parts) = copies.get(&run) else {
        let what = format!("the datastore has nothing of run {run} of it");
        return add(Check::CopyGone, what);
    };
    for promised in &saved.parts {
        let (name, size) = (promised.part, promised.size_bytes);
        match parts.get(&promised.part) {
            None => {
                let what = format!("of its copy of run {run} the {name} is missing");
                add(Check::PartMissing, what);
            }
            Some(is) if *is != size => {
                let what = format!("of its copy of run {run} the {name} is {is} bytes, not {size}");
                add(Check::PartOfOtherSize, what);
            }
            Some(_) => {}
        }
    }
}
