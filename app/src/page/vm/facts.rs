use leptos::prelude::*;
use leptos_router::components::A;
use vimana_model::vm::VmView;
use vimana_ui::Time;

/// What the VM is, and where.
#[component]
pub fn Facts(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let fixed = vm.get_untracked();
    let text = |get: fn(&VmView) -> String| {
        let vm = vm.clone();
        let shown = Memo::new(move |_| vm.with(get));
        (move || shown.get()).into_any()
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
        let link = view! { <A href=format!("/requests/{id}")>"the request it was made for"</A> };
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
                {row("Host", text(|vm| vm.host.as_ref().map_or_else(dash, |host| host.name.clone())))}
                {row("Zone", text(|vm| vm.host.as_ref().map_or_else(dash, |host| host.zone.clone())))}
                {row("Flavor", text(|vm| vm.flavor.to_string()))}
                {row("vCPUs", text(|vm| vm.resources.vcpus.to_string()))}
                {row("Memory", text(|vm| vm.resources.memory_mib.to_string()))}
                {row("Disk", text(|vm| vm.resources.disk_mib.to_string()))}
                {row("Image", fixed.image.to_string().into_any())}
                {row("Owner", fixed.owner.into_any())}
                {request}
                {row("Created", view! { <Time at_ms=fixed.created_at.as_ms()/> }.into_any())}
                {row("Runs so far", text(|vm| vm.run_epoch.to_string()))}
                {row("User-data", if fixed.has_user_data { "given" } else { "none" }.into_any())}
                {row("SSH key", key)}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
    .into_any()
}

fn dash() -> String {
    "–".to_owned()
}
