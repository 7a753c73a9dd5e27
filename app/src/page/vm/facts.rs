use leptos::prelude::*;
use vimana_model::vm::VmView;
use vimana_ui::{Time, memo, text};

/// What the VM is, and where.
#[component]
pub fn Facts(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let fixed = vm.get_untracked();
    let fact = |get: fn(&VmView) -> String| {
        let vm = vm.clone();
        let shown = memo(move || vm.with(get));
        text(move || shown.get()).into_any()
    };
    let row = |title: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{title}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    let request = fixed.request_id.map(|id| {
        let link = view! { <a href=format!("/requests/{id}")>"the request it was made for"</a> };
        row("Request", link.into_any())
    });
    let key = match fixed.ssh_key {
        Some(key) => view! { <code class="long">{key.to_string()}</code> }.into_any(),
        None => "none".into_any(),
    };
    view! {
        <section class="panel" aria-labelledby="facts-title">
            <h2 id="facts-title">"Facts"</h2>
            <dl class="facts">
                {row("Host", fact(|vm| vm.host.as_ref().map_or_else(dash, |host| host.name.clone())))}
                {row("Zone", fact(|vm| vm.host.as_ref().map_or_else(dash, |host| host.zone.clone())))}
                {row("Flavor", fact(|vm| vm.flavor.to_string()))}
                {row("vCPUs", fact(|vm| vm.resources.vcpus.to_string()))}
                {row("Memory", fact(|vm| vm.resources.memory_mib.to_string()))}
                {row("Disk", fact(disk))}
                {row("Image", fixed.image.to_string().into_any())}
                {row("Owner", fixed.owner.into_any())}
                {request}
                {row("Created", view! { <Time at_ms=fixed.created_at.as_ms()/> }.into_any())}
                {row("Runs so far", fact(|vm| vm.run_epoch.to_string()))}
                {row("User-data", if fixed.has_user_data { "given" } else { "none" }.into_any())}
                {row("SSH keys", key)}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
    .into_any()
}

/// How large it is, and where.
fn disk(vm: &VmView) -> String {
    let (size, at) = (vm.resources.disk_mib, &vm.datastore);
    match &vm.moving_to {
        Some(to) => format!("{size} in {at}, on its way to {to}"),
        None => format!("{size} in {at}"),
    }
}

fn dash() -> String {
    "–".to_owned()
}
