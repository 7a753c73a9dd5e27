//! What can be asked about hosts.

use clap::{Args, Subcommand};
use vimana_model::VmId;
use vimana_model::name::HostName;

use super::{Json, Timeout};

#[derive(Subcommand)]
pub enum Host {
    /// List them
    List(Json),
    /// Show one host
    Show(HostShown),
    /// What happened to a host, and who did it
    Events(HostShown),
    /// Let a new host join: prints a token that its agent takes from a file
    Token(JoinToken),
    /// End what a host's certificate is good for; it comes back only by
    /// joining with a new token
    Revoke(HostShown),
    /// Keep new VMs from a host; those that are on it stay
    Cordon(HostShown),
    /// Let a host take VMs again that is cordoned, drained or in maintenance
    Enable(HostShown),
    /// Have the VMs of a host moved to others; when all are gone, it is in
    /// maintenance. Asked again, it says how far that is
    Evacuate(Evacuate),
    /// The machines a host holds that are not recorded there
    Orphans(HostShown),
    /// Have such a machine removed, with everything it holds there
    Discard(Discard),
}

#[derive(Args)]
pub struct HostShown {
    /// Name or id of the host
    #[arg(value_name = "NAME|ID")]
    pub host: String,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Evacuate {
    /// Name or id of the host
    #[arg(value_name = "NAME|ID")]
    pub host: String,
    /// How many VMs are on their way at once, up to 16 [default: 2]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub limit: Option<u32>,
    /// Only say how far an evacuation is that was asked for before
    #[arg(long, conflicts_with_all = ["limit", "wait"])]
    pub status: bool,
    /// Return when the host is empty; fail when nothing more can be moved
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct JoinToken {
    /// The name the host must have [default: any]
    #[arg(long)]
    pub name: Option<HostName>,
    /// How long the token is good for: 30m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub ttl: u64,
    #[command(flatten)]
    pub json: Json,
}

/// A whole number of seconds, minutes, hours or days.
fn seconds(text: &str) -> Result<u64, String> {
    let expected = || "expected a number and its unit, such as 90s, 30m, 1h or 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(expected)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(expected()),
    };
    text.strip_suffix(unit)
        .filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(seconds))
        .ok_or_else(expected)
}

#[derive(Args)]
pub struct Discard {
    /// Name or id of the host
    #[arg(value_name = "NAME|ID")]
    pub host: String,
    /// As `vimana host orphans` shows it
    #[arg(value_name = "VM_ID")]
    pub machine: VmId,
    #[command(flatten)]
    pub json: Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in [
            "",
            "h",
            "1",
            "-1h",
            "+1h",
            "1 h",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "1ä",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
