//! The event stream of the tab: one `EventSource`, its reconnection, and its
//! items handed over once per frame.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use send_wrapper::SendWrapper;
use vimana_model::event::{ProgressItem, StreamItem};
use wasm_bindgen::JsCast as _;
use wasm_bindgen::closure::Closure;
use web_sys::{EventSource, MessageEvent};

use super::{Link, Live};
use crate::api::current_session;
use crate::session::CurrentSession;

const PATH: &str = "/api/v1/events";
/// First and longest wait between two tries of our own, in milliseconds. The
/// browser itself tries again after a mere loss of the connection.
const RETRY_MS: (u64, u64) = (500, 15_000);
/// How often a page in the background takes in what came.
const HIDDEN_MS: u64 = 500;

/// The tab's stream, if it is open. The browser has one thread; the wrapper
/// only lets it live in a context that asks for `Send`.
#[derive(Clone)]
pub struct Handle(Arc<SendWrapper<Rc<Tab>>>);

impl Default for Handle {
    fn default() -> Self {
        Self(Arc::new(SendWrapper::new(Rc::default())))
    }
}

#[derive(Default)]
struct Tab {
    source: RefCell<Option<Source>>,
    /// Newest event taken in.
    seq: Cell<u64>,
    queue: RefCell<Vec<News>>,
    scheduled: Cell<bool>,
    tries: Cell<u32>,
    wanted: Cell<bool>,
    session: Cell<Option<CurrentSession>>,
}

enum News {
    Item(Box<StreamItem>),
    Progress(Box<ProgressItem>),
}

struct Source {
    source: EventSource,
    _on_open: Closure<dyn FnMut()>,
    _on_error: Closure<dyn FnMut()>,
    _on_item: Closure<dyn FnMut(MessageEvent)>,
    _on_progress: Closure<dyn FnMut(MessageEvent)>,
    _on_reset: Closure<dyn FnMut(MessageEvent)>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.source.close();
    }
}

/// Opens the stream after event `seq`, unless it is open already.
pub fn open(live: &Live, seq: u64, session: CurrentSession) {
    let tab = &live.stream.0;
    tab.session.set(Some(session));
    if !tab.wanted.replace(true) {
        tab.seq.set(seq);
        connect(live);
    }
}

pub fn close(live: &Live) {
    let tab = &live.stream.0;
    tab.wanted.set(false);
    tab.queue.borrow_mut().clear();
    tab.source.borrow_mut().take();
}

fn connect(live: &Live) {
    let tab = &live.stream.0;
    if !tab.wanted.get() {
        return;
    }
    let url = format!("{PATH}?after={}", tab.seq.get());
    let Ok(source) = EventSource::new(&url) else {
        return retry(live);
    };
    let on_open = {
        let live = live.clone();
        Closure::<dyn FnMut()>::new(move || {
            live.stream.0.tries.set(0);
            live.link.set(Link::Live);
        })
    };
    let on_error = {
        let live = live.clone();
        Closure::<dyn FnMut()>::new(move || lost(&live))
    };
    let on_item = {
        let live = live.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |message| take(&live, &message))
    };
    let on_progress = {
        let live = live.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |message| take_progress(&live, &message))
    };
    let on_reset = {
        let live = live.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |message| reset(&live, &message))
    };
    source.set_onopen(Some(on_open.as_ref().unchecked_ref()));
    source.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    for (name, listener) in [
        ("item", &on_item),
        ("progress", &on_progress),
        ("reset", &on_reset),
    ] {
        // Fails only where the listener is no function.
        let _ = source.add_event_listener_with_callback(name, listener.as_ref().unchecked_ref());
    }
    *tab.source.borrow_mut() = Some(Source {
        source,
        _on_open: on_open,
        _on_error: on_error,
        _on_item: on_item,
        _on_progress: on_progress,
        _on_reset: on_reset,
    });
}

/// The connection broke. The browser tries again by itself, unless the server
/// refused: then it is our turn.
fn lost(live: &Live) {
    live.link.set(Link::Stale);
    let closed = live
        .stream
        .0
        .source
        .borrow()
        .as_ref()
        .is_none_or(|source| source.source.ready_state() == EventSource::CLOSED);
    if closed {
        retry(live);
    }
}

fn retry(live: &Live) {
    let tries = live.stream.0.tries.get();
    live.stream.0.tries.set(tries.saturating_add(1));
    let wait = RETRY_MS.0.saturating_mul(1 << tries.min(5)).min(RETRY_MS.1);
    let live = live.clone();
    let session = live.stream.0.session.get();
    set_timeout(
        move || {
            spawn_local(async move {
                // Refused because nobody is signed in any more?
                match (current_session().await, session) {
                    (Ok(None), Some(session)) => session.renew(),
                    _ => connect(&live),
                }
            });
        },
        Duration::from_millis(wait),
    );
}

fn take(live: &Live, message: &MessageEvent) {
    let text = message.data().as_string().unwrap_or_default();
    match serde_json::from_str::<StreamItem>(&text) {
        Ok(item) => {
            live.stream.0.seq.set(item.event.seq);
            enqueue(live, News::Item(Box::new(item)));
        }
        // A newer server speaks of things this page does not know.
        Err(_) => live
            .resets
            .update(|resets| *resets = resets.wrapping_add(1)),
    }
}

/// What cannot be read is missed, and nothing is lost.
fn take_progress(live: &Live, message: &MessageEvent) {
    let text = message.data().as_string().unwrap_or_default();
    if let Ok(item) = serde_json::from_str::<ProgressItem>(&text) {
        enqueue(live, News::Progress(Box::new(item)));
    }
}

fn enqueue(live: &Live, news: News) {
    live.stream.0.queue.borrow_mut().push(news);
    schedule(live);
}

fn reset(live: &Live, message: &MessageEvent) {
    if let Ok(seq) = message.last_event_id().parse() {
        live.stream.0.seq.set(seq);
    }
    live.stream.0.queue.borrow_mut().clear();
    live.resets
        .update(|resets| *resets = resets.wrapping_add(1));
}

/// Hands over what came, once per frame however much it is.
fn schedule(live: &Live) {
    if live.stream.0.scheduled.replace(true) {
        return;
    }
    let live = live.clone();
    let flush = move || {
        live.stream.0.scheduled.set(false);
        let queue = std::mem::take(&mut *live.stream.0.queue.borrow_mut());
        for news in queue {
            match news {
                News::Item(item) => live.apply(*item),
                News::Progress(item) => live.apply_progress(&item),
            }
        }
    };
    // A hidden page gets no frames.
    if document().hidden() {
        set_timeout(flush, Duration::from_millis(HIDDEN_MS));
    } else {
        request_animation_frame(flush);
    }
}
