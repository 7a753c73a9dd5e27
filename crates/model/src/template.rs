//! A preset a user starts from: an image, a size and user-data, with inputs
//! that are filled in for every VM.
//!
//! Where an input goes, the user-data says as data: a mapping `{input: NAME}`
//! stands in the place of the value.

mod input;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{FlavorName, ImageName, TemplateName, UserName};
use crate::request::check_text;
use crate::user_data::UserData;
use crate::vm::field;
use crate::{Error, FieldError, TemplateId, TenantId, Timestamp};

pub use input::{
    InputKind, InputValue, InvalidInput, InvalidInputKind, Kept, MAX_INPUT_CHARS, TemplateInput,
};

/// Most inputs of one template.
pub const MAX_INPUTS: usize = 32;
/// Longest description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 2000;

/// What is filled in for inputs, by their names.
pub type Inputs = BTreeMap<String, InputValue>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateView {
    pub id: TemplateId,
    pub name: TemplateName,
    /// Absent where it is for all tenants.
    pub tenant_id: Option<TenantId>,
    /// Who made it.
    pub owner: UserName,
    pub description: String,
    /// Otherwise whoever starts from it chooses.
    pub image: Option<ImageName>,
    /// Otherwise whoever starts from it chooses.
    pub flavor: Option<FlavorName>,
    pub user_data: Option<UserData>,
    pub inputs: Vec<TemplateInput>,
    /// Grows with every change.
    pub generation: u64,
    pub created_at: Timestamp,
}

/// The form that makes a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTemplate {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Name of an image; without one, whoever starts from it chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Name of a flavor; without one, whoever starts from it chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// A cloud-config in which `{input: NAME}` stands for the value of an input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<TemplateInput>,
    /// For all tenants; for administrators alone.
    #[serde(default)]
    pub public: bool,
}

/// The form that changes a template; what is absent stays as it is, and an
/// empty text takes away. VMs that were made from it keep what they have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeTemplate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<TemplateInput>>,
    /// Refused where the template has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRequest {
    pub name: TemplateName,
    pub description: String,
    pub image: Option<ImageName>,
    pub flavor: Option<FlavorName>,
    pub user_data: Option<UserData>,
    pub inputs: Vec<TemplateInput>,
    pub public: bool,
}

impl CreateTemplate {
    /// Checks every field and reports all that are wrong at once. Whether the
    /// user-data is YAML and names inputs that there are, only the server says.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<TemplateRequest, Error> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let name = field("name", TemplateName::new(self.name.as_str()));
        let description = check_text("description", &self.description, MAX_DESCRIPTION_CHARS);
        let image = field("image", filled(&self.image).map(ImageName::new).transpose());
        let flavor = filled(&self.flavor).map(FlavorName::new).transpose();
        let flavor = field("flavor", flavor);
        let user_data = filled(&self.user_data).map(cloud_config).transpose();
        let user_data = field("user_data", user_data);
        let inputs = check_declared(&self.inputs);
        match (name, description, image, flavor, user_data, inputs) {
            (Ok(name), Ok(description), Ok(image), Ok(flavor), Ok(user_data), Ok(inputs)) => {
                Ok(TemplateRequest {
                    name,
                    description,
                    image,
                    flavor,
                    user_data,
                    inputs,
                    public: self.public,
                })
            }
            (name, description, image, flavor, user_data, inputs) => {
                let single = [
                    name.err(),
                    description.err(),
                    image.err(),
                    flavor.err(),
                    user_data.err(),
                ];
                let mut wrong: Vec<FieldError> = single.into_iter().flatten().collect();
                wrong.extend(inputs.err().into_iter().flatten());
                Err(Error::invalid(wrong))
            }
        }
    }
}

impl ChangeTemplate {
    /// The form that would make the template as it is to be.
    #[must_use]
    pub fn over(&self, now: &TemplateView) -> CreateTemplate {
        let text = |new: &Option<String>, now: Option<&str>| match new {
            Some(new) => Some(new.clone()),
            None => now.map(str::to_owned),
        };
        CreateTemplate {
            name: text(&self.name, Some(now.name.as_str())).unwrap_or_default(),
            description: text(&self.description, Some(&now.description)).unwrap_or_default(),
            image: text(&self.image, now.image.as_ref().map(ImageName::as_str)),
            flavor: text(&self.flavor, now.flavor.as_ref().map(FlavorName::as_str)),
            user_data: text(
                &self.user_data,
                now.user_data.as_ref().map(UserData::as_str),
            ),
            inputs: self.inputs.clone().unwrap_or_else(|| now.inputs.clone()),
            public: now.tenant_id.is_none(),
        }
    }
}

/// The first line by which cloud-init knows a configuration.
pub const CLOUD_CONFIG: &str = "#cloud-config";

fn cloud_config(text: String) -> Result<UserData, String> {
    let data = UserData::new(text).map_err(|error| error.to_string())?;
    if data.as_str().lines().next().map(str::trim_end) != Some(CLOUD_CONFIG) {
        return Err(format!(
            "its first line is not `{CLOUD_CONFIG}`: only that takes inputs"
        ));
    }
    Ok(data)
}

fn check_declared(inputs: &[TemplateInput]) -> Result<Vec<TemplateInput>, Vec<FieldError>> {
    if inputs.len() > MAX_INPUTS {
        let message = format!("at most {MAX_INPUTS} inputs");
        return Err(vec![FieldError::new("inputs", message)]);
    }
    let mut wrong = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let at = |field: &str| format!("inputs.{index}.{field}");
        let named = |other: &&TemplateInput| other.name == input.name;
        if inputs.iter().take(index).any(|other| named(&other)) {
            let message = format!("there is another input `{}`", input.name);
            wrong.push(FieldError::new(&at("name"), message));
        }
        let errors = input.check().into_iter();
        wrong.extend(errors.map(|error| FieldError::new(&at(&error.field), error.message)));
    }
    if wrong.is_empty() {
        Ok(inputs.to_vec())
    } else {
        Err(wrong)
    }
}

/// The values that a template's inputs get: what is filled in, else their
/// defaults. What has none is left out.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] with one entry `inputs.NAME` per value at
/// fault.
pub fn check_inputs(declared: &[TemplateInput], given: &Inputs) -> Result<Inputs, Error> {
    let mut values = Inputs::new();
    let mut wrong = Vec::new();
    for input in declared {
        match input.value(given.get(&input.name)) {
            Ok(value) => values.extend(value.map(|value| (input.name.clone(), value))),
            Err(error) => wrong.push(FieldError::new(&input.field(), error)),
        }
    }
    for name in given.keys() {
        if !declared.iter().any(|input| input.name == *name) {
            let field = format!("inputs.{name}");
            wrong.push(FieldError::new(&field, "the template has no such input"));
        }
    }
    if wrong.is_empty() {
        Ok(values)
    } else {
        Err(Error::invalid(wrong))
    }
}

#[cfg(test)]
mod tests;
