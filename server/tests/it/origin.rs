use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::world::{PASSWORD, World, problem};

#[tokio::test]
async fn changes_made_by_pages_of_others_are_refused() {
    let world = World::new().await;
    let form = json!({ "user_name": "admin", "password": PASSWORD });
    for path in ["/portal/api/sign-in", "/api/v1/tokens"] {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("cookie", "vimana_session=x"),
        ] {
            let answer = world.post(path).header(name, value).json(&form);
            let answer = answer.send().await.unwrap();
            assert!(!answer.headers().contains_key("set-cookie"));
            problem(answer, 403).await;
        }
    }
}

#[tokio::test]
async fn no_answer_opens_itself_to_other_sites() {
    let world = World::new().await;
    let request = world
        .http
        .request(reqwest::Method::OPTIONS, world.url("/api/v1/vms"));
    let request = request.header("origin", "https://evil.example");
    let answer = request
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn websockets_of_other_sites_are_refused_before_the_upgrade() {
    let world = World::new().await;
    let own = world.running.url();
    let cookie = Some("vimana_session=x");
    for (origin, cookie, accepted) in [
        (Some("https://evil.example"), cookie, false),
        (Some("https://evil.example"), None, false),
        (None, cookie, false),
        (Some(own.as_str()), cookie, true),
        (None, None, true),
    ] {
        let url = world.websocket_url("/api/v1/console");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in [("origin", origin), ("cookie", cookie)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        match connect_async(request).await {
            Ok(_) => assert!(accepted, "{origin:?} {cookie:?}"),
            Err(Error::Http(answer)) => {
                assert_eq!(answer.status(), 403);
                assert!(!accepted, "{origin:?} {cookie:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
