//! Opening a database: new, old, shared, damaged, strange.

use futures::future::join_all;
use vimana_model::ErrorKind;
use vimana_store::{Store, StoreError, claim, event, host, operation, tenant, user, vm, write_tx};

use super::world::{World, note, resources};

pub async fn reopening_keeps_what_was_written(world: World) {
    let record = world.new_vm("web").await;
    write_tx!(world.store, |tx| {
        event::append(tx, &[note(Some(record.id), 1)]).await?;
        Ok(())
    })
    .unwrap();
    let world = world.reopen().await;
    let reader = world.store.read();
    let found = vm::find(&reader, record.id).await.unwrap();
    assert_eq!(found, Some(record));
    assert_eq!(event::last_seq(&reader).await.unwrap(), 1);
    let on_disk = world.url.strip_prefix("sqlite://");
    if let Some(file) = on_disk.filter(|_| world.disk.is_none()) {
        use std::os::unix::fs::PermissionsExt as _;
        for file in [file.to_owned(), format!("{file}-wal")] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file} is for its owner alone");
        }
    }
}

/// All of them on PostgreSQL; on SQLite whoever comes first.
pub async fn eight_openers_migrate_at_once(world: World) {
    let url = world.empty_database().await;
    let openers = (0..8).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Store::open(&url).await })
    });
    let outcomes = join_all(openers).await;
    let (stores, refused): (Vec<_>, Vec<_>) = outcomes
        .into_iter()
        .map(Result::unwrap)
        .partition(Result::is_ok);
    let expected = if world.store.is_postgres() { 8 } else { 1 };
    assert_eq!(stores.len(), expected, "{refused:?}");
    for error in refused {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    }
    for (number, store) in stores.into_iter().enumerate() {
        let store = store.unwrap();
        let number = u64::try_from(number).unwrap();
        let last = write_tx!(store, |tx| {
            Ok(event::append(tx, &[note(None, number)]).await?)
        });
        assert_eq!(last.unwrap(), number + 1, "all opened the same database");
    }
}

fn corrupt<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> String {
    let error = outcome.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(!error.is_retryable());
    let told = error.to_string();
    assert!(!told.contains("nonsense"), "{told}");
    assert_eq!(vimana_model::Error::from(error).kind, ErrorKind::Internal);
    told
}

pub async fn corrupt_rows_are_told_and_name_no_value(world: World) {
    let record = world.new_vm("web").await;
    world.new_host("node-a", resources(1, 1, 1)).await;
    write_tx!(world.store, |tx| {
        event::append(tx, &[note(None, 1)]).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let id = record.id;

    for (column, before) in [
        ("state", "pending"),
        ("name", "web"),
        ("owner_name", "ada"),
        ("image_id", &record.image_id.to_string()),
    ] {
        let set = |value: &str| format!("UPDATE vms SET {column} = '{value}'");
        world.sql(&set("nonsense !")).await;
        let told = corrupt(vm::find(&reader, id).await);
        assert_eq!(
            told,
            format!("corrupt record: column `{column}` of `{id}` in vms")
        );
        world.sql(&set(before)).await;
    }
    for column in [
        "failure",
        "explanation",
        "ssh_key",
        "user_data",
        "operation_id",
    ] {
        let set = |value: &str| format!("UPDATE vms SET {column} = {value}");
        world.sql(&set("'nonsense'")).await;
        corrupt(vm::find(&reader, id).await);
        world.sql(&set("NULL")).await;
    }
    world.sql("UPDATE vms SET vcpus = 5000000000").await;
    corrupt(vm::pending(&reader).await);
    world.sql("UPDATE vms SET vcpus = 1").await;
    assert_eq!(vm::find(&reader, id).await.unwrap(), Some(record));

    world.sql("UPDATE users SET staff = 'nonsense'").await;
    corrupt(user::find(&reader, world.user.id).await);
    world.sql("UPDATE hosts SET state = 'nonsense'").await;
    corrupt(host::list(&reader).await);
    world
        .sql("UPDATE events SET event = '{\"kind\":\"nonsense\"}'")
        .await;
    corrupt(event::after(&reader, 0, 10).await);
    world.sql("DELETE FROM event_counter").await;
    corrupt(event::last_seq(&reader).await);
    assert_eq!(claim::list(&reader).await.unwrap(), []);
    assert_eq!(operation::running(&reader).await.unwrap(), []);

    if !world.store.is_postgres() {
        // SQLite takes any value in any column.
        world.sql("UPDATE vms SET run_epoch = 'nonsense'").await;
        corrupt(vm::find(&reader, id).await);
    }
}

pub async fn refused_row_is_told_without_its_values(world: World) {
    let mut record = world.vm("web");
    // No such user: a foreign key refuses it, and PostgreSQL's details say more.
    record.owner_id = world.user_id();
    let tx = world.store.begin().await.unwrap();
    let error = vm::insert(&tx, &record).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(!told.contains(&record.owner_id.to_string()), "{told}");
    drop(tx);
    world.insert_vm(&world.vm("web")).await;
}

pub async fn newer_schema_is_refused(world: World) {
    world
        .sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)")
        .await;
    let error = Store::open_beside(&world.url).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Schema { how: "newer" }),
        "{error:?}"
    );
    let found = tenant::find(&world.store.read(), world.tenant.id).await;
    assert_eq!(
        found.unwrap(),
        Some(world.tenant),
        "who had it open reads on"
    );
    world.store.close().await.unwrap();
    let error = Store::open(&world.url).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
    assert!(error.to_string().contains("m9999_future"), "{error}");
}

pub async fn strange_address_is_refused_without_repeating_it(world: World) {
    for url in [
        "mysql://root:hunter2@127.0.0.1/vimana",
        "postgres://vimana:hunter2@127.0.0.1:port/vimana",
        "vimana.db?hunter2",
        "sqlite::memory:",
        "sqlite:///nowhere/hunter.db",
    ] {
        let error = Store::open(url).await.unwrap_err();
        assert!(
            !format!("{error:?} {error}").contains("hunter2"),
            "{error:?}"
        );
    }
    if world.store.is_postgres() {
        // Waited for a while: the database may be starting too.
        let away = "postgres://vimana:hunter2@127.0.0.1:1/vimana";
        let error = Store::open(away).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
    // The store that was there works on.
    world.new_vm("web").await;
}
