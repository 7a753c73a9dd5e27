//! What the parts log of themselves, in the run's journal; an error that no
//! fault of ours explains is a breach. What is for those who look for faults
//! is not told, but it holds no secret either.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use super::journal::Journal;

/// What an error's text holds where it comes from a killed server's last
/// moments, or from a disk that was made full.
const EXPECTED: [&str; 5] = [
    "closed",
    "disk is full",
    "busy",
    "a bad moment",
    "the database is",
];

/// Takes in everything that is logged on this thread.
#[must_use]
pub fn dispatch(journal: Journal) -> Dispatch {
    Dispatch::new(Ears {
        journal: Arc::new(journal),
        spans: AtomicU64::new(1),
    })
}

struct Ears {
    journal: Arc<Journal>,
    spans: AtomicU64,
}

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("vimana")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut said = Said::default();
        span.record(&mut said);
        self.journal.overhear("a span", &said.fields);
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        let mut said = Said::default();
        values.record(&mut said);
        self.journal.overhear("a span", &said.fields);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let target = event.metadata().target();
        let who = target.split("::").next().unwrap_or(target);
        let who = who.trim_start_matches("vimana_");
        let text = format!("{}{}", said.message, said.fields);
        if *event.metadata().level() > Level::INFO {
            return self.journal.overhear(who, &text);
        }
        let is_error = *event.metadata().level() == Level::ERROR && who == "engine";
        if is_error && !EXPECTED.iter().any(|known| text.contains(known)) {
            self.journal.breach(20, format!("an error of ours: {text}"));
        } else {
            self.journal.say(who, text);
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // Real time, which differs from run to run.
            "ms" | "micros" => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
