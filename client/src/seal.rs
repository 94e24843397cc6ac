//! What a client seals with, when it has a key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
        let seed = seed.unwrap_or_else(|| Zeroizing::new(rand::random()));
        let mut rng = StdRng::from_seed(*seed);
        let epoch = Epoch::new(settings.clock.wall_ms(), rng.random());
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
