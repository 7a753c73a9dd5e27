use leptos::prelude::*;
use vimana_model::VmId;
use vimana_model::event::EventView;
use vimana_model::operation::OperationView;
use vimana_model::vm::VmView;

use super::entry::renew;
use super::{About, Entry, Live, Mark, insert, merge_operation};
use crate::api::Show;

/// Oldest first.
pub type Timeline = ArcRwSignal<Vec<EventView>>;
/// Newest first.
pub type Operations = ArcRwSignal<Vec<OperationView>>;

/// What one VM's page shows beside the VM itself.
#[derive(Clone, Default)]
pub struct History {
    pub events: Timeline,
    pub operations: Operations,
}

pub struct OpenVms {
    show: Show,
    ids: ArcRwSignal<Vec<VmId>>,
}

impl Live {
    /// Takes in a list the server gave and the world's later additions to it.
    /// The ids are in the order of the list, newest first; a VM stays on it
    /// even when it no longer belongs there, so that nobody loses sight of it.
    pub fn open_list(
        &self,
        show: Show,
        (asked, vms): (Mark, Vec<VmView>),
    ) -> ArcRwSignal<Vec<VmId>> {
        let mut ids: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        for vm in vms {
            self.adopt(asked, vm);
        }
        let mut known = self.lock();
        // Came by an event while the list was on its way.
        for (id, vm) in &known.vms {
            if show.takes(vm.view.with_untracked(|vm| vm.state)) && !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let ids = ArcRwSignal::new(ids);
        known.open_vms = Some(OpenVms {
            show,
            ids: ids.clone(),
        });
        ids
    }

    /// Takes in the list again after events were lost.
    pub fn take_list(&self, show: Show, (asked, vms): (Mark, Vec<VmView>)) {
        let ids = self
            .lock()
            .open_vms
            .as_ref()
            .filter(|list| list.show == show)
            .map(|list| list.ids.clone());
        let new: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        for vm in vms {
            self.adopt(asked, vm);
        }
        for id in new {
            if let Some(ids) = &ids {
                insert(ids, id);
            }
        }
    }

    /// Takes in a VM the server gave and gives the entry that stays up to date.
    pub fn adopt(&self, asked: Mark, vm: VmView) -> ArcRwSignal<VmView> {
        let (view, touched) = {
            let mut known = self.lock();
            let now = known.now;
            let entry = known
                .vms
                .entry(vm.id)
                .or_insert_with(|| Entry::new(vm.clone(), now));
            (entry.view.clone(), entry.touched)
        };
        renew(&view, touched, asked, vm);
        view
    }

    /// The entry of a VM that was adopted before.
    #[must_use]
    pub fn vm(&self, id: VmId) -> Option<ArcRwSignal<VmView>> {
        self.lock().vms.get(&id).map(|entry| entry.view.clone())
    }

    /// Takes in the past of a VM that was adopted before, and gives what stays
    /// up to date.
    pub fn open_history(
        &self,
        id: VmId,
        events: Vec<EventView>,
        operations: Vec<OperationView>,
    ) -> History {
        let (known, newest) = {
            let mut known = self.lock();
            let newest = known.vms.get(&id);
            let newest = newest.and_then(|vm| vm.view.with_untracked(|vm| vm.operation.clone()));
            (known.operations.entry(id).or_default().clone(), newest)
        };
        known.update(|known| {
            for operation in operations.into_iter().rev().chain(newest) {
                merge_operation(known, operation);
            }
        });
        History {
            events: self.open_timeline(About::Vm(id), events),
            operations: known,
        }
    }

    pub(super) fn put_vm(&self, now: Mark, vm: VmView) {
        let (id, state, operation) = (vm.id, vm.state, vm.operation.clone());
        let request = vm.request_id;
        self.adopt(now, vm);
        let (operations, ids) = {
            let mut known = self.lock();
            if let Some(entry) = known.vms.get_mut(&id) {
                entry.touched = now;
            }
            let list = known.open_vms.as_ref();
            let list = list.filter(|list| list.show.takes(state));
            (
                known.operations.get(&id).cloned(),
                list.map(|list| list.ids.clone()),
            )
        };
        if let Some(ids) = ids {
            insert(&ids, id);
        }
        if let (Some(operations), Some(operation)) = (operations, operation) {
            operations.update(|known| merge_operation(known, operation));
        }
        if let Some(request) = request {
            self.put_vm_of_request(request, id, state);
        }
    }

    /// Only what goes on within the step that is known to be under way.
    pub(super) fn put_progress(&self, id: VmId, news: &OperationView) {
        let (vm, operations) = {
            let known = self.lock();
            let vm = known.vms.get(&id).map(|entry| entry.view.clone());
            (vm, known.operations.get(&id).cloned())
        };
        let of_it = |known: &OperationView| {
            let step = |operation: &OperationView| {
                let step = operation.current_step();
                step.map(|step| (step.kind, step.state, step.attempts))
            };
            known.id == news.id
                && known.progress != news.progress
                && step(known).is_some()
                && step(known) == step(news)
        };
        if let Some(vm) = vm
            && vm.with_untracked(|vm| vm.operation.as_ref().is_some_and(of_it))
        {
            vm.update(|vm| {
                if let Some(known) = vm.operation.as_mut() {
                    known.progress = news.progress;
                }
            });
        }
        if let Some(operations) = operations
            && operations.with_untracked(|known| known.iter().any(of_it))
        {
            operations.update(|known| {
                for known in known.iter_mut().filter(|known| of_it(known)) {
                    known.progress = news.progress;
                }
            });
        }
    }
}
