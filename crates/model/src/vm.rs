//! The durable machine a user owns: its views and the form that asks for one.

use serde::{Deserialize, Serialize};

use crate::error::FieldError;
use crate::name::{DatastoreName, FlavorName, ImageName, TemplateName, VmName};
use crate::operation::OperationView;
use crate::pending::PendingView;
use crate::ssh_key::SshKeys;
use crate::state::VmState;
use crate::template::{InputValue, Inputs, MAX_INPUTS};
use crate::unit::{MiB, Resources};
use crate::user_data::UserData;
use crate::{Error, HostId, ImageId, RequestId, TenantId, Timestamp, VmId};

/// What broke, and in which state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub during: VmState,
    /// In the user's words.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmView {
    pub id: VmId,
    pub name: VmName,
    pub tenant_id: TenantId,
    /// Name of the user who owns it.
    pub owner: String,
    pub state: VmState,
    pub state_since: Timestamp,
    /// Present exactly in state `failed`.
    pub failure: Option<Failure>,
    /// Present exactly in state `pending`.
    pub pending: Option<PendingView>,
    pub flavor: FlavorName,
    pub image: ImageName,
    pub image_id: ImageId,
    pub resources: Resources,
    /// The datastore of its host that its disk is in; `local` is the host's own directory.
    #[serde(default = "DatastoreName::local")]
    pub datastore: DatastoreName,
    /// As long as its disk is on its way to another one, or it is not known which of
    /// the two has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<DatastoreName>,
    /// The host it is placed on.
    pub host: Option<HostRef>,
    /// The request it was made for, under the manual life-cycle.
    pub request_id: Option<RequestId>,
    /// Number of the latest Incarnation; 0 before the first.
    pub run_epoch: u64,
    /// Grows with every change of the record.
    pub generation: u64,
    /// A line each where there are several.
    pub ssh_key: Option<SshKeys>,
    /// The user-data itself is shown to nobody; it may hold secrets.
    pub has_user_data: bool,
    /// The operation in flight, or else the latest.
    pub operation: Option<OperationView>,
    pub created_at: Timestamp,
}

/// A host, as others point to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostRef {
    pub id: HostId,
    pub name: String,
    pub zone: String,
}

/// The form that asks for a VM, as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    pub name: String,
    /// Name of a template: a preset whose image, flavor and user-data it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Values for the template's inputs, by their names.
    #[serde(default, skip_serializing_if = "Inputs::is_empty")]
    pub inputs: Inputs,
    /// Name of an image; may be left to the template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Name of a flavor; may be left to the template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flavor: String,
    /// Public keys that may log in, a line each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// cloud-init user-data, where the template has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Name of the datastore that its disk is to be in, of the host it is placed on;
    /// that host's own directory where absent. With its disk in one that several
    /// hosts share, a VM goes from one to the other without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Keep it from being placed until released.
    #[serde(default)]
    pub hold: bool,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRequest {
    pub name: VmName,
    pub template: Option<TemplateName>,
    /// Not compared with the template yet.
    pub inputs: Inputs,
    /// Absent where the template says it.
    pub image: Option<ImageName>,
    /// Absent where the template says it.
    pub flavor: Option<FlavorName>,
    pub ssh_key: Option<SshKeys>,
    pub user_data: Option<UserData>,
    pub datastore: DatastoreName,
    pub hold: bool,
}

impl CreateVm {
    /// Checks every field and reports all that are wrong at once. An empty
    /// optional field counts as absent.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<VmRequest, Error> {
        let name = field("name", VmName::new(self.name.as_str()));
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let template = filled(&self.template);
        // Without a template they have to be there.
        let said = |text: &String| (template.is_none() || !text.is_empty()).then(|| text.clone());
        let image = said(&self.image).map(ImageName::new).transpose();
        let image = field("image", image);
        let flavor = said(&self.flavor).map(FlavorName::new).transpose();
        let flavor = field("flavor", flavor);
        let inputs = field("inputs", self.check_inputs());
        let template = field("template", template.map(TemplateName::new).transpose());
        let ssh_key = field(
            "ssh_key",
            filled(&self.ssh_key)
                .map(|keys| SshKeys::new(&keys))
                .transpose(),
        );
        let user_data = field(
            "user_data",
            filled(&self.user_data).map(UserData::new).transpose(),
        );
        let datastore = filled(&self.datastore).map(|name| DatastoreName::new(name.trim()));
        let datastore = field("datastore", datastore.transpose());
        let (preset, of_guest) = ((template, inputs), (ssh_key, user_data));
        match (name, preset, image, flavor, of_guest, datastore) {
            (
                Ok(name),
                (Ok(template), Ok(())),
                Ok(image),
                Ok(flavor),
                (Ok(ssh_key), Ok(user_data)),
                Ok(datastore),
            ) => Ok(VmRequest {
                name,
                template,
                inputs: self.inputs.clone(),
                image,
                flavor,
                ssh_key,
                user_data,
                datastore: datastore.unwrap_or_else(DatastoreName::local),
                hold: self.hold,
            }),
            (name, (template, inputs), image, flavor, (ssh_key, user_data), datastore) => {
                let wrong = [
                    name.err(),
                    template.err(),
                    inputs.err(),
                    image.err(),
                    flavor.err(),
                    ssh_key.err(),
                    user_data.err(),
                    datastore.err(),
                ];
                Err(Error::invalid(wrong.into_iter().flatten().collect()))
            }
        }
    }
}

impl CreateVm {
    fn check_inputs(&self) -> Result<(), String> {
        let named = self.template.as_ref();
        if named.is_none_or(|name| name.trim().is_empty()) && !self.inputs.is_empty() {
            return Err("there is no template that takes them".to_owned());
        }
        if self.inputs.len() > MAX_INPUTS {
            return Err(format!("at most {MAX_INPUTS} inputs"));
        }
        Ok(())
    }

    /// The same form without the passwords in it.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        for value in self.inputs.values_mut() {
            if matches!(value, InputValue::Kept(_)) {
                *value = InputValue::HIDDEN;
            }
        }
        self
    }

    /// The same form without a word of what was filled in: which of it is a
    /// password, only its template knows.
    #[must_use]
    pub fn without_values(mut self) -> Self {
        for value in self.inputs.values_mut() {
            *value = InputValue::HIDDEN;
        }
        self
    }
}

/// The form that changes a VM's size: to a flavor, or to amounts of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResizeVm {
    /// Name of a flavor; then nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<MiB>,
    /// A disk never shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<MiB>,
}

/// The same form, known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    ToFlavor(FlavorName),
    /// What is absent stays as it is.
    To {
        vcpus: Option<u32>,
        memory_mib: Option<MiB>,
        disk_mib: Option<MiB>,
    },
}

/// Most that one VM may have.
pub const MAX_VM: Resources = Resources {
    vcpus: 512,
    memory_mib: MiB(16 << 20),
    disk_mib: MiB(64 << 20),
};

/// Least memory a VM may have.
pub const MIN_VM_MEMORY: MiB = MiB(32);

impl ResizeVm {
    /// Checks every field and reports all that are wrong at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<Resize, Error> {
        let mut wrong = Vec::new();
        let own = self.vcpus.is_some() || self.memory_mib.is_some() || self.disk_mib.is_some();
        if let Some(flavor) = &self.flavor {
            if own {
                let message = "either a flavor or amounts of its own";
                return Err(FieldError::new("flavor", message).into());
            }
            return field("flavor", FlavorName::new(flavor.as_str()))
                .map(Resize::ToFlavor)
                .map_err(Error::from);
        }
        if !own {
            return Err(FieldError::new("flavor", "say the size it is to have").into());
        }
        if self.vcpus.is_some_and(|n| n == 0 || n > MAX_VM.vcpus) {
            let message = format!("from 1 to {}", MAX_VM.vcpus);
            wrong.push(FieldError::new("vcpus", message));
        }
        let memory = MIN_VM_MEMORY..=MAX_VM.memory_mib;
        if self.memory_mib.is_some_and(|n| !memory.contains(&n)) {
            let message = format!("from {MIN_VM_MEMORY} to {}", MAX_VM.memory_mib);
            wrong.push(FieldError::new("memory_mib", message));
        }
        if self.disk_mib.is_some_and(|n| n > MAX_VM.disk_mib) {
            let message = format!("at most {}", MAX_VM.disk_mib);
            wrong.push(FieldError::new("disk_mib", message));
        }
        if !wrong.is_empty() {
            return Err(Error::invalid(wrong));
        }
        Ok(Resize::To {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
        })
    }
}

/// What may come with a request to power off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PowerOffVm {
    /// At once, as by pulling the plug.
    #[serde(default)]
    pub force: bool,
}

pub(crate) fn field<T, E: std::fmt::Display>(
    name: &str,
    value: Result<T, E>,
) -> Result<T, FieldError> {
    value.map_err(|error| FieldError::new(name, error))
}

/// A VM and the operation that was just accepted for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptedView {
    pub vm: VmView,
    pub operation: OperationView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_reported_at_once() {
        let form = CreateVm {
            name: String::new(),
            image: "demo".to_owned(),
            flavor: "a b".to_owned(),
            template: None,
            inputs: Inputs::from([("x".to_owned(), InputValue::Switch(true))]),
            ssh_key: Some("nonsense".to_owned()),
            user_data: Some("  ".to_owned()),
            datastore: Some("a/b".to_owned()),
            hold: false,
        };
        let error = form.check().unwrap_err();
        let fields: Vec<&str> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "inputs", "flavor", "ssh_key", "datastore"]);
    }

    #[test]
    fn image_and_flavor_may_be_left_to_a_template() {
        let form = CreateVm {
            name: "a".to_owned(),
            template: Some("web".to_owned()),
            flavor: "tiny".to_owned(),
            ..CreateVm::default()
        };
        let checked = form.check().unwrap();
        assert_eq!((checked.image, checked.flavor.is_some()), (None, true));
        let alone = CreateVm {
            template: Some(" ".to_owned()),
            ..form
        };
        assert_eq!(alone.check().unwrap_err().fields[0].field, "image");
    }

    #[test]
    fn a_size_is_one_flavor_or_sensible_amounts() {
        let wrong = |form: ResizeVm| form.check().unwrap_err().fields[0].field.clone();
        assert_eq!(wrong(ResizeVm::default()), "flavor");
        let both = ResizeVm {
            flavor: Some("small".to_owned()),
            vcpus: Some(2),
            ..ResizeVm::default()
        };
        assert_eq!(wrong(both), "flavor");
        let none = ResizeVm {
            vcpus: Some(0),
            ..ResizeVm::default()
        };
        assert_eq!(wrong(none), "vcpus");
        let little = ResizeVm {
            memory_mib: Some(MiB(1)),
            ..ResizeVm::default()
        };
        assert_eq!(wrong(little), "memory_mib");
    }

    #[test]
    fn fields_that_are_not_the_users_to_set_are_refused() {
        let json = r#"{"name":"a","image":"demo","flavor":"tiny","host_id":"x"}"#;
        let error = serde_json::from_str::<CreateVm>(json).unwrap_err();
        assert!(error.to_string().contains("unknown field `host_id`"));
    }
}
