//! Images that QEMU makes, and what is left of them when bytes change.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

mod made;
mod mutated;
mod real;
