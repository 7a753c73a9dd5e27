//! Limits and usage, as a table; and the dialog that changes one limit.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::quota::{
    Counted, Level, Limit, Measure, QuotaLimit, QuotaLine, Scope, SetQuota, Unit,
};
use vimana_ui::{
    Answers, Badge, Cell, Dialog, Icon, IconName, Meter, Table, TextField, ToastKind, Toasts, Tone,
    part, press, thousandths,
};

use super::super::refused::otherwise;
use super::super::sentence;
use crate::api::{ApiError, Key, once, set_quota};
use crate::session::CurrentSession;

/// What is in use, of what is limited or in use.
#[component]
pub fn Usage(#[prop(into)] caption: String, lines: Signal<Vec<QuotaLine>>) -> impl IntoView {
    let rows = part(move || {
        let lines = lines.get().into_iter();
        let shown = lines.filter(|line| line.is_limited() || line.used > 0);
        let rows: Vec<AnyView> = shown
            .map(|line| {
                let counted = line.counted();
                let (slug, title, limits) = (counted.slug(), title(&counted), limits(&line));
                view! {
                    <tr role="row" data-counted=slug>
                        <Cell title="What"><strong>{title}</strong></Cell>
                        <Cell title="In use"><InUse line=line/></Cell>
                        <Cell title="Limit">{limits}</Cell>
                    </tr>
                }
                .into_any()
            })
            .collect();
        Some(if rows.is_empty() {
            view! {
                <tr role="row"><td role="cell" colspan="3">"Nothing is limited, and nothing in use."</td></tr>
            }
            .into_any()
        } else {
            rows.into_any()
        })
    });
    view! { <Table caption=caption columns=&["What", "In use", "Limit"]>{rows}</Table> }
}

/// A bar, where there is a limit, with the numbers.
#[component]
pub fn InUse(line: QuotaLine) -> impl IntoView {
    let counted = line.counted();
    let measure = line.measure;
    let used = measure.show(line.used);
    let bar = line.hard.most().or(line.soft.most());
    let state = match (line.is_limited(), line.level(line.used)) {
        (true, Level::Full) => Some((Tone::Bad, "Nothing left")),
        (true, Level::Warned) => Some((Tone::Moving, "Above the soft limit")),
        (_, Level::Free) | (false, _) => None,
    };
    let state = state.map(|(tone, text)| view! { <Badge tone=tone text=text/> });
    match bar {
        Some(most) => {
            let text = format!("{used} of {}", measure.show(most));
            view! {
                <Meter label=title(&counted) used=thousandths(line.used, most) text=text/>
                {state}
            }
            .into_any()
        }
        None => view! { <span>{used}</span> }.into_any(),
    }
}

/// Every limit of a tenant, of a user or of all of them, each to be changed.
#[component]
pub fn QuotaTable(
    whose: Scope,
    #[prop(into)] caption: String,
    lines: Vec<QuotaLine>,
    shows_usage: bool,
) -> impl IntoView {
    let lines = RwSignal::new(lines);
    let about = RwSignal::new(None::<QuotaLine>);
    let open = RwSignal::new(false);
    let close = Callback::new(move |()| open.set(false));
    let rows = part(move || {
        let row = |line: QuotaLine| {
            let counted = line.counted();
            let change = format!("Change the limit of {counted}");
            let (slug, title, limits) = (counted.slug(), title(&counted), limits(&line));
            let used = shows_usage.then(|| line.clone());
            let used = used.map(|line| view! { <Cell title="In use"><InUse line=line/></Cell> });
            let ask = move || {
                about.set(Some(line.clone()));
                open.set(true);
            };
            view! {
                <tr role="row" data-counted=slug>
                    <Cell title="What"><strong>{title}</strong></Cell>
                    {used}
                    <Cell title="Limit">{limits}</Cell>
                    <Cell title="Actions">
                        <button r#type="button" class="button" data-kind="plain" aria-label=change on:click=press(ask)>
                            <Icon name=IconName::Resize/>
                            <span>"Change"</span>
                        </button>
                    </Cell>
                </tr>
            }
            .into_any()
        };
        Some(lines.get().into_iter().map(row).collect::<Vec<_>>())
    });
    let columns: &'static [&'static str] = if shows_usage {
        &["What", "In use", "Limit", "Actions"]
    } else {
        &["What", "Limit", "Actions"]
    };
    let dialog = dialog_of(&whose);
    let heading = Signal::derive(move || {
        about.with(|about| {
            let counted = about.as_ref().map(QuotaLine::counted);
            counted.map_or_else(String::new, |counted| format!("Limit of {counted}"))
        })
    });
    view! {
        <Table caption=caption columns=columns>{rows}</Table>
        <Dialog id=dialog open=open on_close=close title=heading>
            {about.get_untracked().map(|line| view! {
                <LimitForm whose=whose.clone() lines=lines line=line close=close/>
            })}
        </Dialog>
    }
    .into_any()
}

/// A page may have several of these tables.
const fn dialog_of(whose: &Scope) -> &'static str {
    match whose {
        Scope::AllTenants => "limit-of-tenants",
        Scope::Tenant(_) => "limit-of-tenant",
        Scope::AllUsers(_) => "limit-of-users",
        Scope::User(_, _) => "limit-of-user",
    }
}

/// What is typed for one limit: a number, `unlimited`, or nothing to inherit it.
#[derive(Clone, Copy)]
struct Draft {
    hard: RwSignal<String>,
    soft: RwSignal<String>,
}

impl Draft {
    fn of(line: &QuotaLine) -> Self {
        let text = |limit: Limit| match limit {
            _ if line.inherited => String::new(),
            Limit::Unlimited => UNLIMITED.to_owned(),
            Limit::AtMost(most) => most.to_string(),
        };
        let soft = match line.soft {
            Limit::Unlimited => String::new(),
            Limit::AtMost(_) => text(line.soft),
        };
        Self {
            hard: RwSignal::new(text(line.hard)),
            soft: RwSignal::new(soft),
        }
    }

    /// None to inherit it; or which field is wrong, and why.
    fn limit(
        self,
        counted: &Counted,
        inherits: bool,
    ) -> Result<Option<QuotaLimit>, (&'static str, String)> {
        let read = |field, text: RwSignal<String>| {
            let text = text.get_untracked();
            match text.trim() {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|why| (field, why)),
            }
        };
        let (hard, soft): (Option<Limit>, Option<Limit>) =
            (read("hard", self.hard)?, read("soft", self.soft)?);
        if hard.is_none() && soft.unwrap_or_default() == Limit::Unlimited {
            return Ok(None);
        }
        if hard.is_none() && inherits {
            let why = format!("say a number or “{UNLIMITED}”, too: both are its own, or none");
            return Err(("hard", why));
        }
        Ok(Some(QuotaLimit {
            measure: counted.measure,
            datastore: counted.datastore.clone(),
            soft: soft.unwrap_or_default(),
            hard: hard.unwrap_or_default(),
        }))
    }
}

const UNLIMITED: &str = "unlimited";

/// What the server says of the soft limit: it names it by its place among all.
fn of_soft(error: &ApiError) -> Option<String> {
    let mut errors = error.0.errors.iter();
    let soft = errors.find(|error| error.field.ends_with(".soft"));
    soft.map(|error| error.message.clone())
}

/// All limits that are not inherited, with this one in its place.
fn with_changed(lines: &[QuotaLine], counted: &Counted, limit: Option<QuotaLimit>) -> SetQuota {
    let others = lines
        .iter()
        .filter(|line| line.is_own() && line.counted() != *counted);
    SetQuota {
        limits: others.map(QuotaLine::limit).chain(limit).collect(),
    }
}

#[component]
fn LimitForm(
    whose: Scope,
    lines: RwSignal<Vec<QuotaLine>>,
    line: QuotaLine,
    close: Callback<()>,
) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let counted = line.counted();
    let draft = Draft::of(&line);
    let busy = RwSignal::new(false);
    let wrong = RwSignal::new(None::<(&'static str, String)>);
    let refused = RwSignal::new(None::<ApiError>);
    let inherits = !matches!(whose, Scope::AllTenants | Scope::AllUsers(_));
    let of_unit = match counted.measure.unit() {
        Unit::Pieces => "",
        Unit::Mib => ", in MiB",
        Unit::Bytes => ", in bytes",
    };
    let hint = if inherits {
        "A number, or “unlimited”. Empty: as the defaults say."
    } else {
        "A number, or “unlimited”. Empty: no limit."
    };
    let said = title(&counted);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        wrong.set(None);
        refused.set(None);
        let limit = match draft.limit(&counted, inherits) {
            Ok(limit) => limit,
            Err(why) => {
                wrong.set(Some(why));
                return;
            }
        };
        let form = lines.with_untracked(|lines| with_changed(lines, &counted, limit));
        busy.set(true);
        let (whose, said) = (whose.clone(), said.clone());
        spawn_local(async move {
            match once(Key::fresh(), |key| {
                set_quota(whose.clone(), form.clone(), key)
            })
            .await
            {
                Ok(now) => {
                    toasts.show(ToastKind::Info, format!("{said}: the limit is changed."));
                    lines.set(now.lines);
                    close.run(());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    if let Some(why) = of_soft(&error) {
                        wrong.try_set(Some(("soft", why)));
                    } else {
                        refused.try_set(Some(error));
                    }
                }
            }
        });
    };
    let error_of = move |field: &'static str| {
        Signal::derive(move || {
            let here = wrong.get().filter(|(wrong, _)| *wrong == field);
            here.map(|(_, why)| sentence(&why))
        })
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="hard"
                label=format!("At most{of_unit}")
                hint=hint
                autofocus=true
                value=draft.hard
                error=error_of("hard")
            />
            <TextField
                id="soft"
                label=format!("Warn above{of_unit}")
                hint="What is above it is done, and told. Empty: never."
                optional=true
                value=draft.soft
                error=error_of("soft")
            />
            <Answers
                error=otherwise(refused, &[])
                on_cancel=close
                label=Signal::derive(|| "Save".to_owned())
                busy=busy
            />
        </form>
    }
    .into_any()
}

/// "At most 10 · warns above 8 · default".
fn limits(line: &QuotaLine) -> AnyView {
    let show = |most| line.measure.show(most);
    let mut said = match line.hard {
        Limit::AtMost(most) => show(most),
        Limit::Unlimited => "no limit".to_owned(),
    };
    if let Limit::AtMost(soft) = line.soft {
        said = format!("{said}, warns above {}", show(soft));
    }
    let origin = (line.inherited && line.is_limited()).then_some("as the defaults say");
    view! {
        {said}
        {origin.map(|origin| view! { <span class="why">{origin}</span> })}
    }
    .into_any()
}

/// "VMs", "Running memory", "Volume storage in datastore `fast`".
pub fn title(counted: &Counted) -> String {
    let mut name = counted.to_string();
    if let Some(first) = name.get_mut(..1)
        && counted.measure != Measure::Vcpus
    {
        first.make_ascii_uppercase();
    }
    name.replace('`', "")
}

#[cfg(test)]
mod tests {
    use vimana_model::name::DatastoreName;

    use super::*;

    fn line(measure: Measure, hard: Limit, inherited: bool) -> QuotaLine {
        QuotaLine {
            measure,
            datastore: None,
            used: 0,
            soft: Limit::Unlimited,
            hard,
            inherited,
        }
    }

    #[test]
    fn one_limit_changes_and_the_others_stay() {
        let lines = [
            line(Measure::Vms, Limit::AtMost(3), false),
            line(Measure::Vcpus, Limit::AtMost(9), true),
            line(Measure::Volumes, Limit::Unlimited, false),
        ];
        let measures = |form: SetQuota| {
            let all = form.limits.into_iter();
            all.map(|limit| (limit.measure, limit.hard))
                .collect::<Vec<_>>()
        };
        let new = QuotaLimit {
            measure: Measure::Vcpus,
            datastore: None,
            soft: Limit::Unlimited,
            hard: Limit::AtMost(1),
        };
        let changed = with_changed(&lines, &Measure::Vcpus.into(), Some(new));
        assert_eq!(
            measures(changed),
            [
                (Measure::Vms, Limit::AtMost(3)),
                (Measure::Volumes, Limit::Unlimited),
                (Measure::Vcpus, Limit::AtMost(1)),
            ]
        );
        let inherited = with_changed(&lines, &Measure::Vms.into(), None);
        assert_eq!(measures(inherited), [(Measure::Volumes, Limit::Unlimited)]);
    }

    #[test]
    fn titles_begin_as_titles_do() {
        let there = Counted {
            measure: Measure::VolumeMib,
            datastore: Some(DatastoreName::local()),
        };
        assert_eq!(title(&there), "Volume storage in datastore local");
        assert_eq!(title(&Measure::Vcpus.into()), "vCPUs");
        assert_eq!(title(&Measure::RunningVms.into()), "Running VMs");
    }
}
