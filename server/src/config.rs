//! What an operator may set, by option or by environment.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Component, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Parser};
use ipnet::IpNet;
use vimana_datastore::DirDatastore;
use vimana_model::datastore::DatastoreDir;
use vimana_model::name::ImageName;

use crate::limits::MAX_CERTIFICATE_DAYS;

const ENVIRONMENT: &str = "\
Tools, beside a server that runs:
  vimana-server join-token --help
  vimana-server fsck --help

Environment alone:
  VIMANA_ADMIN_PASSWORD  password for user admin, set on the first start; where
                         it is missing one is made and printed, once
  VIMANA_LOG             what goes to standard error, such as `debug` or
                         `info,vimana_engine=debug`";

/// The manager of a Vimana installation: portal, REST interface, engine.
#[derive(Clone, Debug, Parser)]
#[command(name = "vimana-server", version, after_help = ENVIRONMENT)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "VIMANA_LISTEN", default_value = "127.0.0.1:8700")]
    pub listen: SocketAddr,

    /// Address that agents connect to, by certificates of the installation's
    /// own alone
    #[arg(long, env = "VIMANA_AGENT_LISTEN", default_value = "127.0.0.1:8701")]
    pub agent_listen: SocketAddr,

    /// Days that a host's certificate is good for; it is renewed in time
    #[arg(
        long = "host-certificate-days",
        env = "VIMANA_HOST_CERTIFICATE_DAYS",
        value_name = "DAYS",
        default_value = "90",
        value_parser = days
    )]
    pub host_certificate_life: Duration,

    /// Seconds that a host may run its machines without hearing from the
    /// server; then its watchdog stops them [default: for ever]
    #[arg(
        long,
        env = "VIMANA_HOST_LEASE",
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(10..=86_400)
    )]
    pub host_lease: Option<u64>,

    /// Directory for the database, the images and the secrets; made with
    /// mode 0700 where it is missing
    #[arg(long, env = "VIMANA_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Database to use, sqlite:// or postgres:// [default: SQLite in the data
    /// directory]
    #[arg(
        long,
        env = "VIMANA_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,

    /// The built portal; without it only the REST interface is served
    #[arg(long, env = "VIMANA_SITE_DIR", value_name = "DIR")]
    pub site_dir: Option<PathBuf>,

    #[command(flatten)]
    pub tls: TlsFiles,

    /// Serve plain HTTP on an address others can reach: passwords then cross
    /// the network unprotected
    #[arg(long, env = "VIMANA_ALLOW_PLAIN_HTTP")]
    pub allow_plain_http: bool,

    /// Take an image's file into the image repository at the start; may be
    /// repeated, and changes nothing where it is there already
    #[arg(long, value_name = "NAME=PATH")]
    pub import_image: Vec<ImageSource>,

    /// Networks that images may be fetched from beside all public addresses,
    /// such as 10.0.0.0/8
    #[arg(
        long,
        env = "VIMANA_IMPORT_ALLOW",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub import_allow: Vec<IpNet>,

    /// Directory of this machine that administrators may import images from;
    /// may be repeated, or name several between colons
    #[arg(
        long,
        env = "VIMANA_IMPORT_PATH",
        value_name = "DIR",
        value_delimiter = ':',
        value_parser = directory
    )]
    pub import_path: Vec<PathBuf>,

    /// Largest image that is imported, fetched, uploaded or unpacked, in GiB
    #[arg(
        long,
        env = "VIMANA_IMPORT_MAX_GIB",
        value_name = "GIB",
        default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(1..=1 << 20)
    )]
    pub import_max_gib: u64,

    /// Bandwidth of each import over the network, in MiB a second [default: no limit]
    #[arg(long, env = "VIMANA_IMPORT_RATE_MIB", value_name = "MIB")]
    pub import_rate_mib: Option<NonZeroU64>,

    /// Place for backups, a directory of this machine or a file system mounted
    /// there; may be repeated, and the first takes what names none
    /// [default: beside everything else]
    #[arg(
        long,
        env = "VIMANA_DATASTORE",
        value_name = "NAME=DIR",
        value_delimiter = ','
    )]
    pub datastore: Vec<DatastoreDir>,

    /// Kept free in each datastore's file system, in GiB
    #[arg(
        long,
        env = "VIMANA_DATASTORE_RESERVE_GIB",
        value_name = "GIB",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(0..=1 << 20)
    )]
    pub datastore_reserve_gib: u64,

    /// Never an argument: those are for all to see.
    #[arg(skip)]
    pub admin_password: Option<AdminPassword>,
}

fn days(text: &str) -> Result<Duration, String> {
    let days: u64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(1..=MAX_CERTIFICATE_DAYS).contains(&days) {
        return Err(format!("expected 1 to {MAX_CERTIFICATE_DAYS} days"));
    }
    Ok(Duration::from_secs(days * 24 * 3600))
}

/// What is no absolute path would depend on where the server was started.
fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err("expected a path from / on, without `..`".to_owned());
    }
    Ok(path)
}

/// A certificate and its key, or neither.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsFiles {
    /// PEM file with the certificate and its chain
    #[arg(
        long,
        env = "VIMANA_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(
        long,
        env = "VIMANA_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
}

/// An image to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    pub name: ImageName,
    pub path: PathBuf,
}

impl FromStr for ImageSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| "expected NAME=PATH, such as demo=/srv/demo.qcow2".to_owned())?;
        let name = ImageName::new(name).map_err(|error| format!("`{name}`: {error}"))?;
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        Ok(Self {
            name,
            path: PathBuf::from(path),
        })
    }
}

/// The datastore in its place. One that is not mounted is refused: it would look
/// like one that lost everything, and be made on another file system than the one
/// that is meant.
///
/// # Errors
/// A sentence about the directory that is not there.
pub fn open_datastore(DatastoreDir { name, path }: &DatastoreDir) -> anyhow::Result<DirDatastore> {
    if !path.is_dir() {
        bail!(
            "datastore {name}: {} is not a directory, or not mounted",
            path.display()
        );
    }
    Ok(DirDatastore::new(path.clone()))
}

/// A password that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminPassword(pub String);

impl AdminPassword {
    /// `VIMANA_ADMIN_PASSWORD`; empty counts as missing.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        std::env::var("VIMANA_ADMIN_PASSWORD")
            .ok()
            .filter(|text| !text.is_empty())
            .map(Self)
    }
}

impl std::fmt::Debug for AdminPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminPassword")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_well_formed() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }

    #[test]
    fn images_to_import_are_named() {
        let source: ImageSource = "demo=/a=b.qcow2".parse().unwrap();
        assert_eq!(source.name.as_str(), "demo");
        assert_eq!(source.path, PathBuf::from("/a=b.qcow2"));
        for wrong in ["demo", "=x", "a b=x", "demo="] {
            assert!(wrong.parse::<ImageSource>().is_err(), "{wrong}");
        }
    }
}
