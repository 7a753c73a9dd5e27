//! Signing in and out.

use vimana_model::Result;
use vimana_model::session::{MeView, SignIn, TokenView};

use crate::Client;

impl Client {
    /// Trades a password for a fresh token.
    pub async fn sign_in(&self, form: &SignIn) -> Result<TokenView> {
        self.post_json("/api/v1/tokens", form).await
    }

    /// Ends the token this client uses.
    pub async fn sign_out(&self) -> Result<()> {
        self.delete("/api/v1/tokens/current").await
    }

    pub async fn me(&self) -> Result<MeView> {
        self.get("/api/v1/me").await
    }
}
