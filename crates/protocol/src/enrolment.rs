//! How an agent gets its certificate, and the next one.
//!
//! `POST /agent/v1/join` takes a [`JoinRequest`] from an agent that has no
//! certificate yet, `POST /agent/v1/renew` a [`RenewRequest`] from one that
//! proves itself with the certificate it has. Both answer [`Certified`].

use std::fmt;

use serde::{Deserialize, Serialize};
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};

pub const JOIN_PATH: &str = "/agent/v1/join";
pub const RENEW_PATH: &str = "/agent/v1/renew";

/// A host asks to belong to the installation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of a join token.
    pub secret: String,
    pub host_id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    /// Certificate request in PEM, signed by the host's key.
    pub request: String,
    /// The number of the last session this host had; its sessions are counted
    /// on from there.
    #[serde(default)]
    pub session_number: u64,
}

/// The secret does not show itself.
impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest({} as {})", self.host_id, self.name)
    }
}

/// A host asks for another certificate before the one it has expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Certificate request in PEM; of the same key or another one.
    pub request: String,
}

/// A host's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// In PEM.
    pub certificate: String,
    /// Certificate of the authority that signed it, in PEM.
    pub authority: String,
    /// How long it is good for, from now on.
    pub life_ms: u64,
}
