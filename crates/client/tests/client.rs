//! The client against servers that break, lie and refuse.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail like the tests themselves"
)]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vimana_client::{Client, Notice};
use vimana_model::ErrorKind;
use vimana_model::session::SignIn;
use vimana_model::tenant::{TenantKind, UpdateTenant};

const PROBLEM: [(&str, &str); 1] = [("content-type", "application/problem+json")];
const SPENT: &str = r#"{"type":"about:blank","title":"sign in first","status":401,
    "code":"unauthenticated","detail":"the token is spent"}"#;

const PROGRESS: &str = "event: progress\ndata: {\"vm_id\":\"vm_00000000000000000000000000000001\",\
    \"operation\":{\"id\":\"op_00000000000000000000000000000001\",\
    \"vm_id\":\"vm_00000000000000000000000000000001\",\"kind\":\"stop\",\"state\":\"running\",\
    \"steps\":[],\"requested_by\":\"ann\",\"cancelled_by\":null,\"error\":null,\
    \"progress\":{\"done_bytes\":3,\"total_bytes\":4},\
    \"created_at\":\"2026-11-22T18:00:00Z\",\"ended_at\":null}}\n\n";

async fn serve(router: Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::new(url.parse().unwrap(), None).unwrap()
}

fn item(seq: u64) -> String {
    format!(
        "id: {seq}\nevent: item\ndata: {{\"event\":{{\"seq\":{seq},\
         \"at\":\"2026-11-22T18:00:00Z\",\"actor\":{{\"kind\":\"system\"}},\"vm_id\":null,\
         \"host_id\":null,\"event\":{{\"kind\":\"note\",\"text\":\"x\"}}}},\
         \"vm\":null,\"host\":null}}\n\n"
    )
}

#[tokio::test]
async fn events_resume_where_they_broke_off_and_end_with_the_token() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let events = get(async move |headers: HeaderMap| -> Response {
        let last = headers
            .get("last-event-id")
            .map(|id| id.to_str().unwrap().to_owned());
        let mut seen = seen.lock().unwrap();
        seen.push(last);
        match seen.len() {
            1 => format!(
                ": connected\n\n{}{PROGRESS}{}event: item\ndata: cut",
                item(5),
                item(6)
            )
            .into_response(),
            2 => StatusCode::BAD_GATEWAY.into_response(),
            3 => "event: news\ndata: x\n\nevent: reset\ndata: {\"seq\":90}\n\n".into_response(),
            _ => (StatusCode::UNAUTHORIZED, PROBLEM, SPENT).into_response(),
        }
    });
    let client = serve(Router::new().route("/api/v1/events", events)).await;
    let notices: Vec<_> = client.events(Some(4)).collect().await;
    let told: Vec<String> = notices
        .into_iter()
        .map(|notice| match notice {
            Ok(Notice::Connected) => "connected".to_owned(),
            Ok(Notice::Item(item)) => format!("item {}", item.event.seq),
            Ok(Notice::Progress(item)) => {
                format!("progress {}", item.operation.progress.unwrap().done_bytes)
            }
            Ok(Notice::Reset { seq }) => format!("reset {seq}"),
            Err(error) => error.public,
        })
        .collect();
    let expected = [
        "connected",
        "item 5",
        "progress 3",
        "item 6",
        "connected",
        "reset 90",
        "the token is spent",
    ];
    assert_eq!(told, expected);
    let asked: Vec<_> = asked.lock().unwrap().iter().cloned().collect();
    let ids = asked.iter().map(|id| id.as_deref()).collect::<Vec<_>>();
    assert_eq!(ids, [Some("4"), Some("6"), Some("6"), Some("90")]);
}

#[tokio::test]
async fn refusals_keep_their_kind_their_words_and_their_fields() {
    let problem = r#"{"type":"about:blank","title":"not acceptable","status":422,
        "code":"invalid","detail":"name: too odd","errors":[{"field":"name","message":"too odd"}]}"#;
    let router = Router::new()
        .route(
            "/api/v1/me",
            get(async move || (StatusCode::UNPROCESSABLE_ENTITY, PROBLEM, problem)),
        )
        .route(
            "/api/v1/hosts",
            get(async || (StatusCode::BAD_GATEWAY, "<html>")),
        )
        .route("/api/v1/images", get(async || "<html>"));
    let client = serve(router).await;
    let error = client.me().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(error.public, "name: too odd");
    assert_eq!(error.fields.len(), 1);
    assert_eq!(
        client.hosts().await.unwrap_err().kind,
        ErrorKind::Unavailable
    );
    let error = client.images().await.unwrap_err();
    assert!(
        error
            .public
            .ends_with("the answer is not what was expected"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let client = Client::new("http://127.0.0.1:1".parse().unwrap(), None).unwrap();
    let error = client.me().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(
        error
            .public
            .starts_with("cannot reach http://127.0.0.1:1: "),
        "{error}"
    );
    assert!(error.public.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_token_away() {
    let router = Router::new().route(
        "/api/v1/me",
        get(async || (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")])),
    );
    let error = serve(router)
        .await
        .with_token("secret")
        .me()
        .await
        .unwrap_err();
    assert!(error.public.contains("302"), "{error}");
}

const TENANT: &str = r#"{"id":"tenant_00000000000000000000000000000001","name":"lab",
    "kind":"manual","created_at":"2026-11-22T18:00:00Z"}"#;

/// What a server does with one connection.
enum Turn {
    /// Hangs up before a word of the answer.
    Silence,
    /// Hangs up inside the answer.
    Half,
    Answer(&'static str, &'static str),
}

/// A server that takes one request per connection. Answers the requests it
/// got, head and body.
async fn scripted(turns: Vec<Turn>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        for turn in turns {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
            }
            log.lock()
                .unwrap()
                .push(String::from_utf8(request).unwrap());
            let answer = match turn {
                Turn::Silence => String::new(),
                Turn::Half => "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(),
                Turn::Answer(status, body) => format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
            };
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (Client::new(url.parse().unwrap(), None).unwrap(), seen)
}

fn is_whole(request: &[u8]) -> bool {
    let text = std::str::from_utf8(request).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = header(head, "content-length").map_or(0, |value| value.parse().unwrap());
    body.len() >= length
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let lines = request.lines().take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[tokio::test]
async fn a_change_is_sent_again_under_its_key_until_it_is_answered() {
    let turns = vec![
        Turn::Silence,
        Turn::Half,
        Turn::Answer("200 OK", TENANT),
        Turn::Answer("200 OK", TENANT),
    ];
    let (client, seen) = scripted(turns).await;
    let id = "tenant_00000000000000000000000000000001".parse().unwrap();
    let kind = TenantKind::Manual;
    for _ in 0..2 {
        let tenant = client.update_tenant(id, &UpdateTenant { kind }).await;
        assert_eq!(tenant.unwrap().kind, kind);
    }
    let seen = seen.lock().unwrap();
    let keys: Vec<&str> = seen
        .iter()
        .map(|request| header(request, "idempotency-key").unwrap())
        .collect();
    let [first, second, third, other] = keys.as_slice() else {
        panic!("{keys:?}")
    };
    assert_eq!((first, first), (second, third));
    assert_ne!(first, other);
    assert_eq!(seen.first(), seen.get(2));
}

#[tokio::test]
async fn a_refused_change_is_not_sent_again() {
    let turns = vec![
        Turn::Answer("503 Service Unavailable", ""),
        Turn::Answer("200 OK", TENANT),
    ];
    let (client, seen) = scripted(turns).await;
    let id = "tenant_00000000000000000000000000000001".parse().unwrap();
    let kind = TenantKind::Manual;
    let refused = client.update_tenant(id, &UpdateTenant { kind }).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_password_is_sent_once_and_without_a_key() {
    let (client, seen) = scripted(vec![Turn::Silence, Turn::Silence]).await;
    let form = SignIn {
        user_name: "ann".to_owned(),
        password: "secret".to_owned(),
    };
    let error = client.sign_in(&form).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(header(seen.first().unwrap(), "idempotency-key"), None);
}
