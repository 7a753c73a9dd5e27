//! One request, for people.

use vimana_model::request::RequestView;

use super::resolve;
use crate::args::{Json, RequestShown};
use crate::failure::Outcome;
use crate::text::shown;
use crate::wait::RequestWatch;
use crate::{credentials, output};

pub async fn show(args: RequestShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.request).await?;
    let request = client.request(id).await?;
    if args.json.json {
        output::json(&request)
    } else {
        output::fields(&pairs(&request))
    }
}

/// Waits where asked, then prints the request as it is now.
pub async fn report(
    request: RequestView,
    watch: Option<RequestWatch>,
    Json { json }: Json,
) -> Outcome {
    let request = match watch {
        Some(watch) => watch.until(request).await?,
        None => request,
    };
    if json {
        return output::json(&request);
    }
    let text = format!(
        "request {} ({}) is in state {}: {}",
        request.terms.name,
        request.id,
        request.state.slug(),
        request.state.meaning()
    );
    output::line(&shown(&text))
}

fn pairs(request: &RequestView) -> Vec<(&'static str, String)> {
    let terms = &request.terms;
    let mut pairs = vec![
        ("name", terms.name.clone()),
        ("id", request.id.to_string()),
        (
            "state",
            format!(
                "{} since {}: {}",
                request.state.slug(),
                output::time(request.state_since),
                request.state.meaning()
            ),
        ),
        ("requester", request.requester.to_string()),
        ("image", terms.image.clone()),
        ("flavor", terms.flavor.clone()),
    ];
    if let Some(template) = &terms.template {
        pairs.push(("template", template.clone()));
    }
    for (name, value) in &terms.inputs {
        pairs.push(("input", format!("{name}: {}", value.shown())));
    }
    if let Some(vm) = &request.vm {
        pairs.push(("vm", format!("{} is {}", vm.id, vm.state.slug())));
    }
    for remark in &request.remarks {
        let did = remark
            .action
            .map_or("asked for it", |action| action.title());
        let mut line = format!("{} {}: {did}", output::time(remark.at), remark.by);
        for change in &remark.changes {
            line.push_str(&format!("; {change}"));
        }
        if !remark.text.is_empty() {
            line.push_str(&format!(": {}", remark.text));
        }
        pairs.push(("", line));
    }
    pairs
}
