//! What a VM takes of the limits of whoever asks for it: before and after.

use leptos::prelude::*;
use vimana_model::quota::{Limit, Measure, QuotaLine, Whose};
use vimana_model::unit::Resources;
use vimana_ui::{Icon, IconName, Meter, part, thousandths};

use super::super::quota::title;
use super::TermsDraft;
use crate::api::Catalogue;

/// A limit that the VM counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Take {
    whose: Whose,
    line: QuotaLine,
    more: u64,
}

impl Take {
    fn after(&self) -> u64 {
        self.line.with(self.more)
    }

    fn fits(&self) -> bool {
        self.line.hard.allows(self.after())
    }

    /// "3 → 4 of 10".
    fn text(&self) -> String {
        let show = |amount| self.line.measure.show(amount);
        let now = format!("{} → {}", show(self.line.used), show(self.after()));
        match (self.line.hard, self.line.soft) {
            (Limit::AtMost(most), _) => format!("{now} of {}", show(most)),
            (Limit::Unlimited, Limit::AtMost(soft)) => format!("{now}, warns above {}", show(soft)),
            (Limit::Unlimited, Limit::Unlimited) => now,
        }
    }

    fn label(&self) -> String {
        let title = title(&self.line.counted());
        match self.whose {
            Whose::Tenant => title,
            Whose::User => format!("{title}, yours"),
        }
    }
}

/// How much more of that a VM of this size counts.
fn more_of(measure: Measure, size: Resources, held: bool) -> u64 {
    let running = |amount: u64| if held { 0 } else { amount };
    match measure {
        Measure::Vms | Measure::Operations => 1,
        Measure::RunningVms => running(1),
        Measure::Vcpus => size.vcpus.into(),
        Measure::RunningVcpus => running(size.vcpus.into()),
        Measure::MemoryMib => size.memory_mib.0,
        Measure::RunningMemoryMib => running(size.memory_mib.0),
        Measure::DiskMib => size.disk_mib.0,
        Measure::Volumes
        | Measure::VolumeMib
        | Measure::Snapshots
        | Measure::Backups
        | Measure::BackupBytes
        | Measure::Images
        | Measure::ImageBytes => 0,
    }
}

fn takes(choices: &Catalogue, flavor: &str, held: bool) -> Vec<Take> {
    let mut flavors = choices.flavors.iter();
    let Some(flavor) = flavors.find(|known| known.name.as_str() == flavor) else {
        return Vec::new();
    };
    let lines = choices.quota.lines().filter(|(_, line)| line.is_limited());
    let takes = lines.map(|(whose, line)| Take {
        whose,
        more: more_of(line.measure, flavor.resources, held),
        line: line.clone(),
    });
    takes.filter(|take| take.more > 0).collect()
}

/// The limits that the VM counts for, as they would be with it; nothing where
/// nothing is limited.
#[component]
pub fn Takes(draft: TermsDraft, choices: Catalogue) -> impl IntoView {
    part(move || {
        let takes = takes(&choices, &draft.flavor.get(), draft.hold.get());
        if takes.is_empty() {
            return None;
        }
        let rows: Vec<AnyView> = takes
            .into_iter()
            .map(|take| {
                let most = take.line.hard.most().or(take.line.soft.most());
                let used = thousandths(take.after(), most.unwrap_or(0));
                let over = (!take.fits()).then(|| {
                    view! {
                        <p class="field-error">
                            <Icon name=IconName::Warning/>
                            <span>"More than the quota allows."</span>
                        </p>
                    }
                    .into_any()
                });
                let slug = take.line.measure.slug();
                view! {
                    <div data-takes=slug>
                        <dt>{take.label()}</dt>
                        <dd><Meter label=take.label() used=used text=take.text()/>{over}</dd>
                    </div>
                }
                .into_any()
            })
            .collect();
        Some(view! {
            <section class="takes" aria-label="What it takes of the quota">
                <h2>"Of the quota"</h2>
                <dl>{rows}</dl>
            </section>
        })
    })
}

#[cfg(test)]
mod tests {
    use vimana_model::unit::MiB;

    use super::*;

    #[test]
    fn it_is_told_before_and_after() {
        let take = Take {
            whose: Whose::Tenant,
            line: QuotaLine {
                measure: Measure::RunningMemoryMib,
                datastore: None,
                used: 512,
                soft: Limit::Unlimited,
                hard: Limit::AtMost(1024),
                inherited: true,
            },
            more: 512,
        };
        assert_eq!(take.text(), "512 MiB → 1 GiB of 1 GiB");
        assert!(take.fits());
        assert!(!Take { more: 513, ..take }.fits());
    }

    #[test]
    fn what_is_held_back_does_not_run() {
        let size = Resources {
            vcpus: 2,
            memory_mib: MiB(512),
            disk_mib: MiB(1024),
        };
        assert_eq!(more_of(Measure::RunningVcpus, size, true), 0);
        assert_eq!(more_of(Measure::RunningVcpus, size, false), 2);
        assert_eq!(more_of(Measure::Vcpus, size, true), 2);
    }
}
