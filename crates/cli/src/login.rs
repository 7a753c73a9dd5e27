//! Signing in and out.

use std::io::{self, IsTerminal, Read};

use vimana_client::{CaFile, Client};
use vimana_model::ErrorKind;
use vimana_model::session::{MAX_PASSWORD_BYTES, SignIn};

use crate::args::{Json, Login};
use crate::credentials::{self, Credentials};
use crate::failure::{Failure, Outcome};
use crate::text::shown;
use crate::{output, terminal};

pub async fn login(args: Login) -> Outcome {
    let Login {
        url,
        user,
        password_stdin,
        ca_file,
    } = args;
    let ca_file = ca_file
        .map(|path| std::path::absolute(&path).map_err(|error| cannot_read(&error)))
        .transpose()?;
    let client = Client::new(url, ca_file.clone().map(CaFile).as_ref())?;
    let password = if password_stdin {
        piped_password()?
    } else {
        typed_password(&user)?
    };
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
    ))
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
        ("role", format!("{:?}", me.role).to_lowercase()),
        ("staff", staff),
        ("server", client.base().to_string()),
    ])
}

fn piped_password() -> Outcome<String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX_PASSWORD_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(2);
    io::stdin()
        .lock()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| cannot_read(&error))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() > MAX_PASSWORD_BYTES {
        return Err(Failure::Failed(format!(
            "the password is longer than {MAX_PASSWORD_BYTES} bytes"
        )));
    }
    Ok(line.to_owned())
}

fn typed_password(user: &str) -> Outcome<String> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for the password; use --password-stdin".to_owned(),
        ));
    }
    terminal::ask_password(
        &format!("Password for {}: ", shown(user)),
        MAX_PASSWORD_BYTES,
    )
    .map_err(|error| cannot_read(&error))
}

fn cannot_read(error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot read the input: {error}"))
}
