//! What a VM is made from: looked up, and filled in, when it is made.

use vimana_model::image::ImageState;
use vimana_model::user_data::UserData;
use vimana_model::vm::VmRequest;
use vimana_model::{Error, FieldError, TenantId};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::{Conn, TxError, flavor, image};

use crate::template;

pub(super) struct Ingredients {
    pub image: ImageRecord,
    pub flavor: FlavorRecord,
    pub user_data: Option<UserData>,
}

/// Looks up what a request names, itself or through its template.
pub(super) async fn ingredients(
    conn: &impl Conn,
    tenant: TenantId,
    request: &VmRequest,
) -> Result<Ingredients, TxError> {
    let preset = match &request.template {
        Some(name) => Some(template::named(conn, tenant, name).await?),
        None => None,
    };
    let (of_image, of_flavor, user_data) = match &preset {
        Some(preset) => {
            let own = template::user_data(preset, &request.inputs)?;
            if own.is_some() && request.user_data.is_some() {
                let message = format!("template `{}` has its own", preset.name);
                return Err(Error::from(FieldError::new("user_data", message)).into());
            }
            (preset.image.as_ref(), preset.flavor.as_ref(), own)
        }
        None => (None, None, None),
    };
    let image_name = request.image.as_ref().or(of_image);
    let flavor_name = request.flavor.as_ref().or(of_flavor);
    let image = match image_name {
        Some(name) => image::find_by_name(conn, Some(tenant), name).await?,
        None => None,
    };
    let flavor = match flavor_name {
        Some(name) => flavor::find_by_name(conn, name).await?,
        None => None,
    };
    let (image, flavor) = match (image, flavor) {
        (Some(image), Some(flavor)) => (image, flavor),
        (image, flavor) => {
            let absent = [
                (
                    image.is_none(),
                    "image",
                    image_name.map(ToString::to_string),
                ),
                (
                    flavor.is_none(),
                    "flavor",
                    flavor_name.map(ToString::to_string),
                ),
            ];
            let fields = absent
                .into_iter()
                .filter(|(absent, ..)| *absent)
                .map(|(_, kind, name)| {
                    let message = match name {
                        Some(name) => format!("there is no {kind} `{name}`"),
                        None => format!("the template leaves the {kind} to you"),
                    };
                    FieldError::new(kind, message)
                })
                .collect();
            return Err(Error::invalid(fields).into());
        }
    };
    check(&image, &flavor)?;
    Ok(Ingredients {
        image,
        flavor,
        user_data: user_data.or_else(|| request.user_data.clone()),
    })
}

/// Whether a VM can be made from this image in this size.
fn check(image: &ImageRecord, flavor: &FlavorRecord) -> Result<(), Error> {
    let content = image.content.as_ref();
    let Some(content) = content.filter(|_| image.state == ImageState::Ready) else {
        let message = format!("image `{}` is still being imported", image.name);
        return Err(FieldError::new("image", message).into());
    };
    let (needed, given) = (content.virtual_mib, flavor.resources.disk_mib);
    if needed > given {
        let message = format!(
            "its disk of {given} is smaller than image `{}`, which needs {needed}",
            image.name
        );
        return Err(FieldError::new("flavor", message).into());
    }
    Ok(())
}
