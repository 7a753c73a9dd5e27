//! Rows for themselves: every one makes sense, and what it points to is there.

use vimana_model::state::VmState;
use vimana_model::{Result, TenantId, UserId};
use vimana_store::idempotency::IdempotencyRecord;
use vimana_store::schedule::ScheduleRecord;
use vimana_store::survey::{self, CorruptRow};
use vimana_store::template::TemplateRecord;
use vimana_store::token::TokenRecord;
use vimana_store::user::MembershipRecord;
use vimana_store::{Conn, flavor, join_token, session};

use super::books::{Books, sorting};
use super::subject::{Kind, Named, Subject};
use super::{Check, Findings};

pub async fn check_rows(conn: &impl Conn, books: &Books, found: &mut Findings) -> Result<()> {
    check_owners(books, found);
    let mut corrupt: Vec<CorruptRow> = Vec::new();
    let mut memberships = |row: MembershipRecord| {
        let (user, tenant) = (row.user_id, row.tenant_id);
        let subject = || Subject::new(Kind::Row, Named::new(user, Some("memberships")));
        check_user(books, user, subject, found);
        check_tenant(books, tenant, subject, found);
    };
    survey::memberships(conn, sorting(&mut corrupt, &mut memberships)).await?;
    let mut tokens = |row: TokenRecord| {
        let subject = || Subject::new(Kind::Row, Named::new(row.id, Some("tokens")));
        check_user(books, row.user_id, subject, found);
    };
    survey::tokens(conn, sorting(&mut corrupt, &mut tokens)).await?;
    let mut answers = |row: IdempotencyRecord| check_answer(books, &row, found);
    survey::idempotency_keys(conn, sorting(&mut corrupt, &mut answers)).await?;
    survey::sessions(
        conn,
        sorting(&mut corrupt, &mut |_: session::SessionRecord| ()),
    )
    .await?;
    survey::flavors(
        conn,
        sorting(&mut corrupt, &mut |_: flavor::FlavorRecord| ()),
    )
    .await?;
    let mut schedules = |row: ScheduleRecord| {
        if !books.vms.contains_key(&row.vm_id) && !books.doubts("vms", row.vm_id) {
            let subject = Subject::new(Kind::Row, Named::new(row.vm_id, Some("schedules")));
            found.add(Check::PointsNowhere, subject, "there is no such VM");
        }
    };
    survey::schedules(conn, sorting(&mut corrupt, &mut schedules)).await?;
    let mut templates = |row: TemplateRecord| {
        let subject = || Subject::new(Kind::Row, Named::new(row.id, Some("templates")));
        if let Some(tenant) = row.tenant_id {
            check_tenant(books, tenant, subject, found);
        }
    };
    survey::templates(conn, sorting(&mut corrupt, &mut templates)).await?;
    let mut join_tokens = |_: join_token::JoinTokenRecord| ();
    survey::join_tokens(conn, sorting(&mut corrupt, &mut join_tokens)).await?;
    for row in corrupt {
        books.name_corrupt(&row, found);
    }
    Ok(())
}

fn check_owners(books: &Books, found: &mut Findings) {
    for vm in books.vms.values() {
        let subject = || books.about_vm(vm.id);
        check_tenant(books, vm.tenant_id, subject, found);
        check_user(books, vm.owner_id, subject, found);
        let failed = vm.state == VmState::Failed;
        if failed != vm.failure.is_some() {
            let has = if failed { "without" } else { "with" };
            let what = format!("it is {} {has} a reason for a failure", vm.state);
            found.add(Check::FailureDiffers, subject(), what);
        }
    }
    for volume in books.volumes.values() {
        check_tenant(
            books,
            volume.tenant_id,
            || books.about_volume(volume),
            found,
        );
    }
    for backup in books.backups.values() {
        check_tenant(
            books,
            backup.tenant_id,
            || books.about_backup(backup),
            found,
        );
    }
    for request in books.requests.values() {
        let subject = || books.about_request(request);
        check_tenant(books, request.tenant_id, subject, found);
        check_user(books, request.requester_id, subject, found);
    }
    for host in books.orphans.keys().filter(|host| books.is_no_host(**host)) {
        let what = "machines are in quarantine there, and it is not recorded";
        found.add(Check::PointsNowhere, books.about_host(*host), what);
    }
}

fn check_tenant(
    books: &Books,
    id: TenantId,
    subject: impl FnOnce() -> Subject,
    found: &mut Findings,
) {
    if books.is_no_tenant(id) {
        let what = format!("its tenant {id} is not recorded");
        found.add(Check::PointsNowhere, subject(), what);
    }
}

fn check_user(books: &Books, id: UserId, subject: impl FnOnce() -> Subject, found: &mut Findings) {
    if books.is_no_user(id) {
        let what = format!("its user {id} is not recorded");
        found.add(Check::PointsNowhere, subject(), what);
    }
}

/// What was answered to a key is there. Nothing else of the answer is looked
/// at, or shown.
fn check_answer(books: &Books, record: &IdempotencyRecord, found: &mut Findings) {
    let subject = || Subject::new(Kind::Answer, Named::new(record.user_id, None::<&str>));
    check_user(books, record.user_id, subject, found);
    // Told apart from a row that makes no sense when it was read.
    let Ok(answer) = serde_json::from_str::<serde_json::Value>(&record.answer) else {
        return;
    };
    for place in ANSWERED {
        let Some(id) = answer.pointer(place).and_then(|id| id.as_str()) else {
            continue;
        };
        if is_nothing(books, id) {
            let at = record.created_at;
            let what = format!("the answer of {at} is about {id}, which is not recorded");
            found.add(Check::AnswerOfNothing, subject(), what);
        }
    }
}

/// Where answers name what came of a request.
const ANSWERED: [&str; 5] = [
    "/id",
    "/vm/id",
    "/operation/id",
    "/accepted/vm/id",
    "/accepted/operation/id",
];

fn is_nothing(books: &Books, id: &str) -> bool {
    let vm = || id.parse().is_ok_and(|id| books.is_no_vm(id));
    let operation = || id.parse().is_ok_and(|id| books.is_no_operation(id));
    let request = || id.parse().is_ok_and(|id| books.is_no_request(id));
    let host = || id.parse().is_ok_and(|id| books.is_no_host(id));
    let volume = || id.parse().is_ok_and(|id| books.is_no_volume(id));
    let tenant = || id.parse().is_ok_and(|id| books.is_no_tenant(id));
    let user = || id.parse().is_ok_and(|id| books.is_no_user(id));
    vm() || operation() || request() || host() || volume() || tenant() || user()
}
