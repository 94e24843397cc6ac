//! Sealing and opening under one derived key.

use std::sync::atomic::{AtomicU64, Ordering};

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};

use super::cookie::Cookie;
use super::{Epoch, Header, Parsed, Refused, Shape, Side, U48_MAX, associated, u48};
use crate::derive::derive;
use crate::key::{Key, KeyId};

/// Who sends, and in which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) side: Side,
    pub(super) number: u64,
    pub(super) epoch: Epoch,
}

/// This sender has used up its counters: it has to begin a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("2^48 datagrams were sealed in this epoch; restart to begin a new one")]
pub struct Exhausted;

/// The counters of one sender in one epoch; each is used once, whatever key it is used with.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn next(&self) -> Result<u64, Exhausted> {
        // Stays at the end rather than to begin anew.
        let next = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |counter| {
            (counter <= U48_MAX).then_some(counter + 1)
        });
        next.map_err(|_| Exhausted)
    }

    #[cfg(test)]
    pub(super) fn starting_at(counter: u64) -> Self {
        Self(AtomicU64::new(counter))
    }
}

/// The cipher of one sender in one epoch, under one key of the ring.
#[derive(Clone)]
pub(super) struct Sealer {
    key: KeyId,
    origin: Origin,
    cipher: ChaCha20Poly1305,
}

impl Sealer {
    pub(super) fn new(key: &Key, cluster: &str, origin: Origin) -> Self {
        let Origin { side, number, epoch } = origin;
        let (id, number, epoch) = (key.id().to_bytes(), number.to_le_bytes(), epoch.to_bytes());
        // With the id, which tells of the kind: a secret that stands in two keys is two secrets.
        let parts = [cluster.as_bytes(), &id, &[side as u8], &number, &epoch];
        let derived = derive(key.secret(), "annulus datagram", &parts);
        let cipher = ChaCha20Poly1305::new(derived.as_ref().into());
        Self { key: key.id(), origin, cipher }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.origin.epoch
    }

    /// Appends a sealed datagram to `out`.
    pub(super) fn seal(
        &self,
        counter: u64,
        shape: Shape,
        cookie: Option<Cookie>,
        recipient: Option<(u64, Epoch)>,
        inside: &[u8],
        out: &mut Vec<u8>,
    ) {
        let Origin { number: sender, epoch, .. } = self.origin;
        let header = Header { shape, key: self.key, sender, epoch, counter };
        let start = out.len();
        out.extend_from_slice(&header.to_bytes());
        if let Some(cookie) = cookie {
            out.extend_from_slice(&cookie.to_bytes());
        }
        let (associated, length) = associated(&out[start..], recipient);
        let sealed_at = out.len();
        out.extend_from_slice(inside);
        let (nonce, associated) = (nonce(counter), &associated[..length]);
        let sealed = &mut out[sealed_at..];
        let tag = self.cipher.encrypt_in_place_detached(&nonce, associated, sealed);
        out.extend_from_slice(&tag.expect("a datagram is shorter than 256 GiB"));
    }

    /// What is sealed in a datagram of this sender, if its tag is good.
    pub(super) fn open(
        &self,
        parsed: &Parsed<'_>,
        recipient: Option<(u64, Epoch)>,
    ) -> Result<Vec<u8>, Refused> {
        let mut inside = parsed.sealed.to_vec();
        let (associated, length) = associated(parsed.clear, recipient);
        let nonce = nonce(parsed.header.counter);
        let tag = parsed.tag.into();
        let opened =
            self.cipher.decrypt_in_place_detached(&nonce, &associated[..length], &mut inside, tag);
        opened.map(|()| inside).map_err(|_| Refused::BadTag)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..6].copy_from_slice(&u48(counter));
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_end_and_never_begin_anew() {
        let counter = Counter::starting_at(U48_MAX - 1);
        assert_eq!(counter.next(), Ok(U48_MAX - 1));
        assert_eq!(counter.next(), Ok(U48_MAX));
        assert_eq!(counter.next(), Err(Exhausted));
        assert_eq!(counter.next(), Err(Exhausted));
    }
}
