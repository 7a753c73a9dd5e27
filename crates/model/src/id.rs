//! Prefixed ids: `vm_` + 32 hexadecimal digits of a UUIDv7.
//!
//! The prefix says what the id names, so that an id pasted into the wrong
//! place is refused instead of silently not found. Ids are safe in paths and
//! in option strings: they hold nothing but `[a-z0-9_]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {article} id: expected `{prefix}_` followed by 32 hexadecimal digits")]
pub struct InvalidId {
    article: &'static str,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $article:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// Builds a UUIDv7 id from the caller's clock (milliseconds since
            /// the Unix epoch) and the caller's randomness.
            #[must_use]
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }

            /// The clock's milliseconds that it was built from.
            #[must_use]
            pub fn unix_ms(&self) -> u64 {
                let [a, b, c, d, e, f, ..] = *self.0.as_bytes();
                u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            }

            /// The bare UUID, for interfaces that want one (QEMU's `-uuid`).
            #[must_use]
            pub fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { article: $article, prefix: $prefix };
                text.strip_prefix(concat!($prefix, "_"))
                    .filter(|hex| {
                        hex.len() == 32
                            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                    })
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or(invalid)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    )+};
}

ids! {
    /// A virtual machine.
    VmId = "vm", "a vm";
    /// A machine with an agent.
    HostId = "host", "a host";
    /// Hosts that can live-migrate to each other.
    ZoneId = "zone", "a zone";
    /// A boundary of isolation and quota.
    TenantId = "tenant", "a tenant";
    /// A person with an account.
    UserId = "user", "a user";
    /// Bootable read-only content.
    ImageId = "image", "an image";
    /// A writable disk that outlives the machines it is attached to.
    VolumeId = "vol", "a volume";
    /// A point in time of a machine's disks.
    SnapshotId = "snap", "a snapshot";
    /// A directory for volumes, whichever hosts reach it.
    DatastoreId = "store", "a datastore";
    BackupId = "bak", "a backup";
    /// A named size.
    FlavorId = "flavor", "a flavor";
    /// A preset a user starts from.
    TemplateId = "template", "a template";
    /// A user-visible piece of work with steps.
    OperationId = "op", "an operation";
    /// What a user asks for under the manual life-cycle.
    RequestId = "req", "a request";
    /// A one-use permission for a host to join.
    JoinTokenId = "join", "a join token";
    /// An API credential.
    TokenId = "token", "a token";
    /// One viewer's connection to a serial console.
    ConsoleId = "console", "a console";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_round_trips_through_text() {
        let id = VmId::from_parts(1_700_000_000_000, [7; 10]);
        assert_eq!(id.to_string().parse::<VmId>(), Ok(id));
        assert!(id.to_string().starts_with("vm_"));
    }

    #[test]
    fn id_of_another_kind_is_refused() {
        let host = HostId::from_parts(1, [0; 10]).to_string();
        assert_eq!(
            host.parse::<VmId>().unwrap_err().to_string(),
            "not a vm id: expected `vm_` followed by 32 hexadecimal digits"
        );
    }

    #[test]
    fn later_ids_sort_later() {
        assert!(VmId::from_parts(1, [255; 10]) < VmId::from_parts(2, [0; 10]));
    }
}
