//! The event hub: tails the recorded sequence and tells every reader.
//!
//! The database is the truth; the hub only shortens the way. Whoever commits
//! wakes it, and it reads what is new in order, joins each fact with how
//! things look now, and broadcasts. A reader that comes back names the last
//! sequence number it saw and gets what it missed from the database.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use vimana_authz::{Decision, Permission, Subject, decide};
use vimana_model::event::{EventKind, EventView, ProgressItem, StreamItem};
use vimana_model::host::HostView;
use vimana_model::operation::OperationKind;
use vimana_model::request::RequestView;
use vimana_model::vm::VmView;
use vimana_model::{HostId, RequestId, Result, TenantId, UserId, VmId};
use vimana_store::event::EventRecord;
use vimana_store::{event, host, host_datastore, request, vm};

use crate::Engine;
use crate::context::OpContext;
use crate::evacuation::may_let_vms_go;
use crate::host::host_views;
use crate::limits::{BROADCAST_EVENTS, BROADCAST_TELEMETRY, MAX_QUEUED_ITEMS, MAX_REPLAYED_EVENTS};

/// How soon events of another server on the same database are noticed.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks at the database: what is committed meanwhile is read, and
/// joined with how things look, all at once.
const GATHER: Duration = Duration::from_millis(5);

/// What a reader of the stream gets.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchItem {
    Item(Box<StreamItem>),
    /// How far an operation is; not part of the sequence.
    Progress(Box<ProgressItem>),
    /// Too much was missed: read everything anew, then go on from `seq`.
    Reset {
        seq: u64,
    },
}

/// An item with what decides who may see it.
#[derive(Debug)]
pub struct HubItem {
    pub tenant_id: Option<TenantId>,
    /// Whose request it is about, if it is about one.
    pub requester_id: Option<UserId>,
    pub item: StreamItem,
}

/// What is told and not recorded.
#[derive(Debug)]
pub struct Telemetry {
    /// None for what is for all.
    pub tenant_id: Option<TenantId>,
    pub item: ProgressItem,
}

pub struct Hub {
    wake: Notify,
    /// The newest sequence number that was broadcast.
    last: watch::Sender<u64>,
    items: broadcast::Sender<Arc<HubItem>>,
    telemetry: broadcast::Sender<Arc<Telemetry>>,
}

impl Hub {
    pub fn new(last_seq: u64) -> Self {
        Self {
            wake: Notify::new(),
            last: watch::Sender::new(last_seq),
            items: broadcast::Sender::new(BROADCAST_EVENTS),
            telemetry: broadcast::Sender::new(BROADCAST_TELEMETRY),
        }
    }

    /// Something was committed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<HubItem>> {
        self.items.subscribe()
    }

    /// Tells whoever watches; nobody is fine.
    pub fn tell(&self, telemetry: Telemetry) {
        let _receivers = self.telemetry.send(Arc::new(telemetry));
    }
}

impl Engine {
    /// The newest event's sequence number that readers have been told.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        *self.inner.hub.last.borrow()
    }

    /// What happens from now on, or from after sequence number `after`, as
    /// far as the caller may see it. The stream ends when its reader goes.
    pub fn watch(
        &self,
        cx: &OpContext,
        after: Option<u64>,
    ) -> impl Stream<Item = WatchItem> + Send + use<> {
        let (to_reader, reader) = mpsc::channel(MAX_QUEUED_ITEMS);
        let engine = self.clone();
        let subject = Arc::clone(&cx.subject);
        // Subscribed before the first look at the database, so that nothing
        // falls between the two.
        let live = self.inner.hub.subscribe();
        let telemetry = self.inner.hub.telemetry.subscribe();
        tokio::spawn(async move {
            engine
                .feed(&subject, after, live, telemetry, &to_reader)
                .await;
        });
        ReceiverStream::new(reader)
    }

    /// Replays, then follows. Ends when the reader hangs up.
    async fn feed(
        &self,
        subject: &Subject,
        after: Option<u64>,
        mut live: broadcast::Receiver<Arc<HubItem>>,
        mut telemetry: broadcast::Receiver<Arc<Telemetry>>,
        reader: &mpsc::Sender<WatchItem>,
    ) {
        let mut seen = match after {
            Some(after) => match self.replay(subject, after, reader).await {
                Some(seen) => seen,
                None => return,
            },
            None => 0,
        };
        loop {
            let received = tokio::select! {
                biased;
                () = reader.closed() => return,
                received = live.recv() => received,
                // What was missed of it is of no use any more.
                Ok(told) = telemetry.recv() => {
                    let sees = match told.tenant_id {
                        Some(tenant) => {
                            subject.tenant_id == tenant && permitted(subject, Permission::ViewVm, Some(tenant))
                        }
                        None => permitted(subject, Permission::ViewCatalogue, None),
                    };
                    let item = || WatchItem::Progress(Box::new(told.item.clone()));
                    if sees && reader.send(item()).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            match received {
                Ok(hub_item) => {
                    let seq = hub_item.item.event.seq;
                    if seq <= seen {
                        continue;
                    }
                    seen = seq;
                    if let Some(item) = visible(subject, &hub_item)
                        && reader.send(WatchItem::Item(Box::new(item))).await.is_err()
                    {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    seen = self.last_seq();
                    if reader.send(WatchItem::Reset { seq: seen }).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Sends what was missed; `None` when the reader is gone.
    async fn replay(
        &self,
        subject: &Subject,
        after: u64,
        reader: &mpsc::Sender<WatchItem>,
    ) -> Option<u64> {
        let missed = match event::after(&self.store().read(), after, MAX_REPLAYED_EVENTS).await {
            Ok(missed) => missed,
            Err(error) => {
                tracing::error!(%error, "missed events cannot be read");
                return None;
            }
        };
        let most = usize::try_from(MAX_REPLAYED_EVENTS).unwrap_or(usize::MAX);
        let ahead_of_us = after > self.last_seq() && missed.is_empty();
        if missed.len() >= most || ahead_of_us {
            let seq = self.last_seq();
            return reader
                .send(WatchItem::Reset { seq })
                .await
                .ok()
                .map(|()| seq);
        }
        let mut seen = after;
        for item in self.join(missed).await.ok()? {
            seen = item.item.event.seq;
            if let Some(item) = visible(subject, &item) {
                reader.send(WatchItem::Item(Box::new(item))).await.ok()?;
            }
        }
        Some(seen)
    }

    /// Tails the recorded events until cancelled.
    pub(crate) async fn run_hub(&self, cancel: CancellationToken) {
        let tail = async {
            loop {
                match self.broadcast_new().await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => tracing::error!(error = ?error, "events cannot be read"),
                }
                tokio::time::sleep(GATHER).await;
                // Whoever committed since the look at the database has woken us.
                let woken = self.inner.hub.wake.notified();
                let _in_time = tokio::time::timeout(POLL, woken).await;
            }
        };
        cancel.run_until_cancelled(tail).await;
    }

    /// Broadcasts one batch of new events; whether there may be more.
    async fn broadcast_new(&self) -> Result<bool> {
        let hub = &self.inner.hub;
        let last = self.last_seq();
        let new = event::after(&self.store().read(), last, MAX_REPLAYED_EVENTS).await?;
        let Some(newest) = new.last().map(|record| record.view.seq) else {
            return Ok(false);
        };
        let most = usize::try_from(MAX_REPLAYED_EVENTS).unwrap_or(usize::MAX);
        let more = new.len() >= most;
        for item in self.join(new).await? {
            if is_end_of_backup(&item.item.event.event) {
                self.spawn_sweep_backups();
            }
            if may_let_vms_go(&item.item) {
                self.inner.drains.wake();
            }
            // No receiver is fine: then nobody watches.
            let _receivers = hub.items.send(Arc::new(item));
        }
        hub.last.send_replace(newest);
        Ok(more)
    }

    /// Joins facts with how their VMs and hosts look now.
    async fn join(&self, records: Vec<EventRecord>) -> Result<Vec<HubItem>> {
        let vms = self.vms_of(&records).await?;
        let hosts = self.hosts_of(&records).await?;
        let requests = self.requests_of(&records).await?;
        let images = distinct(&records, |event| event.image_id);
        let images = self.images_of(&images).await?;
        let volumes = distinct(&records, |event| event.volume_id);
        let volumes = self.volumes_of(&volumes).await?;
        Ok(records
            .into_iter()
            .map(|EventRecord { view, tenant_id }| HubItem {
                tenant_id,
                requester_id: view
                    .request_id
                    .and_then(|id| requests.get(&id).map(|(requester, _)| *requester)),
                item: StreamItem {
                    request: view
                        .request_id
                        .and_then(|id| requests.get(&id).map(|(_, view)| view.clone())),
                    image: view.image_id.and_then(|id| images.get(&id).cloned()),
                    volume: view.volume_id.and_then(|id| volumes.get(&id).cloned()),
                    vm: view.vm_id.and_then(|id| vms.get(&id).cloned()),
                    host: view.host_id.and_then(|id| hosts.get(&id).cloned()),
                    event: view,
                },
            })
            .collect())
    }

    async fn vms_of(&self, records: &[EventRecord]) -> Result<HashMap<VmId, VmView>> {
        let ids = distinct(records, |event| event.vm_id);
        let found = vm::find_many(&self.store().read(), &ids).await?;
        Ok(self
            .vm_views(found)
            .await?
            .into_iter()
            .map(|view| (view.id, view))
            .collect())
    }

    async fn requests_of(
        &self,
        records: &[EventRecord],
    ) -> Result<HashMap<RequestId, (UserId, RequestView)>> {
        let ids = distinct(records, |event| event.request_id);
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = request::find_many(&self.store().read(), &ids).await?;
        let requesters: Vec<UserId> = found.iter().map(|record| record.requester_id).collect();
        let views = self.request_views(found).await?;
        Ok(views
            .into_iter()
            .zip(requesters)
            .map(|(view, requester)| (view.id, (requester, view)))
            .collect())
    }

    async fn hosts_of(&self, records: &[EventRecord]) -> Result<HashMap<HostId, HostView>> {
        let ids = distinct(records, |event| event.host_id);
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let read = self.store().read();
        let found = host::find_many(&read, &ids).await?;
        let views = host_views(found, host_datastore::for_hosts(&read, &ids).await?);
        Ok(views.into_iter().map(|host| (host.id, host)).collect())
    }
}

/// What events are about, each once.
fn distinct<T: Ord>(records: &[EventRecord], of: impl Fn(&EventView) -> Option<T>) -> Vec<T> {
    let ids = records.iter().filter_map(|record| of(&record.view));
    ids.collect::<BTreeSet<T>>().into_iter().collect()
}

fn permitted(subject: &Subject, permission: Permission, tenant: Option<TenantId>) -> bool {
    decide(subject, permission, tenant) == Decision::Allowed
}

/// Whether a backup came to nothing, which may have left files.
const fn is_end_of_backup(event: &EventKind) -> bool {
    const BACKUP: OperationKind = OperationKind::Backup;
    matches!(
        event,
        EventKind::OperationFailed {
            operation: BACKUP,
            ..
        } | EventKind::Cancelled { operation: BACKUP }
    )
}

/// The part of an item that its reader may see.
fn visible(subject: &Subject, hub_item: &HubItem) -> Option<StreamItem> {
    let sees_hosts = decide(subject, Permission::ViewHosts, None) == Decision::Allowed;
    let sees_fact = match hub_item.tenant_id {
        Some(tenant) => {
            // Staff see their own tenant's machines here, like everybody; the
            // console for all tenants is another page.
            subject.tenant_id == tenant
                && decide(subject, Permission::ViewVm, Some(tenant)) == Decision::Allowed
        }
        None if hub_item.item.event.image_id.is_some() => {
            permitted(subject, Permission::ViewCatalogue, None)
        }
        None => sees_hosts,
    } && sees_request(subject, hub_item);
    let item = &hub_item.item;
    match (sees_fact, sees_hosts) {
        (true, true) => Some(item.clone()),
        (true, false) => Some(StreamItem {
            host: None,
            ..item.clone()
        }),
        // A foreign VM's event still changes what staff see of the host; that
        // arrives with the next event of the host itself.
        (false, _) => None,
    }
}

/// One's own requests, and a manager all of the tenant's.
fn sees_request(subject: &Subject, hub_item: &HubItem) -> bool {
    hub_item.item.event.request_id.is_none()
        || hub_item.requester_id == Some(subject.user_id)
        || decide(subject, Permission::ViewRequests, hub_item.tenant_id) == Decision::Allowed
}
