//! What administrators want of hosts: that one takes no new VMs, that its VMs are
//! moved away, that it takes VMs again.
//!
//! What is wanted is recorded beside the state in which a host is shown
//! (`HostRecord::desired`), so neither silence nor doubt ends it. Moving the VMs
//! away is a reconciler's (`drain.rs`); how far it is, is read off the records
//! (`look.rs`).

mod drain;
mod look;

use vimana_authz::Permission;
use vimana_model::evacuation::{DEFAULT_LIMIT, EvacuateHost, EvacuationView};
use vimana_model::event::{Actor, EventKind};
use vimana_model::host::{DesiredState, HostState, HostView};
use vimana_model::{Error, HostId, Result, Timestamp};
use vimana_store::host::{EvacuationRecord, HostRecord};
use vimana_store::{enrolment, event, host, host_datastore, write_tx};

use crate::Engine;
use crate::authorize::{current, permit};
use crate::context::OpContext;
use crate::host::{host_event, host_view};
use crate::idempotency::{recall, remember};

pub(crate) use drain::{Drains, may_let_vms_go};
use look::Pace;

/// What an administrator asks of a host.
#[derive(Clone, Copy)]
enum Wish {
    Cordon,
    Enable,
    Evacuate { limit: Option<u32> },
}

/// What becomes of a host by a wish.
struct Granted {
    desired: DesiredState,
    evacuation: Option<EvacuationRecord>,
    event: EventKind,
}

impl Engine {
    /// Keeps new VMs from a host; those on it stay. Ends its evacuation.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`.
    pub async fn cordon_host(&self, cx: &OpContext, id: HostId) -> Result<HostView> {
        self.wish(cx, id, Wish::Cordon).await
    }

    /// Lets a host take VMs again, whatever was wanted of it before.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound`.
    pub async fn enable_host(&self, cx: &OpContext, id: HostId) -> Result<HostView> {
        self.wish(cx, id, Wish::Enable).await
    }

    /// Has the VMs of a host moved to others. Where they are already, at most the
    /// number of those on their way at once changes.
    ///
    /// # Errors
    /// `Invalid` naming the field at fault, `Forbidden`, `NotFound`.
    pub async fn evacuate_host(
        &self,
        cx: &OpContext,
        id: HostId,
        form: &EvacuateHost,
    ) -> Result<HostView> {
        permit(cx, Permission::ManageHosts, None)?;
        let limit = form.check()?;
        self.wish(cx, id, Wish::Evacuate { limit }).await
    }

    /// How far the evacuation of a host is.
    ///
    /// # Errors
    /// `Conflict` where it is not being evacuated and was not until now,
    /// `Forbidden`, `NotFound`.
    pub async fn evacuation(&self, cx: &OpContext, id: HostId) -> Result<EvacuationView> {
        permit(cx, Permission::ViewHosts, None)?;
        let snapshot = self.store().snapshot().await?;
        let found = host::find(&snapshot, id).await?;
        let record = found.ok_or_else(|| Error::not_found(format!("host `{id}`")))?;
        let Some(evacuation) = record.evacuation.clone() else {
            let message = format!("host `{}` is not being evacuated", record.name);
            return Err(Error::conflict(message));
        };
        let look = look::look(&snapshot, &record, &evacuation, self.pace()).await?;
        let progress = |id| self.inner.progress.of(id).and_then(|found| found.copy);
        Ok(look::view(record, evacuation, look, progress))
    }

    /// How soon a VM that did not go is sent away again.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            now: self.world().now(),
            pause: self.inner.settings.evacuation_pause,
        }
    }

    async fn wish(&self, cx: &OpContext, id: HostId, wish: Wish) -> Result<HostView> {
        permit(cx, Permission::ManageHosts, None)?;
        let now = self.world().now();
        let actor = Actor::User(cx.subject.user_name.clone());
        let by = cx.subject.user_name.as_str();
        let (view, desired) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            permit(cx, Permission::ManageHosts, None)?;
            if let Some(view) = recall(tx, cx).await? {
                return Ok((view, None));
            }
            let found = enrolment::lock(tx, id).await?;
            let mut record = found.ok_or_else(|| Error::not_found(format!("host `{id}`")))?;
            let granted = grant(wish, &record, by, now);
            let desired = granted.as_ref().map(|granted| granted.desired);
            if let Some(granted) = granted {
                want(&mut record, granted.desired, granted.evacuation);
                host::set_desired(tx, &record).await?;
                let fact = host_event(now, &actor, id, granted.event);
                event::append(tx, &[fact]).await?;
            }
            let view: HostView = host_view(record, host_datastore::for_host(tx, id).await?);
            remember(tx, cx, now, &view).await?;
            Ok((view, desired))
        })?;
        if let Some(desired) = desired {
            self.inner.hub.wake();
            tracing::info!(host = %view.name, desired = desired.slug(), %by, "another state is wanted of a host");
        }
        Ok(view)
    }
}

/// What a wish changes; nothing where the host is as is wished.
fn grant(wish: Wish, host: &HostRecord, by: &str, now: Timestamp) -> Option<Granted> {
    use DesiredState as D;
    match (wish, host.desired) {
        (Wish::Cordon, D::Cordoned)
        | (Wish::Enable, D::Enabled)
        | (Wish::Evacuate { .. }, D::Maintenance) => None,
        (Wish::Cordon, D::Enabled | D::Draining | D::Maintenance) => Some(Granted {
            desired: D::Cordoned,
            evacuation: None,
            event: EventKind::HostCordoned,
        }),
        (Wish::Enable, D::Cordoned | D::Draining | D::Maintenance) => Some(Granted {
            desired: D::Enabled,
            evacuation: None,
            event: EventKind::HostEnabled,
        }),
        (Wish::Evacuate { limit }, D::Draining) => {
            let known = host.evacuation.clone()?;
            let limit = limit.filter(|limit| *limit != known.limit)?;
            Some(Granted {
                desired: D::Draining,
                evacuation: Some(EvacuationRecord { limit, ..known }),
                event: EventKind::HostDraining { limit },
            })
        }
        (Wish::Evacuate { limit }, D::Enabled | D::Cordoned) => {
            let limit = limit.unwrap_or(DEFAULT_LIMIT);
            Some(Granted {
                desired: D::Draining,
                evacuation: Some(EvacuationRecord {
                    begun_at: now,
                    by: by.to_owned(),
                    limit,
                    stuck: None,
                }),
                event: EventKind::HostDraining { limit },
            })
        }
    }
}

/// The record of a host of which that is wanted. Silence and doubt still show.
fn want(host: &mut HostRecord, desired: DesiredState, evacuation: Option<EvacuationRecord>) {
    host.desired = desired;
    host.evacuation = evacuation;
    match host.state {
        HostState::Enabled | HostState::Cordoned | HostState::Draining | HostState::Maintenance => {
            host.state = desired.state()
        }
        HostState::Doubted | HostState::Unknown => {}
    }
}
