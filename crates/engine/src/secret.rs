//! Random secrets for people and programs, and the form they are stored in.

use sha2::{Digest as _, Sha256};

use crate::context::World;

/// A fresh secret of 256 bits, in hexadecimal behind a prefix that lets a
/// leak scanner recognize it.
pub fn fresh(world: &World, prefix: &str) -> String {
    format!("{prefix}{}", hex(&world.random_bytes::<32>()))
}

/// What is stored in place of a secret: its hexadecimal SHA-256. A fast hash
/// is enough, since the secret itself has 256 bits.
pub fn stored_form(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// A password a person can type: 20 characters, about 100 bits, without
/// letters that look alike.
pub fn typeable(world: &World) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";
    let letter = |byte: u8| {
        LETTERS
            .get(usize::from(byte % 31))
            .copied()
            .map_or('x', char::from)
    };
    let random = world.random_bytes::<20>();
    let groups: Vec<String> = random
        .chunks(5)
        .map(|group| group.iter().map(|byte| letter(*byte)).collect())
        .collect();
    groups.join("-")
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}
