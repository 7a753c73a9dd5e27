//! What is known of one thing, and how news are merged into it.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};
use vimana_model::event::EventView;
use vimana_model::image::ImageView;
use vimana_model::operation::OperationView;
use vimana_model::request::RequestView;
use vimana_model::vm::VmView;
use vimana_model::volume::VolumeView;

/// A moment between two events, as this page received them. What was asked for
/// at a mark is older than what an event said after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark(u64);

impl Mark {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Something that has a page or a row, and when an event last spoke of it.
pub struct Entry<T: 'static> {
    pub view: ArcRwSignal<T>,
    pub touched: Mark,
}

/// A view that says which of two is the newer.
pub trait Versioned: Clone + PartialEq + Send + Sync + 'static {
    fn generation(&self) -> u64;
}

impl Versioned for VmView {
    fn generation(&self) -> u64 {
        self.generation
    }
}

impl Versioned for RequestView {
    fn generation(&self) -> u64 {
        self.generation
    }
}

/// Says nothing of the kind: what came last is the newer.
impl Versioned for VolumeView {
    fn generation(&self) -> u64 {
        0
    }
}

/// Says nothing of the kind: what came last is the newer.
impl Versioned for ImageView {
    fn generation(&self) -> u64 {
        0
    }
}

impl<T: Versioned> Entry<T> {
    pub fn new(view: T, now: Mark) -> Self {
        Self {
            view: ArcRwSignal::new(view),
            touched: now,
        }
    }
}

/// Takes `new` in, unless it is older than what is known: of the same
/// generation, what was asked for before the last event says nothing new.
/// Nothing is locked while the page is patched.
pub fn renew<T: Versioned>(view: &ArcRwSignal<T>, touched: Mark, asked: Mark, new: T) {
    let news = view.with_untracked(|old| {
        new.generation() > old.generation()
            || new.generation() == old.generation() && touched <= asked && *old != new
    });
    if news {
        view.set(new);
    }
}

/// Puts something on a list at its place, newest first, unless it is there.
pub fn insert<T: Copy + Ord + Send + Sync + 'static>(ids: &ArcRwSignal<Vec<T>>, id: T) {
    if ids.with_untracked(|ids| !ids.contains(&id)) {
        ids.update(|ids| {
            let at = ids.partition_point(|other| *other > id);
            ids.insert(at, id);
        });
    }
}

/// Adds what is new, in the order of the sequence.
pub fn merge_events(known: &mut Vec<EventView>, events: Vec<EventView>) {
    for event in events {
        match known.binary_search_by_key(&event.seq, |known| known.seq) {
            Ok(_) => {}
            Err(at) => known.insert(at, event),
        }
    }
}

/// Replaces the operation, or puts it first.
pub fn merge_operation(known: &mut Vec<OperationView>, operation: OperationView) {
    match known.iter_mut().find(|known| known.id == operation.id) {
        Some(known) => *known = operation,
        None => {
            let at = known.partition_point(|other| other.id > operation.id);
            known.insert(at, operation);
        }
    }
}
