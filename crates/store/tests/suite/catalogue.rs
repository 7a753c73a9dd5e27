//! Flavors, images, hosts and operations.

use vimana_model::host::{Accelerator, HostState};
use vimana_model::image::{
    Fetched, ImageContent, ImageFormat, ImageSource, ImageState, Origin, RefreshEvery, Upload,
};
use vimana_model::name::{DatastoreName, FlavorName, HostName, ImageName, TemplateName, UserName};
use vimana_model::operation::{
    Object, OperationKind, OperationState, Situation, StepKind, StepState,
};
use vimana_model::template::{InputValue, TemplateInput};
use vimana_model::unit::MiB;
use vimana_model::user_data::UserData;
use vimana_model::{FlavorId, TemplateId, TenantId, VmState};
use vimana_store::claim::{self, ClaimRecord, Taken};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::{ImageOrder, ImageRecord, ImageRefresh, Successor};
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::template::TemplateRecord;
use vimana_store::{StoreError, flavor, host, image, operation, template, vm, write_tx};

use super::world::{NOW, World, resources};

pub async fn flavors_are_listed_by_memory_then_vcpus_then_name(world: World) {
    let sizes = [
        ("b", resources(1, 512, 1)),
        ("large", resources(1, 4096, 1)),
        ("two", resources(2, 512, 1)),
        ("B", resources(1, 512, 1)),
        ("a-1", resources(1, 512, 1)),
        ("small", resources(8, 64, 1)),
    ];
    for (name, size) in sizes {
        let record = FlavorRecord {
            id: FlavorId::from_parts(world.next(), [2; 10]),
            name: FlavorName::new(name).unwrap(),
            resources: size,
            created_at: NOW,
        };
        write_tx!(world.store, |tx| {
            flavor::insert(tx, &record).await?;
            Ok(())
        })
        .unwrap();
        let found = flavor::find_by_name(&world.store.read(), &record.name).await;
        assert_eq!(found.unwrap(), Some(record.clone()));
        let tx = world.store.begin().await.unwrap();
        let error = flavor::insert(&tx, &record).await.unwrap_err();
        assert!(matches!(
            error,
            StoreError::Duplicate {
                what: "flavor name"
            }
        ));
    }
    let flavors = flavor::list(&world.store.read()).await.unwrap();
    let names: Vec<&str> = flavors.iter().map(|flavor| flavor.name.as_str()).collect();
    assert_eq!(names, ["small", "B", "a-1", "b", "two", "large"]);
}

pub async fn a_flavor_changes_and_goes(world: World) {
    let mut record = FlavorRecord {
        id: FlavorId::from_parts(world.next(), [2; 10]),
        name: FlavorName::new("tiny").unwrap(),
        resources: resources(1, 512, 1),
        created_at: NOW,
    };
    write_tx!(world.store, |tx| {
        flavor::insert(tx, &record).await?;
        Ok(())
    })
    .unwrap();
    record.resources = resources(2, 1024, 3);
    write_tx!(world.store, |tx| {
        flavor::update(tx, &record).await?;
        let found = flavor::lock_by_name(tx, &record.name).await?;
        assert_eq!(found, Some(record.clone()));
        Ok(())
    })
    .unwrap();
    write_tx!(world.store, |tx| {
        flavor::delete(tx, record.id).await?;
        Ok(())
    })
    .unwrap();
    assert_eq!(flavor::list(&world.store.read()).await.unwrap(), []);
}

fn new_template(world: &World, tenant_id: Option<TenantId>, name: &str) -> TemplateRecord {
    TemplateRecord {
        id: TemplateId::from_parts(world.next(), [3; 10]),
        tenant_id,
        owner_name: UserName::new("ada").unwrap(),
        name: TemplateName::new(name).unwrap(),
        description: "a server\nfor \u{e9}".to_owned(),
        image: Some(ImageName::new("demo").unwrap()),
        flavor: Some(FlavorName::new("tiny").unwrap()),
        user_data: Some(UserData::new("#cloud-config\nhostname: {input: x}\n").unwrap()),
        inputs: vec![TemplateInput {
            name: "x".to_owned(),
            label: "X".to_owned(),
            default: Some(InputValue::Text("it's \"so\"".to_owned())),
            max_length: Some(9),
            ..TemplateInput::default()
        }],
        generation: 1,
        created_at: NOW,
    }
}

pub async fn templates_survive_with_all_columns(world: World) {
    let mut full = new_template(&world, Some(world.tenant.id), "web");
    let bare = TemplateRecord {
        description: String::new(),
        image: None,
        flavor: None,
        user_data: None,
        inputs: Vec::new(),
        ..new_template(&world, None, "bare")
    };
    write_tx!(world.store, |tx| {
        template::insert(tx, &full).await?;
        template::insert(tx, &bare).await?;
        Ok(())
    })
    .unwrap();
    for record in [&full, &bare] {
        let found = template::find(&world.store.read(), record.id).await;
        assert_eq!(found.unwrap().as_ref(), Some(record));
    }
    let stale = full.clone();
    full.description = "another".to_owned();
    full.inputs.clear();
    let tx = world.store.begin().await.unwrap();
    template::update(&tx, &mut full).await.unwrap();
    assert_eq!(full.generation, 2);
    let locked = template::lock(&tx, full.id).await.unwrap();
    assert_eq!(locked.as_ref(), Some(&full));
    let error = template::update(&tx, &mut stale.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict), "{error:?}");
    tx.commit().await.unwrap();
}

pub async fn template_names_are_taken_by_tenant_and_freed(world: World) {
    let name = TemplateName::new("web").unwrap();
    let for_all = new_template(&world, None, "web");
    let own = new_template(&world, Some(world.tenant.id), "web");
    let tx = world.store.begin().await.unwrap();
    template::insert(&tx, &for_all).await.unwrap();
    let found = template::find_by_name(&tx, world.tenant.id, &name).await;
    assert_eq!(found.unwrap(), Some(for_all.clone()));
    template::insert(&tx, &own).await.unwrap();
    let found = template::find_by_name(&tx, world.tenant.id, &name).await;
    assert_eq!(found.unwrap(), Some(own.clone()), "its own comes first");
    for tenant in [None, Some(world.tenant.id)] {
        let twin = new_template(&world, tenant, "web");
        let error = template::insert(&tx, &twin).await.unwrap_err();
        let what = "template name";
        assert!(matches!(error, StoreError::Duplicate { what: w } if w == what));
        assert_eq!(template::count(&tx, tenant).await.unwrap(), 1);
    }
    let other = world.tenant_id();
    let seen = template::list(&tx, other).await.unwrap();
    assert_eq!(
        seen,
        std::slice::from_ref(&for_all),
        "another tenant's is not seen"
    );
    let seen = template::list(&tx, world.tenant.id).await.unwrap();
    assert_eq!(seen, [for_all.clone(), own.clone()]);
    template::delete(&tx, own.id).await.unwrap();
    let twin = new_template(&world, Some(world.tenant.id), "web");
    template::insert(&tx, &twin).await.unwrap();
    tx.commit().await.unwrap();
}

pub fn new_image(world: &World, name: &str) -> ImageRecord {
    ImageRecord {
        id: world.image_id(),
        tenant_id: None,
        owner_name: Some(UserName::new("ada").unwrap()),
        name: ImageName::new(name).unwrap(),
        state: ImageState::Ready,
        state_since: NOW,
        failure: None,
        origin: Origin::Url {
            url: "https://example.org/x".to_owned(),
            fetched: Some(Fetched {
                size_bytes: 5,
                checksum: "SHA-256 00ff".to_owned(),
                verified: true,
            }),
        },
        order: None,
        content: Some(ImageContent {
            format: ImageFormat::Qcow2,
            size_bytes: 5_000_000_000,
            virtual_mib: MiB(20_480),
            sha256: "00ff".to_owned(),
        }),
        operation_id: None,
        generation: 1,
        created_at: NOW,
        refresh: None,
        superseded_at: None,
    }
}

async fn insert_image(world: &World, record: &ImageRecord) {
    let inserted = write_tx!(world.store, |tx| Ok(image::insert(tx, record).await?));
    inserted.unwrap();
}

pub async fn images_survive_with_all_columns(world: World) {
    let ready = new_image(&world, "debian-12");
    let importing = ImageRecord {
        state: ImageState::Importing,
        failure: Some("it broke off".to_owned()),
        order: Some(ImageOrder {
            source: ImageSource::Url("ftp://ada:secret@example.org/x".to_owned()),
            checksum: Some("ab".repeat(32)),
            declared: Some(ImageFormat::Raw),
        }),
        content: None,
        operation_id: Some(world.operation_id()),
        ..new_image(&world, "alpine")
    };
    assert!(!format!("{importing:?}").contains("secret"));
    let refreshed = ImageRecord {
        refresh: Some(ImageRefresh {
            every: RefreshEvery::new(86_400).unwrap(),
            next_at: Some(NOW.plus_ms(5)),
            last_at: Some(NOW),
            failure: Some("the source is away".to_owned()),
            version: Some("\"tag\"".to_owned()),
            successor: Some(Successor {
                id: world.image_id(),
                content: ready.content.clone(),
                fetched: ready.origin.fetched().cloned(),
                version: None,
            }),
        }),
        superseded_at: Some(NOW),
        ..new_image(&world, "refreshed")
    };
    let mut gone = new_image(&world, "gone");
    for record in [&ready, &importing, &gone, &refreshed] {
        insert_image(&world, record).await;
    }
    gone.state = ImageState::Removed;
    gone.content = None;
    let removed = write_tx!(world.store, |tx| {
        image::update(tx, &mut gone).await?;
        let stale = ImageRecord {
            generation: 1,
            ..gone.clone()
        };
        let error = image::update(tx, &mut stale.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict));
        Ok(gone.clone())
    });
    assert_eq!(removed.unwrap().generation, 2);
    let reader = world.store.read();
    let listed = image::list(&reader, None).await.unwrap();
    assert_eq!(
        listed,
        [importing.clone(), ready.clone(), refreshed.clone()]
    );
    let superseded = image::superseded(&reader).await.unwrap();
    assert_eq!(superseded, std::slice::from_ref(&refreshed));
    let successor = refreshed.refresh.unwrap().successor.unwrap();
    assert_eq!(image::successors(&reader).await.unwrap(), [successor.id]);
    let found = image::find(&reader, importing.id).await.unwrap();
    assert_eq!(found, Some(importing.clone()));
    let many = image::find_many(&reader, &[gone.id, ready.id])
        .await
        .unwrap();
    assert_eq!(many.len(), 2);
    let upload = Upload {
        size_bytes: u64::MAX,
        file_name: "\"path:\u{e9}".to_owned(),
    };
    let path = ImageSource::Path("/srv/upload:{}".to_owned());
    for (name, source) in [("sent", ImageSource::Upload(upload)), ("kept", path)] {
        let mut record = ImageRecord {
            id: world.image_id(),
            name: ImageName::new(name).unwrap(),
            ..importing.clone()
        };
        if let Some(order) = &mut record.order {
            order.source = source;
        }
        insert_image(&world, &record).await;
        let found = image::find(&reader, record.id).await.unwrap();
        assert_eq!(found, Some(record));
    }
}

pub async fn images_are_due_for_their_refresh(world: World) {
    let (hour_ms, mut ids) = (3_600_000, Vec::new());
    for (name, state, next_ms) in [
        ("second", ImageState::Ready, Some(0)),
        ("first", ImageState::Ready, Some(-hour_ms)),
        ("later", ImageState::Ready, Some(1)),
        ("latest", ImageState::Ready, Some(hour_ms)),
        // The clock was set back meanwhile: it is never that far away.
        ("beyond", ImageState::Ready, Some(hour_ms + 1)),
        ("trashed", ImageState::Trashed, Some(0)),
        ("importing", ImageState::Importing, None),
    ] {
        let mut refresh = ImageRefresh::new(RefreshEvery::new(3600).unwrap());
        refresh.next_at = next_ms.map(|ms| NOW.plus_ms(ms));
        let record = ImageRecord {
            state,
            refresh: Some(refresh),
            ..new_image(&world, name)
        };
        insert_image(&world, &record).await;
        ids.push(record.id);
    }
    insert_image(&world, &new_image(&world, "never")).await;
    let reader = world.store.read();
    let due = image::due_for_refresh(&reader, NOW, 10).await.unwrap();
    assert_eq!(due, [ids[1], ids[0], ids[4]]);
    let due = image::due_for_refresh(&reader, NOW, 1).await.unwrap();
    assert_eq!(due, [ids[1]]);
}

pub async fn image_names_are_taken_by_tenant_and_freed(world: World) {
    let vm = world.new_vm("web").await;
    let tenant = Some(vm.tenant_id);
    let for_all = new_image(&world, "debian");
    let own = ImageRecord {
        tenant_id: tenant,
        ..new_image(&world, "debian")
    };
    insert_image(&world, &for_all).await;
    insert_image(&world, &own).await;
    let reader = world.store.read();
    let name = for_all.name.clone();
    let mine = image::find_by_name(&reader, tenant, &name).await.unwrap();
    assert_eq!(mine, Some(own.clone()), "one's own comes first");
    let theirs = image::find_by_name(&reader, None, &name).await.unwrap();
    assert_eq!(theirs, Some(for_all.clone()));
    assert_eq!(image::list(&reader, tenant).await.unwrap().len(), 2);
    let all = image::list(&reader, None).await.unwrap();
    assert_eq!(all, std::slice::from_ref(&for_all));

    let tx = world.store.begin().await.unwrap();
    for again in [&for_all, &own] {
        let again = ImageRecord {
            id: world.image_id(),
            ..again.clone()
        };
        let error = image::insert(&tx, &again).await.unwrap_err();
        let StoreError::Duplicate { what } = error else {
            panic!("{error:?}");
        };
        assert_eq!(what, "image name");
    }
    let mut trashed = ImageRecord {
        state: ImageState::Trashed,
        ..own.clone()
    };
    image::update(&tx, &mut trashed).await.unwrap();
    let again = ImageRecord {
        id: world.image_id(),
        ..own
    };
    image::insert(&tx, &again).await.unwrap();
    tx.commit().await.unwrap();
    let since = |at| image::in_state(&reader, ImageState::Trashed, at);
    assert_eq!(since(NOW).await.unwrap(), [trashed]);
    assert_eq!(since(NOW.plus_ms(-1)).await.unwrap(), []);
}

pub async fn what_is_made_from_an_image_is_counted(world: World) {
    let (web, db) = (world.new_vm("web").await, world.new_vm("db").await);
    let mut done = world.new_vm("done").await;
    done.state = VmState::Done;
    write_tx!(world.store, |tx| Ok(vm::update(tx, &mut done).await?)).unwrap();
    let reader = world.store.read();
    let images = [web.image_id, db.image_id, done.image_id, world.image_id()];
    let counted = vm::made_from(&reader, &images, None).await.unwrap();
    assert_eq!(counted.values().sum::<u32>(), 2);
    let own = vm::made_from(&reader, &images, Some(web.tenant_id)).await;
    assert_eq!(own.unwrap(), counted);
    let other = TenantId::from_parts(world.next(), [9; 10]);
    let none = vm::made_from(&reader, &images, Some(other)).await.unwrap();
    assert!(none.is_empty());
}

pub async fn hosts_are_listed_by_name_with_all_columns(world: World) {
    let second = world
        .new_host("node-b", resources(8, 16_384, 100_000))
        .await;
    let first = world.new_host("node-a", resources(4, 8_192, 50_000)).await;
    let reader = world.store.read();
    let listed = host::list(&reader).await.unwrap();
    assert_eq!(listed, [first.clone(), second.clone()]);
    let found = host::find(&reader, first.id).await.unwrap();
    assert_eq!(found, Some(first.clone()));
    let stranger = world.host("node-c", resources(1, 1, 1));
    let ids = [second.id, stranger.id, first.id];
    let mut many = host::find_many(&reader, &ids).await.unwrap();
    many.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(many, [first.clone(), second]);

    let tx = world.store.begin().await.unwrap();
    let again = world.host("node-a", resources(1, 1, 1));
    let error = host::insert(&tx, &again).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "host name" }));
    let renamed = host::HostRecord {
        name: HostName::new("node-b").unwrap(),
        ..first
    };
    let error = host::update_facts(&tx, &renamed).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "host name" }));
}

pub async fn host_facts_leave_the_claims_alone(world: World) {
    let mut record = world.new_host("node-a", resources(4, 8_192, 50_000)).await;
    let vm = world.new_vm("web").await;
    let claim = ClaimRecord {
        vm_id: vm.id,
        host_id: record.id,
        resources: vm.resources,
        datastore: DatastoreName::local(),
    };
    let taken = write_tx!(world.store, |tx| Ok(claim::take(tx, &claim).await?));
    assert_eq!(taken.unwrap(), Taken::Ok);

    record.state = HostState::Unknown;
    record.connected = false;
    record.accelerator = Accelerator::Tcg;
    record.capacity = resources(2, 4_096, 40_000);
    record.connected_since = None;
    record.silent_since = Some(NOW);
    let stranger = world.host("nowhere", resources(1, 1, 1));
    let updated = write_tx!(world.store, |tx| {
        let strangers = host::update_facts(tx, &stranger).await?;
        Ok((host::update_facts(tx, &record).await?, strangers))
    });
    assert_eq!(updated.unwrap(), (true, false));
    record.used = vm.resources;
    record.vms = 1;
    let found = host::find(&world.store.read(), record.id).await.unwrap();
    assert_eq!(found, Some(record));
}

pub async fn restart_disconnects_those_that_were_connected(world: World) {
    let connected = world.new_host("node-a", resources(1, 1, 1)).await;
    let mut silent = world.host("node-b", resources(1, 1, 1));
    silent.connected = false;
    silent.connected_since = None;
    silent.silent_since = Some(NOW);
    let later = NOW.plus_ms(5000);
    let gone = write_tx!(world.store, |tx| {
        host::insert(tx, &silent).await?;
        Ok(host::disconnect_all(tx, later).await?)
    });
    assert_eq!(gone.unwrap(), [connected.id]);
    let hosts = host::list(&world.store.read()).await.unwrap();
    assert!(!hosts[0].connected);
    assert_eq!(hosts[0].connected_since, None);
    assert_eq!(hosts[0].silent_since, Some(later));
    assert_eq!(hosts[1], silent);
}

pub async fn operations_survive_with_their_steps(world: World) {
    let vm = world.new_vm("web").await;
    let new = |age: i64| OperationRecord {
        id: world.operation_id(),
        object: Object::Vm(vm.id),
        kind: OperationKind::Create,
        state: OperationState::Running,
        step: 0,
        steps: OperationKind::Create
            .steps(Situation {
                on_host: true,
                in_datastore: false,
                runs: true,
                force: false,
                post_copy: false,
            })
            .iter()
            .map(|kind| StepRecord {
                kind: *kind,
                attempt: 1,
                retry_at: None,
                target: None,
                piece: None,
                migration: None,
                state: StepState::Waiting,
                started_at: None,
                ended_at: None,
            })
            .collect(),
        requested_by: "ada".to_owned(),
        error: None,
        claim_epoch: 3,
        undo: None,
        due_at: None,
        created_at: NOW.plus_ms(age),
        ended_at: None,
    };
    let (mut first, second, stranger) = (new(1), new(2), new(3));
    write_tx!(world.store, |tx| {
        operation::insert(tx, &second).await?;
        operation::insert(tx, &first).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let running = operation::running(&reader).await.unwrap();
    assert_eq!(running, [first.clone(), second.clone()]);
    let of_vm = operation::for_vm(&reader, vm.id).await.unwrap();
    assert_eq!(of_vm, [second.clone(), first.clone()]);

    first.state = OperationState::Failed;
    first.step = 2;
    first.steps[0].state = StepState::Done;
    first.steps[0].started_at = Some(NOW);
    first.steps[0].ended_at = Some(NOW.plus_ms(7));
    first.error = Some("the image is damaged".to_owned());
    first.ended_at = Some(NOW.plus_ms(9));
    let updated = write_tx!(world.store, |tx| {
        let strangers = operation::update(tx, &stranger).await?;
        Ok((operation::update(tx, &first).await?, strangers))
    });
    assert_eq!(updated.unwrap(), (true, false));
    let found = operation::find(&reader, first.id).await.unwrap();
    assert_eq!(found, Some(first.clone()));
    assert_eq!(
        operation::running(&reader).await.unwrap(),
        std::slice::from_ref(&second)
    );
    let ids = [first.id, stranger.id, second.id];
    let mut many = operation::find_many(&reader, &ids).await.unwrap();
    many.sort_by_key(|operation| operation.created_at);
    assert_eq!(many[0].steps[0].kind, StepKind::Place);
    assert_eq!(many, [first, second]);
}
