//! Rows that make no sense: each is named, hides nothing, and makes no other
//! check say what is not so.

use vimana_engine::check::{Check, Outside};

use crate::installation::Installation;
use crate::plant::{Plant, prove, records};

/// In every table, and in every kind of column.
pub const ROWS: &[Plant] = records! {
    CorruptRow "VM {runs}": "UPDATE vms SET state = 'nonsense' WHERE id = {runs}";
    CorruptRow "VM {stopped}": "UPDATE vms SET saved = '{' WHERE id = {stopped}";
    CorruptRow "VM {boots}": "UPDATE vms SET host_name = NULL WHERE id = {boots}";
    CorruptRow "VM {gone}": "UPDATE vms SET live_name = name WHERE id = {gone}";
    CorruptRow "VM {runs}": "UPDATE vms SET live_name = NULL WHERE id = {runs}";
    CorruptRow "VM {runs}": "UPDATE vms SET vcpus = 'many' WHERE id = {runs}";
    CorruptRow "VM {asked}": "UPDATE vms SET request_id = 'none' WHERE id = {asked}";
    CorruptRow "host {host-1}": "UPDATE hosts SET state = 'nonsense' WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET certificate = '{' WHERE id = {host-1}";
    CorruptRow "a row of claims": "UPDATE claims SET host_id = 'none' WHERE vm_id = {runs}; UPDATE hosts SET used_vcpus = 0, used_memory_mib = 0, used_disk_mib = 0, vms = 0; {recount}";
    CorruptRow "operation {operation of boots}": "UPDATE operations SET kind = 'nonsense' WHERE id = {operation of boots}";
    CorruptRow "operation {operation of boots}": "UPDATE operations SET steps = '[' WHERE id = {operation of boots}";
    CorruptRow "operation {operation of waits}": "UPDATE operations SET state = 'nonsense' WHERE id = {operation of waits}";
    CorruptRow "operation {operation of off}": "UPDATE operations SET undo = '{' WHERE id = {operation of off}";
    CorruptRow "request {request asked}": "UPDATE requests SET state = 'nonsense' WHERE id = {request asked}";
    CorruptRow "request {request open}": "UPDATE requests SET terms = '{' WHERE id = {request open}";
    CorruptRow "request {request open}": "UPDATE requests SET remarks = '{}' WHERE id = {request open}";
    CorruptRow "events 3": "UPDATE events SET event = '{\"kind\":\"nonsense\"}' WHERE seq = 3";
    CorruptRow "events 1": "UPDATE events SET actor = '{' WHERE seq = 1";
    CorruptRow "events events": "DELETE FROM event_counter";
    CorruptRow "events events": "UPDATE event_counter SET seq = -1";
    CorruptRow "a row of tenants": "UPDATE tenants SET kind = 'nonsense' WHERE id = {tenant lab}";
    CorruptRow "a row of users": "UPDATE users SET staff = 'nonsense' WHERE id = {user rita}";
    CorruptRow "a row of memberships": "UPDATE memberships SET role = 'nonsense' WHERE user_id = {user rita}";
    CorruptRow "a row of tokens": "UPDATE tokens SET id = 'none'";
    CorruptRow "a row of sessions": "UPDATE sessions SET data = '{'";
    CorruptRow "a row of flavors": "UPDATE flavors SET name = '!' WHERE name = 'tiny'";
    CorruptRow "a row of templates": "INSERT INTO templates (id, owner_name, name, description, inputs, generation, created_at) VALUES ('none', 'ada', 'web', '', '[', 1, 0)";
    CorruptRow "image {image demo}": "UPDATE images SET format = 'nonsense' WHERE id = {image demo}";
    CorruptRow "volume {volume data}": "UPDATE volumes SET state = 'nonsense' WHERE id = {volume data}";
    CorruptRow "volume {volume data}": "UPDATE volumes SET vm_id = NULL, vm_name = NULL WHERE id = {volume data}";
    CorruptRow "volume {volume spare}": "UPDATE volumes SET live_name = NULL WHERE id = {volume spare}";
    CorruptRow "a row of snapshots": "UPDATE snapshots SET volumes = '{'";
    CorruptRow "a row of snapshots": "UPDATE snapshots SET claimed_mib = -1";
    CorruptRow "backup {backup changes}": "UPDATE backups SET disks = '{' WHERE id = {backup changes}";
    CorruptRow "backup {backup changes}": "UPDATE backups SET since_id = 'none' WHERE id = {backup changes}";
    CorruptRow "backup {backup whole}": "UPDATE backups SET state = 'nonsense' WHERE id = {backup whole}";
    CorruptRow "a row of schedules": "INSERT INTO schedules VALUES ({runs}, 'nonsense', 'admin', 900, 1, 1, NULL, 1, NULL, NULL)";
    CorruptRow "a row of idempotency_keys": "UPDATE idempotency_keys SET answer = '{' WHERE idempotency_key = 'runs'";
    CorruptRow "a row of orphans": "INSERT INTO orphans VALUES ({host-1}, 'none', 1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-1}";
    CorruptRow "a row of join_tokens": "UPDATE join_tokens SET host_name = '!'";
    // What is negative.
    CorruptRow "VM {runs}": "UPDATE vms SET vcpus = -1 WHERE id = {runs}";
    CorruptRow "VM {runs}": "UPDATE vms SET memory_mib = -1 WHERE id = {runs}";
    CorruptRow "VM {runs}": "UPDATE vms SET disk_mib = -1 WHERE id = {runs}";
    CorruptRow "VM {runs}": "UPDATE vms SET run_epoch = -1 WHERE id = {runs}";
    CorruptRow "VM {runs}": "UPDATE vms SET generation = -1 WHERE id = {runs}";
    CorruptRow "VM {stopped}": "UPDATE vms SET saved = json_set(saved, '$.run_epoch', -1) WHERE id = {stopped}";
    CorruptRow "host {host-1}": "UPDATE hosts SET cap_vcpus = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET cap_memory_mib = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET cap_disk_mib = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET used_vcpus = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET used_memory_mib = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET used_disk_mib = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET vms = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET orphans = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET session_number = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET session_offered = -1 WHERE id = {host-1}";
    CorruptRow "host {host-1}": "UPDATE hosts SET protocol = -1 WHERE id = {host-1}";
    CorruptRow "a row of claims": "UPDATE claims SET vcpus = -1 WHERE vm_id = {runs}";
    CorruptRow "a row of claims": "UPDATE claims SET memory_mib = -1 WHERE vm_id = {runs}";
    CorruptRow "a row of claims": "UPDATE claims SET disk_mib = -1 WHERE vm_id = {runs}";
    CorruptRow "operation {operation of boots}": "UPDATE operations SET step = -1 WHERE id = {operation of boots}";
    CorruptRow "operation {operation of boots}": "UPDATE operations SET claim_epoch = -1 WHERE id = {operation of boots}";
    CorruptRow "request {request open}": "UPDATE requests SET generation = -1 WHERE id = {request open}";
    CorruptRow "a row of flavors": "UPDATE flavors SET vcpus = -1 WHERE name = 'tiny'";
    CorruptRow "a row of flavors": "UPDATE flavors SET memory_mib = -1 WHERE name = 'tiny'";
    CorruptRow "a row of flavors": "UPDATE flavors SET disk_mib = -1 WHERE name = 'tiny'";
    CorruptRow "image {image demo}": "UPDATE images SET size_bytes = -1 WHERE id = {image demo}";
    CorruptRow "image {image demo}": "UPDATE images SET virtual_mib = -1 WHERE id = {image demo}";
    CorruptRow "a row of orphans": "INSERT INTO orphans VALUES ({host-1}, {no vm}, -1, 'off', FALSE, 1); UPDATE hosts SET orphans = 1 WHERE id = {host-1}";
    // What is too large.
    CorruptRow "VM {runs}": "UPDATE vms SET vcpus = 9223372036854775807 WHERE id = {runs}";
    CorruptRow "host {host-1}": "UPDATE hosts SET vms = 9223372036854775807 WHERE id = {host-1}";
};

#[tokio::test]
async fn every_row_that_makes_no_sense_is_named_alone() {
    prove(&Installation::new().await, &[ROWS]).await;
}

/// All of them at once, and a breach of every other kind beside: none hides.
#[tokio::test]
async fn rows_that_make_no_sense_hide_nothing_else() {
    let installation = Installation::new().await;
    let mut outside = installation.outside.clone();
    let lost = installation.vm("off");
    for inventory in outside.inventories.values_mut() {
        inventory.retain(|observed| observed.vm_id != lost);
    }
    let statements = "\
        UPDATE vms SET state = 'nonsense' WHERE id = {runs}; \
        UPDATE operations SET kind = 'nonsense' WHERE id = {operation of boots}; \
        UPDATE requests SET terms = '{' WHERE id = {request open}; \
        UPDATE events SET event = '{' WHERE seq = 3; \
        UPDATE claims SET vcpus = -1 WHERE vm_id = {sleeps}; \
        DELETE FROM events WHERE seq = 5; \
        DELETE FROM claims WHERE vm_id = {broken}; \
        UPDATE vms SET saved = NULL WHERE id = {stopped}; \
        UPDATE requests SET state = 'released' WHERE id = {request asked}";
    let found = installation.breaches(statements, &outside).await;
    for expected in [
        Check::EventsMissing,
        Check::PlacementWithoutClaim,
        Check::StoppedWithoutCopy,
        Check::ReleasedButLives,
        Check::HostLostIt,
        Check::CopyOfNobody,
    ] {
        assert!(
            found.iter().any(|breach| breach.check == expected),
            "{expected:?}"
        );
    }
    let corrupt = found
        .iter()
        .filter(|breach| breach.check == Check::CorruptRow);
    assert_eq!(corrupt.count(), 5);
}

/// Whatever is wrong with a row, nothing of it is repeated but ids.
#[tokio::test]
async fn nothing_secret_is_told_of_a_row() {
    let installation = Installation::new().await;
    let statements = "\
        UPDATE users SET password_hash = 'SECRET', name = 'SECRET!' WHERE id = {user rita}; \
        UPDATE tokens SET hash = 'SECRET', id = 'SECRET'; \
        UPDATE sessions SET id_hash = 'SECRET', data = '{SECRET'; \
        UPDATE join_tokens SET secret_hash = 'SECRET', host_name = 'SECRET!'; \
        UPDATE idempotency_keys SET idempotency_key = 'SECRET', fingerprint = 'SECRET', \
            answer = '{SECRET' WHERE idempotency_key = 'runs'; \
        UPDATE vms SET user_data = 'SECRET', ssh_key = 'SECRET', failure = '{SECRET'; \
        UPDATE hosts SET certificate = '{SECRET'; \
        UPDATE events SET event = '{SECRET', actor = '{SECRET'; \
        UPDATE operations SET requested_by = 'SECRET', steps = '[SECRET', error = 'SECRET'; \
        UPDATE requests SET terms = '{SECRET', remarks = '[SECRET'";
    let found = installation.breaches(statements, &Outside::default()).await;
    for table in [
        "users",
        "tokens",
        "sessions",
        "join_tokens",
        "idempotency_keys",
        "vms",
        "hosts",
    ] {
        assert!(
            found.iter().any(|breach| breach.what.contains(table)),
            "{table}"
        );
    }
    let told = format!("{found:?}");
    let repeated: Vec<&str> = told
        .split(',')
        .filter(|part| part.contains("SECRET"))
        .collect();
    assert!(repeated.is_empty(), "{repeated:#?}");
}
