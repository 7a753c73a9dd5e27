//! Which addresses may be talked to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::lookup_host;
use tokio::time::timeout;
use url::Host;

use crate::FetchError;
use crate::limits::CONNECT_TIMEOUT;

/// Public addresses, and those that an administrator allowed besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    allowed: Vec<IpNet>,
}

/// What is not public, after the IANA registries of special-purpose addresses
/// (RFC 6890 and its updates), with multicast and what is reserved.
const NOT_PUBLIC_V4: &[Ipv4Net] = &[
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// The only public part of IPv6, and what is special inside it.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const NOT_PUBLIC_V6: &[Ipv6Net] = &[
    // Teredo, benchmarking, ORCHID and other protocol assignments.
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Addresses that are other ones in disguise: the embedded one counts.
const TRANSLATED: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

const fn v4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(words: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = words;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

impl Reach {
    /// The public addresses, and `allowed`.
    #[must_use]
    pub const fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// # Errors
    /// `Forbidden`.
    pub fn check(&self, address: IpAddr) -> Result<(), FetchError> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|net| net.contains(&address)) || is_public(address) {
            return Ok(());
        }
        Err(FetchError::Forbidden(address))
    }

    /// The host's addresses that may be talked to, all looked up now.
    pub(crate) async fn resolve(
        &self,
        host: &Host<&str>,
        port: u16,
    ) -> Result<Vec<SocketAddr>, FetchError> {
        let found: Vec<SocketAddr> = match host {
            Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
            Host::Domain(name) => {
                let looked_up = timeout(CONNECT_TIMEOUT, lookup_host((*name, port))).await;
                let unknown = || FetchError::Away(format!("there is no address for `{name}`"));
                let looked_up = looked_up.map_err(|_| unknown())?;
                looked_up.map_err(|_| unknown())?.collect()
            }
        };
        let mut refusal = None;
        let mut permitted = Vec::new();
        for address in found {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(refused) => refusal = Some(refused),
            }
        }
        match refusal {
            Some(refused) if permitted.is_empty() => Err(refused),
            Some(_) | None => Ok(permitted),
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => {
            let [_, _, _, _, _, _, g, h] = address.segments();
            if TRANSLATED.contains(&address) {
                return is_public(embedded(g, h));
            }
            if SIX_TO_FOUR.contains(&address) {
                let [_, b, c, _, _, _, _, _] = address.segments();
                return is_public(embedded(b, c));
            }
            PUBLIC_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|net| net.contains(&address))
        }
    }
}

fn embedded(high: u16, low: u16) -> IpAddr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_public_is_out_of_reach_however_it_is_written() {
        for address in [
            "127.0.0.1",
            "127.255.1.2",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(Reach::default().check(address).is_err(), "{address}");
        }
    }

    #[test]
    fn what_is_public_is_within_reach() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "151.101.2.132",
            "2606:4700::1111",
            "2a04:4e42::644",
            "64:ff9b::101:101",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(Reach::default().check(address).is_ok(), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_within_reach_and_nothing_beside_it() {
        let reach = Reach::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let check = |address: &str| reach.check(address.parse().unwrap());
        assert!(check("127.0.0.1").is_ok());
        assert!(check("::ffff:127.0.0.1").is_ok());
        assert!(check("::1").is_err());
        assert!(check("10.0.0.1").is_err());
    }
}
