use serde_json::{Value, json};

use crate::world::{PASSWORD, World, problem};

fn cookie_of(answer: &reqwest::Response) -> String {
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn wrong_password_and_unknown_user_are_refused_alike() {
    let world = World::new().await;
    let mut told = Vec::new();
    for (user, password) in [("admin", "wrong"), ("nobody", PASSWORD), ("a b", "")] {
        let form = json!({ "user_name": user, "password": password });
        let answer = world
            .post("/api/v1/tokens")
            .json(&form)
            .send()
            .await
            .unwrap();
        told.push(problem(answer, 401).await);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

#[tokio::test]
async fn a_token_works_until_it_is_signed_out() {
    let world = World::new().await;
    let token = world.token().await;
    let me = || world.get("/api/v1/me").bearer_auth(&token).send();
    let view: Value = me().await.unwrap().json().await.unwrap();
    assert_eq!(view["user_name"], "admin");
    let signed_out = world.http.delete(world.url("/api/v1/tokens/current"));
    let signed_out = signed_out.bearer_auth(&token).send().await.unwrap();
    assert_eq!(signed_out.status(), 204);
    problem(me().await.unwrap(), 401).await;
}

#[tokio::test]
async fn what_is_no_bearer_token_is_refused_even_with_a_session() {
    let world = World::new().await;
    let cookie = cookie_of(&world.sign_in(None).await);
    for authorization in ["Basic YWRtaW46eA==", "Bearer", "Bearer x"] {
        let request = world
            .get("/api/v1/me")
            .header("authorization", authorization);
        let answer = request.header("cookie", &cookie).send().await.unwrap();
        problem(answer, 401).await;
    }
}

#[tokio::test]
async fn the_portals_session_reads_the_interface() {
    let world = World::new().await;
    let answer = world.sign_in(None).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.starts_with("vimana_session="), "{set}");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(attribute), "{attribute} in {set}");
    }
    let me = world.get("/api/v1/me").header("cookie", cookie_of(&answer));
    assert_eq!(me.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn nobody_gets_a_session_before_signing_in() {
    let world = World::new().await;
    for path in ["/sign-in", "/healthz", "/api/v1/me"] {
        let answer = world.get(path).send().await.unwrap();
        assert!(!answer.headers().contains_key("set-cookie"), "{path}");
    }
}

#[tokio::test]
async fn a_preset_cookie_is_not_adopted() {
    let world = World::new().await;
    let preset = "vimana_session=AAAAAAAAAAAAAAAAAAAAAA";
    let first = cookie_of(&world.sign_in(Some(preset)).await);
    assert_ne!(first, preset);
    let second = cookie_of(&world.sign_in(Some(&first)).await);
    assert_ne!(second, first);
    for (cookie, status) in [(preset, 401), (first.as_str(), 401), (second.as_str(), 200)] {
        let me = world.get("/api/v1/me").header("cookie", cookie);
        assert_eq!(
            me.send().await.unwrap().status().as_u16(),
            status,
            "{cookie}"
        );
    }
}

#[tokio::test]
async fn the_database_holds_no_usable_session_id() {
    let world = World::new().await;
    let cookie = cookie_of(&world.sign_in(None).await);
    let id = cookie.strip_prefix("vimana_session=").unwrap();
    for name in ["vimana.db", "vimana.db-wal"] {
        let bytes = std::fs::read(world.dir.path().join("data").join(name)).unwrap_or_default();
        let found = bytes
            .windows(id.len())
            .any(|window| window == id.as_bytes());
        assert!(!found, "{name}");
    }
}
