//! The sealed envelope: what goes between hosts is written, read and repeated by holders of a key
//! alone.
//!
//! A [`Key`] is a secret of 32 bytes and what it is for: nodes, or clients of one role. A
//! [`Keyring`] holds those that a node accepts. From a key and the cluster's name come the keys of
//! everything else, so that two clusters never merge, not even with one key between them.
//! [`datagram`] seals single packets, each with its own counter; [`stream`] shakes hands (Noise)
//! and then seals records in order.
//!
//! Nothing here does I/O, reads a clock or draws entropy: time and randomness are handed in.
//! Secrets are wiped when they are dropped, and no `Debug` or error shows one.

pub mod datagram;
mod derive;
mod key;
mod keyring;
pub mod stream;

pub use key::{Key, KeyId, KeyIdError, KeyKind, KeyTextError};
pub use keyring::{KEYS_MAX, Keyring, KeyringError};
/// What wipes a secret when it is dropped.
pub use zeroize::Zeroizing;
