//! The durable machine a user owns: its views and the form that asks for one.

use serde::{Deserialize, Serialize};

use crate::error::FieldError;
use crate::name::{FlavorName, ImageName, VmName};
use crate::operation::OperationView;
use crate::pending::PendingView;
use crate::ssh_key::SshKey;
use crate::state::VmState;
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
    /// The host it is placed on.
    pub host: Option<HostRef>,
    /// The request it was made for, under the manual life-cycle.
    pub request_id: Option<RequestId>,
    /// Number of the latest Incarnation; 0 before the first.
    pub run_epoch: u64,
    /// Grows with every change of the record.
    pub generation: u64,
    pub ssh_key: Option<SshKey>,
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
    /// Name of an image.
    pub image: String,
    /// Name of a flavor.
    pub flavor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// cloud-init user-data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Keep it from being placed until released.
    #[serde(default)]
    pub hold: bool,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRequest {
    pub name: VmName,
    pub image: ImageName,
    pub flavor: FlavorName,
    pub ssh_key: Option<SshKey>,
    pub user_data: Option<UserData>,
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
        let image = field("image", ImageName::new(self.image.as_str()));
        let flavor = field("flavor", FlavorName::new(self.flavor.as_str()));
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let ssh_key = field(
            "ssh_key",
            filled(&self.ssh_key)
                .map(|key| SshKey::new(&key))
                .transpose(),
        );
        let user_data = field(
            "user_data",
            filled(&self.user_data).map(UserData::new).transpose(),
        );
        match (name, image, flavor, ssh_key, user_data) {
            (Ok(name), Ok(image), Ok(flavor), Ok(ssh_key), Ok(user_data)) => Ok(VmRequest {
                name,
                image,
                flavor,
                ssh_key,
                user_data,
                hold: self.hold,
            }),
            (name, image, flavor, ssh_key, user_data) => Err(Error::invalid(
                [
                    name.err(),
                    image.err(),
                    flavor.err(),
                    ssh_key.err(),
                    user_data.err(),
                ]
                .into_iter()
                .flatten()
                .collect(),
            )),
        }
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
            ssh_key: Some("nonsense".to_owned()),
            user_data: Some("  ".to_owned()),
            hold: false,
        };
        let error = form.check().unwrap_err();
        let fields: Vec<&str> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "flavor", "ssh_key"]);
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
