//! The sequence of events: no gaps, nothing about what is not there, and
//! nothing shown to a tenant that it is not about.

use std::collections::{BTreeMap, HashSet};

use vimana_model::{RequestId, Result, TenantId, VmId, VolumeId};
use vimana_store::event::{self, EventRecord};
use vimana_store::survey::{self, Surveyed};
use vimana_store::{Conn, StoreError};

use super::books::Books;
use super::subject::{Kind, Named, Subject};
use super::{Check, Findings};

/// Gaps that are named one by one.
const MAX_GAPS: usize = 5;

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum About {
    Vm(VmId),
    Request(RequestId),
    Volume(VolumeId),
}

#[derive(Default)]
struct Sequence {
    last: u64,
    gaps: Vec<(u64, u64)>,
    /// What is not recorded.
    nothing: HashSet<About>,
    /// Of what some events are another tenant's: the first of them, and how
    /// many.
    astray: BTreeMap<(About, Option<TenantId>), (u64, u64)>,
}

pub async fn check_events(conn: &impl Conn, books: &Books, found: &mut Findings) -> Result<()> {
    let mut sequence = Sequence::default();
    let mut corrupt = Vec::new();
    let visit = |row: Surveyed<EventRecord>| match row {
        Ok(record) => {
            sequence.passes(record.view.seq);
            sequence.look(books, &record);
        }
        Err(row) => {
            let number = row.key.as_ref().and_then(|key| key.parse().ok());
            number.into_iter().for_each(|seq| sequence.passes(seq));
            corrupt.push(row);
        }
    };
    survey::events(conn, visit).await?;
    for row in corrupt {
        books.name_corrupt(&row, found);
    }
    let counter = match event::last_seq(conn).await {
        Ok(counter) => Some(counter),
        Err(StoreError::Corrupt { what }) => {
            let what = format!("{what} makes no sense");
            found.add(Check::CorruptRow, events(), what);
            None
        }
        Err(error) => return Err(error.into()),
    };
    sequence.tell(books, counter, found);
    Ok(())
}

fn events() -> Subject {
    Subject::new(Kind::Events, Named::new("events", None::<&str>))
}

impl Sequence {
    fn passes(&mut self, seq: u64) {
        let next = self.last.saturating_add(1);
        if seq > next {
            self.gaps.push((next, seq - 1));
        }
        self.last = seq;
    }

    fn look(&mut self, books: &Books, record: &EventRecord) {
        let EventRecord { view, tenant_id } = record;
        if let Some(id) = view.vm_id {
            let whose = books.vms.get(&id).map(|vm| vm.tenant_id);
            self.compare(
                About::Vm(id),
                books.is_no_vm(id),
                whose,
                *tenant_id,
                view.seq,
            );
        }
        if let Some(id) = view.request_id {
            let whose = books.requests.get(&id).map(|request| request.tenant_id);
            let lost = books.is_no_request(id);
            self.compare(About::Request(id), lost, whose, *tenant_id, view.seq);
        }
        if let Some(id) = view.volume_id {
            let whose = books.volumes.get(&id).map(|volume| volume.tenant_id);
            let lost = books.is_no_volume(id);
            self.compare(About::Volume(id), lost, whose, *tenant_id, view.seq);
        }
    }

    fn compare(
        &mut self,
        about: About,
        lost: bool,
        whose: Option<TenantId>,
        shown_to: Option<TenantId>,
        seq: u64,
    ) {
        if lost {
            self.nothing.insert(about);
        }
        if whose.is_some() && whose != shown_to {
            let (_, count) = self.astray.entry((about, shown_to)).or_insert((seq, 0));
            *count += 1;
        }
    }

    fn tell(self, books: &Books, counter: Option<u64>, found: &mut Findings) {
        let Self {
            last,
            gaps,
            nothing,
            astray,
        } = self;
        if !gaps.is_empty() {
            found.add(Check::EventsMissing, events(), missing(&gaps));
        }
        if let Some(counter) = counter.filter(|counter| *counter != last) {
            let what = format!("the last event is number {last}, the counter is at {counter}");
            found.add(Check::CounterIsOff, events(), what);
        }
        for about in nothing {
            let what = "something happened to it, and it is not recorded";
            found.add(Check::EventOfNothing, about.subject(books), what);
        }
        for ((about, tenant), (first, count)) in astray {
            let whose = match tenant {
                Some(tenant) => format!("those of tenant {}", books.tenant(tenant)),
                None => "no tenant's".to_owned(),
            };
            let what = format!("of its events, {count} are {whose}; the first is number {first}");
            found.add(Check::EventOfOtherTenant, about.subject(books), what);
        }
    }
}

impl About {
    fn subject(self, books: &Books) -> Subject {
        match self {
            Self::Vm(id) => books.about_vm(id),
            Self::Request(id) => match books.requests.get(&id) {
                Some(request) => books.about_request(request),
                None => Subject::new(Kind::Request, Named::new(id, None::<&str>)),
            },
            Self::Volume(id) => match books.volumes.get(&id) {
                Some(volume) => books.about_volume(volume),
                None => Subject::new(Kind::Volume, Named::new(id, None::<&str>)),
            },
        }
    }
}

fn missing(gaps: &[(u64, u64)]) -> String {
    let count: u64 = gaps.iter().map(|(first, last)| last - first + 1).sum();
    let mut ranges: Vec<String> = gaps
        .iter()
        .take(MAX_GAPS)
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first} to {last}"),
        })
        .collect();
    if gaps.len() > MAX_GAPS {
        ranges.push(format!("{} more gaps", gaps.len() - MAX_GAPS));
    }
    format!("of its numbers, {count} are missing: {}", ranges.join(", "))
}
