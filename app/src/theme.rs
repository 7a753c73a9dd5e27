//! Light, dark, or as the system has it. The choice is a cookie, so that the
//! server's first byte already has the right colours.

#[cfg(feature = "ssr")]
const COOKIE: &str = "vimana_theme";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Light => "Light",
            Self::Dark => "Dark",
        }
    }

    fn from_slug(text: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|theme| theme.slug() == text)
            .unwrap_or_default()
    }

    /// The choice the request's cookie carries.
    #[cfg(feature = "ssr")]
    #[must_use]
    pub fn of_request(headers: &axum::http::HeaderMap) -> Self {
        headers
            .get_all(axum::http::header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .map_or(Self::System, |(_, value)| Self::from_slug(value))
    }

    /// The choice in force on this page: what `<html>` says.
    #[must_use]
    pub fn current() -> Self {
        #[cfg(feature = "hydrate")]
        {
            root()
                .and_then(|root| root.get_attribute("data-theme"))
                .map_or(Self::System, |slug| Self::from_slug(&slug))
        }
        #[cfg(not(feature = "hydrate"))]
        Self::System
    }

    /// Puts the choice in force here and keeps it for later pages.
    pub fn choose(self) {
        #[cfg(feature = "hydrate")]
        {
            use wasm_bindgen::JsCast as _;

            if let Some(root) = root() {
                // What cannot be set is left as it is: the page stays readable.
                let _ = root.set_attribute("data-theme", self.slug());
            }
            if let Ok(document) = leptos::prelude::document().dyn_into::<web_sys::HtmlDocument>() {
                let cookie = format!(
                    "vimana_theme={}; path=/; max-age=31536000; samesite=lax",
                    self.slug()
                );
                let _ = document.set_cookie(&cookie);
            }
        }
    }
}

#[cfg(feature = "hydrate")]
fn root() -> Option<web_sys::Element> {
    leptos::prelude::document().document_element()
}
