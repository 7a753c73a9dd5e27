//! Server functions: extract the caller, one engine call, map the error.
//!
//! JSON both ways under `/portal/api`. They serve the portal alone; the public
//! interface is REST. What changes something takes a key made in the browser,
//! so that it has one effect however often it is sent.

mod backup;
mod catalogue;
mod codec;
mod error;
mod flavor;
mod host;
mod image;
mod once;
mod operation;
mod quota;
mod request;
mod session;
mod template;
mod vm;
mod volume;

pub use backup::{
    BackupsData, backups, delete_backup, remove_schedule, restore_backup, set_schedule,
};
pub use catalogue::{Catalogue, catalogue};
pub use error::ApiError;
pub use flavor::{change_flavor, create_flavor, flavors, retire_flavor};
pub use host::{
    HostPageData, HostRow, HostWish, discard_orphan, host, host_evacuation, host_orphans, hosts,
    wish_of_host,
};
pub use image::{
    ImageShow, act_on_image, image, image_operations, image_timeline, images, import_image,
    refresh_image, set_image_refresh,
};
pub use once::{Key, PAUSES, once, sleep};
pub use operation::cancel_operation;
pub use quota::{
    QuotaPageData, TenantData, TenantsData, create_tenant, own_quota, set_quota, tenant, tenants,
};
pub use request::{
    RequestShow, act_on_request, create_request, request, request_timeline, requests,
};
pub use session::{Password, SessionView, current_session, sign_in, sign_out};
pub use template::{change_template, create_template, delete_template, template, templates};
pub use vm::{
    Show, VmArgs, act_on_vm, console_ticket, create_vm, migration_targets, storage_targets, vm,
    vm_operations, vm_snapshots, vm_timeline, vms,
};
pub use volume::{
    attach_volume, clone_volume, create_volume, delete_volume, grow_volume, move_volume,
    volume_datastores, volumes,
};

pub type ApiResult<T> = Result<T, ApiError>;

/// Longest list a page shows.
#[cfg(feature = "ssr")]
pub(crate) const MAX_LISTED_VMS: u32 = 1000;
#[cfg(feature = "ssr")]
pub(crate) const MAX_LISTED_REQUESTS: u32 = 1000;
