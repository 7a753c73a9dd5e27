//! Signing in and out.

use vimana_client::{CaFile, Client};
use vimana_model::ErrorKind;
use vimana_model::session::SignIn;

use crate::args::{Json, Login};
use crate::credentials::{self, Credentials};
use crate::failure::{Failure, Outcome};
use crate::{input, output};

pub async fn login(args: Login) -> Outcome {
    let Login {
        url,
        user,
        password_stdin,
        ca_file,
    } = args;
    let ca_file = ca_file
        .map(|path| std::path::absolute(&path).map_err(|error| input::cannot_read(&error)))
        .transpose()?;
    let client = Client::new(url, ca_file.clone().map(CaFile).as_ref())?;
    let password = input::password(&user, password_stdin)?;
    let token = client
        .sign_in(&SignIn {
            user_name: user,
            password,
        })
        .await?;
    credentials::save(&Credentials {
        url: client.base().to_string(),
        user_name: token.user_name.to_string(),
        token: token.token,
        expires_at: token.expires_at,
        ca_file,
    })?;
    output::line(&format!(
        "signed in at {} as {} until {}",
        client.base(),
        token.user_name,
        output::time(token.expires_at)
    ))?;
    if credentials::are_in_environment() {
        eprintln!("vimana: VIMANA_URL and VIMANA_TOKEN are set and are used instead");
    }
    Ok(())
}

pub async fn logout() -> Outcome {
    let Some(stored) = credentials::load()? else {
        return output::line("nobody was signed in");
    };
    let base = stored
        .url
        .parse()
        .map_err(|error| Failure::Failed(format!("`{}`: {error}", stored.url)))?;
    let client = Client::new(base, stored.ca_file.map(CaFile).as_ref())?.with_token(&stored.token);
    match client.sign_out().await {
        Ok(()) => {}
        // It had ended already.
        Err(error) if error.kind == ErrorKind::Unauthenticated => {}
        Err(error) => return Err(error.into()),
    }
    credentials::forget()?;
    output::line(&format!("signed out of {}", client.base()))
}

pub async fn whoami(Json { json }: Json) -> Outcome {
    let client = credentials::client()?;
    let me = client.me().await?;
    if json {
        return output::json(&me);
    }
    let staff = match me.staff {
        Some(role) => format!("{role:?}").to_lowercase(),
        None => "no".to_owned(),
    };
    output::fields(&[
        ("user", me.user_name.to_string()),
        ("tenant", me.tenant.to_string()),
        ("life-cycle", me.tenant_kind.to_string()),
        ("role", format!("{:?}", me.role).to_lowercase()),
        ("staff", staff),
        ("server", client.base().to_string()),
    ])
}
