//! What every request passes on its way in, and every answer on its way out.

pub mod body;
pub mod finish;
pub mod origin;
pub mod session;
