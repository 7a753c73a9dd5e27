//! Templates.

use std::path::Path;

use serde::de::DeserializeOwned;
use vimana_client::Client;
use vimana_model::template::{ChangeTemplate as Change, CreateTemplate as Form, TemplateView};

use crate::args::{ChangeTemplate, CreateTemplate, Json, Template, TemplateShown};
use crate::failure::{Failure, Outcome};
use crate::text::shown;
use crate::{credentials, input, output};

pub async fn run(command: Template) -> Outcome {
    match command {
        Template::List(json) => list(json).await,
        Template::Show(args) => show(args).await,
        Template::Create(args) => create(args).await,
        Template::Change(args) => change(args).await,
        Template::Delete(args) => delete(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let templates = credentials::client()?.templates().await?;
    if json {
        return output::json(&templates);
    }
    let rows: Vec<_> = templates
        .iter()
        .map(|template| {
            let inputs = template.inputs.iter();
            let inputs: Vec<&str> = inputs.map(|input| input.name.as_str()).collect();
            [
                template.name.to_string(),
                name(template.image.as_ref()),
                name(template.flavor.as_ref()),
                inputs.join(" "),
                whose(template).to_owned(),
                template.id.to_string(),
            ]
        })
        .collect();
    let titles = ["NAME", "IMAGE", "FLAVOR", "INPUTS", "FOR", "ID"];
    output::table(titles, &rows, "no templates")
}

async fn show(args: TemplateShown) -> Outcome {
    let found = find(&credentials::client()?, &args.template).await?;
    if args.json.json {
        return output::json(&found);
    }
    let mut pairs = vec![
        ("name", found.name.to_string()),
        ("id", found.id.to_string()),
        ("for", whose(&found).to_owned()),
        ("made by", found.owner.to_string()),
        ("description", found.description.clone()),
        ("image", name(found.image.as_ref())),
        ("flavor", name(found.flavor.as_ref())),
    ];
    for input in &found.inputs {
        let need = if input.required { ", required" } else { "" };
        let mut line = format!("{} ({}{need}): {}", input.name, input.kind, input.label);
        if let Some(default) = &input.default {
            line.push_str(&format!("; default {}", default.shown()));
        }
        if !input.choices.is_empty() {
            line.push_str(&format!("; one of {}", input.choices.join(", ")));
        }
        pairs.push(("input", line));
    }
    let data = found.user_data.as_ref();
    for (index, line) in data.map_or("", |data| data.as_str()).lines().enumerate() {
        let title = if index == 0 { "user-data" } else { "" };
        pairs.push((title, line.to_owned()));
    }
    output::fields(&pairs)
}

async fn create(args: CreateTemplate) -> Outcome {
    let mut form: Form = form(&args.file)?;
    form.public |= args.public;
    let made = credentials::client()?.create_template(&form).await?;
    report(&made, args.json, "is there")
}

async fn change(args: ChangeTemplate) -> Outcome {
    let form: Change = form(&args.file)?;
    let client = credentials::client()?;
    let found = find(&client, &args.template).await?;
    let changed = client.change_template(found.id, &form).await?;
    report(&changed, args.json, "is changed")
}

async fn delete(args: TemplateShown) -> Outcome {
    let client = credentials::client()?;
    let found = find(&client, &args.template).await?;
    let gone = client.delete_template(found.id).await?;
    report(&gone, args.json, "is deleted")
}

/// An id names itself; a name means the tenant's own before the one for all.
async fn find(client: &Client, text: &str) -> Outcome<TemplateView> {
    let id = text.parse().ok();
    client
        .templates()
        .await?
        .into_iter()
        .filter(|template| template.name.as_str() == text || Some(template.id) == id)
        .max_by_key(|template| template.tenant_id.is_some())
        .ok_or_else(|| Failure::Failed(format!("template `{text}` not found")))
}

fn form<T: DeserializeOwned>(path: &Path) -> Outcome<T> {
    let text = input::read(path)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Failed(format!("{} is no template: {error}", path.display())))
}

fn report(template: &TemplateView, Json { json }: Json, what: &str) -> Outcome {
    if json {
        return output::json(template);
    }
    let TemplateView { name, id, .. } = template;
    output::line(&shown(&format!("template {name} ({id}) {what}")))
}

fn name<T: ToString>(name: Option<&T>) -> String {
    name.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn whose(template: &TemplateView) -> &'static str {
    match template.tenant_id {
        Some(_) => "tenant",
        None => "all",
    }
}
