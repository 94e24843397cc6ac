//! What a client seals with, when it has a key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use annulus_net::{Clock, Net};
use annulus_seal::datagram::{ClientDatagrams, Cookie, Epoch};
use annulus_seal::stream::{SealedStream, Wire};
use annulus_seal::{Key, Zeroizing};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::builder::Builder;
use crate::connection::End;

/// One client's key, and what was made of it.
pub(crate) struct Seal {
    key: Arc<Key>,
    cluster: String,
    pub(crate) datagrams: ClientDatagrams,
    /// A generator for cryptography.
    rng: Mutex<StdRng>,
    cookies: Mutex<BTreeMap<SocketAddr, Cookie>>,
}

/// The most nodes whose cookies are kept. Who was forgotten gives another one.
const COOKIES_MAX: usize = 4_096;

impl Seal {
    /// `None` for a client without a key.
    pub(crate) fn of<N: Net, C: Clock>(settings: &Builder<N, C>) -> Option<Arc<Self>> {
        let key = settings.key.clone()?;
        let seed = settings.entropy.clone();
        let mut seed = seed.unwrap_or_else(|| Zeroizing::new(rand::random()));
        // Clones of a builder have its number and its seed, and nothing else tells their clients apart:
        // in one epoch they would use each nonce twice.
        let nth = settings.sealed.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        seed.iter_mut().zip(nth).for_each(|(byte, other)| *byte ^= other);
        let mut rng = StdRng::from_seed(*seed);
        let mut random: [u8; 6] = rng.random();
        // Other seeds may, once in a while, draw the same.
        random.iter_mut().zip(nth).for_each(|(byte, other)| *byte ^= other);
        let epoch = Epoch::new(settings.clock.wall_ms(), random);
        let cluster = settings.cluster.clone();
        let datagrams = ClientDatagrams::new(key.clone(), &cluster, settings.number, epoch);
        let (rng, cookies) = (Mutex::new(rng), Mutex::default());
        Some(Arc::new(Self { key, cluster, datagrams, rng, cookies }))
    }

    /// Shakes hands over a fresh stream.
    pub(crate) async fn call<S>(&self, stream: S) -> Result<Wire<S>, End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ephemeral = {
            let mut bytes = Zeroizing::new([0; 32]);
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            rng.fill_bytes(bytes.as_mut());
            bytes
        };
        let called = SealedStream::call(stream, &self.key, &self.cluster, &ephemeral).await;
        called.map(Wire::from).map_err(|error| End::Closed(error.to_string()))
    }

    /// The last cookie from this address.
    pub(crate) fn cookie(&self, node: SocketAddr) -> Option<Cookie> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    /// Keeps a cookie for what goes to this address.
    pub(crate) fn keep(&self, node: SocketAddr, cookie: Cookie) {
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        if cookies.len() >= COOKIES_MAX {
            cookies.clear();
        }
        cookies.insert(node, cookie);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use annulus_net::{SystemClock, TokioNet};
    use annulus_seal::KeyKind;

    use super::*;
    use crate::Role;

    #[test]
    fn clients_of_one_builders_clones_share_no_epoch() {
        let key = Key::new(KeyKind::Client(Role::Worker), &[1; 32]);
        let builder = Builder::new(TokioNet::new(), SystemClock, 7).key(key).entropy([2; 32]);
        let random = |builder: &Builder| {
            let (seal, mut datagram) = (Seal::of(builder).unwrap(), Vec::new());
            seal.datagrams.seal(None, b"?", &mut datagram).unwrap();
            // The epoch without its time.
            datagram[23..29].to_vec()
        };
        let made: BTreeSet<_> = (0..100).map(|_| random(&builder.clone())).collect();
        assert_eq!(made.len(), 100);
        // Drawn from the seed alone all the same.
        let key = Key::new(KeyKind::Client(Role::Worker), &[1; 32]);
        let again = Builder::new(TokioNet::new(), SystemClock, 7).key(key).entropy([2; 32]);
        assert!(made.contains(&random(&again)));
    }
}
