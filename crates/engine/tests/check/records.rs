//! Breaches within the database: a line for each.

use vimana_engine::check::{Check, Source};

use crate::installation::Installation;
use crate::plant::{Plant, assert_complete, prove, records};
use crate::rows::ROWS;

#[tokio::test]
async fn every_breach_in_the_database_is_found() {
    let installation = Installation::new().await;
    let all = [
        CLAIMS, PLACES, OPERATIONS, STATES, REQUESTS, TENANTS, LEFT, COPIES, DISKS, LOST, EVENTS,
        AGREE, POINTERS,
    ];
    prove(&installation, &all).await;
    let mut planted = all.to_vec();
    planted.push(ROWS);
    assert_complete(Source::Records, &planted);
}

const CLAIMS: &[Plant] = records! {
    SumIsOff "host host-1": "UPDATE hosts SET used_vcpus = used_vcpus + 1 WHERE id = {host-1}";
    SumIsOff "host host-2": "UPDATE hosts SET used_memory_mib = used_memory_mib + 1 WHERE id = {host-2}";
    SumIsOff "host host-1": "UPDATE hosts SET used_disk_mib = used_disk_mib - 1 WHERE id = {host-1}";
    SumIsOff "host host-2": "UPDATE hosts SET vms = vms - 1 WHERE id = {host-2}";
    ClaimsExceed "host host-1": "UPDATE hosts SET cap_vcpus = used_vcpus - 1 WHERE id = {host-1}";
    ClaimsExceed "host host-1": "UPDATE hosts SET cap_memory_mib = used_memory_mib - 1 WHERE id = {host-1}";
    ClaimsExceed "host host-1": "UPDATE hosts SET cap_disk_mib = used_disk_mib - 1 WHERE id = {host-1}";
    ClaimsInMaintenance "host host-1": "UPDATE hosts SET desired = 'maintenance', state = 'maintenance' WHERE id = {host-1}";
    SumIsOff "host host-1": "INSERT INTO host_datastores VALUES ({host-1}, 'other', 'store_00000000000070008000000000000009', 100, 1, TRUE)";
    SumIsOff "host host-1": "UPDATE host_datastores SET used_mib = used_mib - 1 WHERE host_id = {host-1}";
    ClaimsExceed "host host-1": "UPDATE host_datastores SET cap_mib = used_mib - 1 WHERE host_id = {host-1}";
    ClaimOfNoVm "VM {no vm}": "INSERT INTO claims VALUES ({no vm}, {host-1}, 1, 1, 1, 'local'); {recount}";
};

const PLACES: &[Plant] = records! {
    ClaimOnNoHost "VM runs": "UPDATE claims SET host_id = {no host} WHERE vm_id = {runs}; UPDATE vms SET host_id = {no host} WHERE id = {runs}; {recount}";
    ClaimWithoutPlacement "VM waits": "INSERT INTO claims VALUES ({waits}, {host-1}, 1, 1, 1, 'local'); {recount}";
    PlacementWithoutClaim "VM runs": "DELETE FROM claims WHERE vm_id = {runs}; {recount}";
    PlacementWithoutClaim "VM broken": "DELETE FROM claims WHERE vm_id = {broken}; {recount}";
    ClaimElsewhere "VM runs": "UPDATE claims SET host_id = (SELECT id FROM hosts WHERE id <> claims.host_id) WHERE vm_id = {runs}; {recount}";
    ClaimOfOtherSize "VM runs": "UPDATE claims SET vcpus = vcpus - 1 WHERE vm_id = {runs}; {recount}";
    ClaimOfOtherSize "VM runs": "UPDATE claims SET memory_mib = memory_mib + 1 WHERE vm_id = {runs}; {recount}";
    ClaimOfOtherSize "VM runs": "UPDATE vms SET disk_mib = disk_mib + 1 WHERE id = {runs}";
    ClaimOfOtherSize "VM off": "UPDATE claims SET memory_mib = 1 WHERE vm_id = {off}; {recount}";
    ClaimOfOtherSize "VM sleeps": "UPDATE claims SET disk_mib = disk_mib - 1 WHERE vm_id = {sleeps}; {recount}";
    CountsAreOff "VM runs": "UPDATE vms SET counts_vcpus = counts_vcpus + 1 WHERE id = {runs}";
    CountsAreOff "VM off": "UPDATE vms SET counts_running = TRUE WHERE id = {off}";
    StateWithoutHost "VM runs": "UPDATE vms SET host_id = NULL, host_name = NULL, host_zone = NULL WHERE id = {runs}; DELETE FROM claims WHERE vm_id = {runs}; {recount}";
    StateWithoutHost "VM off": "UPDATE vms SET host_id = NULL, host_name = NULL, host_zone = NULL WHERE id = {off}; DELETE FROM claims WHERE vm_id = {off}; {recount}";
    StateWithoutHost "VM sleeps": "UPDATE vms SET host_id = NULL, host_name = NULL, host_zone = NULL WHERE id = {sleeps}; DELETE FROM claims WHERE vm_id = {sleeps}; {recount}";
    StateWithoutHost "VM waits": "UPDATE vms SET state = 'unknown' WHERE id = {waits}";
    StateWithoutHost "VM waits": "UPDATE vms SET state = 'prolog' WHERE id = {waits}";
    StateWithoutHost "VM waits": "UPDATE vms SET state = 'boot' WHERE id = {waits}";
    StateWithoutHost "VM waits": "UPDATE vms SET state = 'shutdown' WHERE id = {waits}";
    StateWithoutHost "VM waits": "UPDATE vms SET state = 'migrate' WHERE id = {waits}";
    HostWithoutNeed "VM off": "UPDATE vms SET state = 'hold' WHERE id = {off}";
    HostWithoutNeed "VM boots": "UPDATE vms SET state = 'pending' WHERE id = {boots}";
    HostWithoutNeed "VM off": "UPDATE vms SET state = 'stopped', saved = (SELECT saved FROM vms WHERE id = {stopped}) WHERE id = {off}";
};

const OPERATIONS: &[Plant] = records! {
    OperationOfNoVm "operation create": "INSERT INTO operations SELECT {no operation}, {no vm}, NULL, kind, state, step, steps, requested_by, error, created_at, ended_at, claim_epoch, undo, due_at FROM operations WHERE id = {operation of boots}";
    OperationUnknownToVm "operation create": "INSERT INTO operations SELECT {no operation}, {runs}, NULL, kind, state, step, steps, requested_by, error, created_at, ended_at, claim_epoch, undo, due_at FROM operations WHERE id = {operation of boots}";
    OperationOfNoVm "operation import": "INSERT INTO operations SELECT {no operation}, NULL, 'image_00000000000000000000000000000000', 'import', state, step, steps, requested_by, error, created_at, ended_at, claim_epoch, undo, due_at FROM operations WHERE id = {operation of boots}";
    OperationUnknownToVm "operation import": "INSERT INTO operations SELECT {no operation}, NULL, (SELECT id FROM images WHERE name = 'demo'), 'import', state, step, steps, requested_by, error, created_at, ended_at, claim_epoch, undo, due_at FROM operations WHERE id = {operation of boots}";
    MovesWithoutOperation "image demo": "UPDATE images SET state = 'importing' WHERE id = {image demo}";
    MovesWithoutOperation "image demo": r#"UPDATE images SET refresh_seconds = 86400, successor = '{"id":"image_00000000000170009090909090909090","content":null,"fetched":null,"version":null}' WHERE id = {image demo}"#;
    OperationUnknownToVm "operation create": "INSERT INTO operations SELECT {no operation}, {broken}, NULL, kind, state, step, steps, requested_by, error, created_at, ended_at, claim_epoch, undo, due_at FROM operations WHERE id = {operation of boots}; UPDATE vms SET operation_id = NULL WHERE id = {broken}";
    OperationOnDoneVm "operation delete": "UPDATE operations SET state = 'running' WHERE id = {operation of gone}";
    OperationWithoutStep "operation create": "UPDATE operations SET step = 99 WHERE id = {operation of boots}";
    OperationWithoutStep "operation create": "UPDATE operations SET steps = '[]' WHERE id = {operation of boots}";
    OperationWithoutStep "operation poweroff": "UPDATE operations SET state = 'undoing', step = 0, undo = '{\"because\":\"failed\"}' WHERE id = {operation of off}";
    StepNotUnderWay "operation create": "UPDATE operations SET steps = json_set(steps, '$[2].state', 'waiting') WHERE id = {operation of boots}";
    StepNotUnderWay "operation create": "UPDATE operations SET steps = json_set(steps, '$[2].state', 'done') WHERE id = {operation of boots}";
    StepNotUnderWay "operation create": "UPDATE operations SET state = 'undoing', undo = '{\"because\":\"failed\"}' WHERE id = {operation of boots}";
    StepNeverTried "operation create": "UPDATE operations SET steps = json_set(steps, '$[2].retry_at', json_extract(steps, '$[2].started_at')) WHERE id = {operation of boots}";
    StepWithoutHost "operation create": "UPDATE operations SET step = 1, steps = json_set(steps, '$[0].state', 'done', '$[1].state', 'running') WHERE id = {operation of waits}";
    UndoWithoutReason "operation create": "UPDATE operations SET state = 'undoing', steps = json_set(steps, '$[2].state', 'undoing') WHERE id = {operation of boots}";
};

/// States that something moves on, and nothing does.
const STATES: &[Plant] = records! {
    MovesWithoutOperation "VM stopped": "UPDATE vms SET state = 'pending' WHERE id = {stopped}";
    MovesWithoutOperation "VM runs": "UPDATE vms SET state = 'prolog' WHERE id = {runs}";
    MovesWithoutOperation "VM runs": "UPDATE vms SET state = 'boot' WHERE id = {runs}";
    MovesWithoutOperation "VM runs": "UPDATE vms SET state = 'shutdown' WHERE id = {runs}";
    MovesWithoutOperation "VM runs": "UPDATE vms SET state = 'epilog' WHERE id = {runs}";
    MovesWithoutOperation "VM runs": "UPDATE vms SET state = 'migrate' WHERE id = {runs}";
    MovesWithoutOperation "VM boots": "UPDATE operations SET state = 'succeeded' WHERE id = {operation of boots}";
    MovesWithoutOperation "VM waits": "UPDATE vms SET operation_id = NULL WHERE id = {waits}; UPDATE operations SET state = 'failed' WHERE id = {operation of waits}";
    FailureDiffers "VM broken": "UPDATE vms SET failure = NULL WHERE id = {broken}";
    FailureDiffers "VM runs": "UPDATE vms SET failure = (SELECT failure FROM vms WHERE id = {broken}) WHERE id = {runs}";
};

const REQUESTS: &[Plant] = records! {
    RequestWithoutVm "request open": "UPDATE requests SET state = 'provision' WHERE id = {request open}";
    RequestWithoutVm "request open": "UPDATE requests SET state = 'operation' WHERE id = {request open}";
    RequestWithoutVm "request open": "UPDATE requests SET state = 'release' WHERE id = {request open}";
    RequestWithoutVm "request refused": "UPDATE requests SET state = 'operation', vm_id = {no vm} WHERE id = {request refused}";
    RequestOutlivesVm "request given-back": "UPDATE requests SET state = 'provision' WHERE id = {request given-back}";
    RequestOutlivesVm "request given-back": "UPDATE requests SET state = 'operation' WHERE id = {request given-back}";
    RequestOutlivesVm "request given-back": "UPDATE requests SET state = 'release' WHERE id = {request given-back}";
    RequestStaysInProvision "request asked": "UPDATE requests SET state = 'provision' WHERE id = {request asked}";
    MadeUndecided "request asked": "UPDATE requests SET state = 'request' WHERE id = {request asked}";
    MadeUndecided "request making": "UPDATE requests SET state = 'returned' WHERE id = {request making}";
    MadeUndecided "request asked": "UPDATE requests SET state = 'rejected' WHERE id = {request asked}";
    MadeUndecided "request given-back": "UPDATE requests SET state = 'withdrawn' WHERE id = {request given-back}";
    ReleasedButLives "request asked": "UPDATE requests SET state = 'released' WHERE id = {request asked}";
    ReleasedButLives "request making": "UPDATE requests SET state = 'released' WHERE id = {request making}";
};

const TENANTS: &[Plant] = records! {
    RequestOfOtherTenant "request asked": "UPDATE requests SET tenant_id = {tenant default} WHERE id = {request asked}; UPDATE events SET tenant_id = {tenant default} WHERE request_id = {request asked}";
    EventOfOtherTenant "VM runs": "UPDATE events SET tenant_id = {tenant lab} WHERE seq = (SELECT max(seq) FROM events WHERE vm_id = {runs})";
    EventOfOtherTenant "VM runs": "UPDATE events SET tenant_id = NULL WHERE vm_id = {runs}";
    EventOfOtherTenant "request open": "UPDATE events SET tenant_id = {tenant default} WHERE request_id = {request open}";
};

const LEFT: &[Plant] = records! {
    DoneWithClaim "VM gone": "INSERT INTO claims VALUES ({gone}, {host-1}, 0, 0, 1, 'local'); {recount}";
    DoneWithHost "VM gone": "INSERT INTO claims VALUES ({gone}, {host-1}, 0, 0, 1, 'local'); {recount}; UPDATE vms SET host_id = {host-1}, host_name = 'host-1', host_zone = 'default' WHERE id = {gone}";
    DoneWithCopy "VM gone": "UPDATE vms SET saved = (SELECT saved FROM vms WHERE id = {stopped}) WHERE id = {gone}";
    CopyBesideMachine "VM runs": "UPDATE vms SET saved = (SELECT saved FROM vms WHERE id = {stopped}) WHERE id = {runs}";
    CopyBesideMachine "VM off": "UPDATE vms SET saved = (SELECT saved FROM vms WHERE id = {stopped}) WHERE id = {off}";
    CopyBesideMachine "VM sleeps": "UPDATE vms SET saved = (SELECT saved FROM vms WHERE id = {stopped}) WHERE id = {sleeps}";
};

const COPIES: &[Plant] = records! {
    StoppedWithoutCopy "VM stopped": "UPDATE vms SET saved = NULL WHERE id = {stopped}";
    CopyIncomplete "VM stopped": "UPDATE vms SET saved = json_remove(saved, '$.parts[0]') WHERE id = {stopped}";
    CopyIncomplete "VM stopped": "UPDATE vms SET saved = json_remove(saved, '$.parts[1]') WHERE id = {stopped}";
    CopyOfLaterRun "VM stopped": "UPDATE vms SET run_epoch = run_epoch - 1 WHERE id = {stopped}";
};

const DISKS: &[Plant] = records! {
    KeptIsOff "VM runs": "UPDATE vms SET kept_mib = 1 WHERE id = {runs}; UPDATE claims SET disk_mib = disk_mib + 1 WHERE vm_id = {runs}; {recount}";
    BackupStuck "backup changes": "UPDATE backups SET state = 'making', claimed_mib = 0 WHERE id = {backup changes}";
    BackupBaseGone "backup changes": "UPDATE backups SET state = 'removed', live_name = NULL WHERE id = {backup whole}";
    BackupBaseGone "backup changes": "DELETE FROM backups WHERE id = {backup whole}";
    BackupBaseGone "backup whole": "UPDATE backups SET disks = json_set(disks, '$[0].stored', json('null')) WHERE id = {backup whole}";
    KeptIsOff "VM keeps": "UPDATE snapshots SET claimed_mib = claimed_mib + 1";
    KeptIsOff "VM keeps": "DELETE FROM snapshots";
    KeptIsOff "VM keeps": "UPDATE vms SET kept_mib = kept_mib - 1 WHERE id = {keeps}; UPDATE claims SET disk_mib = disk_mib - 1 WHERE vm_id = {keeps}; {recount}";
    SnapshotOfNoVm "VM {no vm}": "INSERT INTO snapshots SELECT 'snap_00000000000000000000000000000000', {no vm}, NULL, owner_name, name, state, memory, vcpus, memory_mib, disk_mib, volumes, claimed_mib, created_at, scheduled, root FROM snapshots";
    SnapshotOfNoVm "VM gone": "INSERT INTO snapshots SELECT 'snap_00000000000000000000000000000000', {gone}, NULL, owner_name, name, state, memory, vcpus, memory_mib, disk_mib, volumes, claimed_mib, created_at, scheduled, root FROM snapshots; UPDATE vms SET kept_mib = (SELECT claimed_mib FROM snapshots) WHERE id = {gone}";
    VolumeOfNoVm "volume data": "UPDATE volumes SET vm_id = {no vm} WHERE id = {volume data}";
    VolumeOfNoVm "volume data": "UPDATE volumes SET vm_id = {gone} WHERE id = {volume data}";
    VolumeElsewhere "volume data": "UPDATE volumes SET host_id = (SELECT id FROM hosts WHERE id <> volumes.host_id) WHERE id = {volume data}; {recount}";
    VolumeMovesWithoutOperation "volume data": "UPDATE volumes SET state = 'detaching' WHERE id = {volume data}";
    VolumeMovesWithoutOperation "volume data": "UPDATE volumes SET state = 'attaching' WHERE id = {volume data}";
};

/// Something was acknowledged and is not there any more.
const LOST: &[Plant] = records! {
    LatestOperationGone "VM runs": "UPDATE vms SET operation_id = {no operation} WHERE id = {runs}";
    LatestOperationGone "VM boots": "UPDATE vms SET operation_id = {no operation} WHERE id = {boots}; UPDATE operations SET state = 'failed' WHERE id = {operation of boots}";
    RequestGone "VM runs": "UPDATE vms SET request_id = {no request} WHERE id = {runs}";
    EventOfNothing "VM {no vm}": "UPDATE events SET vm_id = {no vm} WHERE vm_id = {runs}";
    EventOfNothing "request {no request}": "UPDATE events SET request_id = {no request} WHERE request_id = {request open}";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_set(answer, '$.vm.id', {no vm}) WHERE idempotency_key = 'runs'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_set(answer, '$.operation.id', {no operation}) WHERE idempotency_key = 'runs'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_set(answer, '$.accepted.vm.id', {no vm}) WHERE idempotency_key = 'stop stopped'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_set(answer, '$.accepted.operation.id', {no operation}) WHERE idempotency_key = 'stop stopped'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_set(answer, '$.vm.id', {no vm}) WHERE idempotency_key = 'hold'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_object('id', {no request}) WHERE idempotency_key = 'runs'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_object('id', {no volume}) WHERE idempotency_key = 'runs'";
    EventOfNothing "volume {no volume}": "UPDATE events SET volume_id = {no volume} WHERE volume_id = {volume data}";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_object('id', {no host}) WHERE idempotency_key = 'runs'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_object('id', {no tenant}) WHERE idempotency_key = 'runs'";
    AnswerOfNothing "an answer to a key of {user admin}": "UPDATE idempotency_keys SET answer = json_object('id', {no user}) WHERE idempotency_key = 'runs'";
};

const EVENTS: &[Plant] = records! {
    EventsMissing "events events": "DELETE FROM events WHERE seq = 1";
    EventsMissing "events events": "DELETE FROM events WHERE seq = 7";
    EventsMissing "events events": "DELETE FROM events WHERE seq % 2 = 0 AND seq < 30";
    CounterIsOff "events events": "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)";
    CounterIsOff "events events": "UPDATE event_counter SET seq = seq + 1";
    CounterIsOff "events events": "UPDATE event_counter SET seq = seq - 1";
};

/// Two records that should say the same.
const AGREE: &[Plant] = records! {
    OperationOfOtherVm "VM runs": "UPDATE vms SET operation_id = {operation of off} WHERE id = {runs}";
    RequestUnknownToVm "request asked": "UPDATE vms SET request_id = NULL WHERE id = {asked}";
    RequestOfOtherVm "VM runs": "UPDATE vms SET request_id = {request asked} WHERE id = {runs}";
    QuarantinedAtHome "VM runs": "INSERT INTO orphans SELECT host_id, id, 1, 'running', FALSE, 1 FROM vms WHERE id = {runs}; UPDATE hosts SET orphans = 1 WHERE id = (SELECT host_id FROM vms WHERE id = {runs})";
    QuarantineCountIsOff "host host-2": "UPDATE hosts SET orphans = 1 WHERE id = {host-2}";
};

/// A row points to another that is not there.
const POINTERS: &[Plant] = records! {
    PointsNowhere "VM runs": "UPDATE vms SET tenant_id = {no tenant} WHERE id = {runs}; UPDATE events SET tenant_id = {no tenant} WHERE vm_id = {runs}";
    PointsNowhere "VM runs": "UPDATE vms SET owner_id = {no user} WHERE id = {runs}";
    PointsNowhere "volume spare": "UPDATE volumes SET tenant_id = {no tenant} WHERE id = {volume spare}; UPDATE events SET tenant_id = {no tenant}, vm_id = NULL WHERE volume_id = {volume spare}";
    PointsNowhere "backup whole": "UPDATE backups SET tenant_id = {no tenant} WHERE id = {backup whole}";
    PointsNowhere "a row of schedules": "INSERT INTO schedules VALUES ({no vm}, 'backup', 'admin', 900, 1, 1, NULL, 1, NULL, NULL)";
    PointsNowhere "request open": "UPDATE requests SET tenant_id = {no tenant} WHERE id = {request open}; UPDATE events SET tenant_id = {no tenant} WHERE request_id = {request open}";
    PointsNowhere "request open": "UPDATE requests SET requester_id = {no user} WHERE id = {request open}";
    PointsNowhere "a row of memberships": "UPDATE memberships SET user_id = {no user} WHERE user_id = {user rita}";
    PointsNowhere "a row of memberships": "UPDATE memberships SET tenant_id = {no tenant} WHERE user_id = {user rita}";
    PointsNowhere "a row of tokens": "UPDATE tokens SET user_id = {no user}";
    PointsNowhere "an answer to a key of {no user}": "UPDATE idempotency_keys SET user_id = {no user} WHERE idempotency_key = 'hold'";
    PointsNowhere "host {no host}": "INSERT INTO orphans VALUES ({no host}, {no vm}, 1, 'off', FALSE, 1)";
};
