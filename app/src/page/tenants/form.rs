//! The form that makes a tenant.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::quota::TenantQuotaView;
use vimana_model::tenant::{CreateTenant, TenantKind};
use vimana_ui::{Answers, Choice, SelectField, TextField, ToastKind, Toasts};

use super::super::refused::{of_field, otherwise};
use super::{Tenancies, kind};
use crate::api::{ApiError, Key, create_tenant, once};
use crate::session::CurrentSession;

const FIELDS: &[&str] = &["name"];

#[component]
pub fn TenantForm(list: Tenancies, close: Callback<()>) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let name = RwSignal::new(String::new());
    let chosen = RwSignal::new(TenantKind::default().name().to_owned());
    let busy = RwSignal::new(false);
    let refused = RwSignal::new(None::<ApiError>);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let form = CreateTenant {
            name: name.get_untracked(),
            kind: chosen.get_untracked().parse().unwrap_or_default(),
        };
        busy.set(true);
        refused.set(None);
        let list = list.clone();
        spawn_local(async move {
            match once(Key::fresh(), |key| create_tenant(form.clone(), key)).await {
                Ok(tenant) => {
                    toasts.show(ToastKind::Info, format!("Tenant {} is there.", tenant.name));
                    list.update(|list| {
                        let lines = Vec::new();
                        list.push(TenantQuotaView { tenant, lines });
                        list.sort_by(|a, b| a.tenant.name.cmp(&b.tenant.name));
                    });
                    close.run(());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let kinds = TenantKind::ALL.map(|one| Choice {
        value: one.name().to_owned(),
        text: format!("{one} · {}", kind(one)),
    });
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="tenant-name"
                label="Name"
                placeholder="acme"
                autofocus=true
                value=name
                error=of_field(refused, "name")
            />
            <SelectField
                id="tenant-kind"
                label="Life-cycle"
                choices=kinds.into()
                value=chosen
                error=Signal::derive(|| None::<String>)
            />
            <Answers
                error=otherwise(refused, FIELDS)
                on_cancel=close
                label=Signal::derive(|| "Make it".to_owned())
                busy=busy
            />
        </form>
    }
    .into_any()
}
