//! Limits of what is read.

/// Longest certificate request in bytes; ours have about 450.
pub const MAX_REQUEST_BYTES: usize = 4096;
/// Longest certificate, in PEM; ours have about 900.
pub const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
