//! Who may have the same database open.

use std::path::Path;

use vimana_store::{Store, StoreError, event, tenant, write_tx};

use super::world::{World, note};

pub async fn tool_reads_and_writes_beside_the_server(world: World) {
    let tool = Store::open_beside(&world.url).await.unwrap();
    let found = tenant::find(&tool.read(), world.tenant.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&world.tenant));
    // In turn, and both at once.
    let writers = (0..20).map(|number| {
        let store = if number % 2 == 0 { &tool } else { &world.store };
        let store = store.clone();
        tokio::spawn(async move {
            write_tx!(store, |tx| {
                event::append(tx, &[note(None, number)]).await?;
                Ok(())
            })
        })
    });
    for written in futures::future::join_all(writers).await {
        written.unwrap().unwrap();
    }
    tool.close().await.unwrap();
    assert_eq!(event::last_seq(&world.store.read()).await.unwrap(), 20);
    world.new_vm("web").await;
}

pub async fn tool_makes_no_tables(world: World) {
    let url = world.empty_database().await;
    if let Some(file) = url.strip_prefix("sqlite://") {
        std::fs::write(file, []).unwrap();
    }
    for _ in 0..2 {
        let error = Store::open_beside(&url).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Schema { how: "older" }),
            "{error:?}"
        );
    }
    // A server does.
    Store::open(&url).await.unwrap();
    Store::open_beside(&url).await.unwrap();
}

pub async fn tool_makes_no_file(world: World) {
    let url = world.empty_database().await;
    let file = url.strip_prefix("sqlite://").unwrap();
    let error = Store::open_beside(&url).await.unwrap_err();
    assert!(error.to_string().contains(file), "{error}");
    assert!(!Path::new(file).exists());
}
