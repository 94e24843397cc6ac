//! By what a node knows that a client gets what is sent to its address, without remembering
//! clients.

use std::net::{IpAddr, SocketAddr};

use blake2::digest::Mac;

use super::{Epoch, from_u48, u48};
use crate::derive::{Secret, mac};

/// A node's word that it has sent this to a client's address, at this time. It means something to
/// that run of that node alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    issued_ms: u64,
    code: [u8; Self::CODE_BYTES],
}

/// How long a cookie is good, in milliseconds of its node's monotonic clock. A client then gets a
/// new one, for one more round trip.
pub const COOKIE_LIFETIME_MS: u64 = 5 * 60 * 1_000;

impl Cookie {
    const CODE_BYTES: usize = 16;
    pub(super) const BYTES: usize = 6 + Self::CODE_BYTES;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..6].copy_from_slice(&u48(self.issued_ms));
        bytes[6..].copy_from_slice(&self.code);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, code @ ..] = *bytes;
        Self { issued_ms: from_u48([a, b, c, d, e, f]), code }
    }
}

/// Who issues cookies and knows them again.
pub(super) struct Issuer {
    boot_secret: Secret,
}

impl Issuer {
    /// `boot_secret` is drawn anew at each start of the node.
    pub(super) fn new(boot_secret: &[u8; 32]) -> Self {
        Self { boot_secret: Secret::new(*boot_secret) }
    }

    pub(super) fn issue(&self, now_ms: u64, addr: SocketAddr, client: u64, epoch: Epoch) -> Cookie {
        let code = self.code(now_ms, addr, client, epoch).finalize().into_bytes();
        let code = *code.first_chunk().expect("a code is half a hash");
        Cookie { issued_ms: now_ms, code }
    }

    /// When this cookie was issued to this client at this address, if it was, and is not too old.
    pub(super) fn check(
        &self,
        now_ms: u64,
        cookie: &Cookie,
        addr: SocketAddr,
        client: u64,
        epoch: Epoch,
    ) -> Option<u64> {
        let code = self.code(cookie.issued_ms, addr, client, epoch);
        code.verify_truncated_left(&cookie.code).ok()?;
        let age = now_ms.checked_sub(cookie.issued_ms)?;
        (age <= COOKIE_LIFETIME_MS).then_some(cookie.issued_ms)
    }

    fn code(
        &self,
        issued_ms: u64,
        addr: SocketAddr,
        client: u64,
        epoch: Epoch,
    ) -> blake2::Blake2sMac256 {
        let (ip, port) = (addr.ip().to_canonical(), addr.port().to_le_bytes());
        let (v4, v6);
        let ip: &[u8] = match ip {
            IpAddr::V4(ip) => {
                v4 = ip.octets();
                &v4
            }
            IpAddr::V6(ip) => {
                v6 = ip.octets();
                &v6
            }
        };
        let (client, epoch) = (client.to_le_bytes(), epoch.to_bytes());
        let parts = [ip, &port, &client, &epoch, &u48(issued_ms)];
        mac(&self.boot_secret, "annulus cookie", &parts)
    }
}
