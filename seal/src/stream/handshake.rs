//! The Noise handshake, with its randomness handed in.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState, TransportState};

use crate::derive::{Secret, derive};
use crate::key::Key;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// A public key and the tag of an empty payload.
pub(super) const MESSAGE_BYTES: usize = 32 + 16;

/// One side of a handshake.
pub(super) struct Handshake(HandshakeState);

impl Handshake {
    pub(super) fn caller(key: &Key, cluster: &str, prefix: &[u8], ephemeral: &[u8; 32]) -> Self {
        Self(Self::build(key, cluster, prefix, ephemeral, |builder| builder.build_initiator()))
    }

    pub(super) fn answerer(key: &Key, cluster: &str, prefix: &[u8], ephemeral: &[u8; 32]) -> Self {
        Self(Self::build(key, cluster, prefix, ephemeral, |builder| builder.build_responder()))
    }

    fn build(
        key: &Key,
        cluster: &str,
        prefix: &[u8],
        ephemeral: &[u8; 32],
        build: impl for<'a> FnOnce(Builder<'a>) -> Result<HandshakeState, Error>,
    ) -> HandshakeState {
        let parts = [cluster.as_bytes(), &key.id().to_bytes()];
        let shared = derive(key.secret(), "annulus stream", &parts);
        let mut prologue = prefix.to_vec();
        for part in [cluster, key.kind().name()] {
            prologue.extend_from_slice(&(part.len() as u64).to_le_bytes());
            prologue.extend_from_slice(part.as_bytes());
        }
        let params = PATTERN.parse().expect("a pattern that snow knows");
        let resolver = Box::new(Resolver { ephemeral: Secret::new(*ephemeral) });
        let builder = Builder::with_resolver(params, resolver);
        let builder = builder.psk(0, &shared).and_then(|builder| builder.prologue(&prologue));
        builder.and_then(build).expect("the pattern needs no more than this")
    }

    /// The message of this side.
    pub(super) fn write(&mut self) -> [u8; MESSAGE_BYTES] {
        let mut message = [0; MESSAGE_BYTES];
        let length = self.0.write_message(&[], &mut message);
        assert_eq!(length.ok(), Some(MESSAGE_BYTES), "both messages have this size");
        message
    }

    /// Takes the other side's message.
    pub(super) fn read(&mut self, message: &[u8; MESSAGE_BYTES]) -> Result<(), Error> {
        self.0.read_message(message, &mut []).map(drop)
    }

    /// After both messages.
    pub(super) fn finish(self) -> TransportState {
        self.0.into_transport_mode().expect("both messages are through")
    }
}

/// snow's own primitives, with one private key that was drawn elsewhere in place of a source.
struct Resolver {
    ephemeral: Secret,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives out 32 bytes, once.
struct Once(Option<Secret>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().filter(|bytes| bytes.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(bytes.as_ref());
        Ok(())
    }
}
