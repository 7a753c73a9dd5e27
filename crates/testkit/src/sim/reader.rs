//! Readers of the event stream: what they are told over all crashes is every
//! event that they may see, once and in order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use vimana_engine::{OpContext, WatchItem};
use vimana_model::event::{EventKind, EventView};
use vimana_store::{Reader as Store, event};

use super::journal::Journal;
use super::people::{Person, tenant_id};
use super::server::Server;

/// What one reader saw.
#[derive(Clone)]
pub struct Reader {
    who: Person,
    seen: Arc<Mutex<Read>>,
}

#[derive(Default)]
struct Read {
    last: u64,
    seqs: Vec<u64>,
    /// Up to here it had to read everything anew.
    reset: u64,
}

impl Reader {
    #[must_use]
    pub fn new(who: Person) -> Self {
        Self {
            who,
            seen: Arc::default(),
        }
    }

    /// Reads for ever, over all crashes.
    pub async fn read(self, server: Server, journal: Journal) {
        loop {
            server.until_serving().await;
            let Some(engine) = server.engine() else {
                continue;
            };
            let (sender, mut items) = mpsc::channel(64);
            let cx = OpContext::new(self.who.subject());
            let after = self.read_so_far().last;
            server.spawn(async move {
                let mut watch = std::pin::pin!(engine.watch(&cx, Some(after)));
                while let Some(item) = watch.next().await {
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
            });
            while let Some(item) = items.recv().await {
                self.take(item, &journal);
            }
        }
    }

    fn take(&self, item: WatchItem, journal: &Journal) {
        let mut read = self.read_so_far();
        match item {
            WatchItem::Item(item) => {
                let seq = item.event.seq;
                if seq <= read.last {
                    let what =
                        format!("{} was told event {seq} after {}", self.who.name, read.last);
                    journal.breach(18, what);
                }
                read.last = seq;
                read.seqs.push(seq);
                drop(read);
                if let Some(vm) = &item.vm {
                    journal.name(vm.id, vm.name.as_str());
                }
                tell(journal, &item.event);
            }
            WatchItem::Progress(_) => {}
            WatchItem::Reset { seq } => {
                read.last = seq;
                read.reset = seq;
            }
        }
    }

    /// Whether it was told of everything that it may see, and of nothing else.
    pub async fn check(&self, store: &Store, journal: &Journal) {
        let (reset, told) = self.up_to_now();
        let (mut after, mut visible) = (reset, BTreeSet::new());
        loop {
            let batch = event::after(store, after, 1000).await.unwrap();
            let Some(last) = batch.last().map(|record| record.view.seq) else {
                break;
            };
            after = last;
            let seen = batch.iter().filter(|record| self.sees(record.tenant_id));
            visible.extend(seen.map(|record| record.view.seq));
        }
        let who = self.who.name;
        let missed: Vec<_> = visible.difference(&told).collect();
        if !missed.is_empty() {
            journal.breach(18, format!("{who} was never told of events {missed:?}"));
        }
        let stray: Vec<_> = told.difference(&visible).collect();
        if !stray.is_empty() {
            journal.breach(6, format!("{who} was told of others' events {stray:?}"));
        }
    }

    /// From where on, and what it was told of since.
    fn up_to_now(&self) -> (u64, BTreeSet<u64>) {
        let read = self.read_so_far();
        let since = read.seqs.iter().filter(|seq| **seq > read.reset);
        (read.reset, since.copied().collect())
    }

    /// The last event it has been told of.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.read_so_far().last
    }

    fn sees(&self, tenant: Option<vimana_model::TenantId>) -> bool {
        match tenant {
            Some(tenant) => tenant == tenant_id(self.who.tenant),
            None => self.who.staff.is_some(),
        }
    }

    fn read_so_far(&self) -> std::sync::MutexGuard<'_, Read> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(journal: &Journal, event: &EventView) {
    let about = match event.vm_id {
        Some(vm) => journal.name_of(vm),
        None => String::new(),
    };
    if matches!(event.event, EventKind::NotPlaced { .. }) {
        journal.count("waits", 1);
    }
    let sentence = event.event.sentence();
    journal.say("event", format!("{about} ({}): {sentence}", event.actor));
}
