//! Recomputes the rules that always hold, as far as database, datastore,
//! repository and hosts can tell: for `vimana-server fsck` and for the simulator's checkers.
//!
//! Reads only. In one moment of the database ([`vimana_store::Snapshot`]) a
//! breach of its records is certain. Hosts and files are looked at a little
//! before, and beside a live server something may have moved on in between: a
//! breach that they are part of counts only when it is there again a little
//! later; see [`lasting`].

mod backup;
mod books;
mod claim;
mod datastore;
mod disk;
mod event;
mod host;
mod image;
mod operation;
mod quota;
mod request;
mod row;
mod rule;
mod subject;

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use vimana_driver::Observed;
use vimana_model::{BackupId, HostId, ImageId, Result, VmId};
use vimana_protocol::agent::Disks;
use vimana_repository::Kept;
use vimana_store::Conn;
use vimana_store::survey;

use crate::agent::Inventory;
use books::{Books, sorting};
pub use rule::{Check, Rule, Source};
pub use subject::{Kind, Named, Subject};
use vimana_datastore::{Copies, Disks as Backed};
use vimana_model::name::DatastoreName;

/// Something that is not as it must always be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub check: Check,
    pub subject: Subject,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            subject,
            what,
        } = self;
        let rule = check.rule();
        let (number, sentence) = (rule.number(), rule.sentence());
        write!(f, "rule {number} ({sentence}): {subject}: {what}")
    }
}

impl Breach {
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.check.rule()
    }

    /// Without the names and places in the subject: those may change while the
    /// breach stays.
    fn identity(&self) -> (Check, Kind, &str, &str) {
        let Subject { kind, itself, .. } = &self.subject;
        (self.check, *kind, &itself.id, &self.what)
    }
}

/// What is known beside the database.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// What each host says that it holds; hosts that say nothing are absent.
    pub inventories: BTreeMap<HostId, Vec<Observed>>,
    /// The same of volumes and snapshots.
    pub disks: BTreeMap<HostId, Disks>,
    /// What the datastore holds of each VM; absent where it was not looked at.
    pub in_datastore: Option<BTreeMap<VmId, Copies>>,
    /// What each datastore holds of backups; those that were not looked at are
    /// absent.
    pub backups: BTreeMap<DatastoreName, BTreeMap<BackupId, Backed>>,
    /// What the repository holds of each image; absent where it was not looked
    /// at.
    pub in_repository: Option<BTreeMap<ImageId, Kept>>,
}

impl FromIterator<(HostId, Inventory)> for Outside {
    fn from_iter<I: IntoIterator<Item = (HostId, Inventory)>>(hosts: I) -> Self {
        let mut outside = Self::default();
        for (id, Inventory { machines, disks }) in hosts {
            outside.inventories.insert(id, machines);
            outside.disks.extend(disks.map(|disks| (id, disks)));
        }
        outside
    }
}

/// The breaches of `later` that count: those of the records, and those that
/// were there before.
#[must_use]
pub fn lasting(before: &[Breach], later: Vec<Breach>) -> Vec<Breach> {
    let before: HashSet<_> = before.iter().map(Breach::identity).collect();
    let counts = |breach: &Breach| match breach.check.source() {
        Source::Records => true,
        Source::Reports => before.contains(&breach.identity()),
    };
    later.into_iter().filter(counts).collect()
}

/// Every breach, by rule and subject.
///
/// # Errors
/// The database cannot be read.
pub async fn check(conn: &impl Conn, outside: &Outside) -> Result<Vec<Breach>> {
    let mut found = Findings::default();
    let books = Books::read(conn, &mut found).await?;
    claim::check_claims(&books, &mut found);
    operation::check_operations(&books, &mut found);
    quota::check_counts(&books, &mut found);
    disk::check_disks(&books, outside, &mut found);
    request::check_requests(&books, &mut found);
    host::check_hosts(&books, outside, &mut found);
    datastore::check_copies(&books, outside, &mut found);
    backup::check_backups(&books, outside, &mut found);
    image::check_images(&books, outside, &mut found);
    row::check_rows(conn, &books, &mut found).await?;
    event::check_events(conn, &books, &mut found).await?;
    Ok(in_order(found.breaches))
}

/// The hosts that have to be heard before it is known what is where: all but
/// those that were sent away and of which nothing is claimed.
///
/// # Errors
/// The database cannot be read.
pub async fn hosts_to_hear(conn: &impl Conn) -> Result<BTreeMap<HostId, Named>> {
    let (mut hosts, mut corrupt) = (BTreeMap::new(), Vec::new());
    let mut keep = |host: vimana_store::host::HostRecord| {
        if host.revoked_at.is_none() || host.vms > 0 {
            hosts.insert(host.id, Named::new(host.id, Some(host.name)));
        }
    };
    // A row that makes no sense is a breach, and found as such.
    survey::hosts(conn, sorting(&mut corrupt, &mut keep)).await?;
    Ok(hosts)
}

#[derive(Default)]
struct Findings {
    breaches: Vec<Breach>,
}

impl Findings {
    fn add(&mut self, check: Check, subject: Subject, what: impl Into<String>) {
        self.breaches.push(Breach {
            check,
            subject,
            what: what.into(),
        });
    }
}

/// By rule, check and subject, each once.
#[must_use]
pub fn in_order(mut breaches: Vec<Breach>) -> Vec<Breach> {
    breaches.sort_by(|a, b| {
        let key = |breach: &Breach| (breach.rule(), breach.check);
        let (of_a, of_b) = (key(a), key(b));
        of_a.cmp(&of_b)
            .then_with(|| a.subject.cmp(&b.subject))
            .then_with(|| a.what.cmp(&b.what))
    });
    breaches.dedup();
    breaches
}
