//! One error type for everything a person may see, and its wire form.
//!
//! `public` is written for the person who asked; `source` is for the log and
//! never leaves the process.

use std::fmt;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of refusal it is; decides the HTTP status and the CLI's exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request cannot be read: broken JSON, an unknown field.
    Malformed,
    /// Nobody is signed in, or the credential is wrong or spent.
    Unauthenticated,
    /// The caller may see the thing but not do this with it.
    Forbidden,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// The thing's state does not accept this.
    Conflict,
    /// A tenant or a user has as much as they may have.
    OverQuota,
    /// The caller's view of the thing is out of date.
    Stale,
    /// More was sent than is accepted.
    TooLarge,
    /// Readable, but a field's value is not acceptable.
    Invalid,
    /// Too many tries in a short time.
    RateLimited,
    /// A needed part is away: no capacity, no host, no database.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::OverQuota => 409,
            Self::Stale => 412,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// Whether it is refused as things are now, and not for who asks.
    #[must_use]
    pub const fn is_of_state(self) -> bool {
        matches!(self, Self::Conflict | Self::OverQuota | Self::Invalid)
    }

    /// A short title for the problem document, stable for one kind.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "the request cannot be read",
            Self::Unauthenticated => "sign in first",
            Self::Forbidden => "not allowed",
            Self::NotFound => "not found",
            Self::Conflict => "not possible now",
            Self::OverQuota => "more than the quota allows",
            Self::Stale => "out of date",
            Self::TooLarge => "too large",
            Self::Invalid => "not acceptable",
            Self::RateLimited => "too many tries",
            Self::Unavailable => "not available now",
            Self::Internal => "internal error",
        }
    }
}

/// What is wrong with one field of a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Name of the field as on the wire.
    pub field: String,
    /// What is wrong, in the user's words.
    pub message: String,
}

impl FieldError {
    #[must_use]
    pub fn new(field: &str, message: impl fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            message: message.to_string(),
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The one error of the engine and the API.
#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// For the caller: lower case, no period, names the thing.
    pub public: String,
    /// Fields at fault, for forms.
    pub fields: Vec<FieldError>,
    /// For the log alone.
    pub source: Option<Source>,
}

impl Error {
    pub fn new(kind: ErrorKind, public: impl Into<String>) -> Self {
        Self {
            kind,
            public: public.into(),
            fields: Vec::new(),
            source: None,
        }
    }

    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("{what} not found"))
    }

    pub fn conflict(public: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, public)
    }

    pub fn over_quota(public: impl Into<String>) -> Self {
        Self::new(ErrorKind::OverQuota, public)
    }

    pub fn invalid(fields: Vec<FieldError>) -> Self {
        let public = fields
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            kind: ErrorKind::Invalid,
            public,
            fields,
            source: None,
        }
    }

    pub fn unavailable(public: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, public)
    }

    /// A fault of ours: the caller learns no more than that.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self {
            kind: ErrorKind::Internal,
            public: "something went wrong on our side; it has been logged".to_owned(),
            fields: Vec::new(),
            source: Some(source.into()),
        }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The wire form, without the source.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem {
            kind: "about:blank".to_owned(),
            title: self.kind.title().to_owned(),
            status: self.kind.http_status(),
            code: self.kind,
            detail: self.public.clone(),
            errors: self.fields.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::invalid(vec![error])
    }
}

/// RFC 9457 problem document, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// The HTTP status, repeated for those who only see the body.
    pub status: u16,
    /// The stable, machine-readable kind.
    pub code: ErrorKind,
    /// What happened, in the user's words.
    pub detail: String,
    /// Fields at fault, when the request was a form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}
