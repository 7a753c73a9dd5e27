//! Clocks that are set while the server runs: nothing ends early, nothing
//! lives on, and nobody waits for the old time to come again.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use vimana_model::event::EventKind;
use vimana_model::host::HostState;
use vimana_model::operation::OperationKind;
use vimana_model::{VmId, VmState};
use vimana_pki::JoinToken;

use crate::agent::{Agent, is_alive};
use crate::fleet::{self, Socket, heard, say};
use crate::strange::Scene;
use crate::world::{World, problem};

const HOUR_MS: i64 = 3600 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The wall clock is set so far off, one after the other.
const STEPS: [i64; 7] = [-HOUR_MS, HOUR_MS, -30 * DAY_MS, 0, 30 * DAY_MS, -HOUR_MS, 0];

fn hours(n: u64) -> u64 {
    n * 3600 * 1000
}

/// What people got of a server, and want to use later.
struct Given {
    cookie: String,
    token: String,
    key: String,
    operation: String,
    join: JoinToken,
}

impl Given {
    async fn new(world: &World, n: usize) -> Self {
        let answer = world.sign_in(None).await;
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let token = world.token().await;
        let key = format!("key-{n}");
        let operation = create(world, &token, &key).await;
        Self {
            cookie,
            token,
            key,
            operation,
            join: world.join_token().await,
        }
    }

    /// All of it is as good as before.
    async fn assert_good(&self, world: &World, why: &str) {
        assert_eq!(by_token(world, &self.token).await, 200, "{why}");
        assert_eq!(by_cookie(world, &self.cookie).await, 200, "{why}");
        let again = create(world, &self.token, &self.key).await;
        assert_eq!(again, self.operation, "{why}");
    }
}

async fn by_token(world: &World, token: &str) -> u16 {
    let me = world.get("/api/v1/me").bearer_auth(token);
    me.send().await.unwrap().status().as_u16()
}

async fn by_cookie(world: &World, cookie: &str) -> u16 {
    let me = world.get("/api/v1/me").header("cookie", cookie);
    me.send().await.unwrap().status().as_u16()
}

/// The operation that makes a held VM under this key.
async fn create(world: &World, token: &str, key: &str) -> String {
    let form = json!({ "name": key, "image": "demo", "flavor": "tiny", "hold": true });
    let request = world.post("/api/v1/vms").header("idempotency-key", key);
    let answer = request.bearer_auth(token).json(&form).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let accepted: Value = answer.json().await.unwrap();
    accepted["operation"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_was_given_is_good_however_the_clock_is_set() {
    let (world, clocks) = World::clocked().await;
    let mut given = vec![Given::new(&world, 0).await];
    for (n, step) in (1..).zip(STEPS) {
        clocks.set(step);
        for one in &given {
            one.assert_good(&world, &format!("{step} ms off")).await;
        }
        // A join token is used once.
        let host = Agent::new(&world, u8::try_from(n).unwrap());
        let latest = given.last().unwrap();
        assert_eq!(host.join(&latest.join).await.status(), 200, "{step}");
        given.push(Given::new(&world, n).await);
    }
}

#[tokio::test]
async fn what_was_given_ends_when_its_time_has_passed_and_not_by_the_clock() {
    for step in [0, HOUR_MS, 30 * DAY_MS] {
        let (world, clocks) = World::clocked().await;
        let first = Given::new(&world, 0).await;
        let short = world.join_token_of(json!({ "ttl_seconds": 60 })).await;
        clocks.set(step);
        let second = Given::new(&world, 1).await;
        clocks.pass(59_000);
        assert_eq!(Agent::new(&world, 1).join(&short).await.status(), 200);
        clocks.pass(hours(1));
        for given in [&first, &second] {
            let joins = Agent::new(&world, 2).join(&given.join).await;
            problem(joins, 401).await;
        }
        clocks.pass(hours(10));
        // Used, it lives on; the other one does not.
        assert_eq!(by_cookie(&world, &first.cookie).await, 200, "{step}");
        clocks.pass(hours(2));
        assert_eq!(by_cookie(&world, &first.cookie).await, 200, "{step}");
        assert_eq!(by_cookie(&world, &second.cookie).await, 401, "{step}");
        clocks.pass(hours(29 * 24));
        for given in [&first, &second] {
            assert_eq!(by_token(&world, &given.token).await, 200, "{step}");
        }
        clocks.pass(hours(24));
        for given in [&first, &second] {
            assert_eq!(by_token(&world, &given.token).await, 401, "{step}");
            assert_eq!(by_cookie(&world, &given.cookie).await, 401, "{step}");
        }
    }
}

/// The first thing that a viewer with this ticket hears.
async fn view(world: &World, ticket: &Value) -> Message {
    let data = world.dir.path().join("data");
    let path = ticket["path"].as_str().unwrap();
    let mut socket = fleet::dial(&world.running.url(), &data, path, None).await;
    let hello = json!({ "ticket": ticket["ticket"] }).to_string();
    socket.send(Message::text(hello)).await.unwrap();
    let first = timeout(Duration::from_secs(20), socket.next()).await;
    first.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_console_ticket_is_good_for_a_minute_whatever_the_clock_shows() {
    let (world, clocks) = World::clocked().await;
    fleet::join(&world).await;
    let token = world.token().await;
    let form = json!({ "name": "web-1", "image": "demo", "flavor": "tiny" });
    let mut watch = crate::watch::Watch::new(&world).await;
    let made = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    let id: VmId = serde_json::from_value(made["vm"]["id"].clone()).unwrap();
    watch.until_vm(id, VmState::Running).await;
    let ticket = async || -> Value {
        let path = format!("/api/v1/vms/{id}/console");
        let answer = world.post(&path).bearer_auth(&token).send().await.unwrap();
        answer.json().await.unwrap()
    };
    for step in STEPS {
        let (good, late) = (ticket().await, ticket().await);
        clocks.set(step);
        assert!(view(&world, &good).await.is_binary(), "{step}");
        clocks.pass(61_000);
        assert!(view(&world, &late).await.is_close(), "{step}");
    }
}

#[tokio::test]
async fn wrong_passwords_are_counted_whatever_the_clock_shows() {
    let (world, clocks) = World::clocked().await;
    let wrong = json!({ "user_name": "admin", "password": "wrong" });
    let guess = async || {
        let request = world.post("/api/v1/tokens").json(&wrong);
        request.send().await.unwrap().status().as_u16()
    };
    let mut guesses = 0;
    while guess().await == 401 {
        guesses += 1;
        assert!(guesses < 60, "nobody counts");
    }
    let (since, mut let_through) = (Instant::now(), 0);
    for step in STEPS {
        clocks.set(step);
        for _ in 0..3 {
            let_through += u64::from(guess().await == 401);
        }
    }
    // One more every six seconds, and what was left of one.
    let due = 2 + since.elapsed().as_secs() / 6;
    assert!(let_through <= due, "{let_through} of {due}");
}

#[tokio::test]
async fn hosts_and_their_machines_notice_nothing() {
    let (world, clocks) = World::clocked().await;
    let mut scene = Scene::of(world).await;
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    for step in STEPS {
        clocks.set(step);
        assert!(is_alive(&mut session).await, "{step}");
        scene.assert_vm_untouched(&step.to_string()).await;
        let host = scene.host().await;
        assert_eq!((host.state, host.connected), (HostState::Enabled, true));
    }
    let events = scene.watch.client.host_timeline(scene.agent.id).await;
    let lost =
        |event: &EventKind| matches!(event, EventKind::HostSilent | EventKind::HostFenced { .. });
    assert!(!events.unwrap().iter().any(|entry| lost(&entry.event)));
}

/// The next command, unanswered.
pub async fn command(session: &mut Socket) -> Value {
    let found = async {
        loop {
            let frame = heard(session).await.unwrap();
            if frame["frame"] == "command" {
                return frame;
            }
        }
    };
    timeout(Duration::from_secs(20), found).await.unwrap()
}

/// Says how a command ended, and gives what it was about.
pub async fn end(session: &mut Socket, command: &Value, outcome: Value) -> String {
    let done = json!({
        "frame": "done", "command": command["command"],
        "claim_epoch": command["claim_epoch"], "outcome": outcome,
    });
    say(session, done).await;
    command["work"]["work"].as_str().unwrap().to_owned()
}

fn fault(kind: &str) -> Value {
    json!({ "outcome": "fault", "fault": { "kind": kind, "message": "a bad moment" } })
}

#[tokio::test]
async fn a_step_that_waits_is_tried_again_within_a_minute_of_real_time() {
    let (world, clocks) = World::clocked().await;
    let mut scene = Scene::of(world).await;
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    let fine = json!({ "outcome": "ok" });
    for step in [-HOUR_MS, -30 * DAY_MS, HOUR_MS] {
        scene.watch.client.reboot_vm(scene.vm.id).await.unwrap();
        let first = command(&mut session).await;
        end(&mut session, &first, fault("host")).await;
        let waits = |event: &EventKind| matches!(event, EventKind::StepRetried { .. });
        scene.watch.until(waits).await;
        clocks.set(step);
        let again = command(&mut session).await;
        assert_eq!(again["command"]["attempt"], 2, "{step}");
        end(&mut session, &again, fine.clone()).await;
        let done = |event: &EventKind| matches!(event, EventKind::Step { .. });
        scene.watch.until(done).await;
        clocks.set(0);
    }
}

#[tokio::test]
async fn what_was_last_is_not_told_by_the_clock() {
    let (world, clocks) = World::clocked().await;
    let mut scene = Scene::of(world).await;
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    clocks.set(-30 * DAY_MS);
    let client = scene.watch.client.clone();
    let id = scene.vm.id;
    client.stop_vm(id).await.unwrap();
    let fine = json!({ "outcome": "ok" });
    let part = |part| json!({ "part": part, "size_bytes": 1, "sha256": "00" });
    let parts = ["disk", "memory"].map(part);
    let copy = json!({ "run_epoch": 1, "hypervisor": "none", "parts": parts });
    let saved = json!({ "outcome": "ok", "saved": copy });
    // It is in the datastore, and its host cannot be cleaned.
    for (work, outcome) in [
        ("save", fine),
        ("upload", saved),
        ("clean", fault("hypervisor")),
    ] {
        let asked = command(&mut session).await;
        assert_eq!(end(&mut session, &asked, outcome).await, work);
    }
    scene.watch.until_vm(id, VmState::Failed).await;
    let kinds = async || {
        let operations = client.vm_operations(id).await.unwrap();
        let kinds = operations.into_iter().map(|operation| operation.kind);
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds().await, [OperationKind::Stop, OperationKind::Create]);
    // A retry goes on from the stop, and does not boot what is elsewhere.
    client.retry_vm(id).await.unwrap();
    let asked = command(&mut session).await;
    assert_eq!(asked["work"]["work"], "clean");
    let last = [
        OperationKind::Stop,
        OperationKind::Stop,
        OperationKind::Create,
    ];
    assert_eq!(kinds().await, last);
}
