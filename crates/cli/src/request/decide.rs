//! What is done with a request.

use vimana_model::request::{RequestAction, RequestDecision, RequestView};
use vimana_model::vm::CreateVm;

use super::{resolve, show};
use crate::args::{Decision, Terms};
use crate::credentials;
use crate::failure::Outcome;
use crate::wait::RequestWatch;

pub async fn decide(
    decision: Decision,
    action: RequestAction,
    remark: Option<String>,
    terms: Terms,
) -> Outcome {
    let Decision {
        request,
        wait,
        json,
    } = decision;
    let client = credentials::client()?;
    let id = resolve(&client, &request).await?;
    let mut form = RequestDecision {
        remark,
        ..RequestDecision::default()
    };
    if terms.any() {
        let before = client.request(id).await?;
        form.generation = Some(before.generation);
        form.terms = Some(changed(before, terms));
    }
    let watch = RequestWatch::open(&client, wait).await?;
    let request = client.act_on_request(id, action, &form).await?;
    show::report(request, watch, json).await
}

/// The terms so far with what is to be different.
fn changed(request: RequestView, terms: Terms) -> CreateVm {
    let Terms {
        vm_name,
        image,
        flavor,
    } = terms;
    let before = request.terms;
    CreateVm {
        name: vm_name.unwrap_or(before.name),
        image: image.unwrap_or(before.image),
        flavor: flavor.unwrap_or(before.flavor),
        ..before
    }
}
