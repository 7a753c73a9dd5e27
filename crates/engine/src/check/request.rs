//! Requests of the manual life-cycle, and the VMs that came of them.

use vimana_model::VmId;
use vimana_model::request::RequestState;
use vimana_model::state::VmState;
use vimana_store::request::RequestRecord;
use vimana_store::vm::VmRecord;

use super::books::Books;
use super::{Check, Findings};

pub fn check_requests(books: &Books, found: &mut Findings) {
    for request in books.requests.values() {
        let mut add = |check, what: String| found.add(check, books.about_request(request), what);
        if let Some((check, what)) = impossible(books, request) {
            add(check, what);
        }
        let Some(vm) = request.vm_id.and_then(|id| books.vms.get(&id)) else {
            continue;
        };
        if vm.request_id != Some(request.id) {
            let what = "its VM does not know that it was requested".to_owned();
            add(Check::RequestUnknownToVm, what);
        }
        if vm.tenant_id != request.tenant_id {
            let what = format!("its VM is of tenant {}", books.tenant(vm.tenant_id));
            add(Check::RequestOfOtherTenant, what);
        }
    }
    for vm in books.vms.values() {
        check_origin(books, vm, found);
    }
}

/// Why a request cannot be in the state it is in.
fn impossible(books: &Books, request: &RequestRecord) -> Option<(Check, String)> {
    let state = request.state;
    let vm = match request.vm_id {
        Some(id) => match books.vms.get(&id) {
            Some(vm) => Some(vm),
            None if books.is_no_vm(id) => return without_vm(state, Some(id)),
            // It cannot be read.
            None => return None,
        },
        None => None,
    };
    let Some(vm) = vm else {
        return without_vm(state, None);
    };
    let over = vm.state == VmState::Done;
    match state {
        RequestState::Request
        | RequestState::Returned
        | RequestState::Rejected
        | RequestState::Withdrawn => {
            let what = format!("it is in {state}, and there is a VM for it");
            Some((Check::MadeUndecided, what))
        }
        RequestState::Provision | RequestState::Operation | RequestState::Release if over => {
            let what = format!("it is in {state}, but its VM is done");
            Some((Check::RequestOutlivesVm, what))
        }
        RequestState::Provision if vm.state == VmState::Running => {
            let what = format!("it is in {state}, but its VM runs");
            Some((Check::RequestStaysInProvision, what))
        }
        RequestState::Released if !over => {
            let what = format!("it is in {state}, but its VM is {}", vm.state);
            Some((Check::ReleasedButLives, what))
        }
        RequestState::Provision
        | RequestState::Operation
        | RequestState::Release
        | RequestState::Released => None,
    }
}

fn without_vm(state: RequestState, named: Option<VmId>) -> Option<(Check, String)> {
    let needs_one = match state {
        RequestState::Provision | RequestState::Operation | RequestState::Release => true,
        RequestState::Request
        | RequestState::Returned
        | RequestState::Rejected
        | RequestState::Withdrawn
        | RequestState::Released => false,
    };
    needs_one.then(|| {
        let what = match named {
            Some(id) => format!("it is in {state}, and its VM {id} is not recorded"),
            None => format!("it is in {state} without a VM"),
        };
        (Check::RequestWithoutVm, what)
    })
}

/// What a VM says of the request that it was made for.
fn check_origin(books: &Books, vm: &VmRecord, found: &mut Findings) {
    let Some(id) = vm.request_id else {
        return;
    };
    let subject = books.about_vm(vm.id);
    match books.requests.get(&id) {
        Some(request) if request.vm_id != Some(vm.id) => {
            let what = format!("it was made for request {id}, which knows of another VM, or none");
            found.add(Check::RequestOfOtherVm, subject, what);
        }
        None if books.is_no_request(id) => {
            let what = format!("it was made for request {id}, which is not recorded");
            found.add(Check::RequestGone, subject, what);
        }
        Some(_) | None => {}
    }
}
