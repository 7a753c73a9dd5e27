use crate::world::World;

#[tokio::test]
async fn a_page_runs_its_own_scripts_alone() {
    let world = World::new().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let request = world.get("/sign-in").header("accept", "text/html");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        let html = answer.text().await.unwrap();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            !policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(policy.contains("base-uri 'none'"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        assert!(nonce.len() >= 22);
        for script in html.split("<script").skip(1) {
            let tag = script.split('>').next().unwrap();
            assert!(tag.contains(&format!("nonce=\"{nonce}\"")), "<script{tag}>");
        }
        assert!(!html.contains(" style=\"") && !html.contains(" onclick="));
        seen.push(nonce.to_owned());
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn an_unknown_page_is_not_found() {
    let world = World::new().await;
    let request = world.get("/no-such-page").header("accept", "text/html");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn assets_are_compressed_and_kept_for_ever() {
    let world = World::new().await;
    for (accepted, body) in [
        ("br, gzip", "brotli"),
        ("gzip", "gzip"),
        ("identity", "plain"),
    ] {
        let request = world
            .get("/assets/app.0.wasm")
            .header("accept-encoding", accepted);
        let answer = request.send().await.unwrap();
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "application/wasm");
        assert_eq!(
            headers["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert_eq!(answer.text().await.unwrap(), body, "{accepted}");
    }
}
