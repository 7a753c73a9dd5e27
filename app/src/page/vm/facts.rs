use leptos::prelude::*;
use vimana_model::vm::VmView;
use vimana_ui::Time;

/// What the VM is, and where.
#[component]
pub fn Facts(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let fixed = vm.get_untracked();
    let size = fixed.resources;
    let place = Memo::new(move |_| vm.with(|vm| (vm.host.clone(), vm.run_epoch)));
    let host = move || place.with(|(host, _)| host.as_ref().map(|host| host.name.clone()));
    let zone = move || place.with(|(host, _)| host.as_ref().map(|host| host.zone.clone()));
    let none = || "–".to_owned();
    let row = |title: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{title}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    view! {
        <section class="panel" aria-labelledby="facts-title">
            <h2 id="facts-title">"Facts"</h2>
            <dl class="facts">
                {row("Host", (move || host().unwrap_or_else(none)).into_any())}
                {row("Zone", (move || zone().unwrap_or_else(none)).into_any())}
                {row("Flavor", fixed.flavor.to_string().into_any())}
                {row("vCPUs", size.vcpus.to_string().into_any())}
                {row("Memory", size.memory_mib.to_string().into_any())}
                {row("Disk", size.disk_mib.to_string().into_any())}
                {row("Image", fixed.image.to_string().into_any())}
                {row("Owner", fixed.owner.into_any())}
                {row("Created", view! { <Time at_ms=fixed.created_at.as_ms()/> }.into_any())}
                {row("Runs so far", (move || place.with(|(_, epoch)| epoch.to_string())).into_any())}
                {row("User-data", if fixed.has_user_data { "given" } else { "none" }.into_any())}
                {row(
                    "SSH key",
                    match fixed.ssh_key {
                        Some(key) => view! { <code class="long">{key.to_string()}</code> }.into_any(),
                        None => "none".into_any(),
                    },
                )}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
}
