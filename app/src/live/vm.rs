use leptos::prelude::*;
use vimana_model::VmId;
use vimana_model::event::EventView;
use vimana_model::vm::VmView;

use super::entry::renew;
use super::{About, Entry, Live, Mark, insert};
use crate::api::Show;

/// Oldest first.
pub type Timeline = ArcRwSignal<Vec<EventView>>;

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

    pub(super) fn put_vm(&self, now: Mark, vm: VmView) {
        let (id, state, operation) = (vm.id, vm.state, vm.operation.clone());
        let request = vm.request_id;
        self.adopt(now, vm);
        let ids = {
            let mut known = self.lock();
            if let Some(entry) = known.vms.get_mut(&id) {
                entry.touched = now;
            }
            let list = known.open_vms.as_ref();
            let list = list.filter(|list| list.show.takes(state));
            list.map(|list| list.ids.clone())
        };
        if let Some(ids) = ids {
            insert(&ids, id);
        }
        self.put_operation(About::Vm(id), operation);
        if let Some(request) = request {
            self.put_vm_of_request(request, id, state);
        }
    }
}
