//! How hosts join, prove themselves, renew, and are kept out.

use futures::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use vimana_engine::{Clock, SystemClock};
use vimana_pki::{Authority, CertificateRequest, HostKey, Identity, JoinToken, Serial};
use vimana_server::tool::{JoinTokenArgs, Place, join_token};

use crate::agent::{Agent, closed, is_alive};
use crate::fleet::say;
use crate::world::{World, config, problem};

const SESSION: &str = "/agent/v1/session";
const NO_IMAGE: &str = "/agent/v1/images/image_00000000000000000000000000000000";
const HOUR_MS: i64 = 3600 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What a token that is not good is answered, whatever is wrong with it.
const NOT_GOOD: &str = "the join token is unknown, used or expired; ask for a new one";

async fn refused(answer: Response) -> String {
    let problem = problem(answer, 401).await;
    problem["detail"].as_str().unwrap().to_owned()
}

/// What happened to the host, by kind, with the reasons of refusals.
async fn history(world: &World, agent: &Agent) -> Vec<Value> {
    let token = world.token().await;
    let path = format!("/api/v1/hosts/{}/events", agent.id);
    let answer = world.get(&path).bearer_auth(token).send().await.unwrap();
    let events: Value = answer.json().await.unwrap();
    let items = events["items"].as_array().unwrap();
    items.iter().map(|item| item["event"].clone()).collect()
}

async fn alarms(world: &World, agent: &Agent) -> Vec<String> {
    let history = history(world, agent).await;
    let refused = history
        .iter()
        .filter(|event| event["kind"] == "host_refused");
    refused
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

async fn host(world: &World, agent: &Agent) -> Value {
    let token = world.token().await;
    let answer = world.get("/api/v1/hosts").bearer_auth(token);
    let hosts: Value = answer.send().await.unwrap().json().await.unwrap();
    let mut hosts = hosts["items"].as_array().unwrap().iter();
    let id = json!(agent.id);
    hosts.find(|host| host["id"] == id).unwrap().clone()
}

async fn revoke(world: &World, agent: &Agent) -> Value {
    let path = format!("/api/v1/hosts/{}/revoke", agent.id);
    let token = world.token().await;
    let answer = world.post(&path).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_host_joins_once_and_serves_with_its_certificate() {
    let world = World::new().await;
    let mut agent = Agent::joined(&world, 1).await;
    assert_eq!(history(&world, &agent).await[0]["kind"], "host_certified");
    let known = host(&world, &agent).await;
    assert_eq!(
        (&known["connected"], &known["revoked"]),
        (&json!(false), &json!(false))
    );
    assert!(known["certificate_expires_at"].is_string());
    let mut session = agent.session().await;
    assert!(is_alive(&mut session).await);
    assert_eq!(agent.session_number, 1);
    problem(agent.get(NO_IMAGE).await.unwrap(), 404).await;
    problem(agent.get("/agent/v1/nothing").await.unwrap(), 404).await;
    let known = host(&world, &agent).await;
    assert_eq!(known["connected"], true);
}

#[tokio::test]
async fn an_image_reaches_the_agents_whole() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    let token = world.token().await;
    let images = world.get("/api/v1/images").bearer_auth(&token).send();
    let images: Value = images.await.unwrap().json().await.unwrap();
    let id = images["items"][0]["id"].as_str().unwrap();
    let answer = agent.get(&format!("/agent/v1/images/{id}")).await.unwrap();
    let file = std::fs::read(world.dir.path().join("demo.qcow2")).unwrap();
    let length = file.len().to_string();
    assert_eq!(answer.headers()["content-length"], length.as_str());
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes, file);
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_but_joining() {
    let world = World::new().await;
    let token = world.join_token().await;
    let tls = vimana_pki::first_contact(token.authority()).unwrap();
    let http = reqwest::Client::builder().use_preconfigured_tls(tls);
    let http = http.no_proxy().build().unwrap();
    let console = "/agent/v1/console/console_00000000000000000000000000000000";
    for path in [SESSION, console, NO_IMAGE] {
        let url = format!("{}{path}", world.running.agent_url());
        let told = refused(http.get(url).send().await.unwrap()).await;
        assert!(told.contains("join first"), "{told}");
    }
    let url = format!("{}/agent/v1/renew", world.running.agent_url());
    refused(
        http.post(url)
            .json(&json!({ "request": "" }))
            .send()
            .await
            .unwrap(),
    )
    .await;
    // Nor without TLS.
    let plain = world.running.agent_url().replacen("https", "http", 1);
    assert!(http.get(plain).send().await.is_err());
}

#[tokio::test]
async fn a_token_lets_one_of_twenty_in() {
    let world = World::new().await;
    let token = world.join_token().await;
    let agents: Vec<Agent> = (1..=20).map(|n| Agent::new(&world, n)).collect();
    let answers = join_all(agents.iter().map(|agent| agent.join(&token))).await;
    let (joined, others): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| answer.status() == 200);
    assert_eq!((joined.len(), others.len()), (1, 19));
    for other in others {
        assert_eq!(refused(other).await, NOT_GOOD);
    }
}

#[tokio::test]
async fn expired_used_and_unknown_tokens_are_refused_alike() {
    let (world, clock) = World::clocked().await;
    let used = world.join_token().await;
    let first = Agent::new(&world, 1);
    assert_eq!(first.join(&used).await.status(), 200);
    let unknown = JoinToken::new([7; 32], used.authority());
    let short = world.join_token_of(json!({ "ttl_seconds": 60 })).await;
    clock.pass(61_000);
    let second = Agent::new(&world, 2);
    for token in [&used, &unknown, &short] {
        assert_eq!(refused(second.join(token).await).await, NOT_GOOD);
    }
}

#[tokio::test]
async fn who_lost_the_answer_asks_again_until_the_first_session() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut agent = Agent::new(&world, 1);
    let lost = agent.join(&token).await;
    assert_eq!(lost.status(), 200);
    // Another key, or another host: somebody else has the token.
    let mut thief = agent.copy();
    thief.key = HostKey::generate().unwrap();
    assert_eq!(refused(thief.join(&token).await).await, NOT_GOOD);
    let other = Agent::new(&world, 2);
    assert_eq!(refused(other.join(&token).await).await, NOT_GOOD);
    let again = agent.join(&token).await;
    assert_eq!(again.status(), 200);
    agent.take(again).await;
    let _session = agent.session().await;
    assert_eq!(refused(agent.join(&token).await).await, NOT_GOOD);
}

#[tokio::test]
async fn a_token_for_a_name_is_for_no_other_and_survives_the_try() {
    let world = World::new().await;
    let token = world.join_token_of(json!({ "host_name": "host-1" })).await;
    let told = problem(Agent::new(&world, 2).join(&token).await, 409).await;
    let detail = told["detail"].as_str().unwrap();
    assert_eq!(detail, "this token is for a host named `host-1`");
    assert_eq!(Agent::new(&world, 1).join(&token).await.status(), 200);
}

#[tokio::test]
async fn a_host_that_is_certified_cannot_be_taken_over() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    let mut thief = Agent::new(&world, 1);
    thief.name = "other".to_owned();
    let token = world.join_token().await;
    problem(thief.join(&token).await, 409).await;
    // Nor its name.
    let mut namesake = Agent::new(&world, 2);
    namesake.name = agent.name.clone();
    problem(namesake.join(&token).await, 409).await;
    // The token is still good.
    assert_eq!(Agent::new(&world, 3).join(&token).await.status(), 200);
}

#[tokio::test]
async fn tokens_are_for_administrators_and_have_limits() {
    let world = World::new().await;
    let token = world.token().await;
    let path = "/api/v1/hosts/join-tokens";
    problem(world.post(path).send().await.unwrap(), 401).await;
    for form in [
        json!({ "ttl_seconds": 0 }),
        json!({ "ttl_seconds": 9 }),
        json!({ "ttl_seconds": 8 * 24 * 3600 }),
        json!({ "ttl_seconds": u64::MAX }),
        json!({ "host_name": "no name" }),
        json!({ "host_name": "" }),
    ] {
        let answer = world.post(path).json(&form).bearer_auth(&token);
        problem(answer.send().await.unwrap(), 422).await;
    }
    // The same call under the same key is the same token.
    let mut tokens = Vec::new();
    for key in ["a", "a", "b"] {
        let answer = world.post(path).header("idempotency-key", key);
        let answer = answer.bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let view: Value = answer.json().await.unwrap();
        tokens.push(view["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[0], tokens[2]);
    // What is kept of them does not let anybody join.
    let kept = std::fs::read(world.dir.path().join("data/vimana.db")).unwrap();
    let log = std::fs::read(world.dir.path().join("data/vimana.db-wal")).unwrap_or_default();
    for (n, token) in (1..).zip(&tokens[1..]) {
        let token: JoinToken = token.parse().unwrap();
        for file in [&kept, &log] {
            let secret = token.secret().as_bytes();
            assert!(!file.windows(secret.len()).any(|part| part == secret));
        }
        assert_eq!(Agent::new(&world, n).join(&token).await.status(), 200);
    }
}

#[tokio::test]
async fn too_many_bad_tokens_from_one_address_are_turned_away() {
    let world = World::new().await;
    let authority = world.join_token().await.authority();
    let agent = Agent::new(&world, 1);
    let mut last = 401;
    for n in 0..60 {
        let guess = JoinToken::new([n; 32], authority);
        last = agent.join(&guess).await.status().as_u16();
        if last != 401 {
            break;
        }
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn a_request_that_proves_nothing_is_refused() {
    let world = World::new().await;
    let token = world.join_token().await;
    let tls = vimana_pki::first_contact(token.authority()).unwrap();
    let http = reqwest::Client::builder().use_preconfigured_tls(tls);
    let http = http.no_proxy().build().unwrap();
    let url = format!("{}/agent/v1/join", world.running.agent_url());
    let form = json!({
        "secret": token.secret(), "host_id": Agent::new(&world, 1).id, "name": "host-1",
        "zone": "default", "request": "nonsense",
    });
    let told = problem(http.post(&url).json(&form).send().await.unwrap(), 422).await;
    assert_eq!(told["errors"][0]["field"], "request");
    assert!(!told.to_string().contains(token.secret()));
    problem(http.post(&url).json(&json!({})).send().await.unwrap(), 400).await;
    let long = "x".repeat(300 << 10);
    problem(http.post(&url).body(long).send().await.unwrap(), 413).await;
    // It is still good.
    assert_eq!(Agent::new(&world, 1).join(&token).await.status(), 200);
}

#[tokio::test]
async fn the_operator_lets_a_host_in_beside_the_running_server() {
    let world = World::new().await;
    let args = JoinTokenArgs {
        place: Place {
            data_dir: world.dir.path().join("data"),
            database_url: None,
        },
        name: Some("host-1".parse().unwrap()),
        ttl: None,
    };
    let view = join_token(&args).await.unwrap();
    let token: JoinToken = view.token.parse().unwrap();
    problem(Agent::new(&world, 2).join(&token).await, 409).await;
    assert_eq!(Agent::new(&world, 1).join(&token).await.status(), 200);
    let nowhere = JoinTokenArgs {
        place: Place {
            data_dir: world.dir.path().join("nowhere"),
            database_url: None,
        },
        name: None,
        ttl: None,
    };
    let told = join_token(&nowhere).await.err().unwrap().to_string();
    assert!(told.contains("no server has been started on"), "{told}");
    assert!(!world.dir.path().join("nowhere").exists());
}

#[tokio::test]
async fn certificates_of_elsewhere_get_no_connection() {
    let world = World::new().await;
    let mut agent = Agent::joined(&world, 1).await;
    let theirs = Authority::generate(Serial::from_random([1; 16])).unwrap();
    let request = CertificateRequest::from_pem(&agent.key.request().unwrap()).unwrap();
    let later = SystemClock.now().plus_ms(DAY_MS);
    let issued = theirs
        .certify_host(&request, agent.id, Serial::from_random([2; 16]), later)
        .unwrap();
    let ours = std::fs::read_to_string(world.dir.path().join("data/secrets/authority.pem"));
    let ours = Authority::from_text(&ours.unwrap()).unwrap();
    let foreign = Identity::new(&agent.key, &issued.pem, ours.certificate_pem());
    agent.show(foreign.unwrap());
    assert!(agent.dial(SESSION).await.is_err());
    assert!(agent.get(NO_IMAGE).await.is_err());
    // Ours, but nobody recorded it.
    let issued = ours
        .certify_host(&request, agent.id, Serial::from_random([2; 16]), later)
        .unwrap();
    let forged = Identity::new(&agent.key, &issued.pem, ours.certificate_pem());
    agent.show(forged.unwrap());
    refused(agent.get(NO_IMAGE).await.unwrap()).await;
    assert_eq!(alarms(&world, &agent).await.len(), 1);
}

#[tokio::test]
async fn an_expired_certificate_gets_no_connection_and_joins_anew() {
    let (world, clock) = World::clocked().await;
    let mut agent = Agent::joined(&world, 1).await;
    clock.set(89 * DAY_MS);
    problem(agent.get(NO_IMAGE).await.unwrap(), 404).await;
    clock.set(91 * DAY_MS);
    assert!(agent.get(NO_IMAGE).await.is_err());
    assert!(agent.renew().await.is_err());
    let token = world.join_token().await;
    let answer = agent.join(&token).await;
    assert_eq!(answer.status(), 200);
    agent.take(answer).await;
    problem(agent.get(NO_IMAGE).await.unwrap(), 404).await;
}

#[tokio::test]
async fn a_certificate_is_good_until_its_successor_is_used() {
    let world = World::new().await;
    let old = Agent::joined(&world, 1).await;
    let mut new = old.copy();
    let lost = old.renew().await.unwrap();
    assert_eq!(lost.status(), 200);
    problem(old.get(NO_IMAGE).await.unwrap(), 404).await;
    new.take(old.renew().await.unwrap()).await;
    problem(old.get(NO_IMAGE).await.unwrap(), 404).await;
    problem(new.get(NO_IMAGE).await.unwrap(), 404).await;
    let told = refused(old.get(NO_IMAGE).await.unwrap()).await;
    assert!(told.contains("replaced by a later one"), "{told}");
    refused(old.renew().await.unwrap()).await;
    // The one that got lost is gone, too.
    let mut finder = old.copy();
    finder.take(lost).await;
    refused(finder.get(NO_IMAGE).await.unwrap()).await;
    let alarms = alarms(&world, &old).await;
    assert!(!alarms.is_empty() && alarms.iter().all(|why| why.contains("replaced")));
    problem(new.get(NO_IMAGE).await.unwrap(), 404).await;
}

#[tokio::test]
async fn an_answer_that_comes_late_does_not_lock_the_host_out() {
    let world = World::new().await;
    let old = Agent::joined(&world, 1).await;
    let mut new = old.copy();
    new.take(old.renew().await.unwrap()).await;
    // Asked before, answered later: the host has long taken the first one.
    for _ in 0..2 {
        assert_eq!(old.renew().await.unwrap().status(), 200);
    }
    problem(new.get(NO_IMAGE).await.unwrap(), 404).await;
}

#[tokio::test]
async fn a_revoked_host_is_cut_off_at_once_and_joins_only_with_a_new_token() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut agent = Agent::new(&world, 1);
    let answer = agent.join(&token).await;
    agent.take(answer).await;
    let mut session = agent.session().await;
    assert_eq!(revoke(&world, &agent).await["revoked"], true);
    let told = closed(&mut session).await;
    assert!(told.contains("revoked") || told.contains("over"), "{told}");
    let told = refused(agent.get(NO_IMAGE).await.unwrap()).await;
    assert!(told.contains("was revoked"), "{told}");
    assert!(agent.dial(SESSION).await.is_err());
    refused(agent.renew().await.unwrap()).await;
    assert_eq!(refused(agent.join(&token).await).await, NOT_GOOD);
    let kinds = history(&world, &agent).await;
    assert!(kinds.iter().any(|event| event["kind"] == "host_revoked"));
    let answer = agent.join(&world.join_token().await).await;
    assert_eq!(answer.status(), 200);
    agent.take(answer).await;
    let mut session = agent.session().await;
    assert!(is_alive(&mut session).await);
    assert_eq!(host(&world, &agent).await["revoked"], false);
    // It counted on, so that older copies stay out.
    assert_eq!(agent.session_number, 2);
}

#[tokio::test]
async fn only_what_exists_is_revoked() {
    let world = World::new().await;
    let token = world.token().await;
    let path = "/api/v1/hosts/host_00000000000000000000000000000009/revoke";
    problem(world.post(path).send().await.unwrap(), 401).await;
    let answer = world.post(path).bearer_auth(token).send().await.unwrap();
    problem(answer, 404).await;
}

#[tokio::test]
async fn a_copy_that_is_behind_is_refused_and_the_original_goes_on() {
    let world = World::new().await;
    let mut original = Agent::joined(&world, 1).await;
    let copy = original.copy();
    let mut session = original.session().await;
    let (mut socket, answer) = copy.knock().await;
    assert_eq!(answer["frame"], "refused");
    let told = answer["reason"].as_str().unwrap();
    assert!(
        told.contains("another machine uses this host's identity"),
        "{told}"
    );
    closed(&mut socket).await;
    assert!(is_alive(&mut session).await);
    assert_eq!(host(&world, &original).await["connected"], true);
    let alarms = alarms(&world, &original).await;
    assert_eq!(alarms.len(), 1);
    assert!(alarms[0].contains("another machine"), "{}", alarms[0]);
    // It comes back as ever.
    drop(session);
    let mut session = original.session().await;
    assert!(is_alive(&mut session).await);
}

#[tokio::test]
async fn of_two_with_the_right_number_the_later_goes_on_and_the_other_is_told_apart() {
    let world = World::new().await;
    let mut original = Agent::joined(&world, 1).await;
    let mut first = original.session().await;
    let mut copy = original.copy();
    let mut second = copy.session().await;
    closed(&mut first).await;
    assert!(is_alive(&mut second).await);
    let (_, answer) = original.knock().await;
    assert_eq!(answer["frame"], "refused", "{answer}");
    assert!(is_alive(&mut second).await);
    assert_eq!(alarms(&world, &original).await.len(), 1);
}

#[tokio::test]
async fn what_got_lost_on_the_way_to_a_session_keeps_nobody_out() {
    let world = World::new().await;
    let mut agent = Agent::joined(&world, 1).await;
    // The welcome is lost.
    drop(agent.knock().await);
    let (socket, welcome) = agent.knock().await;
    assert_eq!(welcome["session_number"], 2);
    // The number is on the disk, and the word of it is lost.
    drop(socket);
    agent.session_number = 2;
    let mut session = agent.session().await;
    assert!(is_alive(&mut session).await);
    assert_eq!(agent.session_number, 3);
    assert_eq!(alarms(&world, &agent).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_counts_before_the_number_is_on_the_disk() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    for frame in [
        json!({ "frame": "ready", "session_number": 77 }),
        json!({ "frame": "discarded", "vm_id": "vm_00000000000000000000000000000001" }),
    ] {
        let (mut socket, welcome) = agent.knock().await;
        assert_eq!(welcome["frame"], "welcome");
        say(&mut socket, frame).await;
        closed(&mut socket).await;
    }
}

#[tokio::test]
async fn a_hello_is_that_of_the_certificates_host() {
    let world = World::new().await;
    let mut one = Agent::joined(&world, 1).await;
    let other = Agent::joined(&world, 2).await;
    one.id = other.id;
    let mut socket = one.dial(SESSION).await.unwrap();
    say(&mut socket, one.hello()).await;
    let told = closed(&mut socket).await;
    assert!(
        told.contains("not that of the certificate's host"),
        "{told}"
    );
}

#[tokio::test]
async fn a_server_whose_clock_is_set_goes_on() {
    let (world, clock) = World::clocked().await;
    let mut agent = Agent::joined(&world, 1).await;
    let mut session = agent.session().await;
    for step in [-HOUR_MS, HOUR_MS, -30 * DAY_MS, 30 * DAY_MS, 0] {
        clock.set(step);
        assert!(is_alive(&mut session).await, "{step}");
        let mut again = agent.session().await;
        assert!(is_alive(&mut again).await, "{step}");
        session = again;
        agent.take(agent.renew().await.unwrap()).await;
        problem(agent.get(NO_IMAGE).await.unwrap(), 404).await;
        let n = u8::try_from(step.rem_euclid(251)).unwrap();
        let newcomer = Agent::joined(&world, n.max(2)).await;
        problem(newcomer.get(NO_IMAGE).await.unwrap(), 404).await;
    }
    assert_eq!(alarms(&world, &agent).await, Vec::<String>::new());
}

#[tokio::test]
async fn hosts_are_known_again_after_a_restart() {
    let World { running, dir, http } = World::new().await;
    let world = World { running, dir, http };
    let mut agent = Agent::joined(&world, 1).await;
    drop(agent.session().await);
    let World { running, dir, http } = world;
    running.stop().await.unwrap();
    let running = vimana_server::start(config(dir.path())).await.unwrap();
    let world = World { running, dir, http };
    agent.moved_to(&world);
    let mut session = agent.session().await;
    assert!(is_alive(&mut session).await);
    assert_eq!(alarms(&world, &agent).await, Vec::<String>::new());
}
