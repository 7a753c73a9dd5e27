//! Where the server is.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

/// Why a text is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidBaseUrl {
    Unreadable(String),
    Scheme(String),
    NoHost,
    Extra(&'static str),
}

impl fmt::Display for InvalidBaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(
                f,
                "not a URL ({why}); expected something like http://127.0.0.1:8700"
            ),
            Self::Scheme(scheme) => write!(
                f,
                "the scheme is `{scheme}`; only http and https are spoken"
            ),
            Self::NoHost => f.write_str("the URL names no host"),
            Self::Extra(what) => write!(f, "the URL has {what}; leave it out"),
        }
    }
}

impl std::error::Error for InvalidBaseUrl {}

/// The address of a server: `http` or `https`, host, and a path where the
/// server is not at the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of `path` below the base; `path` begins with `/`.
    pub(crate) fn of(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// The same with the WebSocket's scheme, as text.
    pub(crate) fn websocket_of(&self, path: &str) -> String {
        let url = self.of(path);
        let rest = url.as_str().trim_start_matches(url.scheme());
        let scheme = if self.is_https() { "wss" } else { "ws" };
        format!("{scheme}{rest}")
    }
}

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBaseUrl> {
        let url = Url::parse(text.trim())
            .map_err(|error| InvalidBaseUrl::Unreadable(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidBaseUrl::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidBaseUrl::NoHost);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidBaseUrl::Extra("a user name or a password"));
        }
        if url.query().is_some() {
            return Err(InvalidBaseUrl::Extra("a query"));
        }
        if url.fragment().is_some() {
            return Err(InvalidBaseUrl::Extra("a fragment"));
        }
        Ok(Self(url))
    }
}

/// Without a slash at the end.
impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn paths_go_below_the_base() {
        for text in ["http://h:1", "http://h:1/"] {
            assert_eq!(
                base(text).of("/api/v1/vms").as_str(),
                "http://h:1/api/v1/vms"
            );
        }
        assert_eq!(base("https://h/vim/").of("/x").as_str(), "https://h/vim/x");
        assert_eq!(base("https://h/vim").websocket_of("/x"), "wss://h/vim/x");
        assert_eq!(base("http://h:8700").websocket_of("/x"), "ws://h:8700/x");
    }

    #[test]
    fn what_is_no_server_address_is_refused_with_its_reason() {
        let refusal = |text: &str| text.parse::<BaseUrl>().unwrap_err().to_string();
        assert!(refusal("127.0.0.1:8700").contains("not a URL"));
        assert!(refusal("ftp://h").contains("`ftp`"));
        assert!(refusal("http://u:p@h").contains("a user name"));
        assert!(refusal("http://h/?x=1").contains("a query"));
    }
}
