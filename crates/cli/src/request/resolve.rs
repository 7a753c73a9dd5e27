//! From what a person calls a request to its id.

use vimana_client::{Client, RequestFilter};
use vimana_model::RequestId;
use vimana_model::request::RequestView;

use crate::failure::{Failure, Outcome};
use crate::limits::MAX_LISTED_REQUESTS;

/// An id names itself. A VM's name means the request for it that is not over,
/// else the newest that is.
pub async fn resolve(client: &Client, text: &str) -> Outcome<RequestId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let filter = RequestFilter {
        states: Vec::new(),
        mine: false,
        limit: Some(MAX_LISTED_REQUESTS),
    };
    choose(text, &client.requests(&filter).await?)
}

/// `requests` is newest first.
fn choose(name: &str, requests: &[RequestView]) -> Outcome<RequestId> {
    let named = || requests.iter().filter(|request| request.terms.name == name);
    let open: Vec<RequestId> = named()
        .filter(|request| !request.state.is_final())
        .map(|request| request.id)
        .collect();
    match (open.as_slice(), named().next()) {
        ([id], _) => Ok(*id),
        ([], Some(over)) => Ok(over.id),
        ([], None) => Err(Failure::Failed(format!("request `{name}` not found"))),
        (several, _) => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::Failed(format!(
                "several requests are for `{name}`; say which by its id: {}",
                ids.join(", ")
            )))
        }
    }
}
