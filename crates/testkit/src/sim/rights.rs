//! Who lost their rights for a while: nothing they asked for may happen from
//! the moment that is recorded, however long the call was under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vimana_model::event::Actor;
use vimana_model::session::Role;
use vimana_store::user::MembershipRecord;
use vimana_store::{Reader as Store, event, user, write_tx};

use super::journal::Journal;
use super::people::Person;
use super::server::Server;

/// How soon somebody without an answer asks again.
const AGAIN: Duration = Duration::from_millis(500);

/// Clones know the same.
#[derive(Clone, Default)]
pub struct Rights(Arc<Mutex<Vec<Loss>>>);

/// Nothing that this person asked for is among these events.
struct Loss {
    who: Person,
    after: u64,
    /// For ever where absent.
    until: Option<u64>,
}

impl Rights {
    /// From now on this person may only look. Done when that is recorded.
    pub async fn take(&self, server: &Server, who: Person) {
        let after = set_role(server, who, Role::Viewer).await;
        self.losses().push(Loss {
            who,
            after,
            until: None,
        });
    }

    /// From now on this person may do again what they could.
    pub async fn give_back(&self, server: &Server, who: Person) {
        // What was recorded before that is asked for cannot be of its doing.
        let before = last_seq(server).await;
        for loss in self.losses().iter_mut() {
            if loss.who == who && loss.until.is_none() {
                loss.until = Some(before);
            }
        }
        set_role(server, who, who.role).await;
    }

    /// Nobody did anything without a right to.
    pub async fn check(&self, store: &Store, journal: &Journal) {
        let mut after = 0;
        loop {
            let batch = event::after(store, after, 1000).await.unwrap();
            let Some(last) = batch.last().map(|record| record.view.seq) else {
                return;
            };
            after = last;
            for record in batch {
                let view = record.view;
                let Actor::User(name) = &view.actor else {
                    continue;
                };
                let without = self.losses().iter().any(|loss| {
                    let lasts = loss.until.is_none_or(|until| view.seq <= until);
                    loss.who.name == name.as_str() && view.seq > loss.after && lasts
                });
                if without {
                    let sentence = view.event.sentence();
                    let what = format!("{name} had no right to event {}: {sentence}", view.seq);
                    journal.breach(19, what);
                }
            }
        }
    }

    fn losses(&self) -> MutexGuard<'_, Vec<Loss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the last event before it was recorded.
async fn set_role(server: &Server, who: Person, role: Role) -> u64 {
    let subject = who.subject();
    let membership = MembershipRecord {
        tenant_id: subject.tenant_id,
        user_id: subject.user_id,
        role,
    };
    loop {
        let membership = membership.clone();
        let asked = server.call(|engine| async move {
            let set: vimana_model::Result<u64> = write_tx!(engine.store(), |tx| {
                user::set_role(tx, &membership).await?;
                Ok(event::last_seq(tx).await?)
            });
            set
        });
        match asked.await {
            Some(Ok(seq)) => return seq,
            Some(Err(_)) | None => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn last_seq(server: &Server) -> u64 {
    loop {
        let asked = server.call(|engine| async move {
            let read = engine.store().read();
            event::last_seq(&read).await
        });
        match asked.await {
            Some(Ok(seq)) => return seq,
            Some(Err(_)) | None => tokio::time::sleep(AGAIN).await,
        }
    }
}
