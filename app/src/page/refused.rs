//! Why a form was refused, as its fields and its foot show it.

use leptos::prelude::*;

use super::sentence;
use crate::api::ApiError;

/// The error of one field of a form.
pub fn of_field(
    refused: RwSignal<Option<ApiError>>,
    field: &'static str,
) -> Signal<Option<String>> {
    Signal::derive(move || {
        let error = refused.with(|refused| refused.as_ref().and_then(|error| error.field(field)));
        error.map(|text| sentence(&text))
    })
}

/// What is wrong beside those fields.
pub fn otherwise(
    refused: RwSignal<Option<ApiError>>,
    fields: &'static [&'static str],
) -> Signal<Option<String>> {
    Signal::derive(move || {
        let told = |error: &ApiError| fields.iter().any(|field| error.field(field).is_some());
        refused
            .get()
            .filter(|error| !told(error))
            .map(|error| error.sentence())
    })
}
