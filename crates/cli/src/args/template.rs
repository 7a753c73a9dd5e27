//! What can be asked about presets, and what is filled in for one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vimana_model::template::{InputValue, Inputs};

use super::Json;

#[derive(Subcommand)]
pub enum Template {
    /// List them
    List(Json),
    /// Show one, with its inputs
    Show(TemplateShown),
    /// Make a template (for managers)
    Create(CreateTemplate),
    /// Change what a file names of a template (for managers)
    Change(ChangeTemplate),
    /// Delete a template; VMs made from it go on (for managers)
    Delete(TemplateShown),
}

#[derive(Args)]
pub struct TemplateShown {
    /// A name means the tenant's own, else the one for all
    #[arg(value_name = "NAME|ID")]
    pub template: String,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct CreateTemplate {
    /// JSON file with the form that POST /templates takes
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// For all tenants (for administrators)
    #[arg(long)]
    pub public: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct ChangeTemplate {
    /// A name means the tenant's own, else the one for all
    #[arg(value_name = "NAME|ID")]
    pub template: String,
    /// JSON file with the form that PATCH /templates takes
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub json: Json,
}

/// Where a VM starts from.
#[derive(Args)]
pub struct Preset {
    /// Start from a preset; see `vimana template list`
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// A value for an input of the template; may be repeated. Others on this
    /// machine can see it: for a password, use --input-file
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "template")]
    pub input: Vec<(String, String)>,
    /// A file whose text is the value of an input, without a line break at its
    /// end; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = pair, requires = "template")]
    pub input_file: Vec<(String, String)>,
    /// What it boots from, in place of the template's; see `vimana image list`
    #[arg(long, required_unless_present = "template")]
    pub image: Option<String>,
    /// Its size, in place of the template's; see `vimana flavor list`
    #[arg(long, required_unless_present = "template")]
    pub flavor: Option<String>,
    /// Datastore that its disk is to be in, of the host it is placed on; where that
    /// is shared, the disk stays there when the VM migrates
    #[arg(long, value_name = "NAME")]
    pub datastore: Option<String>,
}

impl Preset {
    /// What is on the command line itself.
    pub fn inputs(&self) -> Inputs {
        let given = self.input.iter().cloned();
        given
            .map(|(name, value)| (name, InputValue::Text(value)))
            .collect()
    }
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
