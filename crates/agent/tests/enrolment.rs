//! How an agent gets its certificate, from servers that are as they should be
//! and from others. Sessions with the real server are in that one's tests.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vimana_agent::{
    Config, DataDir, EnrolError, Enrolment, JoinTerms, Parts, Timing, session_number,
};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::Resources;
use vimana_model::{Error, ErrorKind, HostId, Timestamp};
use vimana_pki::{
    Authority, CertificateRequest, Fingerprint, HostKey, JoinToken, Serial, server_config,
};
use vimana_protocol::dial::{DialError, Random, Retry};
use vimana_protocol::enrolment::{Certified, JoinRequest};

const PATIENCE: Duration = Duration::from_secs(10);
const SESSION: &str = "/agent/v1/session";

/// What the server does with who asks to join.
#[derive(Clone)]
enum Answer {
    Certificate,
    /// As it should be, but it never arrives.
    Lost,
    Refusal(ErrorKind),
    /// For another host.
    Mixed(HostId),
    /// For another key.
    OfAnotherKey,
    /// By an authority that the token does not name.
    OfAnotherAuthority,
    Nonsense,
}

struct Shared {
    authority: Authority,
    answers: Mutex<VecDeque<Answer>>,
    asked: mpsc::UnboundedSender<JoinRequest>,
}

struct World {
    shared: Arc<Shared>,
    asked: mpsc::UnboundedReceiver<JoinRequest>,
    address: String,
    dir: TempDir,
}

impl World {
    /// A server that answers so, one after another.
    async fn new(answers: &[Answer]) -> Self {
        let _settled = rustls::crypto::ring::default_provider().install_default();
        let (sender, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            authority: Authority::generate(Serial::from_random([1; 16])).unwrap(),
            answers: Mutex::new(answers.iter().cloned().collect()),
            asked: sender,
        });
        let certificate = shared
            .authority
            .certify_server(Serial::from_random([2; 16]));
        let tls = server_config(&shared.authority, certificate.unwrap(), now).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/agent/v1/join", post(join))
            .route(SESSION, any(async || StatusCode::IM_A_TEAPOT))
            .with_state(Arc::clone(&shared));
        let tls = RustlsConfig::from_config(Arc::new(tls));
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(server.serve(app.into_make_service_with_connect_info::<SocketAddr>()));
        Self {
            shared,
            asked,
            address,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn token_of(&self, n: u8) -> String {
        JoinToken::new([n; 32], self.shared.authority.fingerprint()).reveal()
    }

    /// Puts a token where the agent looks for it.
    fn give(&self, token: &str) -> PathBuf {
        let path = self.dir.path().join("token");
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn terms(&self, token_file: Option<PathBuf>) -> JoinTerms {
        JoinTerms {
            address: self.address.clone(),
            token_file,
            name: HostName::new("host-a").unwrap(),
            zone: ZoneName::new("default").unwrap(),
        }
    }

    fn open(
        &self,
        token_file: Option<PathBuf>,
    ) -> Result<(Arc<DataDir>, Arc<Enrolment>), EnrolError> {
        let data_dir = Arc::new(DataDir::open(&self.file("")).unwrap());
        let enrolment = Enrolment::open(&data_dir, self.terms(token_file))?;
        Ok((data_dir, enrolment))
    }

    /// The way an agent dials.
    fn parts(&self, token_file: Option<PathBuf>) -> Parts {
        let (data_dir, enrolment) = self.open(token_file).unwrap();
        let retry = Retry {
            first: Duration::from_millis(10),
            cap: Duration::from_millis(50),
        };
        let config = Config {
            name: HostName::new("host-a").unwrap(),
            zone: ZoneName::new("default").unwrap(),
            capacity: Resources::default(),
            datastores: Vec::new(),
            timing: Timing {
                retry,
                ..Timing::default()
            },
            random: Random::from_seed(1),
        };
        let driver = Arc::new(SimDriver::new(SimHost::new()));
        let server = enrolment.server();
        let mut parts = Parts::of_host(config, server, data_dir, driver, None).unwrap();
        parts.enrol(enrolment);
        parts
    }

    async fn request(&mut self) -> JoinRequest {
        timeout(PATIENCE, self.asked.recv()).await.unwrap().unwrap()
    }

    fn was_asked(&mut self) -> bool {
        self.asked.try_recv().is_ok()
    }
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_ms(i64::try_from(now.as_millis()).unwrap())
}

async fn join(State(shared): State<Arc<Shared>>, Json(form): Json<JoinRequest>) -> Response {
    let answer = shared.answers.lock().unwrap().pop_front().unwrap();
    shared.asked.send(form.clone()).unwrap();
    let request = CertificateRequest::from_pem(&form.request).unwrap();
    let certified = |authority: &Authority, request: &CertificateRequest, host_id: HostId| {
        let serial = Serial::from_random([3; 16]);
        let issued = authority.certify_host(request, host_id, serial, now().plus_ms(60_000));
        Json(Certified {
            certificate: issued.unwrap().pem,
            authority: authority.certificate_pem().to_owned(),
            life_ms: 60_000,
        })
        .into_response()
    };
    match answer {
        Answer::Certificate => certified(&shared.authority, &request, form.host_id),
        // The caller sees the connection break.
        Answer::Lost => panic!("the answer gets lost"),
        Answer::Refusal(kind) => {
            let problem = Error::new(kind, "not today").problem();
            let status = StatusCode::from_u16(problem.status).unwrap();
            (status, Json(problem)).into_response()
        }
        Answer::Mixed(host_id) => certified(&shared.authority, &request, host_id),
        Answer::OfAnotherKey => {
            let key = HostKey::generate().unwrap().request().unwrap();
            let other = CertificateRequest::from_pem(&key).unwrap();
            certified(&shared.authority, &other, form.host_id)
        }
        Answer::OfAnotherAuthority => {
            let other = Authority::generate(Serial::from_random([9; 16])).unwrap();
            certified(&other, &request, form.host_id)
        }
        Answer::Nonsense => "{}".into_response(),
    }
}

/// Why there was no connection.
async fn dial(parts: &Parts) -> DialError {
    parts.dial.dial(SESSION).await.err().unwrap()
}

/// The connection was made with a certificate: the fake session answers so.
fn is_joined(error: &DialError) -> bool {
    matches!(error, DialError::Status(StatusCode::IM_A_TEAPOT))
}

#[tokio::test]
async fn a_host_joins_once_and_needs_no_token_any_more() {
    let mut world = World::new(&[Answer::Certificate]).await;
    let token = world.give(&world.token_of(1));
    let parts = world.parts(Some(token.clone()));
    let error = dial(&parts).await;
    assert!(is_joined(&error), "{error}");
    let form = world.request().await;
    assert_eq!(form.secret, "01".repeat(32));
    assert_eq!((form.name.as_str(), form.session_number), ("host-a", 0));
    assert_eq!(form.host_id, parts.host_id);
    let mode = std::fs::metadata(world.file("certificate.json")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert!(!world.file("join-key.pem").exists());
    // The key did not leave the host, and nothing on it tells the secret.
    let kept = std::fs::read_to_string(world.file("certificate.json")).unwrap();
    assert!(kept.contains("PRIVATE KEY") && !form.request.contains("PRIVATE"));
    assert!(!kept.contains(&form.secret));
    drop(parts);

    std::fs::remove_file(&token).unwrap();
    for token_file in [None, Some(token)] {
        let parts = world.parts(token_file);
        assert!(is_joined(&dial(&parts).await));
    }
    assert!(!world.was_asked());
}

#[tokio::test]
async fn without_certificate_and_token_an_agent_says_so_and_does_not_start() {
    let world = World::new(&[]).await;
    let error = world.open(None).err().unwrap();
    assert!(matches!(error, EnrolError::NoToken), "{error}");
    assert!(error.to_string().contains("--join-token-file"));
}

#[tokio::test]
async fn an_address_without_tls_is_refused() {
    let mut world = World::new(&[]).await;
    world.address = world.address.replacen("https", "http", 1);
    let error = world.open(Some(world.give("x"))).err().unwrap();
    assert!(error.to_string().contains("expected https://"), "{error}");
}

#[tokio::test]
async fn who_did_not_get_the_answer_asks_again_with_the_same_key() {
    let mut world = World::new(&[Answer::Lost, Answer::Certificate]).await;
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    let error = dial(&parts).await;
    assert!(matches!(error, DialError::Unreachable(_)), "{error}");
    // Also after the agent was killed in between.
    drop(parts);
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    assert!(is_joined(&dial(&parts).await));
    let keys = [world.request().await, world.request().await].map(|form| {
        let request = CertificateRequest::from_pem(&form.request).unwrap();
        request.fingerprint()
    });
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn the_secret_is_told_to_no_server_but_the_tokens() {
    let mut world = World::new(&[]).await;
    let elsewhere = JoinToken::new([1; 32], Fingerprint::of(b"another installation"));
    let parts = world.parts(Some(world.give(&elsewhere.reveal())));
    let error = dial(&parts).await;
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(!world.was_asked());
}

#[tokio::test]
async fn an_answer_that_does_not_fit_changes_nothing() {
    for answer in [
        Answer::Mixed(HostId::from_parts(1, [1; 10])),
        Answer::OfAnotherKey,
        Answer::OfAnotherAuthority,
        Answer::Nonsense,
    ] {
        let world = World::new(&[answer]).await;
        let parts = world.parts(Some(world.give(&world.token_of(1))));
        let error = dial(&parts).await;
        assert!(!is_joined(&error), "{error}");
        assert!(!world.file("certificate.json").exists());
        assert!(world.file("join-key.pem").exists());
    }
}

#[tokio::test]
async fn a_refused_token_is_shown_once_and_a_new_one_is_taken_up() {
    let answers = [
        Answer::Refusal(ErrorKind::Unauthenticated),
        Answer::Certificate,
    ];
    let mut world = World::new(&answers).await;
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    let error = dial(&parts).await;
    let told = "the host has not joined: the server refused: not today";
    assert_eq!(error.to_string(), told);
    let error = dial(&parts).await;
    assert!(
        error.to_string().contains("give the host a new one"),
        "{error}"
    );
    assert_eq!(world.request().await.secret, "01".repeat(32));
    assert!(!world.was_asked());
    world.give(&world.token_of(2));
    assert!(is_joined(&dial(&parts).await));
    assert_eq!(world.request().await.secret, "02".repeat(32));
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again_with_the_same_token() {
    let answers = [
        Answer::Refusal(ErrorKind::Conflict),
        Answer::Refusal(ErrorKind::RateLimited),
        Answer::Refusal(ErrorKind::Unavailable),
        Answer::Certificate,
    ];
    let world = World::new(&answers).await;
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    let error = dial(&parts).await;
    assert!(matches!(error, DialError::NotJoined(_)), "{error}");
    for _ in 0..2 {
        let error = dial(&parts).await;
        assert!(matches!(error, DialError::Unreachable(_)), "{error}");
    }
    assert!(is_joined(&dial(&parts).await));
}

#[tokio::test]
async fn what_is_no_token_is_named_and_not_repeated() {
    let mut world = World::new(&[]).await;
    for text in ["", "s3cret", &"x".repeat(100_000)] {
        let parts = world.parts(Some(world.give(text)));
        let told = dial(&parts).await.to_string();
        assert!(
            told.contains("not a join token") && told.contains("token`"),
            "{told}"
        );
        assert!(!told.contains("s3cret") && told.len() < 500);
    }
    assert!(!world.was_asked());
}

#[tokio::test]
async fn a_damaged_certificate_is_named_and_not_replaced() {
    let world = World::new(&[Answer::Certificate]).await;
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    dial(&parts).await;
    drop(parts);
    let path = world.file("certificate.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let other = HostKey::generate().unwrap().to_pem().replace('\n', "\\n");
    let start = good.find("-----BEGIN PRIVATE").unwrap();
    let end = start + good[start..].find('"').unwrap();
    let of_another_key = good.replace(&good[start..end], &other);
    for damaged in ["", "{}", &good[..good.len() / 2], &of_another_key] {
        std::fs::write(&path, damaged).unwrap();
        let error = world.open(Some(world.give(&world.token_of(2))));
        let told = error.err().unwrap().to_string();
        assert!(told.contains("certificate.json"), "{told}");
        assert!(!told.contains("PRIVATE"), "{told}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
    }
    std::fs::write(&path, good).unwrap();
    assert!(world.open(None).is_ok());
}

#[tokio::test]
async fn a_host_that_joins_tells_how_many_sessions_it_had() {
    let mut world = World::new(&[Answer::Certificate]).await;
    let parts = world.parts(Some(world.give(&world.token_of(1))));
    let record = r#"{"record":"session","session_number":7}"#.to_owned();
    parts.journal.append(&[record]).await.unwrap();
    assert_eq!(session_number(parts.journal.as_ref()).await.unwrap(), 7);
    dial(&parts).await;
    assert_eq!(world.request().await.session_number, 7);
}
