//! A call that changes something has one effect, however often it arrives: the
//! caller's `Idempotency-Key` goes with it into the engine.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{OpenApi as Document, Ref, Required, ResponseBuilder};
use vimana_engine::{IdempotencyKey, OpContext};
use vimana_model::vm::CreateVm;
use vimana_model::{Error, FieldError, Result};

use super::extract::Caller;
use super::problem::ApiError;
use crate::guard::body::WholeBody;
use crate::limits::MAX_IDEMPOTENCY_KEY_CHARS;
use crate::state::App;

/// The header's name, as people write it.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Who asks for a change, with the key that makes it happen once.
pub struct Once(pub OpContext);

impl FromRequestParts<App> for Once {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Caller(cx) = Caller::from_request_parts(parts, app).await?;
        let Some(key) = key_of(&parts.headers)? else {
            return Ok(Self(cx));
        };
        let WholeBody(body) = parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| Error::internal("the body of a change was not read"))?;
        // What a nested router sees is not what was asked.
        let path = match parts.extensions.get::<OriginalUri>() {
            Some(OriginalUri(uri)) => uri.path(),
            None => parts.uri.path(),
        };
        let fingerprint = fingerprint(&parts.method, path, &body);
        Ok(Self(
            cx.with_idempotency(IdempotencyKey { key, fingerprint }),
        ))
    }
}

impl Once {
    /// The same for a form that may have a password among what is filled in.
    pub fn of_terms<T: Serialize>(
        self,
        path: &str,
        terms: Option<&CreateVm>,
        without_values: impl FnOnce(CreateVm) -> T,
    ) -> Result<OpContext> {
        match terms {
            Some(terms) if !terms.inputs.is_empty() => {
                self.without_secret(path, &without_values(terms.clone().without_values()))
            }
            _ => Ok(self.0),
        }
    }

    /// For a body with a secret in it: its fingerprint is kept, and must not
    /// help to guess the secret. It is made of `shown` instead.
    pub fn without_secret<T: Serialize>(self, path: &str, shown: &T) -> Result<OpContext> {
        let Self(mut cx) = self;
        if let Some(key) = &mut cx.idempotency {
            let shown = serde_json::to_vec(shown).map_err(Error::internal)?;
            key.fingerprint = fingerprint(&Method::POST, path, &shown);
        }
        Ok(cx)
    }
}

/// Tells calls apart: what is asked, of whom, in which words.
fn fingerprint(method: &Method, path: &str, body: &[u8]) -> String {
    // Neither a method nor a path has a space or a line break in it.
    let digest = Sha256::new()
        .chain_update(format!("{method} {path}\n"))
        .chain_update(body)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let printable = |byte: &u8| (b' '..=b'~').contains(byte);
    value
        .to_str()
        .ok()
        .filter(|key| more.is_none() && key.as_bytes().iter().all(printable))
        .filter(|key| (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&key.len()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| {
            let message =
                format!("one key of 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters");
            FieldError::new(IDEMPOTENCY_KEY, message).into()
        })
}

/// Says at every change that it takes a key. Signing in and out take none:
/// nobody is known yet, or any more, whose key it could be. Neither does a part
/// of an upload: its offset is one.
pub fn describe(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        let keyless = ["/tokens", "/tokens/current", "/content"];
        if keyless.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        let changes = [
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in changes.into_iter().filter_map(Option::as_mut) {
            describe_operation(operation);
        }
    }
}

fn describe_operation(operation: &mut Operation) {
    operation
        .parameters
        .get_or_insert_default()
        .push(parameter());
    let problem = Ref::from_schema_name("Problem");
    let content = utoipa::openapi::Content::new(Some(problem));
    let refusal = ResponseBuilder::new()
        .description("The key is no key, or was used for another call")
        .content("application/problem+json", content)
        .build();
    operation
        .responses
        .responses
        .entry("422".to_owned())
        .or_insert_with(|| refusal.into());
}

fn parameter() -> Parameter {
    let schema: Object = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_IDEMPOTENCY_KEY_CHARS))
        .build();
    ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A text of the caller's own that is new with every change. The same call under the \
             same key has one effect and the same answer, for a day at least.",
        ))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>> {
        let headers = values
            .iter()
            .map(|value| {
                let name = axum::http::HeaderName::from_static("idempotency-key");
                (name, axum::http::HeaderValue::from_str(value).unwrap())
            })
            .collect();
        key_of(&headers)
    }

    #[test]
    fn a_key_is_a_short_printable_text() {
        assert_eq!(read(&[]).unwrap(), None);
        for key in ["a", "{\"~ !", &"x".repeat(255)] {
            assert_eq!(read(&[key]).unwrap().as_deref(), Some(key));
        }
        for keys in [
            &[""][..],
            &["a\tb"],
            &["na\u{ef}ve"],
            &["a", "a"],
            &[&"x".repeat(256)],
        ] {
            let error = read(keys).unwrap_err();
            assert_eq!(error.fields.len(), 1, "{keys:?}");
        }
    }

    #[test]
    fn calls_that_differ_have_different_fingerprints() {
        let all = [
            fingerprint(&Method::POST, "/a", b"x"),
            fingerprint(&Method::DELETE, "/a", b"x"),
            fingerprint(&Method::POST, "/b", b"x"),
            fingerprint(&Method::POST, "/a", b"y"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(one.len(), 64);
            assert!(!all.iter().skip(index + 1).any(|other| other == one));
        }
    }
}
