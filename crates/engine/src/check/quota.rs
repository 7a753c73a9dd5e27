//! What VMs count of quotas. Sums of it are never recorded, and cannot be off.

use vimana_model::state::VmState;
use vimana_store::vm::Counts;

use super::books::Books;
use super::{Check, Findings};
use crate::quota::counts;

pub fn check_counts(books: &Books, found: &mut Findings) {
    for vm in books.vms.values() {
        if vm.state == VmState::Done || books.doubts("operations", vm.id) {
            continue;
        }
        let in_flight = vm.operation_id.and_then(|id| books.in_flight.get(&id));
        let (is, expected) = (vm.counts, counts(vm, in_flight));
        if is != expected {
            let (is, expected) = (said(is), said(expected));
            let what = format!("it counts {is}; as it is now, it should count {expected}");
            found.add(Check::CountsAreOff, books.about_vm(vm.id), what);
        }
    }
}

fn said(counts: Counts) -> String {
    let Counts {
        running,
        operation,
        vcpus,
        memory,
        disk,
    } = counts;
    let cpus = if vcpus == 1 { "vCPU" } else { "vCPUs" };
    let mut said = format!("{vcpus} {cpus}, {memory} memory, {disk} disk");
    for (is, what) in [(running, ", as running"), (operation, ", an operation")] {
        if is {
            said.push_str(what);
        }
    }
    said
}
