//! What a VM is to be: the fields of the form, for those who ask for one and
//! for those who approve it with changes; and the difference between two.

mod inputs;
mod takes;

use leptos::prelude::*;
use vimana_model::flavor::FlavorView;
use vimana_model::template::Inputs;
use vimana_model::unit::Resources;
use vimana_model::vm::CreateVm;
use vimana_ui::{CheckField, Choice, SelectField, TextAreaField, TextField, memo, part};

use super::sentence;
use crate::api::{ApiError, Catalogue};
use inputs::{FilledIn, InputFields, values};
use takes::Takes;

/// "2 vCPUs, 1 GiB memory, 8 GiB disk".
#[must_use]
pub fn size(size: Resources) -> String {
    let cpus = if size.vcpus == 1 { "vCPU" } else { "vCPUs" };
    format!(
        "{} {cpus}, {} memory, {} disk",
        size.vcpus, size.memory_mib, size.disk_mib
    )
}

/// What is in the form, and which of it the user has been to.
#[derive(Clone, Copy)]
pub struct TermsDraft {
    name: RwSignal<String>,
    /// None, where it is empty.
    template: RwSignal<String>,
    /// What is filled in for the template; what was filled in before, as long
    /// as there are no fields for it.
    fields: RwSignal<Vec<FilledIn>>,
    before: RwSignal<Inputs>,
    /// Whether the template says it.
    has_user_data: RwSignal<bool>,
    image: RwSignal<String>,
    flavor: RwSignal<String>,
    datastore: RwSignal<String>,
    ssh_key: RwSignal<String>,
    user_data: RwSignal<String>,
    hold: RwSignal<bool>,
    touched: RwSignal<Vec<String>>,
    touched_all: RwSignal<bool>,
    /// What the server said, and about which terms.
    refused: RwSignal<Option<(CreateVm, ApiError)>>,
}

impl TermsDraft {
    /// Begins with the smallest flavor, and with the image of that name or the
    /// first one.
    #[must_use]
    pub fn new(choices: &Catalogue, image: Option<&str>) -> Self {
        let smallest = |flavor: &&FlavorView| flavor.resources.memory_mib;
        let flavor = choices.flavors.iter().min_by_key(smallest);
        let named = |name| {
            let mut images = choices.images.iter();
            images.find(|image| image.name.as_str() == name)
        };
        let image = image.and_then(named).or(choices.images.first());
        Self::of(&CreateVm {
            image: image
                .map(|image| image.name.to_string())
                .unwrap_or_default(),
            flavor: flavor
                .map(|flavor| flavor.name.to_string())
                .unwrap_or_default(),
            ..CreateVm::default()
        })
    }

    /// Begins with what is already said.
    #[must_use]
    pub fn of(terms: &CreateVm) -> Self {
        let text = |text: &Option<String>| RwSignal::new(text.clone().unwrap_or_default());
        Self {
            name: RwSignal::new(terms.name.clone()),
            template: text(&terms.template),
            fields: RwSignal::new(Vec::new()),
            before: RwSignal::new(terms.inputs.clone()),
            has_user_data: RwSignal::new(false),
            image: RwSignal::new(terms.image.clone()),
            flavor: RwSignal::new(terms.flavor.clone()),
            datastore: RwSignal::new(datastore(terms)),
            ssh_key: text(&terms.ssh_key),
            user_data: text(&terms.user_data),
            hold: RwSignal::new(terms.hold),
            touched: RwSignal::new(Vec::new()),
            touched_all: RwSignal::new(false),
            refused: RwSignal::new(None),
        }
    }

    /// The form as it is now.
    #[must_use]
    pub fn terms(self) -> CreateVm {
        let filled = |text: String| (!text.trim().is_empty()).then_some(text);
        let fields = self.fields.with(|fields| values(fields));
        CreateVm {
            name: self.name.get(),
            template: filled(self.template.get()),
            inputs: if fields.is_empty() {
                self.before.get()
            } else {
                fields
            },
            image: self.image.get(),
            flavor: self.flavor.get(),
            ssh_key: filled(self.ssh_key.get()),
            user_data: filled(self.user_data.get()).filter(|_| !self.has_user_data.get()),
            datastore: Some(self.datastore.get()).filter(|name| name != LOCAL),
            hold: self.hold.get(),
        }
    }

    pub fn touch_all(self) {
        self.touched_all.set(true);
    }

    /// Whether nothing is wrong that can be seen from here.
    #[must_use]
    pub fn is_whole(self) -> bool {
        let filled = |fields: &Vec<FilledIn>| fields.iter().all(|field| field.error().is_none());
        self.terms().check().is_ok() && self.fields.with(filled)
    }

    /// Begins anew with a template; without one, what it said stays.
    fn start_from(self, choices: &Catalogue, name: &str) {
        let mut templates = choices.templates.iter();
        let template = templates.find(|template| template.name.as_str() == name);
        self.before.set(Inputs::new());
        self.fields
            .set(template.map(FilledIn::of).unwrap_or_default());
        let has_user_data = template.is_some_and(|template| template.user_data.is_some());
        self.has_user_data.set(has_user_data);
        if let Some(image) = template.and_then(|template| template.image.as_ref()) {
            self.image.set(image.to_string());
        }
        if let Some(flavor) = template.and_then(|template| template.flavor.as_ref()) {
            self.flavor.set(flavor.to_string());
        }
    }

    /// Keeps what the server said about `terms`.
    pub fn refuse(self, terms: CreateVm, error: ApiError) {
        self.refused.try_set(Some((terms, error)));
    }

    fn touch(self, field: impl Into<String>) -> Callback<()> {
        let field = field.into();
        Callback::new(move |()| {
            self.touched.update(|touched| {
                if !touched.contains(&field) {
                    touched.push(field.clone());
                }
            });
        })
    }

    /// What is wrong with a field: shown once the user has been there. The
    /// server's word holds as long as the form is the one it spoke about.
    fn error(self, field: impl Into<String>) -> Signal<Option<String>> {
        let field = field.into();
        Signal::derive(move || {
            let field = field.as_str();
            let terms = self.terms();
            let been = |touched: &Vec<String>| touched.iter().any(|touched| touched == field);
            let of_input = |fields: &Vec<FilledIn>| {
                let input = fields.iter().find(|input| input.is(field));
                input.and_then(FilledIn::error)
            };
            let own = (self.touched_all.get() || self.touched.with(been))
                .then(|| {
                    let error = terms.check().err();
                    let error = error.and_then(|error| ApiError::from(error).field(field));
                    error.or_else(|| self.fields.with(of_input))
                })
                .flatten();
            let theirs = || {
                self.refused.with(|refused| {
                    refused
                        .as_ref()
                        .filter(|(sent, _)| *sent == terms)
                        .and_then(|(_, error)| error.field(field))
                })
            };
            own.or_else(theirs).map(|text| sentence(&text))
        })
    }
}

#[component]
pub fn TermsFields(
    draft: TermsDraft,
    choices: Catalogue,
    /// The page is about this form: begin with it.
    #[prop(optional)]
    first: bool,
) -> impl IntoView {
    let images = choices
        .images
        .iter()
        .filter_map(|image| {
            let content = image.content.as_ref()?;
            Some(Choice {
                value: image.name.to_string(),
                text: format!(
                    "{} · {} disk, {}",
                    image.name, content.virtual_mib, content.format
                ),
            })
        })
        .collect();
    let flavors = choices
        .flavors
        .iter()
        .map(|flavor| Choice {
            value: flavor.name.to_string(),
            text: format!("{} · {}", flavor.name, size(flavor.resources)),
        })
        .collect();
    let (images, flavors) = (with(images, draft.image), with(flavors, draft.flavor));
    let places = with(places(&choices), draft.datastore);
    let places = (places.len() > 1).then(|| {
        view! {
            <SelectField
                id="datastore"
                label="Datastore"
                hint="For its disk. In one that several hosts share, the disk stays where it is when the VM migrates."
                choices=places
                value=draft.datastore
                error=draft.error("datastore")
            />
        }
    });
    let takes = first.then(|| view! { <Takes draft=draft choices=choices.clone()/> });
    let presets = (first && !choices.templates.is_empty()).then(|| presets(draft, choices));
    let fields = part(move || {
        let fields = draft.fields.get();
        Some(view! { <InputFields draft=draft fields=fields/> })
    });
    let asks_user_data = memo(move || !draft.has_user_data.get());
    view! {
        <TextField
            id="name"
            label="Name"
            hint="Letters, digits, “-”, “_” and “.”; it becomes the host name in the machine."
            placeholder="web-1"
            autofocus=first
            value=draft.name
            error=draft.error("name")
            on_leave=draft.touch("name")
        />
        {presets}
        <SelectField id="image" label="Image" choices=images value=draft.image error=draft.error("image")/>
        <SelectField id="flavor" label="Flavor" choices=flavors value=draft.flavor error=draft.error("flavor")/>
        {places}
        {fields}
        <TextAreaField
            id="ssh_key"
            label="SSH keys"
            hint="The public keys that may log in, a line each."
            placeholder="ssh-ed25519 AAAA… you@laptop"
            value=draft.ssh_key
            error=draft.error("ssh_key")
            on_leave=draft.touch("ssh_key")
        />
        {part(move || asks_user_data.get().then(|| view! {
            <TextAreaField
                id="user_data"
                label="User-data"
                hint="For cloud-init, handed to the machine as it is."
                placeholder="#cloud-config"
                rows="5"
                value=draft.user_data
                error=draft.error("user_data")
                on_leave=draft.touch("user_data")
            />
        }))}
        <CheckField
            id="hold"
            label="Hold it"
            hint="Keep it from being placed until somebody releases it."
            value=draft.hold
        />
        {takes}
    }
    .into_any()
}

/// The datastore of every host.
const LOCAL: &str = "local";

/// The one that the disk is to be in.
fn datastore(terms: &CreateVm) -> String {
    let named = terms.datastore.as_deref().map(str::trim);
    let named = named.filter(|name| !name.is_empty());
    named.unwrap_or(LOCAL).to_owned()
}

fn places(choices: &Catalogue) -> Vec<Choice> {
    let named = choices.datastores.iter().map(|name| Choice {
        value: name.to_string(),
        text: match name.is_local() {
            true => format!("{name} · its host's own directory"),
            false => name.to_string(),
        },
    });
    named.collect()
}

/// The choice of a template; what it says is filled in below.
fn presets(draft: TermsDraft, choices: Catalogue) -> AnyView {
    let none = Choice {
        value: String::new(),
        text: "None".to_owned(),
    };
    let named = choices.templates.iter().map(|template| Choice {
        value: template.name.to_string(),
        text: match template.description.lines().next() {
            Some(about) => format!("{} · {about}", template.name),
            None => template.name.to_string(),
        },
    });
    let listed = std::iter::once(none).chain(named).collect();
    view! {
        <SelectField
            id="template"
            label="Template"
            hint="A preset to start from: what it says is filled in below."
            choices=listed
            value=draft.template
            error=draft.error("template")
            on_choose=Callback::new(move |name: String| draft.start_from(&choices, &name))
        />
    }
    .into_any()
}

/// The choices with what is chosen among them, even where it is no longer on
/// offer.
fn with(mut choices: Vec<Choice>, chosen: RwSignal<String>) -> Vec<Choice> {
    let value = chosen.get_untracked();
    if !value.is_empty() && !choices.iter().any(|choice| choice.value == value) {
        let text = format!("{value} · no longer on offer");
        choices.push(Choice { value, text });
    }
    choices
}

/// One thing that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub title: &'static str,
    pub from: String,
    pub to: String,
}

/// What of `terms` changes with `next`.
#[must_use]
pub fn changes(terms: &CreateVm, next: &CreateVm) -> Vec<Change> {
    // A template and what is filled in for it is not offered for a change.
    let CreateVm {
        name,
        template: _,
        inputs: _,
        image,
        flavor,
        ssh_key,
        user_data,
        datastore: _,
        hold,
    } = terms;
    let given = |text: &Option<String>| {
        let text = text.as_deref().map(str::trim);
        let given = text.is_some_and(|text| !text.is_empty());
        if given { "given" } else { "none" }.to_owned()
    };
    let other = |from: &Option<String>, to: &Option<String>| {
        // What it says may be long, and is in the form.
        match (given(from), given(to)) {
            (from, to) if from == to => (from, "another".to_owned()),
            both => both,
        }
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let clean = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default().trim();
        text.to_owned()
    };
    let mut changes = Vec::new();
    let mut note = |changed: bool, title: &'static str, (from, to): (String, String)| {
        if changed {
            changes.push(Change { title, from, to });
        }
    };
    note(
        *name != next.name,
        "Name",
        (name.clone(), next.name.clone()),
    );
    note(
        *image != next.image,
        "Image",
        (image.clone(), next.image.clone()),
    );
    note(
        *flavor != next.flavor,
        "Flavor",
        (flavor.clone(), next.flavor.clone()),
    );
    let (from, to) = (datastore(terms), datastore(next));
    note(from != to, "Datastore", (from, to));
    note(
        clean(ssh_key) != clean(&next.ssh_key),
        "SSH keys",
        other(ssh_key, &next.ssh_key),
    );
    note(
        clean(user_data) != clean(&next.user_data),
        "User-data",
        other(user_data, &next.user_data),
    );
    note(*hold != next.hold, "Hold it", (yes(*hold), yes(next.hold)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_a_change() {
        let asked = CreateVm {
            name: "web-1".to_owned(),
            flavor: "large".to_owned(),
            ssh_key: Some("ssh-ed25519 AAAA\n".to_owned()),
            ..CreateVm::default()
        };
        let given = CreateVm {
            flavor: "small".to_owned(),
            ssh_key: Some("ssh-ed25519 AAAA".to_owned()),
            user_data: Some(String::new()),
            hold: true,
            ..asked.clone()
        };
        let shown: Vec<String> = changes(&asked, &given)
            .into_iter()
            .map(|change| format!("{}: {} → {}", change.title, change.from, change.to))
            .collect();
        assert_eq!(shown, ["Flavor: large → small", "Hold it: no → yes"]);
        assert_eq!(changes(&asked, &asked), []);
    }

    #[test]
    fn another_key_is_named_without_showing_it() {
        let with = |user_data: &str| CreateVm {
            user_data: Some(user_data.to_owned()),
            ..CreateVm::default()
        };
        let found = changes(&with("#cloud-config\na: 1"), &with("#cloud-config\na: 2"));
        assert_eq!(
            found,
            [Change {
                title: "User-data",
                from: "given".to_owned(),
                to: "another".to_owned()
            }]
        );
    }
}
