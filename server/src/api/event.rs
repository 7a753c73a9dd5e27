//! What happens, as it happens: server-sent events.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use vimana_engine::WatchItem;
use vimana_model::event::StreamItem;
use vimana_model::{Error, ErrorKind, Result};

use super::extract::{Caller, Query};
use super::problem::{ApiResult, Refusals};
use crate::limits;
use crate::state::App;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct StreamParams {
    /// Begin after this event; the default is with what happens from now on.
    /// A `Last-Event-ID` header wins.
    after: Option<u64>,
}

/// Follow what happens
///
/// Server-sent events. `item` carries one event and how things look after it,
/// and its id is the event's `seq`; come back with it in `Last-Event-ID` and
/// nothing is missed. `reset` carries `{"seq": …}`: too much was missed to be
/// told, load everything again and go on from there. `progress` carries a
/// VM's id and how far its operation is; it has no id, and nothing is lost
/// where one is missed. A comment comes every ten seconds when nothing else
/// does.
#[utoipa::path(
    get, path = "/events", tag = "event", operation_id = "events",
    params(StreamParams),
    responses(
        (status = 200, description = "Events", body = StreamItem, content_type = "text/event-stream"),
        Refusals,
    ),
)]
pub async fn stream(
    State(app): State<App>,
    Caller(cx): Caller,
    Query(params): Query<StreamParams>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
    let permit = app.stream_permit()?;
    let after = last_event_id(&headers)?.or(params.after);
    let items = app.engine.watch(&cx, after).filter_map(move |item| {
        // Held as long as the stream is.
        let _open = &permit;
        std::future::ready(event(&item).map(Ok))
    });
    // Something is said at once, so that the reader knows it is connected.
    let hello = stream::once(std::future::ready(
        Ok(Event::default().comment("connected")),
    ));
    let events = hello
        .chain(items)
        .take_until(app.stopping.clone().cancelled_owned());
    let keep_alive = KeepAlive::new().interval(limits::STREAM_KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok());
    seq.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Malformed,
            "Last-Event-ID holds no number of an event",
        )
    })
}

fn event(item: &WatchItem) -> Option<Event> {
    let made = match item {
        WatchItem::Item(item) => Event::default()
            .id(item.event.seq.to_string())
            .event("item")
            .json_data(item),
        WatchItem::Progress(item) => Event::default().event("progress").json_data(item),
        WatchItem::Reset { seq } => Event::default()
            .id(seq.to_string())
            .event("reset")
            .json_data(serde_json::json!({ "seq": seq })),
    };
    match made {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(%error, "an event cannot be written");
            None
        }
    }
}
