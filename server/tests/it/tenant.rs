use serde_json::{Value, json};

use crate::world::{World, problem};

#[tokio::test]
async fn a_tenants_life_cycle_can_be_changed() {
    let world = World::new().await;
    let token = world.token().await;
    let lab = world.tenant("lab", "automatic").await;
    let path = format!("/api/v1/tenants/{}", lab["id"].as_str().unwrap());
    let change = world.http.patch(world.url(&path)).bearer_auth(&token);
    let changed = change.json(&json!({ "kind": "manual" })).send().await;
    let changed: Value = changed.unwrap().json().await.unwrap();
    assert_eq!(changed["kind"], "manual");
    let tenants = world.ask(&token, "/api/v1/tenants").await;
    assert!(tenants["items"].as_array().unwrap().contains(&changed));
    let ann = world.member("ann", "lab", "viewer").await;
    let me = world.ask(&ann, "/api/v1/me").await;
    assert_eq!(
        (&me["tenant"], &me["tenant_kind"], &me["role"]),
        (&json!("lab"), &json!("manual"), &json!("viewer"))
    );
    let users = world.ask(&token, "/api/v1/users").await;
    let names: Vec<&Value> = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["name"])
        .collect();
    assert_eq!(names, ["admin", "ann"]);
    assert!(!users.to_string().contains("password"));
}

#[tokio::test]
async fn tenants_and_users_are_the_administrators() {
    let world = World::new().await;
    world.tenant("lab", "automatic").await;
    let manager = world.member("mia", "lab", "manager").await;
    for path in ["/api/v1/tenants", "/api/v1/users", "/api/v1/hosts"] {
        let answer = world.get(path).bearer_auth(&manager).send().await;
        problem(answer.unwrap(), 403).await;
    }
    let form = json!({ "name": "x", "kind": "manual" });
    let request = world.post("/api/v1/tenants").bearer_auth(&manager);
    problem(request.json(&form).send().await.unwrap(), 403).await;
}

#[tokio::test]
async fn what_makes_no_tenant_or_user_is_refused() {
    let world = World::new().await;
    let token = world.token().await;
    world.tenant("lab", "automatic").await;
    let cases = [
        ("tenants", json!({ "name": "a b" }), 422),
        ("tenants", json!({ "name": "lab" }), 409),
        ("tenants", json!({ "name": "x", "kind": "odd" }), 400),
        (
            "users",
            json!({ "name": "a b", "password": "x", "tenant": "lab", "role": "viewer" }),
            422,
        ),
        (
            "users",
            json!({ "name": "a", "password": "long enough", "tenant": "no", "role": "viewer" }),
            422,
        ),
        (
            "users",
            json!({ "name": "admin", "password": "long enough", "tenant": "lab", "role": "viewer" }),
            409,
        ),
        (
            "users",
            json!({ "name": "a", "password": "long enough", "tenant": "lab", "role": "admin" }),
            400,
        ),
    ];
    for (what, form, status) in cases {
        let request = world.post(&format!("/api/v1/{what}")).bearer_auth(&token);
        problem(request.json(&form).send().await.unwrap(), status).await;
    }
}
