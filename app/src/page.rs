//! The pages, one file each.

mod backups;
mod evacuation;
mod flavors;
mod host;
mod host_actions;
mod hosts;
mod image;
mod image_actions;
mod images;
mod lazy;
mod load;
mod new_image;
mod new_vm;
mod not_found;
mod operations;
mod problem;
mod quota;
mod refused;
mod request;
mod requests;
mod sign_in;
mod templates;
mod tenants;
mod terms;
mod timeline;
mod vm;
mod vm_actions;
mod vms;
mod volume;
mod volumes;

pub use backups::BackupsPage;
pub use flavors::FlavorsPage;
pub use host::HostPage;
pub use hosts::HostsPage;
pub use image::ImagePage;
pub use images::ImagesPage;
pub use new_image::NewImagePage;
pub use new_vm::NewVmPage;
pub use not_found::NotFoundPage;
pub use quota::QuotaPage;
pub use request::RequestPage;
pub use requests::RequestsPage;
pub use sign_in::SignInPage;
pub use templates::{NewTemplatePage, TemplatePage, TemplatesPage};
pub use tenants::{TenantPage, TenantsPage};
pub use vm::VmPage;
pub use vm_actions::{VmDesk, VmDialogs};
pub use vms::VmsPage;
pub use volumes::VolumesPage;

use vimana_model::VmState;
use vimana_model::image::ImageState;
use vimana_model::request::RequestState;
use vimana_model::state::Tone as StateTone;
use vimana_model::unit::MiB;
use vimana_ui::Tone;

/// An error's text as a sentence: it comes in lower case and without a period.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !text.is_empty() && !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// "312 MiB", "48 KiB".
fn amount(bytes: u64) -> String {
    match bytes {
        ..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576.. => MiB::from_bytes(bytes).to_string(),
    }
}

const fn tone(state: VmState) -> Tone {
    match state.tone() {
        StateTone::Resting => Tone::Resting,
        StateTone::Moving => Tone::Moving,
        StateTone::Healthy => Tone::Good,
        StateTone::Troubled => Tone::Bad,
        StateTone::Over => Tone::Over,
    }
}

const fn image_tone(state: ImageState) -> Tone {
    match state {
        ImageState::Importing => Tone::Moving,
        ImageState::Ready => Tone::Good,
        ImageState::Failed => Tone::Bad,
        ImageState::Trashed => Tone::Resting,
        ImageState::Removed => Tone::Over,
    }
}

const fn request_tone(state: RequestState) -> Tone {
    match state {
        RequestState::Request | RequestState::Returned | RequestState::Release => Tone::Resting,
        RequestState::Provision => Tone::Moving,
        RequestState::Operation => Tone::Good,
        RequestState::Rejected => Tone::Bad,
        RequestState::Withdrawn | RequestState::Released => Tone::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_the_unit_that_fits() {
        assert_eq!(
            [12, 2048, 3 << 20, 3 << 30].map(amount),
            ["12 bytes", "2 KiB", "3 MiB", "3 GiB"]
        );
    }

    #[test]
    fn an_error_reads_as_a_sentence() {
        assert_eq!(
            sentence("wrong user name or password"),
            "Wrong user name or password."
        );
        assert_eq!(sentence("Done!"), "Done!");
        assert_eq!(sentence(""), "");
    }
}
