//! Where a file is.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::limits::MAX_URL_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    Ftp,
    Nfs,
}

/// A URL that was looked at. Written out it shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    scheme: Scheme,
    url: Url,
}

/// Why a text is no source; the source is the sentence's subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("is no URL: {0}")]
    NoUrl(url::ParseError),
    #[error("has more than {MAX_URL_BYTES} bytes in its URL")]
    TooLong,
    #[error("would come over `{0}`; files come over http, https, ftp and nfs")]
    Scheme(String),
    #[error("has a URL that names no server")]
    NoHost,
    #[error("has a URL that names no file")]
    NoFile,
    #[error("has a URL with a control character in it")]
    ControlCharacter,
    #[error("has a path with `.`, `..` or an escaped `/` in it")]
    Dots,
    #[error(
        "has a user and a password, which nfs does not take; files there must be readable by everyone"
    )]
    Credentials,
}

impl Source {
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// The server, as a name or an address.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        // `from_str` refuses URLs without one.
        self.url.host().unwrap_or(Host::Domain(""))
    }

    /// The last part of the path: what the file is called there.
    #[must_use]
    pub fn file_name(&self) -> String {
        let last = self.path().pop();
        last.unwrap_or_default()
    }

    /// The path's parts, decoded.
    #[must_use]
    pub(crate) fn path(&self) -> Vec<String> {
        let parts = self.url.path().split('/').filter(|part| !part.is_empty());
        let decoded = parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        decoded.collect()
    }

    /// User and password, decoded.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = self.url.username();
        let password = self.url.password().unwrap_or_default();
        (!user.is_empty()).then(|| (decoded(user), decoded(password)))
    }

    /// The URL with its password, for whoever has to store it.
    #[must_use]
    pub fn with_password(&self) -> &str {
        self.url.as_str()
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_URL_BYTES {
            return Err(SourceError::TooLong);
        }
        // The parser would pass over these without a word.
        if text.trim().chars().any(char::is_control) {
            return Err(SourceError::ControlCharacter);
        }
        let mut url = Url::parse(text.trim()).map_err(SourceError::NoUrl)?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ftp" => Scheme::Ftp,
            "nfs" => Scheme::Nfs,
            other => return Err(SourceError::Scheme(other.to_owned())),
        };
        url.set_fragment(None);
        if url.host_str().is_none_or(str::is_empty) {
            return Err(SourceError::NoHost);
        }
        // For schemes it does not know, the parser takes an address for a name.
        if let Some(Host::Domain(name)) = url.host()
            && let Ok(Host::Ipv4(address)) = Host::parse(name)
        {
            let _same_host = url.set_ip_host(address.into());
        }
        let source = Self { scheme, url };
        let path = source.path();
        let web = matches!(scheme, Scheme::Http | Scheme::Https);
        if !web && (path.is_empty() || source.url.path().ends_with('/')) {
            return Err(SourceError::NoFile);
        }
        let stray = |(index, part): (usize, &String)| {
            // `%2F` begins a path that is absolute on an FTP server (RFC 1738, 3.2.2).
            let rest = match part.strip_prefix('/') {
                Some(rest) if scheme == Scheme::Ftp && index == 0 => rest,
                Some(_) | None => part,
            };
            rest == "." || rest == ".." || rest.contains('/')
        };
        if !web && path.iter().enumerate().any(stray) {
            return Err(SourceError::Dots);
        }
        let (user, password) = source.credentials().unwrap_or_default();
        let texts = path.iter().chain([&user, &password]);
        if texts.flat_map(|text| text.chars()).any(char::is_control) {
            return Err(SourceError::ControlCharacter);
        }
        if scheme == Scheme::Nfs && !(user.is_empty() && password.is_empty()) {
            return Err(SourceError::Credentials);
        }
        Ok(source)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() {
            let _has_a_host = shown.set_password(Some("***"));
        }
        // Signed URLs carry their secret here.
        if shown.query().is_some() && self.scheme != Scheme::Nfs {
            shown.set_query(Some("***"));
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> SourceError {
        text.parse::<Source>().unwrap_err()
    }

    #[test]
    fn secrets_are_not_shown() {
        let source: Source = "ftp://ann:hunter2@example.org/a/b.img".parse().unwrap();
        assert_eq!(source.to_string(), "ftp://ann:***@example.org/a/b.img");
        assert!(!format!("{source:?}").contains("hunter2"));
        assert!(source.with_password().contains("hunter2"));
        let signed: Source = "https://example.org/x?X-Signature=abc".parse().unwrap();
        assert_eq!(signed.to_string(), "https://example.org/x?***");
    }

    #[test]
    fn other_schemes_and_what_is_no_url_are_refused() {
        for text in [
            "file:///etc/shadow",
            "gopher://x/1",
            "smb://x/y",
            "data:,x",
            "javascript:alert(1)",
        ] {
            assert!(matches!(refusal(text), SourceError::Scheme(_)), "{text}");
        }
        for text in ["", "/etc/passwd", "http://", "http://[::1", "nfs:///x"] {
            let found = refusal(text);
            let expected = matches!(found, SourceError::NoUrl(_) | SourceError::NoHost);
            assert!(expected, "{text}: {found:?}");
        }
        let long = format!("http://example.org/{}", "a".repeat(3000));
        assert_eq!(refusal(&long), SourceError::TooLong);
    }

    #[test]
    fn nothing_can_be_slipped_into_a_command() {
        for text in [
            "ftp://h/a%0d%0aDELE%20b",
            "ftp://a%0ab@h/x",
            "ftp://a:b%0dc@h/x",
            "nfs://h/a/b%00c",
            "http://h/a\r\nX: y",
            "ftp://h/a\nb",
        ] {
            assert_eq!(refusal(text), SourceError::ControlCharacter, "{text:?}");
        }
        assert_eq!(refusal("ftp://h/a/..%2f..%2fetc/x"), SourceError::Dots);
        assert_eq!(refusal("nfs://h/a%2fb"), SourceError::Dots);
        assert_eq!(refusal("nfs://h/"), SourceError::NoFile);
        assert_eq!(refusal("nfs://root@h/x"), SourceError::Credentials);
    }

    #[test]
    fn every_way_to_write_an_address_is_seen_through() {
        for scheme in ["http", "ftp", "nfs"] {
            for host in ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1"] {
                let source: Source = format!("{scheme}://{host}/x").parse().unwrap();
                let loopback: Host<&str> = Host::Ipv4(std::net::Ipv4Addr::LOCALHOST);
                assert_eq!(source.host(), loopback, "{scheme}://{host}");
            }
        }
    }
}
