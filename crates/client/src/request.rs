//! Requests of the manual life-cycle.

use reqwest::Method;
use vimana_model::event::EventView;
use vimana_model::request::{
    CreateRequest, RequestAction, RequestDecision, RequestState, RequestView,
};
use vimana_model::{RequestId, Result};

use crate::Client;
use crate::transport::Items;

/// Which requests to list; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// In one of these states; empty means any.
    pub states: Vec<RequestState>,
    /// Only the caller's own.
    pub mine: bool,
    /// At most this many; the server has a limit of its own.
    pub limit: Option<u32>,
}

impl RequestFilter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let Self {
            states,
            mine,
            limit,
        } = self;
        let slugs: Vec<&str> = states.iter().map(|state| state.slug()).collect();
        [
            ("state", (!slugs.is_empty()).then(|| slugs.join(","))),
            ("mine", mine.then(|| "true".to_owned())),
            ("limit", limit.map(|limit| limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

impl Client {
    /// Newest first.
    pub async fn requests(&self, filter: &RequestFilter) -> Result<Vec<RequestView>> {
        let request = self.prepare(Method::GET, "/api/v1/requests")?;
        let list: Items<_> = self.call(request.query(&filter.query())).await?;
        Ok(list.items)
    }

    pub async fn create_request(&self, form: &CreateRequest) -> Result<RequestView> {
        self.post_json("/api/v1/requests", form).await
    }

    pub async fn request(&self, id: RequestId) -> Result<RequestView> {
        self.get(&format!("/api/v1/requests/{id}")).await
    }

    pub async fn act_on_request(
        &self,
        id: RequestId,
        action: RequestAction,
        decision: &RequestDecision,
    ) -> Result<RequestView> {
        let path = format!("/api/v1/requests/{id}/{action}");
        self.post_json(&path, decision).await
    }

    /// Oldest first.
    pub async fn request_timeline(&self, id: RequestId) -> Result<Vec<EventView>> {
        let list: Items<_> = self.get(&format!("/api/v1/requests/{id}/events")).await?;
        Ok(list.items)
    }
}
