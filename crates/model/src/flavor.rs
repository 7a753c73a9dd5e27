//! A named size.

use serde::{Deserialize, Serialize};

use crate::FlavorId;
use crate::name::FlavorName;
use crate::unit::Resources;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlavorView {
    pub id: FlavorId,
    pub name: FlavorName,
    pub resources: Resources,
}
