//! What a host says it has to give.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vimana_driver::text::tame;
use vimana_model::unit::{MiB, Resources};

/// A host's capacity as far as it can be read. One that makes no sense ends no
/// session, for the host's machines need their server all the same.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Heard")]
pub enum Capacity {
    Told(Resources),
    /// What is said instead, for people: a negative number, a broken one, one
    /// that no machine has room for, no number at all.
    Nonsense(String),
}

impl From<Resources> for Capacity {
    fn from(told: Resources) -> Self {
        Self::Told(told)
    }
}

impl Serialize for Capacity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Told(told) => told.serialize(serializer),
            Self::Nonsense(said) => said.serialize(serializer),
        }
    }
}

/// Unlike [`Resources`], it may gain amounts with a version.
#[derive(Deserialize)]
#[serde(untagged)]
enum Heard {
    Amounts {
        vcpus: u32,
        memory_mib: MiB,
        disk_mib: MiB,
    },
    Nonsense(Value),
}

impl From<Heard> for Capacity {
    fn from(heard: Heard) -> Self {
        match heard {
            Heard::Amounts {
                vcpus,
                memory_mib,
                disk_mib,
            } => Self::Told(Resources {
                vcpus,
                memory_mib,
                disk_mib,
            }),
            Heard::Nonsense(said) => Self::Nonsense(tame(&said.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(text: &str) -> Capacity {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn amounts_are_read_and_more_of_them_are_ignored() {
        let told = Resources {
            vcpus: 4,
            memory_mib: MiB(8),
            disk_mib: MiB(u64::MAX),
        };
        let written = serde_json::to_value(Capacity::Told(told)).unwrap();
        assert_eq!(written, serde_json::to_value(told).unwrap());
        assert_eq!(heard(&written.to_string()), Capacity::Told(told));
        let mut later = written;
        later["gpus"] = json!(2);
        assert_eq!(heard(&later.to_string()), Capacity::Told(told));
    }

    #[test]
    fn what_is_no_amount_is_kept_as_it_was_said() {
        for said in [
            r#"{"vcpus":-1,"memory_mib":8,"disk_mib":8}"#,
            r#"{"vcpus":1.5,"memory_mib":8,"disk_mib":8}"#,
            r#"{"vcpus":10000000000,"memory_mib":8,"disk_mib":8}"#,
            r#"{"vcpus":4,"memory_mib":18446744073709551616,"disk_mib":8}"#,
            r#"{"vcpus":4,"memory_mib":null,"disk_mib":8}"#,
            r#"{"vcpus":4,"memory_mib":"much","disk_mib":8}"#,
            r#"{"vcpus":4}"#,
            "[4,8,8]",
            "null",
            "7",
        ] {
            let Capacity::Nonsense(kept) = heard(said) else {
                panic!("{said}")
            };
            let same = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(same(&kept), same(said), "{said}");
        }
    }
}
