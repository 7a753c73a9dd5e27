use serde::{Deserialize, Serialize};

use server_fn::error::{FromServerFnError, ServerFnErrorErr};
use vimana_model::{Error, ErrorKind, Problem};

use super::codec::JsonText;

/// Nobody answered: whether it was done is not known.
pub const UNREACHABLE: &str = "the server cannot be reached; try again";

/// What a server function answers when it cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiError(pub Problem);

impl ApiError {
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.code
    }

    /// What went wrong, as a sentence of its own.
    #[must_use]
    pub fn sentence(&self) -> String {
        crate::page::sentence(&self.0.detail)
    }

    /// What is wrong with one field of the form that was sent.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.0
            .errors
            .iter()
            .find(|error| error.field == name)
            .map(|error| error.message.clone())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error.problem())
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for ApiError {}

impl FromServerFnError for ApiError {
    type Encoder = JsonText;

    /// The transport's own faults. Nothing of their text is for the user.
    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        let (kind, public) = match error {
            ServerFnErrorErr::Request(_) => (ErrorKind::Unavailable, UNREACHABLE),
            ServerFnErrorErr::Deserialization(_) | ServerFnErrorErr::Response(_) => (
                ErrorKind::Unavailable,
                "the server gave an answer this page does not understand; reload the page",
            ),
            ServerFnErrorErr::Args(_) | ServerFnErrorErr::MissingArg(_) => {
                (ErrorKind::Malformed, "the request cannot be read")
            }
            ServerFnErrorErr::UnsupportedRequestMethod(_)
            | ServerFnErrorErr::Registration(_)
            | ServerFnErrorErr::MiddlewareError(_)
            | ServerFnErrorErr::ServerError(_)
            | ServerFnErrorErr::Serialization(_) => (
                ErrorKind::Internal,
                "something went wrong on our side; try again",
            ),
        };
        Self(Error::new(kind, public).problem())
    }
}
