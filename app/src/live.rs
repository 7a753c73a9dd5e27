//! What the page knows of the world, patched by the event stream.
//!
//! One entry per VM and host, each a signal of its own: a list row, its badge
//! and its buttons read the same entry, and an event touches nothing else. All
//! of it is owned here, at the top; pages come and go.

#[cfg(feature = "hydrate")]
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use vimana_model::event::{EventView, StreamItem};
use vimana_model::host::HostView;
use vimana_model::operation::OperationView;
use vimana_model::vm::VmView;
use vimana_model::{HostId, VmId};

use crate::api::{ApiResult, Show};
use crate::session::CurrentSession;

/// How fresh the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "hydrate"),
    expect(dead_code, reason = "the server has no stream")
)]
pub enum Link {
    /// Not connected yet; what is shown was true a moment ago.
    Fresh,
    Live,
    /// The stream broke; what is shown may be old.
    Stale,
}

/// What one VM's page shows beside the VM itself.
#[derive(Clone, Default)]
pub struct History {
    /// Oldest first.
    pub events: ArcRwSignal<Vec<EventView>>,
    /// Newest first.
    pub operations: ArcRwSignal<Vec<OperationView>>,
}

/// How many events are remembered for pages that are still on their way.
const RECENT_EVENTS: usize = 512;

/// Something that has a page or a row, and when an event last spoke of it.
struct Entry<T: 'static> {
    view: ArcRwSignal<T>,
    touched: Mark,
}

/// A moment between two events, as this page received them. What was asked for
/// at a mark is older than what an event said after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark(u64);

struct OpenList {
    show: Show,
    ids: ArcRwSignal<Vec<VmId>>,
}

#[derive(Default)]
struct Known {
    vms: BTreeMap<VmId, Entry<VmView>>,
    histories: BTreeMap<VmId, History>,
    hosts: BTreeMap<HostId, Entry<HostView>>,
    list: Option<OpenList>,
    now: Mark,
    recent: VecDeque<EventView>,
}

#[derive(Clone)]
pub struct Live {
    known: Arc<Mutex<Known>>,
    host_ids: ArcRwSignal<Vec<HostId>>,
    link: ArcRwSignal<Link>,
    /// Grows when events were lost and everything must be read again.
    resets: ArcRwSignal<u32>,
    #[cfg(feature = "hydrate")]
    stream: stream::Handle,
}

impl Live {
    pub fn provide() {
        provide_context(Self {
            known: Arc::default(),
            host_ids: ArcRwSignal::new(Vec::new()),
            link: ArcRwSignal::new(Link::Fresh),
            resets: ArcRwSignal::new(0),
            #[cfg(feature = "hydrate")]
            stream: stream::Handle::default(),
        });
    }

    #[must_use]
    pub fn link(&self) -> Link {
        self.link.get()
    }

    /// Begins to follow the world after event `seq`. Does nothing on the server.
    pub fn follow(&self, seq: u64, session: CurrentSession) {
        #[cfg(feature = "hydrate")]
        stream::open(self, seq, session);
        #[cfg(not(feature = "hydrate"))]
        let _ = (seq, session);
    }

    /// Stops following and forgets everything: another user may come.
    pub fn leave(&self) {
        #[cfg(feature = "hydrate")]
        stream::close(self);
        *self.lock() = Known::default();
        self.host_ids.set(Vec::new());
        self.link.set(Link::Fresh);
    }

    /// Runs `reload` whenever events were lost.
    pub fn on_reset(&self, reload: impl Fn() + 'static) {
        let resets = self.resets.clone();
        Effect::new(move |before: Option<u32>| {
            let now = resets.get();
            if before.is_some_and(|before| before != now) {
                reload();
            }
            now
        });
    }

    /// Asks the server for something, and remembers since when the answer may
    /// be out of date.
    pub fn ask<T, F>(&self, answer: F) -> impl Future<Output = ApiResult<(Mark, T)>> + use<T, F>
    where
        F: Future<Output = ApiResult<T>>,
    {
        let asked = self.lock().now;
        async move { answer.await.map(|value| (asked, value)) }
    }

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
        known.list = Some(OpenList {
            show,
            ids: ids.clone(),
        });
        ids
    }

    /// Takes in the list again after events were lost.
    pub fn take_list(&self, show: Show, (asked, vms): (Mark, Vec<VmView>)) {
        let ids = self
            .lock()
            .list
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
            let entry = known.vms.entry(vm.id).or_insert_with(|| Entry {
                view: ArcRwSignal::new(vm.clone()),
                touched: now,
            });
            (entry.view.clone(), entry.touched)
        };
        let news = view.with_untracked(|old| {
            vm.generation > old.generation
                || vm.generation == old.generation && touched <= asked && *old != vm
        });
        if news {
            view.set(vm);
        }
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
        let (history, recent, newest) = {
            let mut known = self.lock();
            let of_vm = |event: &&EventView| event.vm_id == Some(id);
            let recent: Vec<EventView> = known.recent.iter().filter(of_vm).cloned().collect();
            let newest = known.vms.get(&id);
            let newest = newest.and_then(|vm| vm.view.with_untracked(|vm| vm.operation.clone()));
            (
                known.histories.entry(id).or_default().clone(),
                recent,
                newest,
            )
        };
        history.events.update(|known| {
            merge_events(known, events);
            // Came while the others were on their way.
            merge_events(known, recent);
        });
        history.operations.update(|known| {
            for operation in operations.into_iter().rev().chain(newest) {
                merge_operation(known, operation);
            }
        });
        history
    }

    pub fn open_hosts(&self, (asked, hosts): (Mark, Vec<HostView>)) {
        for host in hosts {
            let newer = |entry: &Entry<HostView>| entry.touched > asked;
            if !self.lock().hosts.get(&host.id).is_some_and(newer) {
                self.put_host(host);
            }
        }
    }

    /// Ids in the order of the hosts' names; follows the world.
    #[must_use]
    pub fn host_ids(&self) -> Vec<HostId> {
        self.host_ids.get()
    }

    #[must_use]
    pub fn host(&self, id: HostId) -> Option<ArcRwSignal<HostView>> {
        self.lock().hosts.get(&id).map(|entry| entry.view.clone())
    }

    /// What the world says now.
    #[cfg_attr(
        not(any(feature = "hydrate", test)),
        expect(dead_code, reason = "events reach the browser alone")
    )]
    pub fn apply(&self, item: StreamItem) {
        let StreamItem { event, vm, host } = item;
        let asked = {
            let mut known = self.lock();
            if known.recent.len() >= RECENT_EVENTS {
                known.recent.pop_front();
            }
            known.recent.push_back(event.clone());
            known.now = Mark(known.now.0.saturating_add(1));
            known.now
        };
        if let Some(vm) = vm {
            self.put_vm(asked, vm, event);
        }
        if let Some(host) = host {
            self.put_host(host);
        }
    }

    fn put_vm(&self, now: Mark, vm: VmView, event: EventView) {
        let (id, state, operation) = (vm.id, vm.state, vm.operation.clone());
        self.adopt(now, vm);
        let (history, ids) = {
            let mut known = self.lock();
            if let Some(entry) = known.vms.get_mut(&id) {
                entry.touched = now;
            }
            let list = known.list.as_ref().filter(|list| list.show.takes(state));
            (
                known.histories.get(&id).cloned(),
                list.map(|list| list.ids.clone()),
            )
        };
        if let Some(ids) = ids {
            insert(&ids, id);
        }
        if let Some(history) = history {
            history
                .events
                .update(|known| merge_events(known, vec![event]));
            if let Some(operation) = operation {
                history
                    .operations
                    .update(|known| merge_operation(known, operation));
            }
        }
    }

    fn put_host(&self, host: HostView) {
        let id = host.id;
        let (entry, mut names) = {
            let mut known = self.lock();
            let now = known.now;
            let new = !known.hosts.contains_key(&id);
            let entry = known.hosts.entry(id).or_insert_with(|| Entry {
                view: ArcRwSignal::new(host.clone()),
                touched: now,
            });
            entry.touched = now;
            let view = entry.view.clone();
            let named = |(id, host): (&HostId, &Entry<HostView>)| {
                (host.view.with_untracked(|host| host.name.to_string()), *id)
            };
            (
                view,
                new.then(|| known.hosts.iter().map(named).collect::<Vec<_>>()),
            )
        };
        if let Some(names) = names.as_mut() {
            names.sort();
            self.host_ids.set(names.iter().map(|(_, id)| *id).collect());
        }
        if entry.with_untracked(|old| *old != host) {
            entry.set(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing here panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a VM on a list at its place, newest first, unless it is there.
fn insert(ids: &ArcRwSignal<Vec<VmId>>, id: VmId) {
    if ids.with_untracked(|ids| !ids.contains(&id)) {
        ids.update(|ids| {
            let at = ids.partition_point(|other| *other > id);
            ids.insert(at, id);
        });
    }
}

/// Adds what is new, in the order of the sequence.
fn merge_events(known: &mut Vec<EventView>, events: Vec<EventView>) {
    for event in events {
        match known.binary_search_by_key(&event.seq, |known| known.seq) {
            Ok(_) => {}
            Err(at) => known.insert(at, event),
        }
    }
}

/// Replaces the operation, or puts it first.
fn merge_operation(known: &mut Vec<OperationView>, operation: OperationView) {
    match known.iter_mut().find(|known| known.id == operation.id) {
        Some(known) => *known = operation,
        None => {
            let at = known.partition_point(|other| other.id > operation.id);
            known.insert(at, operation);
        }
    }
}

#[cfg(test)]
mod tests;
