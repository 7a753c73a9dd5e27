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
use vimana_client::{Client, Notice};
use vimana_model::ErrorKind;

const PROBLEM: [(&str, &str); 1] = [("content-type", "application/problem+json")];
const SPENT: &str = r#"{"type":"about:blank","title":"sign in first","status":401,
    "code":"unauthenticated","detail":"the token is spent"}"#;

async fn serve(router: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
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
                ": connected\n\n{}{}event: item\ndata: cut",
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
            Ok(Notice::Reset { seq }) => format!("reset {seq}"),
            Err(error) => error.public,
        })
        .collect();
    let expected = [
        "connected",
        "item 5",
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
