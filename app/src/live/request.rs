use leptos::prelude::*;
use vimana_model::request::{RequestView, RequestedVm};
use vimana_model::{RequestId, VmId, VmState};

use super::entry::renew;
use super::{Entry, Live, Mark, insert};
use crate::api::RequestShow;
use crate::session::Caller;

pub struct OpenRequests {
    show: RequestShow,
    ids: ArcRwSignal<Vec<RequestId>>,
}

impl Live {
    /// Which requests wait for the one who is signed in: what the server knew,
    /// and what the world said since.
    pub fn open_waiting(&self, caller: Caller, ids: Vec<RequestId>) {
        let (known, caller) = {
            let mut known = self.lock();
            known.caller = Some(caller.clone());
            let views = known.requests.values().map(|entry| entry.view.clone());
            (views.collect::<Vec<_>>(), caller)
        };
        self.waiting.set(ids.into_iter().collect());
        for view in known {
            view.with_untracked(|request| self.note_waiting(&caller, request));
        }
    }

    /// How many requests wait for the one who is signed in.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.with(|waiting| waiting.len())
    }

    /// Takes in a list the server gave and the world's later additions to it;
    /// newest first. A request stays on it even when it no longer belongs
    /// there, so that nobody loses sight of it.
    pub fn open_requests(
        &self,
        show: RequestShow,
        (asked, requests): (Mark, Vec<RequestView>),
    ) -> ArcRwSignal<Vec<RequestId>> {
        let mut ids: Vec<RequestId> = requests.iter().map(|request| request.id).collect();
        for request in requests {
            self.adopt_request(asked, request);
        }
        let mut known = self.lock();
        for (id, request) in &known.requests {
            let fits = request
                .view
                .with_untracked(|request| show.takes(request.state));
            if fits && !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let ids = ArcRwSignal::new(ids);
        known.open_requests = Some(OpenRequests {
            show,
            ids: ids.clone(),
        });
        ids
    }

    /// Takes in the list again after events were lost.
    pub fn take_requests(&self, show: RequestShow, (asked, requests): (Mark, Vec<RequestView>)) {
        let ids = self
            .lock()
            .open_requests
            .as_ref()
            .filter(|list| list.show == show)
            .map(|list| list.ids.clone());
        for request in requests {
            let id = request.id;
            self.adopt_request(asked, request);
            if let Some(ids) = &ids {
                insert(ids, id);
            }
        }
    }

    /// Takes in a request the server gave and gives the entry that stays up to
    /// date.
    pub fn adopt_request(&self, asked: Mark, request: RequestView) -> ArcRwSignal<RequestView> {
        let (view, touched, caller) = {
            let mut known = self.lock();
            let now = known.now;
            let caller = known.caller.clone();
            let entry = known
                .requests
                .entry(request.id)
                .or_insert_with(|| Entry::new(request.clone(), now));
            (entry.view.clone(), entry.touched, caller)
        };
        renew(&view, touched, asked, request);
        if let Some(caller) = caller {
            view.with_untracked(|request| self.note_waiting(&caller, request));
        }
        view
    }

    /// The entry of a request that was adopted before.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<ArcRwSignal<RequestView>> {
        self.lock()
            .requests
            .get(&id)
            .map(|entry| entry.view.clone())
    }

    pub(super) fn put_request(&self, now: Mark, request: RequestView) {
        let (id, state) = (request.id, request.state);
        self.adopt_request(now, request);
        let ids = {
            let mut known = self.lock();
            if let Some(entry) = known.requests.get_mut(&id) {
                entry.touched = now;
            }
            let list = known.open_requests.as_ref();
            list.filter(|list| list.show.takes(state))
                .map(|list| list.ids.clone())
        };
        if let Some(ids) = ids {
            insert(&ids, id);
        }
    }

    /// The VM of a request is in another state; the request itself is what it
    /// was.
    pub(super) fn put_vm_of_request(&self, request: RequestId, id: VmId, state: VmState) {
        let Some(view) = self.request(request) else {
            return;
        };
        let vm = Some(RequestedVm { id, state });
        if view.with_untracked(|request| request.vm != vm) {
            view.update(|request| request.vm = vm);
        }
    }

    fn note_waiting(&self, caller: &Caller, request: &RequestView) {
        let waits = caller.waits_for(request);
        let known = self
            .waiting
            .with_untracked(|waiting| waiting.contains(&request.id));
        if waits && !known {
            self.waiting.update(|waiting| {
                waiting.insert(request.id);
            });
        } else if !waits && known {
            self.waiting.update(|waiting| {
                waiting.remove(&request.id);
            });
        }
    }
}
