//! Whole tables, with rows in them that make no sense.

use std::path::Path;

use vimana_model::{OperationId, UserId, VmId};
use vimana_store::survey::{self, CorruptRow, Surveyed};
use vimana_store::vm::VmRecord;
use vimana_store::{Conn, testing, vm};

use super::world::World;

async fn vms(conn: &impl Conn) -> (Vec<VmId>, Vec<CorruptRow>) {
    let (mut sound, mut corrupt) = (Vec::new(), Vec::new());
    let visit = |row: Surveyed<VmRecord>| match row {
        Ok(vm) => sound.push(vm.id),
        Err(row) => corrupt.push(row),
    };
    survey::vms(conn, visit).await.unwrap();
    (sound, corrupt)
}

pub async fn a_row_that_makes_no_sense_hides_no_other(world: World) {
    let first = world.new_vm("first").await;
    let second = world.new_vm("second").await;
    let third = world.new_vm("third").await;
    let operation = OperationId::from_parts(1, [3; 10]);
    let plants = [
        ("state = 'nonsense'", "state"),
        ("failure = '{'", "failure"),
        ("name = '!'", "name"),
        ("live_name = NULL", "live_name"),
        ("saved = '{\"run_epoch\":-1}'", "saved"),
    ];
    for (plant, column) in plants {
        let sql = format!("UPDATE vms SET operation_id = '{operation}', {plant}");
        world
            .sql(&format!("{sql} WHERE id = '{}'", second.id))
            .await;
        let (sound, corrupt) = vms(&world.store.read()).await;
        assert_eq!(sound, [first.id, third.id], "{plant}");
        let [row] = corrupt.as_slice() else {
            panic!("{plant}: {corrupt:?}")
        };
        assert_eq!(row.table, "vms");
        assert_eq!(row.key, Some(second.id.to_string()));
        let what = format!("column `{column}` of `{}` in vms", second.id);
        assert_eq!(row.what, what);
        for id in [
            second.id.to_string(),
            world.tenant.id.to_string(),
            operation.to_string(),
        ] {
            assert!(row.ids.contains(&id), "{plant}: {row:?}");
        }
        world
            .sql("UPDATE vms SET state = 'pending', failure = NULL, saved = NULL")
            .await;
        world
            .sql(
                "UPDATE vms SET name = 'second', live_name = 'second' WHERE name NOT IN ('first', 'third')",
            )
            .await;
    }
    assert_eq!(vms(&world.store.read()).await.0.len(), 3);
}

pub async fn a_column_of_another_type_hides_no_other_row(world: World) {
    let first = world.new_vm("first").await;
    let second = world.new_vm("second").await;
    let file = Path::new(world.url.strip_prefix("sqlite://").unwrap());
    for plant in [
        "vcpus = 'many'",
        "vcpus = -1",
        "vcpus = 9223372036854775807",
    ] {
        let sql = format!("UPDATE vms SET {plant} WHERE id = '{}'", first.id);
        testing::deface(file, &sql).await.unwrap();
        let (sound, corrupt) = vms(&world.store.read()).await;
        assert_eq!(sound, [second.id], "{plant}");
        assert_eq!(corrupt.len(), 1, "{plant}");
        assert_eq!(corrupt[0].key, Some(first.id.to_string()));
        assert!(corrupt[0].what.contains("vcpus"), "{plant}: {corrupt:?}");
        assert!(!corrupt[0].what.contains("many"), "{corrupt:?}");
    }
}

/// Nothing of a row but ids and numbers is kept, whatever its key is.
pub async fn corrupt_row_keeps_no_value(world: World) {
    let user = world.user.id;
    world
        .sql("INSERT INTO sessions (id_hash, data, expires_at) VALUES ('SECRET', '{SECRET', 1)")
        .await;
    world
        .sql(&format!(
            "INSERT INTO idempotency_keys (user_id, idempotency_key, fingerprint, answer, created_at) \
             VALUES ('{user}', 'SECRET', 'SECRET', '{{SECRET', 1)"
        ))
        .await;
    let mut corrupt = Vec::new();
    let read = world.store.read();
    survey::sessions(&read, |row| corrupt.extend(row.err()))
        .await
        .unwrap();
    survey::idempotency_keys(&read, |row| corrupt.extend(row.err()))
        .await
        .unwrap();
    let what: Vec<&str> = corrupt.iter().map(|row| row.what.as_str()).collect();
    let answer = format!("column `answer` of `{user}` in idempotency_keys");
    assert_eq!(what, ["column `data` in sessions", answer.as_str()]);
    assert_eq!(corrupt[0].key, None);
    assert_eq!(corrupt[1].key, Some(user.to_string()));
    assert!(!format!("{corrupt:?}").contains("SECRET"), "{corrupt:?}");
}

/// More rows than are read at once, under keys of one and of two columns, with
/// a corrupt one where a page ends.
pub async fn long_tables_are_read_to_their_end(world: World) {
    const ROWS: usize = 2500;
    let key = |n: usize| format!("key-{}-{n:04}", 9 - n / 700);
    let rows = (0..ROWS).map(|n| {
        // Few users with many keys, so that pages end inside of one; and a
        // later user's keys come before an earlier one's.
        let user = UserId::from_parts(u64::try_from(n / 700).unwrap(), [0; 10]);
        let answer = if n == 999 { "{" } else { "1" };
        format!("('{user}', '{}', '', '{answer}', 1)", key(n))
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    let insert = "INSERT INTO idempotency_keys \
                  (user_id, idempotency_key, fingerprint, answer, created_at) VALUES";
    world.sql(&format!("{insert} {rows}")).await;
    let (mut keys, mut corrupt) = (Vec::new(), 0);
    let visit = |row: Surveyed<_>| match row {
        Ok(vimana_store::idempotency::IdempotencyRecord { key, .. }) => keys.push(key),
        Err(_) => corrupt += 1,
    };
    survey::idempotency_keys(&world.store.read(), visit)
        .await
        .unwrap();
    let expected: Vec<String> = (0..ROWS).filter(|n| *n != 999).map(key).collect();
    assert_eq!((keys, corrupt), (expected, 1));
}

/// A table that is new is surveyed, too.
pub async fn every_table_is_surveyed(world: World) {
    let file = Path::new(world.url.strip_prefix("sqlite://").unwrap());
    let mut surveyed: Vec<&str> = survey::TABLES.to_vec();
    surveyed.extend(["event_counter", "seaql_migrations"]);
    surveyed.sort_unstable();
    assert_eq!(testing::tables(file).await.unwrap(), surveyed);
}

pub async fn a_snapshot_sees_one_moment(world: World) {
    let first = world.new_vm("first").await;
    let snapshot = world.store.snapshot().await.unwrap();
    assert_eq!(vms(&snapshot).await.0, [first.id]);
    let second = world.new_vm("second").await;
    assert_eq!(vms(&snapshot).await.0, [first.id]);
    assert!(vm::find(&snapshot, second.id).await.unwrap().is_none());
    assert_eq!(vms(&world.store.read()).await.0, [first.id, second.id]);
    drop(snapshot);
    let snapshot = world.store.snapshot().await.unwrap();
    assert_eq!(vms(&snapshot).await.0, [first.id, second.id]);
}
