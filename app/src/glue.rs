//! Modules of `app/js`: loaded when they are first wanted, under the names the
//! shell gave them.

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// What the shell left for the wasm.
///
/// # Errors
/// When it is not there.
pub fn page() -> Result<Object, JsValue> {
    get(&js_sys::global(), "vimana")
}

/// Loads a module.
///
/// # Errors
/// When it does not come.
pub async fn module(name: &str) -> Result<JsValue, JsValue> {
    let page = page()?;
    let load = get::<Function>(&page, name)?.call0(&page)?;
    JsFuture::from(load.dyn_into::<Promise>()?).await
}

/// # Errors
/// When there is none of that kind.
pub fn get<T: JsCast>(object: &JsValue, key: &str) -> Result<T, JsValue> {
    Reflect::get(object, &key.into())?.dyn_into()
}
