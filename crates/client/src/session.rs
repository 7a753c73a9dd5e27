//! Signing in and out.

use reqwest::Method;
use vimana_model::Result;
use vimana_model::session::{MeView, SignIn, TokenView};

use crate::Client;

// Signing in and out is asked once: nobody is known yet who could have a key,
// and a token that nobody received does no harm.
impl Client {
    /// Trades a password for a fresh token.
    pub async fn sign_in(&self, form: &SignIn) -> Result<TokenView> {
        let request = self.prepare(Method::POST, "/api/v1/tokens")?;
        self.call(request.json(form)).await
    }

    /// Ends the token this client uses.
    pub async fn sign_out(&self) -> Result<()> {
        self.call(self.prepare(Method::DELETE, "/api/v1/tokens/current")?)
            .await
    }

    pub async fn me(&self) -> Result<MeView> {
        self.get("/api/v1/me").await
    }
}
