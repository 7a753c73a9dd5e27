use leptos::prelude::*;
use vimana_model::HostId;
use vimana_model::evacuation::EvacuationView;
use vimana_model::event::{EventKind, EventView};
use vimana_model::host::{HostState, HostView};

use super::{Live, Mark};
use crate::api::HostRow;

/// What is known of one host.
#[derive(Clone)]
pub struct HostEntry {
    pub view: ArcRwSignal<HostView>,
    /// Why it is doubted, while it is.
    pub doubt: ArcRwSignal<Option<String>>,
    /// How far its VMs are gone, as the server said last; who shows it asks
    /// again.
    pub evacuation: ArcRwSignal<Option<EvacuationView>>,
    touched: Mark,
}

impl Live {
    pub fn open_hosts(&self, (asked, hosts): (Mark, Vec<HostRow>)) {
        for host in hosts {
            self.adopt_host(asked, host);
        }
    }

    /// Takes in a host the server gave and gives the entry that stays up to
    /// date.
    pub fn adopt_host(&self, asked: Mark, row: HostRow) -> Option<HostEntry> {
        let id = row.host.id;
        let known = self.host(id);
        if known.as_ref().is_some_and(|entry| entry.touched > asked) {
            return known;
        }
        self.put_host(row.host, None);
        let entry = self.host(id);
        if let Some(entry) = &entry
            && entry.doubt.with_untracked(|doubt| *doubt != row.doubt)
        {
            entry.doubt.set(row.doubt);
        }
        if let Some(entry) = &entry
            && entry
                .evacuation
                .with_untracked(|known| *known != row.evacuation)
        {
            entry.evacuation.set(row.evacuation);
        }
        entry
    }

    /// Takes in what the server answered of a host alone.
    pub fn renew_host(&self, asked: Mark, host: HostView) {
        let known = self.host(host.id);
        if known.is_none_or(|entry| entry.touched <= asked) {
            self.put_host(host, None);
        }
    }

    /// Ids in the order of the hosts' names; follows the world.
    #[must_use]
    pub fn host_ids(&self) -> Vec<HostId> {
        self.host_ids.get()
    }

    #[must_use]
    pub fn host(&self, id: HostId) -> Option<HostEntry> {
        self.lock().hosts.get(&id).cloned()
    }

    pub(super) fn put_host(&self, host: HostView, event: Option<&EventView>) {
        let id = host.id;
        let (entry, mut names) = {
            let mut known = self.lock();
            let now = known.now;
            let new = !known.hosts.contains_key(&id);
            let entry = known.hosts.entry(id).or_insert_with(|| HostEntry {
                view: ArcRwSignal::new(host.clone()),
                doubt: ArcRwSignal::new(None),
                evacuation: ArcRwSignal::new(None),
                touched: now,
            });
            entry.touched = now;
            let entry = entry.clone();
            let named = |(id, host): (&HostId, &HostEntry)| {
                (host.view.with_untracked(|host| host.name.to_string()), *id)
            };
            (
                entry,
                new.then(|| known.hosts.iter().map(named).collect::<Vec<_>>()),
            )
        };
        if let Some(names) = names.as_mut() {
            names.sort();
            self.host_ids.set(names.iter().map(|(_, id)| *id).collect());
        }
        if let Some(EventKind::HostDoubted { reason }) = event.map(|event| &event.event) {
            entry.doubt.set(Some(reason.clone()));
        } else if host.state != HostState::Doubted && entry.doubt.with_untracked(Option::is_some) {
            entry.doubt.set(None);
        }
        if entry.view.with_untracked(|old| *old != host) {
            entry.view.set(host);
        }
    }
}
