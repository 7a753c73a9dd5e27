//! What the page knows of the world, patched by the event stream.
//!
//! One entry per VM, host, request, image and volume, each a signal of its own: a
//! list row, its badge and its buttons read the same entry, and an event touches
//! nothing else. All of it is owned here, at the top; pages come and go.

mod backup;
mod entry;
mod host;
mod image;
mod operations;
mod request;
#[cfg(feature = "hydrate")]
mod stream;
mod vm;
mod volume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leptos::prelude::*;
use vimana_model::event::{EventView, ProgressItem, StreamItem};
use vimana_model::image::ImageView;
use vimana_model::request::RequestView;
use vimana_model::vm::VmView;
use vimana_model::volume::VolumeView;
use vimana_model::{HostId, ImageId, RequestId, VmId, VolumeId};

use crate::api::ApiResult;
use crate::session::{Caller, CurrentSession};
pub use entry::Mark;
use entry::{Entry, insert, merge_events, merge_operation};
pub use host::HostEntry;
pub use operations::{History, Operations};
use request::OpenRequests;
use vm::OpenVms;
pub use vm::Timeline;

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

/// What a timeline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    Vm(VmId),
    Host(HostId),
    Request(RequestId),
    Image(ImageId),
}

impl About {
    fn takes(self, event: &EventView) -> bool {
        match self {
            Self::Vm(id) => event.vm_id == Some(id),
            // What its VMs do is on their own pages.
            Self::Host(id) => event.host_id == Some(id) && event.vm_id.is_none(),
            Self::Request(id) => event.request_id == Some(id),
            Self::Image(id) => event.image_id == Some(id),
        }
    }
}

/// How many events are remembered for pages that are still on their way.
const RECENT_EVENTS: usize = 512;

#[derive(Default)]
struct Known {
    vms: BTreeMap<VmId, Entry<VmView>>,
    hosts: BTreeMap<HostId, HostEntry>,
    requests: BTreeMap<RequestId, Entry<RequestView>>,
    images: BTreeMap<ImageId, Entry<ImageView>>,
    volumes: BTreeMap<VolumeId, Entry<VolumeView>>,
    timelines: BTreeMap<About, Timeline>,
    operations: BTreeMap<About, Operations>,
    open_vms: Option<OpenVms>,
    open_requests: Option<OpenRequests>,
    /// For whom requests wait or do not.
    caller: Option<Caller>,
    now: Mark,
    recent: VecDeque<EventView>,
}

#[derive(Clone)]
pub struct Live {
    known: Arc<Mutex<Known>>,
    host_ids: ArcRwSignal<Vec<HostId>>,
    image_ids: ArcRwSignal<Vec<ImageId>>,
    volume_ids: ArcRwSignal<Vec<VolumeId>>,
    /// Requests that wait for whoever is signed in.
    waiting: ArcRwSignal<BTreeSet<RequestId>>,
    link: ArcRwSignal<Link>,
    /// Grows when events were lost and everything must be read again.
    resets: ArcRwSignal<u32>,
    /// Grows when more or fewer VMs are made from some image.
    uses: ArcRwSignal<u32>,
    /// Grows when something came about with a backup, or a schedule.
    kept: ArcRwSignal<u32>,
    /// Grows when something came about with a host, or with a VM on one.
    hosted: ArcRwSignal<u32>,
    #[cfg(feature = "hydrate")]
    stream: stream::Handle,
}

impl Live {
    pub fn provide() {
        provide_context(Self {
            known: Arc::default(),
            host_ids: ArcRwSignal::new(Vec::new()),
            image_ids: ArcRwSignal::new(Vec::new()),
            volume_ids: ArcRwSignal::new(Vec::new()),
            waiting: ArcRwSignal::new(BTreeSet::new()),
            link: ArcRwSignal::new(Link::Fresh),
            resets: ArcRwSignal::new(0),
            uses: ArcRwSignal::new(0),
            kept: ArcRwSignal::new(0),
            hosted: ArcRwSignal::new(0),
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
        self.image_ids.set(Vec::new());
        self.volume_ids.set(Vec::new());
        self.waiting.set(BTreeSet::new());
        self.link.set(Link::Fresh);
    }

    /// Runs `reload` whenever events were lost; and where `counts` the VMs that
    /// are made from an image, which no event tells, whenever these change.
    pub fn on_reset(&self, counts: bool, reload: impl Fn() + 'static) {
        let (resets, uses) = (self.resets.clone(), self.uses.clone());
        Effect::new(move |before: Option<(u32, u32)>| {
            let now = (resets.get(), if counts { uses.get() } else { 0 });
            if before.is_some_and(|before| before != now) {
                reload();
            }
            now
        });
    }

    /// Runs `reload` whenever backups or schedules may be others, or events were
    /// lost.
    pub fn on_kept(&self, reload: impl Fn() + 'static) {
        let (resets, kept) = (self.resets.clone(), self.kept.clone());
        Effect::new(move |before: Option<(u32, u32)>| {
            let now = (resets.get(), kept.get());
            if before.is_some_and(|before| before != now) {
                reload();
            }
            now
        });
    }

    /// Runs `look` now, and whenever something came about with a host or a VM on
    /// one, or events were lost.
    pub fn on_hosted(&self, look: impl Fn() + 'static) {
        let (resets, hosted) = (self.resets.clone(), self.hosted.clone());
        Effect::new(move |_| {
            resets.track();
            hosted.track();
            untrack(&look);
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

    /// Takes in the past of something, and gives what stays up to date.
    pub fn open_timeline(&self, about: About, events: Vec<EventView>) -> Timeline {
        let (timeline, recent) = {
            let mut known = self.lock();
            let of_it = |event: &&EventView| about.takes(event);
            let recent: Vec<EventView> = known.recent.iter().filter(of_it).cloned().collect();
            let timeline = known.timelines.entry(about).or_default().clone();
            (timeline, recent)
        };
        timeline.update(|known| {
            merge_events(known, events);
            // Came while the others were on their way.
            merge_events(known, recent);
        });
        timeline
    }

    /// What the world says now.
    #[cfg_attr(
        not(any(feature = "hydrate", test)),
        expect(dead_code, reason = "events reach the browser alone")
    )]
    pub fn apply(&self, item: StreamItem) {
        let StreamItem {
            event,
            vm,
            host,
            request,
            image,
            volume,
        } = item;
        let (now, timelines) = {
            let mut known = self.lock();
            if known.recent.len() >= RECENT_EVENTS {
                known.recent.pop_front();
            }
            known.recent.push_back(event.clone());
            known.now = known.now.next();
            let timelines: Vec<Timeline> = known
                .timelines
                .iter()
                .filter(|(about, _)| about.takes(&event))
                .map(|(_, timeline)| timeline.clone())
                .collect();
            (known.now, timelines)
        };
        let hosted = host.is_some();
        if let Some(host) = host {
            self.put_host(host, Some(&event));
        }
        if let Some(request) = request {
            self.put_request(now, request);
        }
        if let Some(image) = image {
            self.put_image(now, image);
        }
        if let Some(volume) = volume {
            self.put_volume(now, volume);
        }
        if vm.is_some() && image::counts(&event.event) {
            self.uses.update(|uses| *uses = uses.wrapping_add(1));
        }
        if backup::tells(&event.event) {
            self.kept.update(|kept| *kept = kept.wrapping_add(1));
        }
        if let Some(vm) = vm {
            self.put_vm(now, vm);
        }
        if hosted {
            self.hosted
                .update(|hosted| *hosted = hosted.wrapping_add(1));
        }
        for timeline in timelines {
            timeline.update(|known| merge_events(known, vec![event.clone()]));
        }
    }

    /// How far an operation is now. What came with events counts for more.
    #[cfg_attr(
        not(any(feature = "hydrate", test)),
        expect(dead_code, reason = "events reach the browser alone")
    )]
    pub fn apply_progress(&self, item: &ProgressItem) {
        self.put_progress(&item.operation);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing here panics half-way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
