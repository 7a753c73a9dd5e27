//! Tenants, users, tokens and sessions.

use std::time::Duration;

use vimana_model::name::{TenantName, UserName};
use vimana_model::session::{Role, StaffRole};
use vimana_model::tenant::TenantKind;
use vimana_model::{ErrorKind, TokenId};
use vimana_store::session::SessionRecord;
use vimana_store::tenant::TenantRecord;
use vimana_store::token::TokenRecord;
use vimana_store::user::{MembershipRecord, UserRecord};
use vimana_store::{StoreError, session, tenant, token, user, write_tx};

use super::world::{NOW, World};

pub async fn names_of_tenants_and_users_are_unique(world: World) {
    let other_tenant = TenantRecord {
        id: world.tenant_id(),
        ..world.tenant.clone()
    };
    let tx = world.store.begin().await.unwrap();
    let error = tenant::insert(&tx, &other_tenant).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Duplicate {
                what: "tenant name"
            }
        ),
        "{error:?}"
    );
    let other_user = UserRecord {
        id: world.user_id(),
        ..world.user.clone()
    };
    let error = user::insert(&tx, &other_user).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Duplicate { what: "user name" }),
        "{error:?}"
    );
    let told = vimana_model::Error::from(error);
    assert_eq!(told.kind, ErrorKind::Conflict);
    assert_eq!(told.public, "user name is already taken");
}

pub async fn duplicate_leaves_the_transaction_usable(world: World) {
    let name = TenantName::new("second").unwrap();
    let second = TenantRecord {
        id: world.tenant_id(),
        name: name.clone(),
        kind: TenantKind::default(),
        created_at: NOW,
    };
    let tx = world.store.begin().await.unwrap();
    tenant::insert(&tx, &world.tenant).await.unwrap_err();
    tenant::insert(&tx, &second).await.unwrap();
    tx.commit().await.unwrap();
    let found = tenant::find_by_name(&world.store.read(), &name).await;
    assert_eq!(found.unwrap(), Some(second.clone()));
    let found = tenant::find(&world.store.read(), second.id).await;
    assert_eq!(found.unwrap(), Some(second));
}

pub async fn user_survives_with_all_columns_and_takes_a_new_password(world: World) {
    let mut record = UserRecord {
        id: world.user_id(),
        name: UserName::new("grace").unwrap(),
        password_hash: "$argon2id$…".to_owned(),
        staff: Some(StaffRole::Admin),
        created_at: NOW,
    };
    let nobody = world.user_id();
    write_tx!(world.store, |tx| {
        user::insert(tx, &record).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    assert_eq!(
        user::find(&reader, record.id).await.unwrap(),
        Some(record.clone())
    );
    let changed = write_tx!(world.store, |tx| {
        let nobodys = user::set_password(tx, nobody, "new").await?;
        Ok((user::set_password(tx, record.id, "new").await?, nobodys))
    });
    assert_eq!(changed.unwrap(), (true, false));
    record.password_hash = "new".to_owned();
    let found = user::find_by_name(&reader, &record.name).await.unwrap();
    assert_eq!(found, Some(record.clone()));
    assert!(
        !format!("{record:?}").contains("new"),
        "a hash is not shown"
    );
}

pub async fn memberships_are_those_of_the_user(world: World) {
    let membership = MembershipRecord {
        tenant_id: world.tenant.id,
        user_id: world.user.id,
        role: Role::Operator,
    };
    let tx = world.store.begin().await.unwrap();
    user::insert_membership(&tx, &membership).await.unwrap();
    let error = user::insert_membership(&tx, &membership).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::Duplicate { what: "membership" }
    ));
    tx.commit().await.unwrap();
    let reader = world.store.read();
    let found = user::memberships(&reader, world.user.id).await.unwrap();
    assert_eq!(found, [membership]);
    let none = user::memberships(&reader, world.user_id()).await.unwrap();
    assert_eq!(none, []);
}

pub async fn standing_is_kept_until_the_transaction_ends(world: World) {
    let (user_id, tenant_id) = (world.user.id, world.tenant.id);
    let member = |role| MembershipRecord {
        tenant_id,
        user_id,
        role,
    };
    let (operator, viewer) = (member(Role::Operator), member(Role::Viewer));
    let none = write_tx!(world.store, |tx| {
        let none = user::standing(tx, user_id, tenant_id).await?;
        user::insert_membership(tx, &operator).await?;
        Ok((none, user::set_role(tx, &operator).await?))
    });
    assert_eq!(none.unwrap(), (None, true));
    let tx = world.store.begin().await.unwrap();
    let found = user::standing(&tx, user_id, tenant_id).await.unwrap();
    assert_eq!(found, Some((world.user.staff, Role::Operator)));
    let store = world.store.clone();
    let mut demotion = std::pin::pin!(async move {
        let done: vimana_model::Result<bool> =
            write_tx!(store, |tx| Ok(user::set_role(tx, &viewer).await?));
        done
    });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut demotion);
    assert!(early.await.is_err(), "what was asked is still so");
    tx.commit().await.unwrap();
    assert!(demotion.await.unwrap());
    let tx = world.store.begin().await.unwrap();
    let found = user::standing(&tx, user_id, tenant_id).await.unwrap();
    assert_eq!(found, Some((world.user.staff, Role::Viewer)));
    let elsewhere = user::standing(&tx, user_id, world.tenant_id()).await;
    assert_eq!(elsewhere.unwrap(), None);
}

fn new_token(world: &World, hash: &str, lives_ms: i64) -> TokenRecord {
    TokenRecord {
        id: TokenId::from_parts(world.next(), [3; 10]),
        user_id: world.user.id,
        hash: hash.to_owned(),
        expires_at: NOW.plus_ms(lives_ms),
        created_at: NOW,
    }
}

pub async fn token_is_found_by_its_hash_until_it_is_deleted(world: World) {
    let record = new_token(&world, "ab12", 1000);
    let same = new_token(&world, "ab12", 1000);
    let tx = world.store.begin().await.unwrap();
    token::insert(&tx, &record).await.unwrap();
    let error = token::insert(&tx, &same).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "token" }));
    tx.commit().await.unwrap();
    let reader = world.store.read();
    let found = token::find_by_hash(&reader, "ab12").await.unwrap();
    assert_eq!(found, Some(record));
    let deleted = write_tx!(world.store, |tx| {
        let first = token::delete_by_hash(tx, "ab12").await?;
        Ok((first, token::delete_by_hash(tx, "ab12").await?))
    });
    assert_eq!(deleted.unwrap(), (true, false));
    assert_eq!(token::find_by_hash(&reader, "ab12").await.unwrap(), None);
}

pub async fn expired_tokens_are_swept_away(world: World) {
    let (old, new) = (new_token(&world, "old", 0), new_token(&world, "new", 1));
    let swept = write_tx!(world.store, |tx| {
        token::insert(tx, &old).await?;
        token::insert(tx, &new).await?;
        Ok(token::delete_expired(tx, NOW).await?)
    });
    assert_eq!(swept.unwrap(), 1);
    let reader = world.store.read();
    assert_eq!(token::find_by_hash(&reader, "old").await.unwrap(), None);
    let found = token::find_by_hash(&reader, "new").await.unwrap();
    assert_eq!(found, Some(new));
}

fn new_session(id_hash: &str, data: &str, lives_ms: i64) -> SessionRecord {
    SessionRecord {
        id_hash: id_hash.to_owned(),
        data: data.to_owned(),
        expires_at: NOW.plus_ms(lives_ms),
    }
}

pub async fn expired_session_is_not_found(world: World) {
    let (old, new) = (new_session("old", "{}", 0), new_session("new", "{}", 1));
    write_tx!(world.store, |tx| {
        session::insert(tx, &old).await?;
        session::insert(tx, &new).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    assert_eq!(session::find(&reader, "old", NOW).await.unwrap(), None);
    let found = session::find(&reader, "new", NOW).await.unwrap();
    assert_eq!(found, Some(new));
    let swept = write_tx!(world.store, |tx| {
        Ok(session::delete_expired(tx, NOW).await?)
    });
    assert_eq!(swept.unwrap(), 1);
    let later = session::find(&reader, "new", NOW.plus_ms(1)).await;
    assert_eq!(later.unwrap(), None);
}

pub async fn session_update_never_inserts(world: World) {
    let (first, second) = (new_session("a", "1", 5), new_session("a", "2", 9));
    let reader = world.store.read();
    let tx = world.store.begin().await.unwrap();
    assert!(!session::update(&tx, &first).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(session::find(&reader, "a", NOW).await.unwrap(), None);

    let tx = world.store.begin().await.unwrap();
    session::insert(&tx, &first).await.unwrap();
    let error = session::insert(&tx, &second).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "session" }));
    assert!(session::update(&tx, &second).await.unwrap());
    tx.commit().await.unwrap();
    let found = session::find(&reader, "a", NOW).await.unwrap();
    assert_eq!(found, Some(second.clone()));

    let tx = world.store.begin().await.unwrap();
    assert!(session::delete(&tx, "a").await.unwrap());
    assert!(!session::delete(&tx, "a").await.unwrap());
    assert!(!session::update(&tx, &second).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(session::find(&reader, "a", NOW).await.unwrap(), None);
}
