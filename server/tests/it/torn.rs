//! Callers that hang up at any moment.

use std::collections::BTreeSet;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::World;

const CALLS: usize = 500;
const AT_ONCE: usize = 16;

struct Call {
    key: String,
    body: String,
}

impl Call {
    fn new(number: usize) -> Self {
        let form = json!({
            "name": format!("torn-{number}"), "image": "demo", "flavor": "tiny", "hold": true,
        });
        Self {
            key: format!("key-{number}"),
            body: form.to_string(),
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        format!(
            "POST /api/v1/vms HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{}",
            self.key,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

/// How a caller leaves.
struct Leaving {
    /// After so many bytes of the request …
    sent: usize,
    /// … and so many of the answer.
    read: usize,
    /// By a reset, not by a farewell.
    abrupt: bool,
}

impl Leaving {
    fn any(random: &mut StdRng, length: usize) -> Self {
        let whole = random.random_bool(0.7);
        Self {
            sent: if whole {
                length
            } else {
                random.random_range(0..length)
            },
            read: if random.random_bool(0.5) {
                0
            } else {
                random.random_range(1..200)
            },
            abrupt: random.random_bool(0.5),
        }
    }
}

async fn tear(world: &World, bytes: &[u8], leaving: Leaving) {
    let mut socket = TcpStream::connect(world.running.address()).await.unwrap();
    if leaving.abrupt {
        socket.set_zero_linger().unwrap();
    }
    socket.write_all(&bytes[..leaving.sent]).await.unwrap();
    // A request that was cut short gets no answer to read from.
    if leaving.sent == bytes.len() && leaving.read > 0 {
        let mut answer = vec![0; leaving.read];
        socket.read_exact(&mut answer).await.unwrap();
    }
}

/// Every VM there is, each with all that belongs to it.
async fn complete_vms(world: &World, token: &str) -> BTreeSet<String> {
    let list = world.ask(token, "/api/v1/vms?limit=1000").await;
    let items = list["items"].as_array().unwrap().clone();
    let names = futures::stream::iter(items).map(|vm| async move {
        let path = format!("/api/v1/vms/{}", vm["id"].as_str().unwrap());
        let operations = world.ask(token, &format!("{path}/operations")).await;
        let operations = operations["items"].as_array().unwrap().clone();
        let kinds: Vec<&Value> = operations.iter().map(|it| &it["kind"]).collect();
        assert_eq!(kinds, ["create"], "{vm}");
        assert_eq!(vm["operation"]["id"], operations[0]["id"]);
        let timeline = world.ask(token, &format!("{path}/timeline")).await;
        let asked = timeline["items"].as_array().unwrap().iter();
        let asked = asked.filter(|it| it["event"]["kind"] == "requested");
        assert_eq!(asked.count(), 1, "{timeline}");
        vm["name"].as_str().unwrap().to_owned()
    });
    let names: Vec<String> = names.buffer_unordered(AT_ONCE).collect().await;
    let count = names.len();
    let names = BTreeSet::from_iter(names);
    assert_eq!(names.len(), count);
    names
}

#[tokio::test]
async fn what_is_asked_by_a_caller_who_hangs_up_happens_whole_or_not_at_all() {
    let world = World::new().await;
    let token = world.token().await;
    let mut random = StdRng::seed_from_u64(7);
    let calls: Vec<(Call, Leaving)> = (0..CALLS)
        .map(|number| {
            let call = Call::new(number);
            let leaving = Leaving::any(&mut random, call.bytes(&token).len());
            (call, leaving)
        })
        .collect();
    let (calls, leavings): (Vec<Call>, Vec<Leaving>) = calls.into_iter().unzip();
    let torn = futures::stream::iter(calls.iter().zip(leavings));
    let (world_ref, token_ref) = (&world, token.as_str());
    torn.for_each_concurrent(AT_ONCE, |(call, leaving)| async move {
        tear(world_ref, &call.bytes(token_ref), leaving).await;
    })
    .await;
    let some = complete_vms(&world, &token).await;
    assert!(!some.is_empty() && some.len() < CALLS, "{}", some.len());

    // Asked again under the same keys, everything is there, and nothing twice.
    let again = futures::stream::iter(&calls).map(|call| {
        let request = world.post("/api/v1/vms").bearer_auth(&token);
        let request = request.header("idempotency-key", &call.key);
        let request = request.header("content-type", "application/json");
        request.body(call.body.clone()).send()
    });
    let answers: Vec<_> = again.buffer_unordered(AT_ONCE).collect().await;
    for answer in answers {
        assert_eq!(answer.unwrap().status(), 202);
    }
    let all = complete_vms(&world, &token).await;
    assert_eq!(all.len(), CALLS);
    assert!(all.is_superset(&some));
}
