use serde_json::{Value, json};

use crate::world::{World, problem};

#[tokio::test]
async fn what_cannot_be_read_is_told_with_its_place() {
    let world = World::new().await;
    let token = world.token().await;
    let deep = format!("{{\"name\":{}", "[".repeat(100_000));
    let cases = [
        ("{\n\"name\": }", "line 2"),
        (
            r#"{"name":"a","image":"demo","flavor":"tiny","host_id":"x"}"#,
            "unknown field `host_id`",
        ),
        (
            r#"{"name":"a","name":"b","image":"demo","flavor":"tiny"}"#,
            "duplicate field `name`",
        ),
        (
            r#"{"name":7,"image":"demo","flavor":"tiny"}"#,
            "name: invalid type",
        ),
        (
            r#"{"name":"a","image":"demo","flavor":"tiny","hold":NaN}"#,
            "line 1",
        ),
        (
            r#"{"name":"\ud800","image":"demo","flavor":"tiny"}"#,
            "line 1",
        ),
        (deep.as_str(), "line 1"),
        ("", "EOF"),
    ];
    for (body, expected) in cases {
        let request = world.post("/api/v1/vms").bearer_auth(&token);
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let problem = problem(answer, 400).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{detail}");
        assert!(detail.len() < 1000);
    }
}

#[tokio::test]
async fn wrong_values_are_all_told_at_once() {
    let world = World::new().await;
    let token = world.token().await;
    let form = json!({
        "name": "\"><svg onload=alert(1)>", "image": ",file=/etc/passwd", "flavor": "tiny",
        "ssh_key": "nonsense", "user_data": "hello",
    });
    let answer = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    let problem = problem(answer.send().await.unwrap(), 422).await;
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["field"])
        .collect();
    assert_eq!(fields, ["name", "image", "ssh_key", "user_data"]);
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    let world = World::new().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let request = world.post("/api/v1/tokens").header("content-type", kind);
        let answer = request.body("{}").send().await.unwrap();
        problem(answer, 415).await;
    }
}

#[tokio::test]
async fn fifty_megabytes_are_refused_in_words_announced_or_not() {
    let world = World::new().await;
    for announced in [true, false] {
        let chunks = (0..50).map(|_| Ok::<_, std::io::Error>(vec![b'['; 1 << 20]));
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let mut request = world.post("/api/v1/tokens").body(body);
        request = request.header("content-type", "application/json");
        if announced {
            request = request.header("content-length", 50 << 20);
        }
        let problem = problem(request.send().await.unwrap(), 413).await;
        assert_eq!(problem["detail"], "the body is larger than 256 KiB");
    }
}
