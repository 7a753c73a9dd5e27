use leptos::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "ssr")]
use vimana_model::Error;
#[cfg(feature = "ssr")]
use vimana_model::event::EventKind;
use vimana_model::event::EventView;
#[cfg(feature = "ssr")]
use vimana_model::host::HostState;
use vimana_model::host::{HostView, OrphanView};
use vimana_model::{HostId, VmId};

use super::codec::Json;
use super::{ApiError, Key};
#[cfg(feature = "ssr")]
use crate::ssr;

/// A host with what its row says beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRow {
    pub host: HostView,
    /// Why it is doubted, while it is.
    pub doubt: Option<String>,
}

/// Everything on one host's page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostPageData {
    pub row: HostRow,
    pub orphans: Vec<OrphanView>,
    /// Oldest first.
    pub events: Vec<EventView>,
}

#[cfg(feature = "ssr")]
fn doubt(host: &HostView, events: &[EventView]) -> Option<String> {
    let reason = |event: &EventView| {
        if let EventKind::HostDoubted { reason } = &event.event {
            Some(reason.clone())
        } else {
            None
        }
    };
    (host.state == HostState::Doubted)
        .then(|| events.iter().rev().find_map(reason))
        .flatten()
}

#[server(prefix = "/portal/api", endpoint = "hosts", input = Json, output = Json)]
pub async fn hosts() -> Result<Vec<HostRow>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let mut rows = Vec::new();
    for host in engine.hosts(&cx).await.map_err(ssr::refuse)? {
        // Few are: what happened to the others is not looked at.
        let events = if host.state == HostState::Doubted {
            engine
                .host_timeline(&cx, host.id)
                .await
                .map_err(ssr::refuse)?
        } else {
            Vec::new()
        };
        let doubt = doubt(&host, &events);
        rows.push(HostRow { host, doubt });
    }
    Ok(rows)
}

#[server(prefix = "/portal/api", endpoint = "host", input = Json, output = Json)]
pub async fn host(id: HostId) -> Result<HostPageData, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let hosts = engine.hosts(&cx).await.map_err(ssr::refuse)?;
    let host = hosts.into_iter().find(|host| host.id == id);
    let host = host.ok_or_else(|| ssr::refuse(Error::not_found(format!("host `{id}`"))))?;
    let events = engine.host_timeline(&cx, id).await.map_err(ssr::refuse)?;
    let orphans = engine.host_orphans(&cx, id).await.map_err(ssr::refuse)?;
    let doubt = doubt(&host, &events);
    Ok(HostPageData {
        row: HostRow { host, doubt },
        orphans,
        events,
    })
}

#[server(prefix = "/portal/api", endpoint = "host-orphans", input = Json, output = Json)]
pub async fn host_orphans(id: HostId) -> Result<Vec<OrphanView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .host_orphans(&cx, id)
        .await
        .map_err(ssr::refuse)
}

/// Has the host remove a machine that is not recorded there.
#[server(name = DiscardOrphanCall, prefix = "/portal/api", endpoint = "discard-orphan", input = Json, output = Json)]
pub async fn discard_orphan(host: HostId, machine: VmId, key: Key) -> Result<OrphanView, ApiError> {
    let cx = ssr::caller_once("discard-orphan", &(host, machine), key)
        .await
        .map_err(ssr::refuse)?;
    ssr::engine()
        .map_err(ssr::refuse)?
        .discard_orphan(&cx, host, machine)
        .await
        .map_err(ssr::refuse)
}
