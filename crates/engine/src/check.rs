//! Recomputes the rules that always hold, as far as database and agents can
//! tell: for `vimana-server fsck` and for the simulator's checkers.
//!
//! Reads only. Beside a live server the parts are read at slightly different
//! moments, so that a breach counts only when it is there again a little later:
//! see [`lasting`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use vimana_driver::{Observed, Power};
use vimana_model::operation::OperationState;
use vimana_model::request::RequestState;
use vimana_model::state::VmState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, OperationId, Result, VmId};
use vimana_store::claim::ClaimRecord;
use vimana_store::host::HostRecord;
use vimana_store::operation::OperationRecord;
use vimana_store::request::RequestFilter;
use vimana_store::vm::{VmFilter, VmRecord};
use vimana_store::{Conn, claim, event, host, operation, orphan, request, vm};

use crate::change::Holding;
use crate::saga::current;

/// Something that is not as it must always be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breach {
    /// Which of the rules, by its number in the design.
    pub rule: Rule,
    /// The id of what is wrong.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
}

/// The rules that can be read from database and agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// 1. A writable disk has at most one running writer.
    OneWriter,
    /// 2. The sum of claims on a host stays within its capacity.
    ClaimsFit,
    /// 4. Every accepted operation reaches an end.
    OperationsEnd,
    /// 5. A VM has one placement.
    OnePlacement,
    /// 8. `run_epoch` only grows.
    EpochsGrow,
    /// 11. No effect without a record before it.
    RecordFirst,
    /// 12. Deleted means that nothing is left.
    NothingLeft,
    /// 15. No disk is deleted while a host may hold it.
    DisksStay,
    /// 18. The event sequence has no gaps.
    NoGaps,
    /// 20. Database and agents' reports agree.
    ReportsAgree,
    /// 22. No overflow, no negative size, no word that means nothing.
    SaneRows,
}

impl Rule {
    pub const ALL: [Self; 11] = [
        Self::OneWriter,
        Self::ClaimsFit,
        Self::OperationsEnd,
        Self::OnePlacement,
        Self::EpochsGrow,
        Self::RecordFirst,
        Self::NothingLeft,
        Self::DisksStay,
        Self::NoGaps,
        Self::ReportsAgree,
        Self::SaneRows,
    ];

    /// Its number in the design.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::OneWriter => 1,
            Self::ClaimsFit => 2,
            Self::OperationsEnd => 4,
            Self::OnePlacement => 5,
            Self::EpochsGrow => 8,
            Self::RecordFirst => 11,
            Self::NothingLeft => 12,
            Self::DisksStay => 15,
            Self::NoGaps => 18,
            Self::ReportsAgree => 20,
            Self::SaneRows => 22,
        }
    }

    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::OneWriter => "a writable disk has at most one running writer",
            Self::ClaimsFit => "the sum of claims on a host stays within its capacity",
            Self::OperationsEnd => "every accepted operation reaches an end",
            Self::OnePlacement => "a VM has one placement, and a claim that fits its state",
            Self::EpochsGrow => "run epochs only grow",
            Self::RecordFirst => "no effect without a record before it",
            Self::NothingLeft => "deleted means that nothing is left",
            Self::DisksStay => "no disk is deleted while its VM lives",
            Self::NoGaps => "the event sequence has no gaps",
            Self::ReportsAgree => "the database and the agents' reports agree",
            Self::SaneRows => "every row makes sense: no overflow, no negative size",
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            subject,
            what,
        } = self;
        write!(
            f,
            "rule {} ({}): {subject}: {what}",
            rule.number(),
            rule.sentence()
        )
    }
}

/// What is known beside the database.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// What each host says that it holds; hosts that say nothing are absent.
    pub inventories: BTreeMap<HostId, Vec<Observed>>,
    /// The VMs of which the datastore holds something; absent where it was
    /// not looked at.
    pub in_datastore: Option<Vec<VmId>>,
}

/// The breaches that were there both times.
#[must_use]
pub fn lasting(first: &[Breach], second: Vec<Breach>) -> Vec<Breach> {
    let first: HashSet<&Breach> = first.iter().collect();
    second
        .into_iter()
        .filter(|breach| first.contains(breach))
        .collect()
}

/// Every breach, in a fixed order.
///
/// # Errors
/// The database cannot be read; a row that makes no sense is named in the error.
pub async fn check(conn: &impl Conn, outside: &Outside) -> Result<Vec<Breach>> {
    let books = Books::read(conn).await?;
    let mut found = Findings::default();
    check_claims(&books, &mut found);
    check_operations(&books, &mut found);
    check_requests(conn, &books, &mut found).await?;
    check_events(conn, &mut found).await?;
    check_hosts(conn, &books, outside, &mut found).await?;
    check_datastore(&books, outside, &mut found);
    found.breaches.sort();
    found.breaches.dedup();
    Ok(found.breaches)
}

#[derive(Default)]
struct Findings {
    breaches: Vec<Breach>,
}

impl Findings {
    fn add(&mut self, rule: Rule, subject: impl fmt::Display, what: impl Into<String>) {
        self.breaches.push(Breach {
            rule,
            subject: subject.to_string(),
            what: what.into(),
        });
    }
}

struct Books {
    vms: BTreeMap<VmId, VmRecord>,
    hosts: BTreeMap<HostId, HostRecord>,
    claims: Vec<ClaimRecord>,
    in_flight: HashMap<OperationId, OperationRecord>,
}

impl Books {
    async fn read(conn: &impl Conn) -> Result<Self> {
        let all = VmFilter {
            limit: u32::MAX,
            ..VmFilter::default()
        };
        let vms = vm::list(conn, &all).await?;
        let hosts = host::list(conn).await?;
        let in_flight = operation::running(conn).await?;
        Ok(Self {
            vms: vms.into_iter().map(|vm| (vm.id, vm)).collect(),
            hosts: hosts.into_iter().map(|host| (host.id, host)).collect(),
            claims: claim::list(conn).await?,
            in_flight: in_flight.into_iter().map(|op| (op.id, op)).collect(),
        })
    }

    fn operation_of(&self, vm: &VmRecord) -> Option<&OperationRecord> {
        vm.operation_id.and_then(|id| self.in_flight.get(&id))
    }
}

fn check_claims(books: &Books, found: &mut Findings) {
    let mut sums: BTreeMap<HostId, (Resources, u32)> = BTreeMap::new();
    let mut claimed: HashMap<VmId, &ClaimRecord> = HashMap::new();
    for claim in &books.claims {
        let (sum, vms) = sums.entry(claim.host_id).or_default();
        *sum = add(*sum, claim.resources);
        *vms += 1;
        claimed.insert(claim.vm_id, claim);
        if !books.vms.contains_key(&claim.vm_id) {
            let what = format!("it is not recorded, and claims room on {}", claim.host_id);
            found.add(Rule::NothingLeft, claim.vm_id, what);
        }
        if !books.hosts.contains_key(&claim.host_id) {
            let what = format!("its claim is on {}, which is not recorded", claim.host_id);
            found.add(Rule::OnePlacement, claim.vm_id, what);
        }
    }
    for (id, host) in &books.hosts {
        let (sum, vms) = sums.get(id).copied().unwrap_or_default();
        if sum != host.used || vms != host.vms {
            let what = format!(
                "what is recorded as used is off the sum of its claims by {}",
                difference((host.used, host.vms), (sum, vms))
            );
            found.add(Rule::ClaimsFit, id, what);
        }
        if !fits(sum, host.capacity) {
            let capacity = amounts(host.capacity);
            let what = format!("its claims exceed its capacity of {capacity}");
            found.add(Rule::ClaimsFit, id, what);
        }
    }
    for vm in books.vms.values() {
        check_claim(
            vm,
            books.operation_of(vm),
            claimed.get(&vm.id).copied(),
            found,
        );
    }
}

fn check_claim(
    vm: &VmRecord,
    operation: Option<&OperationRecord>,
    claim: Option<&ClaimRecord>,
    found: &mut Findings,
) {
    match (&vm.host, claim) {
        (None, None) => {}
        (None, Some(claim)) if vm.state == VmState::Done => {
            let what = format!("it is done and still holds a claim on {}", claim.host_id);
            found.add(Rule::NothingLeft, vm.id, what);
        }
        (None, Some(claim)) => {
            let what = format!("it has no host, but a claim on {}", claim.host_id);
            found.add(Rule::OnePlacement, vm.id, what);
        }
        (Some(on), None) => {
            let what = format!("it is placed on {} without a claim there", on.id);
            found.add(Rule::OnePlacement, vm.id, what);
        }
        (Some(on), Some(claim)) if on.id != claim.host_id => {
            let what = format!(
                "it is placed on {}, its claim is on {}",
                on.id, claim.host_id
            );
            found.add(Rule::OnePlacement, vm.id, what);
        }
        (Some(_), Some(claim)) => {
            let expected = if operation.is_some() {
                None
            } else {
                match vm.state {
                    VmState::Running => Some(Holding::Full),
                    VmState::PoweredOff => Some(Holding::Disk),
                    VmState::Suspended => Some(Holding::Saved),
                    VmState::Pending
                    | VmState::Hold
                    | VmState::Prolog
                    | VmState::Boot
                    | VmState::Migrate
                    | VmState::Stopped
                    | VmState::Shutdown
                    | VmState::Epilog
                    | VmState::Done
                    | VmState::Unknown
                    | VmState::Failed => None,
                }
            };
            if let Some(expected) = expected.map(|holding| holding.of(vm.resources))
                && expected != claim.resources
            {
                let what = format!(
                    "it is {} and claims {} instead of {}",
                    vm.state,
                    amounts(claim.resources),
                    amounts(expected)
                );
                found.add(Rule::OnePlacement, vm.id, what);
            }
        }
    }
    let placeless = matches!(
        vm.state,
        VmState::Pending | VmState::Hold | VmState::Stopped | VmState::Done
    );
    if vm.host.is_some() && placeless {
        found.add(
            Rule::NothingLeft,
            vm.id,
            format!("it is {} and still has a host", vm.state),
        );
    }
    if vm.saved.is_some() && vm.state == VmState::Done {
        let what = "it is done and still has a copy in the datastore";
        found.add(Rule::NothingLeft, vm.id, what);
    }
    if vm.saved.is_none() && vm.state == VmState::Stopped {
        let what = "it is stopped, and no copy in the datastore is recorded";
        found.add(Rule::DisksStay, vm.id, what);
    }
}

fn check_operations(books: &Books, found: &mut Findings) {
    for operation in books.in_flight.values() {
        let subject = operation.id;
        let Some(vm) = books.vms.get(&operation.vm_id) else {
            found.add(Rule::OperationsEnd, subject, "its VM is not recorded");
            continue;
        };
        if vm.operation_id != Some(operation.id) {
            let what = format!("it is in flight, but {} does not know of it", vm.id);
            found.add(Rule::OperationsEnd, subject, what);
        } else if vm.state == VmState::Done {
            found.add(
                Rule::OperationsEnd,
                subject,
                "it is in flight on a VM that is done",
            );
        } else if current(operation).is_none() {
            found.add(
                Rule::OperationsEnd,
                subject,
                "it is in flight without a step under way",
            );
        }
        if operation.state == OperationState::Undoing && operation.undo.is_none() {
            found.add(
                Rule::OperationsEnd,
                subject,
                "it goes back without a reason",
            );
        }
    }
    for vm in books.vms.values() {
        let moves = matches!(
            vm.state,
            VmState::Pending
                | VmState::Prolog
                | VmState::Boot
                | VmState::Shutdown
                | VmState::Epilog
                | VmState::Migrate
        );
        if moves && books.operation_of(vm).is_none() {
            let what = format!("it is in {} and nothing is in flight for it", vm.state);
            found.add(Rule::OperationsEnd, vm.id, what);
        }
    }
}

async fn check_requests(conn: &impl Conn, books: &Books, found: &mut Findings) -> Result<()> {
    let all = RequestFilter {
        limit: u32::MAX,
        ..RequestFilter::default()
    };
    for record in request::list(conn, &all).await? {
        let vm = record.vm_id.and_then(|id| books.vms.get(&id));
        let needs_vm = matches!(
            record.state,
            RequestState::Provision | RequestState::Operation | RequestState::Release
        );
        match vm {
            None if needs_vm => {
                let what = format!("it is in {} without a VM", record.state);
                found.add(Rule::OperationsEnd, record.id, what);
            }
            Some(vm) if vm.state == VmState::Done && !record.state.is_final() => {
                let what = format!("it is in {}, but its VM is done", record.state);
                found.add(Rule::OperationsEnd, record.id, what);
            }
            Some(vm) if vm.request_id != Some(record.id) => {
                let what = format!("{} does not know that it was requested", vm.id);
                found.add(Rule::OnePlacement, record.id, what);
            }
            _ => {}
        }
    }
    Ok(())
}

async fn check_events(conn: &impl Conn, found: &mut Findings) -> Result<()> {
    let facts = event::extent(conn).await?;
    let expected = facts.last.saturating_sub(facts.first.saturating_sub(1));
    if facts.count > 0 && facts.count != expected {
        let missing = i128::from(expected) - i128::from(facts.count);
        let what = format!("of its numbers, {missing} are missing");
        found.add(Rule::NoGaps, "events", what);
    }
    if facts.count > 0 && facts.first != 1 {
        let what = format!("of its numbers, those before {} are missing", facts.first);
        found.add(Rule::NoGaps, "events", what);
    }
    if facts.last != facts.counter {
        let ahead = i128::from(facts.counter) - i128::from(facts.last);
        let what = format!("the counter is {ahead} ahead of the last event");
        found.add(Rule::NoGaps, "events", what);
    }
    Ok(())
}

async fn check_hosts(
    conn: &impl Conn,
    books: &Books,
    outside: &Outside,
    found: &mut Findings,
) -> Result<()> {
    let mut runs: BTreeMap<VmId, Vec<HostId>> = BTreeMap::new();
    for (host, inventory) in &outside.inventories {
        let known: HashSet<VmId> = orphan::on_host(conn, *host)
            .await?
            .into_iter()
            .map(|orphan| orphan.vm_id)
            .collect();
        let mut held: HashSet<VmId> = HashSet::new();
        for observed in inventory {
            held.insert(observed.vm_id);
            if observed.power == Power::Running {
                runs.entry(observed.vm_id).or_default().push(*host);
            }
            check_observed(
                books,
                *host,
                observed,
                known.contains(&observed.vm_id),
                found,
            );
        }
        for vm in books.vms.values() {
            let here = vm.host.as_ref().is_some_and(|on| on.id == *host);
            let quiet = books.operation_of(vm).is_none() && vm.state != VmState::Failed;
            if here && quiet && !held.contains(&vm.id) {
                let what = format!("{host} does not hold it any more");
                found.add(Rule::DisksStay, vm.id, what);
            }
        }
    }
    for (id, hosts) in runs {
        if hosts.len() > 1 {
            let hosts: Vec<String> = hosts.iter().map(HostId::to_string).collect();
            let what = format!("it runs on {} at once", hosts.join(" and "));
            found.add(Rule::OneWriter, id, what);
        }
    }
    Ok(())
}

fn check_observed(
    books: &Books,
    host: HostId,
    observed: &Observed,
    quarantined: bool,
    found: &mut Findings,
) {
    let id = observed.vm_id;
    let Some(vm) = books.vms.get(&id) else {
        let known = if quarantined { ", in quarantine" } else { "" };
        let what = format!("{host} holds it, and it is not recorded{known}");
        found.add(Rule::RecordFirst, id, what);
        return;
    };
    if vm.state == VmState::Done {
        found.add(
            Rule::NothingLeft,
            id,
            format!("it is done, and {host} still holds it"),
        );
        return;
    }
    if vm.host.as_ref().is_none_or(|on| on.id != host) {
        let what = format!("{host} holds it, which is not its host");
        found.add(Rule::OnePlacement, id, what);
        return;
    }
    if observed.run_epoch > vm.run_epoch {
        let what = format!(
            "{host} runs epoch {}, the record says {}",
            observed.run_epoch, vm.run_epoch
        );
        found.add(Rule::EpochsGrow, id, what);
        return;
    }
    if books.operation_of(vm).is_some() {
        return;
    }
    let agrees = match vm.state {
        VmState::Running => observed.power == Power::Running && observed.run_epoch == vm.run_epoch,
        // Its host speaks.
        VmState::Unknown => false,
        VmState::PoweredOff => matches!(observed.power, Power::Off | Power::Crashed { .. }),
        VmState::Suspended => observed.power == Power::Saved,
        VmState::Pending
        | VmState::Hold
        | VmState::Prolog
        | VmState::Boot
        | VmState::Migrate
        | VmState::Stopped
        | VmState::Shutdown
        | VmState::Epilog
        | VmState::Done
        | VmState::Failed => true,
    };
    if !agrees {
        let what = format!(
            "it is {} in run {}, {host} says {:?} in run {}",
            vm.state, vm.run_epoch, observed.power, observed.run_epoch
        );
        found.add(Rule::ReportsAgree, id, what);
    }
}

fn check_datastore(books: &Books, outside: &Outside, found: &mut Findings) {
    let Some(held) = &outside.in_datastore else {
        return;
    };
    let held: HashSet<VmId> = held.iter().copied().collect();
    for id in &held {
        let vm = books.vms.get(id);
        let wanted = vm.is_some_and(|vm| vm.saved.is_some() || books.operation_of(vm).is_some());
        if !wanted {
            let what = "the datastore holds a copy of it that no record points to";
            found.add(Rule::NothingLeft, id, what);
        }
    }
    for vm in books.vms.values() {
        let quiet = books.operation_of(vm).is_none();
        if vm.saved.is_some() && quiet && !held.contains(&vm.id) {
            let what = "its copy in the datastore is gone";
            found.add(Rule::DisksStay, vm.id, what);
        }
    }
}

fn add(a: Resources, b: Resources) -> Resources {
    Resources {
        vcpus: a.vcpus.saturating_add(b.vcpus),
        memory_mib: MiB(a.memory_mib.0.saturating_add(b.memory_mib.0)),
        disk_mib: MiB(a.disk_mib.0.saturating_add(b.disk_mib.0)),
    }
}

fn fits(sum: Resources, capacity: Resources) -> bool {
    sum.vcpus <= capacity.vcpus
        && sum.memory_mib <= capacity.memory_mib
        && sum.disk_mib <= capacity.disk_mib
}

fn amounts(resources: Resources) -> String {
    let Resources {
        vcpus,
        memory_mib,
        disk_mib,
    } = resources;
    format!("{vcpus} vCPUs, {memory_mib} memory, {disk_mib} disk")
}

/// Of a host with much coming and going the sums change from look to look, an
/// error in them does not.
fn difference(found: (Resources, u32), expected: (Resources, u32)) -> String {
    let by = |found: u64, expected: u64| i128::from(found) - i128::from(expected);
    let ((found, vms), (expected, expected_vms)) = (found, expected);
    format!(
        "{:+} vCPUs, {:+} MiB memory, {:+} MiB disk, {:+} VMs",
        by(found.vcpus.into(), expected.vcpus.into()),
        by(found.memory_mib.0, expected.memory_mib.0),
        by(found.disk_mib.0, expected.disk_mib.0),
        by(vms.into(), expected_vms.into()),
    )
}
