//! What a first start records, and secrets that nobody may ever be told.

use std::net::IpAddr;
use std::time::Duration;

use vimana_engine::OpContext;
use vimana_model::host::CreateJoinToken;
use vimana_model::image::{ImageState, Origin};
use vimana_model::name::{FlavorName, ImageName, TenantName};
use vimana_model::session::SignIn;
use vimana_model::tenant::TenantKind;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{FlavorId, Timestamp};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::tenant::TenantRecord;
use vimana_store::user::{MembershipRecord, UserRecord};
use vimana_store::{Store, flavor, image, tenant, user, write_tx};

use super::journal::Journal;
use super::people::{ADMIN, AUTOMATIC, MANUAL, MONA, PAUL, RITA, tenant_id};
use super::{World, library, server};

/// Everybody's password.
const PASSWORD: &str = "correct horse battery staple";
/// Of that password, at the least cost that argon2id takes.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2ltdWxhdGVkIHNhbHQuMA$\
                    JgYlaR9Dccxx68FaJ+7zEUqSkYaxNol9w4kkm9fkZBo";
/// What somebody mistook for it.
const WRONG: &str = "incorrect horse battery staple";
/// What VMs are told when they first start.
pub const USER_DATA: &str = "#cloud-config\npassword: swordfish-for-the-guests\n";
const USERS_SECRET: &str = "swordfish-for-the-guests";

/// Records tenants, people, flavors and image `demo`.
///
/// # Panics
/// The disk does not take it.
pub async fn install(store: &Store) {
    let now = Timestamp::from_ms(0);
    let done: vimana_model::Result<()> = write_tx!(store, |tx| {
        for (number, name, kind) in [
            (AUTOMATIC, "default", TenantKind::Automatic),
            (MANUAL, "lab", TenantKind::Manual),
        ] {
            let record = TenantRecord {
                id: tenant_id(number),
                name: TenantName::new(name).unwrap(),
                kind,
                created_at: now,
            };
            tenant::insert(tx, &record).await?;
        }
        for person in [ADMIN, RITA, MONA, PAUL] {
            let subject = person.subject();
            let record = UserRecord {
                id: subject.user_id,
                name: subject.user_name,
                password_hash: HASH.to_owned(),
                staff: person.staff,
                created_at: now,
            };
            user::insert(tx, &record).await?;
            let membership = MembershipRecord {
                tenant_id: subject.tenant_id,
                user_id: subject.user_id,
                role: person.role,
            };
            user::insert_membership(tx, &membership).await?;
        }
        for (number, name, memory, disk) in [(1, "tiny", 128, 1024), (2, "small", 512, 5120)] {
            let record = FlavorRecord {
                id: FlavorId::from_parts(number, [0; 10]),
                name: FlavorName::new(name).unwrap(),
                resources: Resources {
                    vcpus: 1,
                    memory_mib: MiB(memory),
                    disk_mib: MiB(disk),
                },
                created_at: now,
            };
            flavor::insert(tx, &record).await?;
        }
        let record = ImageRecord {
            id: library::image_id(),
            name: ImageName::new("demo").unwrap(),
            tenant_id: None,
            owner_name: None,
            state: ImageState::Ready,
            state_since: now,
            failure: None,
            origin: Origin::File {
                path: "/simulated".to_owned(),
                fetched: None,
            },
            order: None,
            content: Some(library::content()),
            operation_id: None,
            generation: 1,
            created_at: now,
            refresh: None,
            superseded_at: None,
        };
        image::insert(tx, &record).await?;
        Ok(())
    });
    done.unwrap();
}

/// What is secret from the beginning.
pub fn keep_secrets(journal: &Journal) {
    for secret in [PASSWORD, HASH, WRONG, USERS_SECRET] {
        journal.keep_secret(secret);
    }
    let key = server::authority().key_pem();
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    lines.for_each(|line| journal.keep_secret(line));
}

impl World {
    /// Makes one of everything else that must be kept secret, and listens for
    /// it from now on. The server serves, and no host or scheduler runs yet: a
    /// password is verified on another thread, and nothing may happen meanwhile
    /// whose order chance could decide.
    ///
    /// # Panics
    /// The server refuses.
    pub async fn make_secrets(&self) {
        let journal = &self.journal;
        let engine = self.server.until_serving().await;
        // What the server begins with is over.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sign_in = |password: &str| SignIn {
            user_name: ADMIN.name.to_owned(),
            password: password.to_owned(),
        };
        let peer = IpAddr::from([127, 0, 0, 1]);
        let refused = engine.issue_token(&sign_in(WRONG), peer).await;
        journal.say("admin", format!("{:?}", refused.err()));
        let token = engine.issue_token(&sign_in(PASSWORD), peer).await.unwrap();
        journal.keep_secret(&token.token);
        let unknown = engine.subject_of_token(&format!("{}0", token.token)).await;
        journal.say("admin", format!("{:?}", unknown.err()));
        let subject = engine.subject_of_token(&token.token).await.unwrap();
        let cx = OpContext::new(subject);
        let form = CreateJoinToken::default();
        let join = engine.create_join_token(&cx, &form).await.unwrap();
        journal.keep_secret(join.token);
    }

    /// A console ticket for everything that has a console; each works once.
    ///
    /// # Panics
    /// The server refuses a ticket that it gave out.
    pub async fn use_tickets(&self) {
        let engine = self.server.until_serving().await;
        let cx = OpContext::new(ADMIN.subject());
        for id in super::all(&engine.store().read()).await.into_keys() {
            let Ok(ticket) = engine.console_ticket(&cx, id).await else {
                continue;
            };
            self.journal.keep_secret(&ticket.ticket);
            engine.redeem_ticket(&ticket.ticket).await.unwrap();
            let spent = engine.redeem_ticket(&ticket.ticket).await;
            let spent = spent.map(|_| "a ticket worked twice".to_owned());
            let said = spent.unwrap_or_else(|error| format!("{error:?}"));
            self.journal.say("admin", said);
        }
    }
}
