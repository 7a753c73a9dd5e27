//! What the page knows of the world, patched by the event stream.
//!
//! One entry per VM and host, each a signal of its own: a list row, its badge
//! and its buttons read the same entry, and an event touches nothing else. All
//! of it is owned here, at the top; pages come and go.

#[cfg(feature = "hydrate")]
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leptos::prelude::*;
use vimana_model::event::{EventView, StreamItem};
use vimana_model::host::HostView;
use vimana_model::operation::OperationView;
use vimana_model::vm::VmView;
use vimana_model::{HostId, VmId};

use crate::api::Show;
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
#[derive(Clone)]
pub struct History {
    /// Oldest first.
    pub events: ArcRwSignal<Vec<EventView>>,
    /// Newest first.
    pub operations: ArcRwSignal<Vec<OperationView>>,
}

struct OpenList {
    show: Show,
    ids: ArcRwSignal<Vec<VmId>>,
}

#[derive(Default)]
struct Known {
    vms: BTreeMap<VmId, ArcRwSignal<VmView>>,
    histories: BTreeMap<VmId, History>,
    hosts: BTreeMap<HostId, ArcRwSignal<HostView>>,
    list: Option<OpenList>,
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

    /// Takes in a list the server gave and the world's later additions to it.
    /// The ids are in the order of the list, newest first; a VM stays on it
    /// even when it no longer belongs there, so that nobody loses sight of it.
    pub fn open_list(&self, show: Show, vms: Vec<VmView>) -> ArcRwSignal<Vec<VmId>> {
        let mut ids: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        for vm in vms {
            self.adopt(vm);
        }
        let mut known = self.lock();
        // Came by an event while the list was on its way.
        for (id, vm) in &known.vms {
            if show.takes(vm.with_untracked(|vm| vm.state)) && !ids.contains(id) {
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
    pub fn take_list(&self, show: Show, vms: Vec<VmView>) {
        let ids = self
            .lock()
            .list
            .as_ref()
            .filter(|list| list.show == show)
            .map(|list| list.ids.clone());
        let new: Vec<VmId> = vms.iter().map(|vm| vm.id).collect();
        for vm in vms {
            self.adopt(vm);
        }
        for id in new {
            if let Some(ids) = &ids {
                insert(ids, id);
            }
        }
    }

    /// Takes in a VM and gives the entry that stays up to date.
    pub fn adopt(&self, vm: VmView) -> ArcRwSignal<VmView> {
        let entry = self
            .lock()
            .vms
            .entry(vm.id)
            .or_insert_with(|| ArcRwSignal::new(vm.clone()))
            .clone();
        let news = entry.with_untracked(|old| vm.generation >= old.generation && *old != vm);
        if news {
            entry.set(vm);
        }
        entry
    }

    /// The entry of a VM that was adopted before.
    #[must_use]
    pub fn vm(&self, id: VmId) -> Option<ArcRwSignal<VmView>> {
        self.lock().vms.get(&id).cloned()
    }

    /// Takes in a VM's past and gives what stays up to date.
    pub fn open_history(
        &self,
        id: VmId,
        events: Vec<EventView>,
        operations: Vec<OperationView>,
    ) -> History {
        let history = self
            .lock()
            .histories
            .entry(id)
            .or_insert_with(|| History {
                events: ArcRwSignal::new(Vec::new()),
                operations: ArcRwSignal::new(Vec::new()),
            })
            .clone();
        history.events.update(|known| merge_events(known, events));
        history.operations.update(|known| {
            for operation in operations.into_iter().rev() {
                merge_operation(known, operation);
            }
        });
        history
    }

    pub fn open_hosts(&self, hosts: Vec<HostView>) {
        for host in hosts {
            self.put_host(host);
        }
    }

    /// Ids in the order of the hosts' names; follows the world.
    #[must_use]
    pub fn host_ids(&self) -> Vec<HostId> {
        self.host_ids.get()
    }

    #[must_use]
    pub fn host(&self, id: HostId) -> Option<ArcRwSignal<HostView>> {
        self.lock().hosts.get(&id).cloned()
    }

    /// What the world says now.
    #[cfg_attr(
        not(feature = "hydrate"),
        expect(dead_code, reason = "events reach the browser alone")
    )]
    pub fn apply(&self, item: StreamItem) {
        let StreamItem { event, vm, host } = item;
        if let Some(vm) = vm {
            self.put_vm(vm, event);
        }
        if let Some(host) = host {
            self.put_host(host);
        }
    }

    fn put_vm(&self, vm: VmView, event: EventView) {
        let (id, state, operation) = (vm.id, vm.state, vm.operation.clone());
        self.adopt(vm);
        let (history, ids) = {
            let known = self.lock();
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
            let new = !known.hosts.contains_key(&id);
            let entry = known
                .hosts
                .entry(id)
                .or_insert_with(|| ArcRwSignal::new(host.clone()))
                .clone();
            let names = new.then(|| {
                known
                    .hosts
                    .iter()
                    .map(|(id, host)| (host.with_untracked(|host| host.name.to_string()), *id))
                    .collect::<Vec<_>>()
            });
            (entry, names)
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
mod tests {
    use vimana_model::event::{Actor, EventKind};
    use vimana_model::operation::{OperationKind, OperationState};
    use vimana_model::{OperationId, Timestamp};

    use super::*;

    fn event(seq: u64) -> EventView {
        EventView {
            seq,
            at: Timestamp::from_ms(0),
            actor: Actor::System,
            vm_id: None,
            host_id: None,
            event: EventKind::ConsoleOpened,
        }
    }

    fn operation(n: u64, state: OperationState) -> OperationView {
        OperationView {
            id: OperationId::from_parts(n, [0; 10]),
            vm_id: VmId::from_parts(1, [0; 10]),
            kind: OperationKind::Create,
            state,
            steps: Vec::new(),
            requested_by: "ann".to_owned(),
            error: None,
            created_at: Timestamp::from_ms(0),
            ended_at: None,
        }
    }

    #[test]
    fn an_event_that_comes_twice_or_late_is_in_the_timeline_once_at_its_place() {
        let mut known = vec![event(3), event(7)];
        merge_events(&mut known, vec![event(7), event(5), event(9)]);
        let order: Vec<u64> = known.iter().map(|event| event.seq).collect();
        assert_eq!(order, [3, 5, 7, 9]);
    }

    #[test]
    fn an_operation_is_replaced_in_place_and_a_newer_one_stands_first() {
        let mut known = vec![operation(2, OperationState::Running)];
        merge_operation(&mut known, operation(2, OperationState::Succeeded));
        merge_operation(&mut known, operation(3, OperationState::Running));
        merge_operation(&mut known, operation(1, OperationState::Failed));
        let states: Vec<OperationState> = known.iter().map(|operation| operation.state).collect();
        assert_eq!(
            states,
            [
                OperationState::Running,
                OperationState::Succeeded,
                OperationState::Failed
            ]
        );
    }

    #[test]
    fn a_vm_joins_a_list_once_and_newest_first() {
        let id = |n| VmId::from_parts(n, [0; 10]);
        let ids = ArcRwSignal::new(vec![id(9), id(4)]);
        for n in [6, 9, 6, 1] {
            insert(&ids, id(n));
        }
        assert_eq!(ids.get_untracked(), [id(9), id(6), id(4), id(1)]);
    }
}
