//! What can be asked about quotas.

use std::str::FromStr;

use clap::{Args, Subcommand};
use vimana_model::name::UserName;
use vimana_model::quota::{Counted, Limit};

use super::Json;

#[derive(Subcommand)]
pub enum Quota {
    /// Show limits and what is used of them: your own where nothing else is said
    Show(ShowQuota),
    /// Give a tenant or a user limits of their own
    Set(SetQuota),
}

/// Whose limits.
#[derive(Args)]
pub struct Whose {
    /// Those of every tenant that has none of its own
    #[arg(long, conflicts_with_all = ["tenant", "user", "users"])]
    pub defaults: bool,
    /// Name or id of a tenant; your own where it is left out
    #[arg(long, value_name = "NAME|ID")]
    pub tenant: Option<String>,
    /// Those of this user of the tenant
    #[arg(long, value_name = "NAME", conflicts_with = "users")]
    pub user: Option<UserName>,
    /// Those of every user of the tenant who has none of their own
    #[arg(long)]
    pub users: bool,
}

#[derive(Args)]
pub struct ShowQuota {
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
#[command(after_help = "\
Limits:
  vms=10                  at most 10; an eleventh is refused
  vms=8..10               the same, and a warning above 8
  vms=8..unlimited        a warning alone
  vms=unlimited           no limit, whatever the defaults say
  vms=inherited           as the defaults say
  volume_mib@fast=10240   of volumes in datastore `fast`

  What is left out stays as it is. What is counted:
  vms, running_vms, vcpus, running_vcpus, memory_mib, running_memory_mib,
  disk_mib, volumes, volume_mib, snapshots, backups, backup_bytes, images,
  image_bytes, operations")]
pub struct SetQuota {
    #[command(flatten)]
    pub whose: Whose,
    /// One or more limits
    #[arg(required = true, value_name = "LIMIT")]
    pub limits: Vec<LimitChange>,
    #[command(flatten)]
    pub json: Json,
}

/// What becomes of one limit.
#[derive(Clone)]
pub struct LimitChange {
    pub counted: Counted,
    /// The soft one and the hard one; none to inherit them.
    pub limits: Option<(Limit, Limit)>,
}

impl FromStr for LimitChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (counted, limits) = text
            .split_once('=')
            .ok_or("such as `vms=10`; see `vimana quota set --help`")?;
        let limits = match (limits, limits.split_once("..")) {
            ("inherited", _) => None,
            (_, Some((soft, hard))) => Some((soft.parse()?, hard.parse()?)),
            (hard, None) => Some((Limit::Unlimited, hard.parse()?)),
        };
        Ok(Self {
            counted: counted.parse()?,
            limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use vimana_model::quota::Measure;

    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| text.parse::<LimitChange>().map(|change| change.limits);
        let most = Limit::AtMost;
        assert_eq!(read("vms=10"), Ok(Some((Limit::Unlimited, most(10)))));
        assert_eq!(read("vms=8..10"), Ok(Some((most(8), most(10)))));
        assert_eq!(
            read("vms=8..unlimited"),
            Ok(Some((most(8), Limit::Unlimited)))
        );
        assert_eq!(read("vms=inherited"), Ok(None));
        for wrong in [
            "vms",
            "vms=",
            "vms=-1",
            "cows=1",
            "vms=1...2",
            "volume_mib@=1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let there: LimitChange = "volume_mib@fast=1".parse().unwrap();
        assert_eq!(there.counted.measure, Measure::VolumeMib);
        assert_eq!(there.counted.datastore.unwrap().as_str(), "fast");
    }
}
