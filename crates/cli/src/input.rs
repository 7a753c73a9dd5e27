//! What people hand in beside the command line: files and passwords.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use vimana_model::session::MAX_PASSWORD_BYTES;
use vimana_model::template::{InputValue, Inputs};

use crate::args::Preset;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_INPUT_FILE_BYTES;
use crate::terminal;
use crate::text::shown;

/// The public keys in a file, if one is given.
pub fn ssh_key(file: Option<PathBuf>) -> Outcome<Option<String>> {
    let key = file.map(|path| read(&path)).transpose()?;
    Ok(key.map(|key| key.trim().to_owned()))
}

/// The user-data in a file, if one is given.
pub fn user_data(file: Option<PathBuf>) -> Outcome<Option<String>> {
    file.map(|path| read(&path)).transpose()
}

/// What is filled in for a template: from the command line, and from files.
pub fn inputs(preset: &Preset) -> Outcome<Inputs> {
    let mut inputs = preset.inputs();
    for (name, path) in &preset.input_file {
        let text = read(Path::new(path))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        inputs.insert(name.clone(), InputValue::Text(text.to_owned()));
    }
    Ok(inputs)
}

/// A password: piped in, or typed unseen.
pub fn password(user: &str, piped: bool) -> Outcome<String> {
    if piped {
        piped_password()
    } else {
        typed_password(user)
    }
}

/// The text of a file.
pub fn read(path: &Path) -> Outcome<String> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("cannot read {}: {why}", path.display()))
    };
    let file = File::open(path).map_err(|error| refused(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_INPUT_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(&error))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > MAX_INPUT_FILE_BYTES {
        let limit = MAX_INPUT_FILE_BYTES >> 10;
        return Err(refused(&format_args!("it is larger than {limit} KiB")));
    }
    String::from_utf8(bytes).map_err(|_| refused(&"it is not text in UTF-8"))
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

pub fn cannot_read(error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot read the input: {error}"))
}
