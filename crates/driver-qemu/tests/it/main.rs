//! The driver on real QEMU, with a guest of 512 bytes, translated in software.

mod conformance;
mod host;
mod survival;
