//! The server's sweep while somebody sets its clock: nothing that still lives
//! is swept away, and nothing stays for good.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::time::Duration;

use vimana_engine::{Engine, SESSION_LIFE};
use vimana_model::{Timestamp, TokenId};
use vimana_store::idempotency::IdempotencyRecord;
use vimana_store::session::SessionRecord;
use vimana_store::token::TokenRecord;
use vimana_store::{idempotency, session, token, write_tx};
use vimana_testkit::sim::{ADMIN, World, in_time};

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: i64 = 3600 * 1000;
const MONTH_MS: i64 = 30 * 24 * HOUR_MS;
/// The sweep has been there meanwhile.
const SWEPT: Duration = Duration::from_secs(1300);

/// A session, an API token and an answered key, made now under this name.
async fn make(engine: &Engine, n: u8) {
    let now = engine.world().now();
    let life = i64::try_from(SESSION_LIFE.as_millis()).unwrap();
    let signed_in = SessionRecord {
        id_hash: n.to_string(),
        data: "{}".to_owned(),
        expires_at: now.plus_ms(life),
    };
    let user_id = ADMIN.subject().user_id;
    let issued = TokenRecord {
        id: TokenId::from_parts(u64::from(n), [n; 10]),
        user_id,
        hash: n.to_string(),
        expires_at: now.plus_ms(MONTH_MS),
        created_at: now,
    };
    let answered = IdempotencyRecord {
        user_id,
        key: n.to_string(),
        fingerprint: String::new(),
        answer: "{}".to_owned(),
        created_at: now,
    };
    let made: vimana_model::Result<()> = write_tx!(engine.store(), |tx| {
        session::insert(tx, &signed_in).await?;
        token::insert(tx, &issued).await?;
        idempotency::insert(tx, &answered).await?;
        Ok(())
    });
    made.unwrap();
}

/// Which of the three are still recorded.
async fn kept(engine: &Engine, n: u8) -> [bool; 3] {
    let (read, name) = (engine.store().read(), n.to_string());
    let ever = Timestamp::from_ms(0);
    let user_id = ADMIN.subject().user_id;
    let session = session::find(&read, &name, ever).await.unwrap();
    let token = token::find_by_hash(&read, &name).await.unwrap();
    let answer = idempotency::find(&read, user_id, &name).await.unwrap();
    [session.is_some(), token.is_some(), answer.is_some()]
}

async fn engine() -> (World, Engine) {
    let world = World::new(1).await;
    world.server.start();
    let engine = world.server.until_serving().await;
    (world, engine)
}

#[test]
fn a_clock_that_is_set_and_set_right_again_sweeps_nothing_away() {
    in_time(async {
        let (world, engine) = engine().await;
        make(&engine, 0).await;
        for (n, step) in (1..).zip([MONTH_MS, -MONTH_MS, HOUR_MS, -MONTH_MS, MONTH_MS]) {
            world.clock.step(step);
            tokio::time::sleep(SWEPT).await;
            for before in 0..n {
                assert_eq!(kept(&engine, before).await, [true; 3], "{before} of {n}");
            }
            make(&engine, n).await;
        }
    });
}

#[test]
fn what_has_ended_is_swept_away_however_the_clock_was_set() {
    for step in [MONTH_MS, -MONTH_MS] {
        in_time(async {
            let (world, engine) = engine().await;
            make(&engine, 0).await;
            world.clock.step(step);
            make(&engine, 1).await;
            for (passed, left) in [
                (HOUR * 11, [true, true, true]),
                // Where the clock was set back, they count from a sweep on.
                (HOUR + SWEPT, [false, true, true]),
                (HOUR * 12, [false, true, false]),
            ] {
                tokio::time::sleep(passed).await;
                for n in [0, 1] {
                    assert_eq!(kept(&engine, n).await, left, "{step}, {passed:?}");
                }
            }
        });
    }
}

#[test]
fn a_server_that_starts_on_a_clock_set_back_lets_nothing_live_longer() {
    in_time(async {
        let (world, old) = engine().await;
        make(&old, 0).await;
        world.server.crash("for a new clock");
        world.clock.step(-MONTH_MS);
        world.server.start();
        let engine = world.server.until_serving().await;
        tokio::time::sleep(HOUR * 11).await;
        assert_eq!(kept(&engine, 0).await, [true; 3]);
        tokio::time::sleep(HOUR + SWEPT).await;
        assert_eq!(kept(&engine, 0).await, [false, true, true]);
    });
}
