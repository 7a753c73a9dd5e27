//! A named size.

use serde::{Deserialize, Serialize};

use crate::name::FlavorName;
use crate::unit::{MiB, Resources};
use crate::vm::{MAX_VM, MIN_VM_MEMORY, field};
use crate::{Error, FieldError, FlavorId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlavorView {
    pub id: FlavorId,
    pub name: FlavorName,
    pub resources: Resources,
}

/// The form that makes a flavor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateFlavor {
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: MiB,
    pub disk_mib: MiB,
}

/// The form that changes a flavor; what is absent stays as it is. VMs that were
/// made from it keep their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeFlavor {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<MiB>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<MiB>,
}

impl CreateFlavor {
    /// Checks every field and reports all that are wrong at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<(FlavorName, Resources), Error> {
        let name = field("name", FlavorName::new(self.name.as_str()));
        let size = Resources {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
        };
        match (name, check_size(size)) {
            (Ok(name), Ok(())) => Ok((name, size)),
            (name, size) => {
                let mut wrong: Vec<FieldError> = name.err().into_iter().collect();
                wrong.extend(size.err().into_iter().flat_map(|error| error.fields));
                Err(Error::invalid(wrong))
            }
        }
    }
}

impl ChangeFlavor {
    /// The size it makes of `now`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn over(&self, now: Resources) -> Result<Resources, Error> {
        let size = Resources {
            vcpus: self.vcpus.unwrap_or(now.vcpus),
            memory_mib: self.memory_mib.unwrap_or(now.memory_mib),
            disk_mib: self.disk_mib.unwrap_or(now.disk_mib),
        };
        check_size(size).map(|()| size)
    }
}

/// Whether a VM may have this size.
fn check_size(size: Resources) -> Result<(), Error> {
    let Resources {
        vcpus,
        memory_mib,
        disk_mib,
    } = size;
    let mut wrong = Vec::new();
    if !(1..=MAX_VM.vcpus).contains(&vcpus) {
        wrong.push(FieldError::new(
            "vcpus",
            format!("from 1 to {}", MAX_VM.vcpus),
        ));
    }
    if !(MIN_VM_MEMORY..=MAX_VM.memory_mib).contains(&memory_mib) {
        let message = format!("from {MIN_VM_MEMORY} to {}", MAX_VM.memory_mib);
        wrong.push(FieldError::new("memory_mib", message));
    }
    if !(MiB(1)..=MAX_VM.disk_mib).contains(&disk_mib) {
        let message = format!("from {} to {}", MiB(1), MAX_VM.disk_mib);
        wrong.push(FieldError::new("disk_mib", message));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_reported_at_once() {
        let error = CreateFlavor::default().check().unwrap_err();
        let fields: Vec<&str> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "vcpus", "memory_mib", "disk_mib"]);
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name_and_is_checked_as_a_whole() {
        let now = Resources {
            vcpus: 1,
            memory_mib: MiB(512),
            disk_mib: MiB(1024),
        };
        let change = ChangeFlavor {
            vcpus: Some(2),
            ..ChangeFlavor::default()
        };
        assert_eq!(change.over(now).unwrap(), Resources { vcpus: 2, ..now });
        let little = ChangeFlavor {
            memory_mib: Some(MiB(1)),
            ..change
        };
        assert_eq!(little.over(now).unwrap_err().fields[0].field, "memory_mib");
    }
}
