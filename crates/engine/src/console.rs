//! Serial consoles: tickets, and joining a viewer with the agent that dials in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::event::{Actor, EventKind};
use vimana_model::session::TicketView;
use vimana_model::{ConsoleId, Error, ErrorKind, HostId, Result, VmId};
use vimana_protocol::agent::ToAgent;
use vimana_store::event::NewEvent;
use vimana_store::{event, vm, write_tx};

use crate::authorize::authorized;
use crate::context::{OpContext, new_id};
use crate::limits::{
    CONSOLE_DIAL_IN, MAX_CONSOLE_CHUNKS, MAX_DIALLING_CONSOLES, MAX_TICKETS, TICKET_LIFE,
};
use crate::{Engine, secret};

/// Where a viewer sends its ticket.
const CONSOLE_PATH: &str = "/api/v1/console";

/// One end of a serial line. Dropping it hangs up.
pub struct ConsoleEnd {
    pub to_peer: mpsc::Sender<Bytes>,
    pub from_peer: mpsc::Receiver<Bytes>,
}

/// What a redeemed ticket permits.
pub struct ConsoleGrant {
    pub vm_id: VmId,
    cx: OpContext,
}

struct Ticket {
    vm_id: VmId,
    cx: OpContext,
    /// In memory alone, and so by the time that passes.
    until: Duration,
}

/// Tickets not yet used, and viewers whose agent has not dialled in yet.
#[derive(Default)]
pub struct Consoles {
    /// By the stored form of the secret.
    tickets: Mutex<HashMap<String, Ticket>>,
    dialling: Mutex<HashMap<ConsoleId, oneshot::Sender<ConsoleEnd>>>,
}

impl Engine {
    /// A one-use ticket for the serial console of a VM.
    ///
    /// # Errors
    /// `Conflict` with the table's sentence when the VM has no console now.
    pub async fn console_ticket(&self, cx: &OpContext, id: VmId) -> Result<TicketView> {
        self.consoled_host(cx, id).await?;
        let text = secret::fresh(self.world(), "console_");
        let life = i64::try_from(TICKET_LIFE.as_millis()).unwrap_or(i64::MAX);
        let expires_at = self.world().now().plus_ms(life);
        let passed = self.world().passed();
        let mut tickets = self
            .inner
            .consoles
            .tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, ticket| ticket.until > passed);
        if tickets.len() >= MAX_TICKETS {
            return Err(Error::unavailable(
                "too many consoles are being opened; try again shortly",
            ));
        }
        let ticket = Ticket {
            vm_id: id,
            cx: cx.clone(),
            until: passed.saturating_add(TICKET_LIFE),
        };
        tickets.insert(secret::stored_form(&text), ticket);
        Ok(TicketView {
            ticket: text,
            vm_id: id,
            expires_at,
            path: CONSOLE_PATH.to_owned(),
        })
    }

    /// Uses up a ticket.
    ///
    /// # Errors
    /// `Unauthenticated` for one that is unknown, used or expired.
    pub async fn redeem_ticket(&self, text: &str) -> Result<ConsoleGrant> {
        let spent = || {
            Error::new(
                ErrorKind::Unauthenticated,
                "the console ticket is unknown, used or expired; open the console again",
            )
        };
        let ticket = self
            .inner
            .consoles
            .tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&secret::stored_form(text));
        let ticket = ticket.filter(|ticket| ticket.until > self.world().passed());
        let Ticket { vm_id, cx, .. } = ticket.ok_or_else(spent)?;
        Ok(ConsoleGrant { vm_id, cx })
    }

    /// Asks the VM's agent for its serial line and waits for it.
    ///
    /// # Errors
    /// `Conflict` when the VM has no console now, `Unavailable` when its
    /// agent does not answer.
    pub async fn open_console(&self, grant: ConsoleGrant) -> Result<ConsoleEnd> {
        let ConsoleGrant { vm_id, cx } = grant;
        let host_id = self.consoled_host(&cx, vm_id).await?;
        let console_id = new_id!(self.world(), ConsoleId);
        let (joined, waits) = oneshot::channel();
        {
            let consoles = &self.inner.consoles;
            let mut dialling = consoles
                .dialling
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            dialling.retain(|_, viewer| !viewer.is_closed());
            if dialling.len() >= MAX_DIALLING_CONSOLES {
                return Err(Error::unavailable(
                    "too many consoles are being opened; try again",
                ));
            }
            dialling.insert(console_id, joined);
        }
        let silent = || Error::unavailable("the host does not answer; try again shortly");
        if !self
            .inner
            .agents
            .send_frame(host_id, ToAgent::OpenConsole { console_id, vm_id })
        {
            return Err(silent());
        }
        let end = tokio::time::timeout(CONSOLE_DIAL_IN, waits).await;
        let end = end.map_err(|_| silent())?.map_err(|_| silent())?;
        self.note_console(&cx, vm_id).await?;
        Ok(end)
    }

    /// An agent dials in; `None` when nobody waits for this console.
    #[must_use]
    pub fn join_console(&self, id: ConsoleId) -> Option<ConsoleEnd> {
        let consoles = &self.inner.consoles;
        let viewer = consoles
            .dialling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id)?;
        let (to_agent, from_viewer) = mpsc::channel(MAX_CONSOLE_CHUNKS);
        let (to_viewer, from_agent) = mpsc::channel(MAX_CONSOLE_CHUNKS);
        viewer
            .send(ConsoleEnd {
                to_peer: to_agent,
                from_peer: from_agent,
            })
            .ok()?;
        Some(ConsoleEnd {
            to_peer: to_viewer,
            from_peer: from_viewer,
        })
    }

    /// The host whose agent has the VM's serial line, if the caller may have it.
    async fn consoled_host(&self, cx: &OpContext, id: VmId) -> Result<HostId> {
        let found = vm::find(&self.store().read(), id).await?;
        let permission = Permission::ActOnVm(VmAction::Console);
        let vm = authorized(cx, permission, format!("vm `{id}`"), found)?;
        VmAction::Console
            .judge(vm.state)
            .map_err(|refusal| Error::conflict(format!("`{}` {refusal}", vm.name)))?;
        let host = vm.host.as_ref().map(|host| host.id);
        host.ok_or_else(|| Error::conflict(format!("`{}` has no host", vm.name)))
    }

    async fn note_console(&self, cx: &OpContext, id: VmId) -> Result<()> {
        let fact = NewEvent {
            at: self.world().now(),
            actor: Actor::User(cx.subject.user_name.clone()),
            tenant_id: None,
            vm_id: Some(id),
            host_id: None,
            request_id: None,
            image_id: None,
            volume_id: None,
            event: EventKind::ConsoleOpened,
        };
        write_tx!(self.store(), |tx| {
            let Some(vm) = vm::find(tx, id).await? else {
                return Ok(());
            };
            let fact = NewEvent {
                tenant_id: Some(vm.tenant_id),
                ..fact.clone()
            };
            event::append(tx, &[fact]).await?;
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }
}
