//! `/images/new`: brings an image into the catalogue. The same checks run here,
//! as one types, and on the server.

use std::sync::Arc;

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::hooks::use_navigate;
use vimana_model::image::{ImageFormat, ImportImage, RefreshEvery, Upload};
use vimana_model::name::ImageName;
use vimana_model::volume::{VolumeAction, VolumeView};
use vimana_ui::{
    CheckField, Choice, EmptyState, FileField, FormError, Picked, SelectField, Submit, TextField,
    memo, part, press, word,
};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use super::sentence;
use crate::api::{ApiError, Key, import_image, once};
use crate::live::Live;
use crate::session::{Caller, CurrentSession, NOT_ALLOWED};
use crate::uploads::Uploads;

lazy_page!(
    /// The form that imports an image.
    NewImagePage in images = page, wants || Wanted::Volumes
);

fn page(asked: Asked) -> AnyView {
    view! {
        <Title text="Import an image"/>
        <Loaded
            asked=asked
            show=Arc::new(|caller, _, found| {
                let Found::Volumes(volumes) = found else {
                    return None;
                };
                Some(view! { <Page caller=caller volumes=volumes/> }.into_any())
            })
            // The form is what somebody is typing into: it stays.
            again=Arc::new(|_, _| ())
        />
    }
    .into_any()
}

#[component]
fn Page(caller: Caller, volumes: Vec<VolumeView>) -> impl IntoView {
    let (own, public) = (caller.may_import(false), caller.may_import(true));
    let body = if own || public {
        view! { <ImportForm may_publish=public volumes=volumes/> }.into_any()
    } else {
        view! { <EmptyState title="Not allowed" text=NOT_ALLOWED/> }.into_any()
    };
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><a href="/images">"Images"</a></p>
                <h1>"Import an image"</h1>
                <p class="lead">"It is brought here, unpacked and checked; then VMs can be made from it."</p>
            </div>
        </div>
        {body}
    }
    .into_any()
}

/// Where the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Web,
    File,
    Volume,
    Server,
}

impl Place {
    /// The field that says it.
    const fn field(self) -> &'static str {
        match self {
            Self::Web => "url",
            Self::File => "upload",
            Self::Volume => "volume",
            Self::Server => "path",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Web => "From a URL",
            Self::File => "Upload a file",
            Self::Volume => "From a volume",
            Self::Server => "From the server's disk",
        }
    }
}

/// What is in the form, and which of it the user has been to.
#[derive(Clone, Copy)]
struct Draft {
    from: RwSignal<Place>,
    url: RwSignal<String>,
    refresh: RwSignal<String>,
    file: RwSignal<Option<Picked>>,
    path: RwSignal<String>,
    /// Its id.
    volume: RwSignal<String>,
    /// Those that there is something on, by their ids.
    volumes: StoredValue<Vec<Choice>>,
    name: RwSignal<String>,
    checksum: RwSignal<String>,
    format: RwSignal<String>,
    public: RwSignal<bool>,
    touched: RwSignal<Vec<&'static str>>,
    /// What the server said, and about which form.
    refused: RwSignal<Option<(ImportImage, ApiError)>>,
}

impl Draft {
    fn new(volumes: &[VolumeView]) -> Self {
        let empty = || RwSignal::new(String::new());
        Self {
            from: RwSignal::new(Place::Web),
            url: empty(),
            refresh: empty(),
            file: RwSignal::new(None),
            path: empty(),
            volume: empty(),
            volumes: StoredValue::new(choices_of(volumes)),
            name: empty(),
            checksum: empty(),
            format: empty(),
            public: RwSignal::new(false),
            touched: RwSignal::new(Vec::new()),
            refused: RwSignal::new(None),
        }
    }

    /// The form as it is now.
    fn form(self) -> ImportImage {
        let checksum = self.checksum.get();
        let given = Some(self.name.get()).filter(|name| !name.is_empty());
        let mut form = ImportImage {
            name: given.or_else(|| self.suggested()).unwrap_or_default(),
            checksum: (!checksum.trim().is_empty()).then_some(checksum),
            format: self.format.get().parse().ok(),
            public: self.public.get(),
            ..ImportImage::default()
        };
        match self.from.get() {
            Place::Web => {
                let every: Option<RefreshEvery> = self.refresh.get().parse().ok();
                form.url = Some(self.url.get());
                form.refresh_seconds = every.map(RefreshEvery::seconds);
            }
            Place::Server => form.path = Some(self.path.get()),
            Place::Volume => {
                form.volume = Some(self.volume.get());
                form.checksum = None;
                form.format = None;
            }
            Place::File => {
                let file = self.file.get().map(|file| Upload {
                    size_bytes: file.size_bytes,
                    file_name: file.name,
                });
                form.upload = Some(file.unwrap_or_default());
            }
        }
        form
    }

    /// What it is called unless the user says otherwise.
    fn suggested(self) -> Option<String> {
        match self.from.get() {
            Place::Web => self.url.with(|url| name_of_url(url)),
            Place::Server => self.path.with(|path| name_of_file(path)),
            Place::Volume => {
                let id = self.volume.get();
                self.volumes.with_value(|volumes| {
                    let chosen = volumes.iter().find(|one| !id.is_empty() && one.value == id);
                    chosen.and_then(|one| name_of_file(&one.text))
                })
            }
            Place::File => self
                .file
                .with(|file| file.as_ref().and_then(|file| name_of_file(&file.name))),
        }
    }

    fn touch(self, field: &'static str) {
        self.touched.update(|touched| {
            if !touched.contains(&field) {
                touched.push(field);
            }
        });
    }

    fn touch_all(self) {
        for field in ["url", "upload", "path", "volume", "name", "checksum"] {
            self.touch(field);
        }
    }

    /// What is wrong with a field: shown once the user has been there. The
    /// server's word holds as long as the form is the one it spoke about.
    fn error(self, field: &'static str) -> Signal<Option<String>> {
        Signal::derive(move || {
            let form = self.form();
            let seen = self.touched.with(|touched| touched.contains(&field));
            let own = seen.then(|| form.check().err()).flatten();
            let own = own.and_then(|error| self.told(&ApiError::from(error), field));
            let theirs = || {
                let refused = self.refused.get();
                let refused = refused.filter(|(sent, _)| *sent == form);
                refused.and_then(|(_, error)| self.told(&error, field))
            };
            own.or_else(theirs).map(|text| sentence(&text))
        })
    }

    fn told(self, error: &ApiError, field: &'static str) -> Option<String> {
        if field == Place::Volume.field() && self.volume.with(String::is_empty) {
            let told = error.field(field);
            return told.map(|_| "choose a volume".to_owned());
        }
        if field != Place::File.field() {
            return error.field(field);
        }
        let told = error.field("upload.size_bytes");
        let told = told.or_else(|| error.field("upload.file_name"));
        // Whoever has chosen none need not hear that it is empty.
        let none = self.file.with(Option::is_none);
        told.map(|told| {
            if none {
                "choose a file".to_owned()
            } else {
                told
            }
        })
    }

    /// What is wrong with no field in particular.
    fn general(self) -> Signal<Option<String>> {
        Signal::derive(move || {
            let refused = self.refused.get();
            let refused = refused.filter(|(_, error)| error.0.errors.is_empty());
            refused.map(|(_, error)| error.sentence())
        })
    }
}

/// Endings that say how a file is packed or laid out, and nothing of what is in
/// it.
const ENDINGS: [&str; 10] = [
    ".gz", ".xz", ".zst", ".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhdx", ".vhd",
];

/// The name of an image that comes from `url`, if its file has one that will do.
fn name_of_url(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?;
    let (_, after) = path.split_once("://")?;
    after.contains('/').then(|| name_of_file(after)).flatten()
}

fn name_of_file(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let mut name = file.to_ascii_lowercase();
    while let Some(shorter) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
        name = shorter.to_owned();
    }
    ImageName::new(name.as_str()).ok().map(|_| name)
}

#[component]
fn ImportForm(may_publish: bool, volumes: Vec<VolumeView>) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let uploads = expect_context::<Uploads>();
    let navigate = use_navigate();
    let draft = Draft::new(&volumes);
    let form = memo(move || draft.form());
    let busy = RwSignal::new(false);
    // The same form again is the same import.
    let sent = StoredValue::new(None::<(ImportImage, Key)>);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        draft.touch_all();
        let form = form.get_untracked();
        if busy.get_untracked() || form.check().is_err() {
            return;
        }
        let known = sent.get_value().filter(|(sent, _)| *sent == form);
        let key = known.map_or_else(Key::fresh, |(_, key)| key);
        sent.set_value(Some((form.clone(), key.clone())));
        busy.set(true);
        draft.refused.set(None);
        let (live, navigate, uploads) = (live.clone(), navigate.clone(), uploads.clone());
        let file = draft.file.get_untracked();
        spawn_local(async move {
            let upload = form.upload.is_some();
            let answer = once(key, |key| import_image(form.clone(), key));
            match live.ask(answer).await {
                Ok((asked, accepted)) => {
                    let id = accepted.image.id;
                    if let Some(file) = file.filter(|_| upload) {
                        uploads.begin(id, file);
                    }
                    let url = format!("/images/{id}");
                    live.adopt_image(asked, accepted.image);
                    navigate(&url, Default::default());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    draft.refused.try_set(Some((form, error)));
                }
            }
        });
    };
    let label = Signal::derive(move || {
        if busy.get() {
            "Asking…"
        } else {
            "Import the image"
        }
        .to_owned()
    });
    view! {
        <form class="form" method="post" novalidate on:submit=submit>
            <Fields draft=draft may_publish=may_publish/>
            <FormError error=draft.general()/>
            <div class="form-answers">
                <Submit label=label busy=busy/>
                <a href="/images" class="button" data-kind="bare">"Cancel"</a>
            </div>
        </form>
    }
    .into_any()
}

#[component]
fn Fields(draft: Draft, may_publish: bool) -> impl IntoView {
    let formats = std::iter::once(Choice {
        value: String::new(),
        text: "What its first bytes say".to_owned(),
    });
    let formats = formats.chain(ImageFormat::ALL.map(|format| Choice {
        value: format.name().to_owned(),
        text: format.name().to_owned(),
    }));
    let formats: Vec<Choice> = formats.collect();
    let left = move |field| Callback::new(move |()| draft.touch(field));
    view! {
        <Source draft=draft may_publish=may_publish/>
        <TextField
            id="name"
            label="Name"
            hint="What it is called where VMs are made; left empty, it takes the file's name."
            placeholder=Signal::derive(move || draft.suggested().unwrap_or_default())
            value=draft.name
            error=draft.error("name")
            on_leave=left("name")
        />
        {part(move || (draft.from.get() != Place::Volume).then(|| view! {
            <TextField
                id="checksum"
                label="Checksum"
                hint="SHA-256 or SHA-512 of the file as its publisher gives it. What does not fit is refused."
                optional=true
                value=draft.checksum
                error=draft.error("checksum")
                on_leave=left("checksum")
            />
            <SelectField
                id="format"
                label="Format"
                hint="Of the unpacked file. Say it where the bytes of a raw disk could be taken for something else."
                choices=formats.clone()
                value=draft.format
            />
        }.into_any()))}
        {may_publish.then(|| view! {
            <CheckField
                id="public"
                label="For all tenants"
                hint="Everybody may make VMs from it; only administrators change it."
                value=draft.public
            />
        })}
    }
}

/// How often its URL may be asked for something new; more is said elsewhere.
fn refreshes() -> Vec<Choice> {
    [("", "Never"), ("daily", "Daily"), ("weekly", "Weekly")]
        .map(|(value, text)| Choice {
            value: value.to_owned(),
            text: text.to_owned(),
        })
        .into()
}

/// Those that there is something on, by name.
fn choices_of(volumes: &[VolumeView]) -> Vec<Choice> {
    let there = volumes
        .iter()
        .filter(|volume| VolumeAction::Copy.judge(volume.state).is_ok() && volume.host.is_some());
    let names = there.map(|volume| (volume.id.to_string(), volume.name.to_string()));
    let none = (String::new(), "Choose one".to_owned());
    let choice = |(value, text)| Choice { value, text };
    std::iter::once(none).chain(names).map(choice).collect()
}

/// Where it is: one of three ways, for administrators of four.
#[component]
fn Source(draft: Draft, may_publish: bool) -> impl IntoView {
    let from = draft.from;
    let choice = move |one: Place| {
        view! {
            <button
                r#type="button"
                class="segment"
                aria-pressed=word(move || Some(if from.get() == one { "true" } else { "false" }))
                on:click=press(move || from.set(one))
            >
                {one.title()}
            </button>
        }
        .into_any()
    };
    let left = move |field| Callback::new(move |()| draft.touch(field));
    view! {
        <div class="segments" role="group" aria-label="Where the image is">
            {choice(Place::Web)}
            {choice(Place::File)}
            {choice(Place::Volume)}
            {may_publish.then(|| choice(Place::Server))}
        </div>
        {part(move || Some(match from.get() {
            Place::Web => view! {
                <TextField
                    id="url"
                    label="URL"
                    hint="http://, https://, ftp:// or nfs://server/export/path: a raw or qcow2 image, also packed by gzip, xz or zstd; images of other hypervisors (VMDK, VDI, VHDX) are converted."
                    placeholder="https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
                    value=draft.url
                    error=draft.error("url")
                    on_leave=left("url")
                />
                <SelectField
                    id="refresh"
                    label="Refresh"
                    hint="What is new there takes the image's name; VMs keep the one they were made from. A password in the URL is kept for that, and shown to nobody."
                    choices=refreshes()
                    value=draft.refresh
                />
            }
            .into_any(),
            Place::File => view! {
                <FileField
                    id="upload"
                    label="File"
                    hint="A raw or qcow2 image, also packed by gzip, xz or zstd; images of other hypervisors (VMDK, VDI, VHDX) are converted. It is sent in parts: what breaks off goes on where it was."
                    value=draft.file
                    error=draft.error("upload")
                />
            }
            .into_any(),
            Place::Volume => view! {
                <SelectField
                    id="volume"
                    label="Volume"
                    hint="What is on it at one instant; its VM runs on meanwhile."
                    choices=draft.volumes.get_value()
                    value=draft.volume
                    error=draft.error("volume")
                />
            }
            .into_any(),
            Place::Server => view! {
                <TextField
                    id="path"
                    label="Path"
                    hint="A file of the machine that the server runs on, in a directory that its operator allows."
                    placeholder="/srv/images/debian-12.qcow2"
                    value=draft.path
                    error=draft.error("path")
                    on_leave=left("path")
                />
            }
            .into_any(),
        }))}
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_image() {
        let name = |url| name_of_url(url).unwrap_or_default();
        assert_eq!(
            name("https://example.org/d/Debian-12-amd64.qcow2.xz?x=1"),
            "debian-12-amd64"
        );
        assert_eq!(name("nfs://store/export/alpine.vmdk"), "alpine");
        for nameless in [
            "",
            "https://",
            "https://example.org",
            "http://x/",
            "http://x/a b.img",
        ] {
            assert_eq!(name(nameless), "", "{nameless}");
        }
        assert_eq!(name_of_file("My.Disk.img").unwrap(), "my.disk");
    }
}
