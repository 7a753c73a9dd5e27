//! Templates and flavors over the interface.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use vimana_store::{Store, vm};

use crate::world::{World, problem};

const USER_DATA: &str = "#cloud-config
users:
  - default
  - name: {input: user}
    lock_passwd: false
    plain_text_passwd: {input: password}
write_files:
  - path: /etc/motd
    content: {input: motd}
ssh_pwauth: {input: login}
";

fn form() -> Value {
    json!({
        "name": "web", "description": "a web server", "image": "demo", "flavor": "tiny",
        "user_data": USER_DATA,
        "inputs": [
            { "name": "user", "label": "User", "kind": "text", "required": true,
              "max_length": 8, "characters": "a-z" },
            { "name": "password", "label": "Password", "kind": "password", "required": true },
            { "name": "motd", "label": "Greeting", "kind": "text", "default": "welcome" },
            { "name": "login", "label": "Login", "kind": "switch", "default": false },
        ],
    })
}

impl World {
    async fn send(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: impl Into<Value>,
    ) -> Response {
        let request = self.http.request(method, self.url(path)).bearer_auth(token);
        let body = body.into();
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        request.send().await.unwrap()
    }

    async fn template(&self, token: &str, form: Value) -> Value {
        let path = "/api/v1/templates";
        let answer = self.send(token, Method::POST, path, form.clone()).await;
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    async fn vm_of_template(&self, token: &str, name: &str, more: Value) -> Response {
        let mut form = json!({ "name": name, "template": "web", "hold": true });
        let more = more.as_object().unwrap().clone();
        form.as_object_mut().unwrap().extend(more);
        self.send(token, Method::POST, "/api/v1/vms", form).await
    }

    /// What the guest is given.
    async fn user_data_of(&self, vm: &Value) -> Vec<Value> {
        let id = vm["id"].as_str().unwrap().parse().unwrap();
        let path = self.dir.path().join("data/vimana.db");
        let store = Store::open_beside(&format!("sqlite://{}", path.display())).await;
        let found = vm::find(&store.unwrap().read(), id).await.unwrap().unwrap();
        let data = found.user_data.unwrap();
        let mut lines = data.as_str().lines();
        assert_eq!(lines.next(), Some("#cloud-config"));
        let setting = |line: &str| {
            let (key, value) = line.split_once(": ").unwrap();
            let key: String = serde_json::from_str(key).unwrap();
            json!({ key: serde_json::from_str::<Value>(value).unwrap() })
        };
        lines.map(setting).collect()
    }
}

fn fields(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap().iter();
    errors
        .map(|error| error["field"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_vm_is_made_of_a_template_and_what_is_filled_in() {
    let world = World::new().await;
    let token = world.token().await;
    world.template(&token, form()).await;
    let inputs = json!({ "user": "ada", "password": "hunter2 hunter2", "login": "true" });
    let answer = world.vm_of_template(&token, "web-1", json!({ "inputs": inputs }));
    let answer = answer.await;
    assert_eq!(answer.status(), 202);
    let accepted: Value = answer.json().await.unwrap();
    let vm = &accepted["vm"];
    assert_eq!(
        (&vm["image"], &vm["flavor"]),
        (&json!("demo"), &json!("tiny"))
    );
    assert_eq!(vm["has_user_data"], true);
    assert_eq!(
        world.user_data_of(vm).await,
        [
            json!({ "ssh_pwauth": true }),
            json!({ "users": ["default", {
                "name": "ada", "lock_passwd": false, "plain_text_passwd": "hunter2 hunter2",
            }] }),
            json!({ "write_files": [{ "path": "/etc/motd", "content": "welcome" }] }),
        ]
    );
    // What the form says goes before what the template says.
    let inputs = json!({ "user": "ada", "password": "x" });
    let other = json!({ "flavor": "small", "inputs": inputs });
    let answer = world.vm_of_template(&token, "web-2", other).await;
    let accepted: Value = answer.json().await.unwrap();
    assert_eq!(accepted["vm"]["flavor"], "small");
    // A password is told to nobody.
    let id = vm["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/vms/{id}"),
        format!("/api/v1/vms/{id}/timeline"),
        format!("/api/v1/vms/{id}/operations"),
        "/api/v1/templates".to_owned(),
    ] {
        let told = world.ask(&token, &path).await.to_string();
        assert!(!told.contains("hunter2"), "{path}");
    }
}

/// Each of them would say something else if it were pasted.
#[tokio::test]
async fn nothing_that_is_filled_in_leaves_its_place() {
    let world = World::new().await;
    let token = world.token().await;
    world.template(&token, form()).await;
    let long = "x: \"'\n".repeat(1_700);
    let values = [
        "a\nruncmd:\n  - reboot",
        "\"\nruncmd: [reboot]\n\"",
        "#cloud-config",
        "a: b",
        "'\\\"",
        "&a [*a]",
        "{input: password}",
        "\u{2028}runcmd: [reboot]",
        &long,
    ];
    for (index, value) in values.into_iter().enumerate() {
        let inputs = json!({ "user": "ada", "password": value, "motd": value });
        let name = format!("web-{index}");
        let answer = world.vm_of_template(&token, &name, json!({ "inputs": inputs }));
        let accepted: Value = answer.await.json().await.unwrap();
        assert_eq!(
            world.user_data_of(&accepted["vm"]).await,
            [
                json!({ "ssh_pwauth": false }),
                json!({ "users": ["default", {
                    "name": "ada", "lock_passwd": false, "plain_text_passwd": value,
                }] }),
                json!({ "write_files": [{ "path": "/etc/motd", "content": value }] }),
            ],
            "{value:?}"
        );
    }
}

#[tokio::test]
async fn bad_inputs_are_refused_at_their_field_and_nothing_is_made() {
    let world = World::new().await;
    let token = world.token().await;
    world.template(&token, form()).await;
    let cases = [
        (json!({}), vec!["inputs.user", "inputs.password"]),
        (
            json!({ "user": "Ada", "password": "", "login": 7, "odd": "x" }),
            vec![
                "inputs.user",
                "inputs.password",
                "inputs.login",
                "inputs.odd",
            ],
        ),
        (
            json!({ "user": "abcdefghi", "password": "a\u{0}b" }),
            vec!["inputs.user", "inputs.password"],
        ),
        (
            json!({ "user": "ada", "password": { "kept": null } }),
            vec!["inputs.password"],
        ),
        (
            json!({ "user": "ada", "password": "x", "motd": "x".repeat(16_385) }),
            vec!["inputs.motd"],
        ),
    ];
    for (inputs, wrong) in cases {
        let answer = world.vm_of_template(&token, "web-1", json!({ "inputs": inputs }));
        let refused = problem(answer.await, 422).await;
        assert_eq!(fields(&refused), wrong, "{refused}");
    }
    let inputs = json!({ "user": "ada", "password": "hunter2" });
    for (more, wrong) in [
        (json!({ "template": "none" }), "template"),
        (json!({ "template": null }), "image"),
        (json!({ "flavor": "none" }), "flavor"),
        (json!({ "user_data": "#!/bin/sh\n" }), "user_data"),
    ] {
        let mut form = json!({ "inputs": inputs });
        form.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = world.vm_of_template(&token, "web-1", form).await;
        let refused = problem(answer, 422).await;
        assert!(fields(&refused).contains(&wrong), "{refused}");
        assert!(!refused.to_string().contains("hunter2"));
    }
    let listed = world.ask(&token, "/api/v1/vms").await;
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn what_makes_no_template_is_refused_at_its_field() {
    let world = World::new().await;
    let token = world.token().await;
    let with = |more: Value| {
        let mut form = form();
        form.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        form
    };
    let input = json!({ "name": "x", "label": "X", "kind": "text" });
    for (more, wrong) in [
        (json!({ "name": "a b" }), vec!["name"]),
        (
            json!({ "image": "none", "flavor": "none" }),
            vec!["image", "flavor"],
        ),
        (json!({ "user_data": "#!/bin/sh\n" }), vec!["user_data"]),
        (
            json!({ "user_data": "#cloud-config\na: [\n" }),
            vec!["user_data"],
        ),
        (json!({ "inputs": [] }), vec!["user_data"]),
        // Nobody would see that it goes nowhere.
        (
            json!({ "user_data": "#cloud-config\n", "inputs": [input] }),
            vec!["inputs.0.name"],
        ),
    ] {
        let answer = world.send(&token, Method::POST, "/api/v1/templates", with(more));
        let refused = problem(answer.await, 422).await;
        assert_eq!(fields(&refused), wrong, "{refused}");
    }
    world.template(&token, form()).await;
    let twin = world.send(&token, Method::POST, "/api/v1/templates", form());
    problem(twin.await, 409).await;
}

#[tokio::test]
async fn a_template_is_a_managers_and_another_tenants_is_not_there() {
    let world = World::new().await;
    let admin = world.token().await;
    world.tenant("lab", "automatic").await;
    world.tenant("shop", "automatic").await;
    let mia = world.member("mia", "lab", "manager").await;
    let otto = world.member("otto", "lab", "operator").await;
    let bob = world.member("bob", "shop", "manager").await;
    let path = "/api/v1/templates";
    problem(world.send(&otto, Method::POST, path, form()).await, 403).await;
    let mut public = form();
    public["public"] = json!(true);
    problem(
        world.send(&mia, Method::POST, path, public.clone()).await,
        403,
    )
    .await;

    let made = world.template(&mia, form()).await;
    let own = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(world.ask(&otto, &own).await, made);
    let change = json!({ "description": "another" });
    problem(
        world.send(&otto, Method::PATCH, &own, change.clone()).await,
        403,
    )
    .await;
    problem(
        world.send(&otto, Method::DELETE, &own, json!(null)).await,
        403,
    )
    .await;

    let nothing = format!("{path}/template_{}", "0".repeat(32));
    for (method, body) in [
        (Method::GET, json!(null)),
        (Method::PATCH, change.clone()),
        (Method::DELETE, json!(null)),
    ] {
        let mut told = Vec::new();
        for path in [&own, &nothing] {
            let answer = world.send(&bob, method.clone(), path, body.clone()).await;
            let id = path.rsplit('/').next().unwrap();
            told.push(problem(answer, 404).await.to_string().replace(id, "it"));
        }
        assert_eq!(told[0], told[1], "{method}");
    }
    assert_eq!(world.ask(&bob, path).await["items"], json!([]));
    let inputs = json!({ "inputs": { "user": "bob", "password": "x" } });
    let answer = world.vm_of_template(&bob, "web-1", inputs.clone()).await;
    assert_eq!(fields(&problem(answer, 422).await), ["template"]);

    // One for all is seen by all, changed by an administrator, and gives way to
    // one's own.
    public["inputs"][2]["default"] = json!("for all");
    let for_all = world.template(&admin, public).await;
    let of_all = format!("{path}/{}", for_all["id"].as_str().unwrap());
    problem(
        world
            .send(&mia, Method::PATCH, &of_all, change.clone())
            .await,
        403,
    )
    .await;
    for (token, greeting) in [(&bob, "for all"), (&otto, "welcome")] {
        let answer = world.vm_of_template(token, "web-1", inputs.clone()).await;
        let accepted: Value = answer.json().await.unwrap();
        let data = world.user_data_of(&accepted["vm"]).await;
        assert_eq!(data[2]["write_files"][0]["content"], greeting);
    }
}

#[tokio::test]
async fn a_template_changes_once_and_goes_and_its_vms_stay() {
    let world = World::new().await;
    let token = world.token().await;
    let made = world.template(&token, form()).await;
    let path = format!("/api/v1/templates/{}", made["id"].as_str().unwrap());
    let inputs = json!({ "inputs": { "user": "ada", "password": "x" } });
    let answer = world.vm_of_template(&token, "web-1", inputs.clone()).await;
    let accepted: Value = answer.json().await.unwrap();

    let change = json!({ "description": "better", "flavor": "", "generation": 1 });
    let send = || {
        let request = world.http.patch(world.url(&path)).bearer_auth(&token);
        request.header("idempotency-key", "k").json(&change).send()
    };
    let mut told = Vec::new();
    for _ in 0..2 {
        let changed: Value = send().await.unwrap().json().await.unwrap();
        told.push(changed);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(
        (
            &told[0]["generation"],
            &told[0]["flavor"],
            &told[0]["image"]
        ),
        (&json!(2), &json!(null), &json!("demo"))
    );
    let stale = world
        .send(&token, Method::PATCH, &path, change.clone())
        .await;
    problem(stale, 412).await;
    let answer = world.vm_of_template(&token, "web-2", inputs.clone()).await;
    assert_eq!(fields(&problem(answer, 422).await), ["flavor"]);

    let gone = world.send(&token, Method::DELETE, &path, json!(null)).await;
    assert_eq!(gone.status(), 200);
    problem(
        world.get(&path).bearer_auth(&token).send().await.unwrap(),
        404,
    )
    .await;
    assert_eq!(world.user_data_of(&accepted["vm"]).await.len(), 3);
}

#[tokio::test]
async fn one_key_makes_one_vm_and_its_record_helps_nobody_guess() {
    let world = World::new().await;
    let token = world.token().await;
    world.template(&token, form()).await;
    let send = |name: &str, password: &str| {
        let inputs = json!({ "user": "ada", "password": password });
        let form = json!({ "name": name, "template": "web", "inputs": inputs, "hold": true });
        let request = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
        request.header("idempotency-key", "k").send()
    };
    let first: Value = send("web-1", "one").await.unwrap().json().await.unwrap();
    // Which password it was cannot be tried out with the key.
    let again: Value = send("web-1", "two").await.unwrap().json().await.unwrap();
    assert_eq!(first["vm"]["id"], again["vm"]["id"]);
    problem(send("web-2", "one").await.unwrap(), 422).await;
    let listed = world.ask(&token, "/api/v1/vms").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_carries_its_inputs_and_hides_the_password() {
    let world = World::new().await;
    world.tenant("lab", "manual").await;
    let ann = world.member("ann", "lab", "operator").await;
    let mia = world.member("mia", "lab", "manager").await;
    world.template(&mia, form()).await;
    let path = "/api/v1/requests";
    let file = |inputs: Value| {
        let terms = json!({ "name": "web-1", "template": "web", "inputs": inputs, "hold": true });
        json!({ "terms": terms, "purpose": "the shop" })
    };
    let bad = world.send(&ann, Method::POST, path, file(json!({ "user": "ann" })));
    assert_eq!(fields(&problem(bad.await, 422).await), ["inputs.password"]);
    let good = file(json!({ "user": "ann", "password": "hunter2" }));
    let filed = world.send(&ann, Method::POST, path, good).await;
    assert_eq!(filed.status(), 201);
    let filed: Value = filed.json().await.unwrap();
    let terms = &filed["terms"];
    assert_eq!(
        terms["inputs"],
        json!({ "user": "ann", "password": { "kept": null } })
    );
    // Who decides sees what the template says.
    assert_eq!(
        (&terms["image"], &terms["flavor"]),
        (&json!("demo"), &json!("tiny"))
    );

    let own = format!("{path}/{}", filed["id"].as_str().unwrap());
    let mut changed = terms.clone();
    changed["flavor"] = json!("small");
    changed["inputs"]["user"] = json!("anna");
    let approve = format!("{own}/approve");
    let decision = json!({ "terms": changed });
    let approved = world.send(&mia, Method::POST, &approve, decision).await;
    assert_eq!(approved.status(), 200);
    let approved: Value = approved.json().await.unwrap();
    assert_eq!(
        approved["remarks"][1]["changes"],
        json!(["flavor small instead of tiny", "another input user"])
    );
    let data = world.user_data_of(&approved["vm"]).await;
    let user = &data[1]["users"][1];
    assert_eq!(
        (&user["name"], &user["plain_text_passwd"]),
        (&json!("anna"), &json!("hunter2"))
    );
    for path in [own.clone(), format!("{own}/events")] {
        let told = world.ask(&ann, &path).await.to_string();
        assert!(!told.contains("hunter2"), "{path}");
    }
}

#[tokio::test]
async fn flavors_are_the_administrators_and_vms_keep_their_size() {
    let world = World::new().await;
    let admin = world.token().await;
    world.tenant("lab", "automatic").await;
    let mia = world.member("mia", "lab", "manager").await;
    let path = "/api/v1/flavors";
    let form = json!({ "name": "odd", "vcpus": 3, "memory_mib": 300, "disk_mib": 2000 });
    problem(
        world.send(&mia, Method::POST, path, form.clone()).await,
        403,
    )
    .await;
    let made = world.send(&admin, Method::POST, path, form.clone()).await;
    assert_eq!(made.status(), 201);
    problem(
        world.send(&admin, Method::POST, path, form.clone()).await,
        409,
    )
    .await;
    let bad = json!({ "name": "x", "vcpus": 0, "memory_mib": 1, "disk_mib": 0 });
    let refused = problem(world.send(&admin, Method::POST, path, bad).await, 422).await;
    assert_eq!(fields(&refused), ["vcpus", "memory_mib", "disk_mib"]);

    let vm = json!({ "name": "web-1", "image": "demo", "flavor": "odd", "hold": true });
    let accepted = world.send(&mia, Method::POST, "/api/v1/vms", vm).await;
    let accepted: Value = accepted.json().await.unwrap();
    let own = format!("{path}/odd");
    let change = json!({ "vcpus": 4 });
    problem(
        world.send(&mia, Method::PATCH, &own, change.clone()).await,
        403,
    )
    .await;
    let changed = world
        .send(&admin, Method::PATCH, &own, change.clone())
        .await;
    let changed: Value = changed.json().await.unwrap();
    let size = json!({ "vcpus": 4, "memory_mib": 300, "disk_mib": 2000 });
    assert_eq!(changed["resources"], size);

    problem(
        world.send(&mia, Method::DELETE, &own, json!(null)).await,
        403,
    )
    .await;
    let retired = world.send(&admin, Method::DELETE, &own, json!(null)).await;
    assert_eq!(retired.status(), 200);
    for method in [Method::PATCH, Method::DELETE] {
        let answer = world.send(&admin, method, &own, change.clone()).await;
        problem(answer, 404).await;
    }
    let id = accepted["vm"]["id"].as_str().unwrap();
    let seen = world.ask(&mia, &format!("/api/v1/vms/{id}")).await;
    assert_eq!(
        (&seen["flavor"], &seen["resources"]["vcpus"]),
        (&json!("odd"), &json!(3))
    );
    let other = json!({ "name": "web-2", "image": "demo", "flavor": "odd" });
    let refused = world.send(&mia, Method::POST, "/api/v1/vms", other).await;
    assert_eq!(fields(&problem(refused, 422).await), ["flavor"]);
}
