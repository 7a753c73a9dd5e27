use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use vimana_model::evacuation::{EvacuateHost, EvacuationView};
#[cfg(feature = "ssr")]
use vimana_model::event::EventKind;
use vimana_model::event::EventView;
#[cfg(feature = "ssr")]
use vimana_model::host::{DesiredState, HostState};
use vimana_model::host::{HostView, OrphanView};
#[cfg(feature = "ssr")]
use vimana_model::{Error, ErrorKind};
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
    /// How far its VMs are gone, where that was asked for.
    pub evacuation: Option<EvacuationView>,
}

/// What administrators want of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostWish {
    Cordon,
    Evacuate(EvacuateHost),
    Enable,
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

/// How far its VMs are gone, where that is wanted.
#[cfg(feature = "ssr")]
async fn evacuation_of(host: &HostView) -> Result<Option<EvacuationView>, ApiError> {
    match host.desired {
        DesiredState::Enabled | DesiredState::Cordoned => Ok(None),
        DesiredState::Draining | DesiredState::Maintenance => host_evacuation(host.id).await,
    }
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
        rows.push(HostRow {
            doubt: doubt(&host, &events),
            evacuation: evacuation_of(&host).await?,
            host,
        });
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
    Ok(HostPageData {
        row: HostRow {
            doubt: doubt(&host, &events),
            evacuation: evacuation_of(&host).await?,
            host,
        },
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

/// How far the evacuation of a host is; nothing where it is not evacuated.
#[server(prefix = "/portal/api", endpoint = "host-evacuation", input = Json, output = Json)]
pub async fn host_evacuation(id: HostId) -> Result<Option<EvacuationView>, ApiError> {
    let cx = ssr::caller().await.map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    match engine.evacuation(&cx, id).await {
        Ok(view) => Ok(Some(view)),
        Err(error) if error.kind == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(ssr::refuse(error)),
    }
}

/// Has it as it is wished; gives the host as it is then.
#[server(prefix = "/portal/api", endpoint = "wish-of-host", input = Json, output = Json)]
pub async fn wish_of_host(id: HostId, wish: HostWish, key: Key) -> Result<HostView, ApiError> {
    let cx = ssr::caller_once("wish-of-host", &(id, wish), key)
        .await
        .map_err(ssr::refuse)?;
    let engine = ssr::engine().map_err(ssr::refuse)?;
    let host = match wish {
        HostWish::Cordon => engine.cordon_host(&cx, id).await,
        HostWish::Evacuate(form) => engine.evacuate_host(&cx, id, &form).await,
        HostWish::Enable => engine.enable_host(&cx, id).await,
    };
    host.map_err(ssr::refuse)
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
