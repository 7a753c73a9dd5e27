//! Names that are taken.

use vimana_model::{Error, ErrorKind, FieldError};
use vimana_store::{StoreError, TxError};

/// The refusal of a name that another thing holds, for the form's field.
/// `what` has its article: "a VM".
pub fn in_use(error: StoreError, what: &str, name: &str) -> TxError {
    if !matches!(error, StoreError::Duplicate { .. }) {
        return error.into();
    }
    let message = format!("there is already {what} named `{name}`");
    let mut refusal = Error::new(ErrorKind::Conflict, message.clone());
    refusal.fields = vec![FieldError::new("name", message)];
    refusal.into()
}
