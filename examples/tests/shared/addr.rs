//! Where processes of tests listen.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// An address at which nobody listens now, over TCP and UDP.
pub(crate) fn free_addr() -> SocketAddr {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        if UdpSocket::bind(addr).is_ok() {
            return addr;
        }
    }
}
