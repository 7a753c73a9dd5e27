//! An explanation as one sentence for the person who waits.

use std::fmt::Write as _;

use vimana_model::pending::{Explanation, Filter, Rejection};

/// Most hosts named per reason; the rest is counted.
const MAX_NAMES: usize = 3;

/// One sentence, lower case, no period: "none of 2 hosts has room: host-a and
/// host-b lack memory (needs 64 GiB; the roomiest host has 9.5 GiB free)".
#[must_use]
pub fn summary(explanation: &Explanation) -> String {
    if let Some(best) = explanation.scores.first() {
        return format!(
            "`{}` is the best of {}",
            best.host,
            hosts(explanation.considered)
        );
    }
    if explanation.considered == 0 {
        return "no host has joined yet".to_owned();
    }
    let disconnected = removed_by(explanation, Filter::Connected);
    if disconnected == explanation.considered {
        return "no host is connected".to_owned();
    }
    let mut text = match explanation.considered {
        1 => "the only host has no room: ".to_owned(),
        n => format!("none of {n} hosts has room: "),
    };
    for (index, rejection) in explanation.rejections.iter().enumerate() {
        if index > 0 {
            text.push_str("; ");
        }
        push_reason(&mut text, rejection);
    }
    text
}

fn hosts(count: u32) -> String {
    format!("{count} host{}", if count == 1 { "" } else { "s" })
}

fn removed_by(explanation: &Explanation, filter: Filter) -> u32 {
    explanation
        .rejections
        .iter()
        .filter(|rejection| rejection.filter == filter)
        .fold(0, |sum, rejection| sum.saturating_add(rejection.count))
}

fn push_reason(text: &mut String, rejection: &Rejection) {
    push_names(text, rejection);
    let one = rejection.count == 1;
    let lack = if one { "lacks" } else { "lack" };
    let is = if one { "is" } else { "are" };
    // Writing to a String cannot fail.
    let _ = match rejection.filter {
        Filter::Connected => write!(text, " {is} not connected"),
        Filter::Cordoned => write!(text, " {is} cordoned"),
        Filter::Draining => write!(text, " {}", if one { "drains" } else { "drain" }),
        Filter::Maintenance => write!(text, " {is} in maintenance"),
        Filter::Enabled => write!(text, " {} no new VMs", if one { "takes" } else { "take" }),
        Filter::Vcpus => write!(text, " {lack} vCPUs ({})", rejection.reason),
        Filter::Memory => write!(text, " {lack} memory ({})", rejection.reason),
        Filter::Datastore => write!(text, " {lack} the datastore ({})", rejection.reason),
        Filter::Disk => write!(text, " {lack} disk ({})", rejection.reason),
    };
}

/// "host-a", "host-a and host-b", "host-a, host-b, host-c and 5 more".
fn push_names(text: &mut String, rejection: &Rejection) {
    let total = usize::try_from(rejection.count).unwrap_or(usize::MAX);
    let named = rejection.hosts.len().min(total).min(MAX_NAMES);
    let unnamed = total - named;
    for (index, name) in rejection.hosts.iter().take(named).enumerate() {
        if index > 0 {
            let last = index + 1 == named && unnamed == 0;
            text.push_str(if last { " and " } else { ", " });
        }
        text.push_str(name);
    }
    if unnamed > 0 {
        let _ = match named {
            0 => write!(text, "{}", hosts(rejection.count)),
            _ => write!(text, " and {unnamed} more"),
        };
    }
}
