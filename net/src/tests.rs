//! One suite for every `Net`, and what only the real one promises.

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{Faults, FaultyNet, Listener, Net, Peer, TokioNet, Udp};

#[tokio::test]
async fn tokio_net_passes_the_suite() {
    suite(TokioNet::default()).await;
}

#[tokio::test]
async fn faulty_net_without_faults_passes_the_suite() {
    suite(FaultyNet::new(TokioNet::default(), Faults::seeded(1))).await;
}

#[tokio::test]
async fn faulty_net_within_faulty_net_passes_the_suite() {
    let inner = FaultyNet::new(TokioNet::default(), Faults::seeded(1));
    suite(FaultyNet::new(inner, Faults::seeded(2))).await;
}

/// What every implementation must do.
async fn suite<N: Net>(net: N) {
    for addr in loopbacks() {
        udp_echoes(&net, addr).await;
        tcp_echoes(&net, addr).await;
    }
    dropped_tcp_stream_ends_at_the_peer(&net).await;
    refused_connect_says_so(&net).await;
    taken_udp_port_is_in_use(&net).await;
    taken_tcp_port_is_in_use(&net).await;
    local_socket_echoes_and_goes_with_its_listener(&net).await;
    taken_local_socket_is_in_use_and_stays(&net).await;
    stale_local_socket_is_replaced(&net).await;
    localhost_resolves_sorted_and_once(&net).await;
    bad_names_do_not_resolve(&net).await;
    futures_are_send(net).await;
}

async fn udp_echoes<N: Net>(net: &N, addr: SocketAddr) {
    let server = net.bind_udp(addr).await.unwrap();
    let client = net.bind_udp(addr).await.unwrap();
    let server_addr = server.local_addr().unwrap();
    assert_ne!(server_addr.port(), 0);
    assert_eq!(server_addr.ip(), addr.ip());
    let mut buf = [0; 64];
    for bytes in [&b"hello"[..], &[], &[0xff; 64]] {
        assert_eq!(client.send_to(bytes, server_addr).await.unwrap(), bytes.len());
        let (len, from) = soon(server.recv_from(&mut buf)).await.unwrap();
        assert_eq!((&buf[..len], from), (bytes, client.local_addr().unwrap()));
        server.send_to(&buf[..len], from).await.unwrap();
        let (len, from) = soon(client.recv_from(&mut buf)).await.unwrap();
        assert_eq!((&buf[..len], from), (bytes, server_addr));
    }
}

async fn tcp_echoes<N: Net>(net: &N, addr: SocketAddr) {
    let mut listener = net.listen(addr).await.unwrap();
    let server_addr = listener.local_addr().unwrap();
    assert_ne!(server_addr.port(), 0);
    let mut client = soon(net.connect(server_addr)).await.unwrap();
    let (mut server, peer) = soon(listener.accept()).await.unwrap();
    assert!(matches!(peer, Peer::Tcp(from) if from.ip() == addr.ip()));
    echo(&mut client, &mut server).await;
}

async fn dropped_tcp_stream_ends_at_the_peer<N: Net>(net: &N) {
    let mut listener = net.listen(LOOPBACK_V4).await.unwrap();
    let mut client = soon(net.connect(listener.local_addr().unwrap())).await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    drop(client);
    let mut got = Vec::new();
    soon(server.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"last words");
}

async fn refused_connect_says_so<N: Net>(net: &N) {
    // Bound but not listening, so that nobody else can get the port meanwhile.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind(LOOPBACK_V4).unwrap();
    let addr = reserved.local_addr().unwrap();
    let error = soon(net.connect(addr)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

async fn taken_udp_port_is_in_use<N: Net>(net: &N) {
    let taken = net.bind_udp(LOOPBACK_V4).await.unwrap();
    let addr = taken.local_addr().unwrap();
    let error = net.bind_udp(addr).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

async fn taken_tcp_port_is_in_use<N: Net>(net: &N) {
    let taken = net.listen(LOOPBACK_V4).await.unwrap();
    let addr = taken.local_addr().unwrap();
    let error = net.listen(addr).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

async fn local_socket_echoes_and_goes_with_its_listener<N: Net>(net: &N) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    let missing = net.connect_local(&path).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let mut listener = net.listen_local(&path).await.unwrap();
    assert_eq!(listener.local_addr().unwrap_err().kind(), ErrorKind::Unsupported);
    let mut client = soon(net.connect_local(&path)).await.unwrap();
    let (mut server, peer) = soon(listener.accept()).await.unwrap();
    assert_eq!(peer, Peer::Local);
    echo(&mut client, &mut server).await;

    drop(listener);
    assert!(!path.exists());
    echo(&mut client, &mut server).await;
    net.listen_local(&path).await.unwrap();
}

async fn taken_local_socket_is_in_use_and_stays<N: Net>(net: &N) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    let mut listener = net.listen_local(&path).await.unwrap();
    let error = net.listen_local(&path).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");

    // The first one was not disturbed, though the probe made a connection that ended at once.
    let mut probe = soon(listener.accept()).await.unwrap().0;
    assert_eq!(soon(probe.read(&mut [0; 8])).await.unwrap(), 0);
    let mut client = soon(net.connect_local(&path)).await.unwrap();
    let mut server = soon(listener.accept()).await.unwrap().0;
    echo(&mut client, &mut server).await;
}

async fn stale_local_socket_is_replaced<N: Net>(net: &N) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    leave_stale_socket(&path);
    let refused = net.connect_local(&path).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    let mut listener = net.listen_local(&path).await.unwrap();
    let mut client = soon(net.connect_local(&path)).await.unwrap();
    let mut server = soon(listener.accept()).await.unwrap().0;
    echo(&mut client, &mut server).await;
}

async fn localhost_resolves_sorted_and_once<N: Net>(net: &N) {
    let addrs = net.resolve("localhost:7001").await.unwrap();
    assert!(!addrs.is_empty());
    assert!(addrs.is_sorted_by(|a, b| a < b), "{addrs:?}");
    for addr in addrs {
        assert!(addr.ip().is_loopback());
        assert_eq!(addr.port(), 7001);
    }
    for text in ["127.0.0.1:7001", "[::1]:7001"] {
        let expected = vec![text.parse().unwrap()];
        assert_eq!(net.resolve(text).await.unwrap(), expected);
    }
}

async fn bad_names_do_not_resolve<N: Net>(net: &N) {
    for name in ["localhost", "", ":", "127.0.0.1:70010", "a b:7001"] {
        let error = net.resolve(name).await.unwrap_err();
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
}

/// Compiles only if a task of a multi-threaded runtime may do all this for any `Net`.
async fn futures_are_send<N: Net>(net: N) {
    let task = async move {
        let udp = net.bind_udp(LOOPBACK_V4).await?;
        let me = udp.local_addr()?;
        udp.send_to(b"x", me).await?;
        udp.recv_from(&mut [0; 8]).await?;
        let mut listener = net.listen(LOOPBACK_V4).await?;
        let mut client = net.connect(listener.local_addr()?).await?;
        let (mut server, _) = listener.accept().await?;
        client.write_all(b"x").await?;
        server.read_exact(&mut [0; 1]).await?;
        net.resolve("127.0.0.1:1").await
    };
    soon(tokio::spawn(task)).await.unwrap().unwrap();
}

#[tokio::test]
async fn socket_file_has_the_given_mode_whatever_the_umask() {
    let dir = TempDir::new().unwrap();
    for (name, net, mode) in [
        ("default", TokioNet::default(), 0o600),
        ("group", TokioNet::new().with_local_mode(0o660), 0o660),
        ("all", TokioNet::new().with_local_mode(0o666), 0o666),
    ] {
        let path = dir.path().join(name);
        let _listener = net.listen_local(&path).await.unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [path.as_path(), &link, dir.path()] {
        let error = TokioNet::default().listen_local(path).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"data");
    assert!(link.is_symlink());
}

#[tokio::test]
async fn a_listener_leaves_its_successors_file_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    let net = TokioNet::default();
    let first = net.listen_local(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _second = net.listen_local(&path).await.unwrap();
    drop(first);
    soon(net.connect_local(&path)).await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x".repeat(200));
    let error = TokioNet::default().listen_local(&path).await.err().unwrap();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn ipv6_wildcard_speaks_ipv4_and_shows_ipv4_addresses() {
    if !loopbacks().contains(&LOOPBACK_V6) {
        return;
    }
    let net = TokioNet::default();
    let wildcard: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    let server = net.bind_udp(wildcard).await.unwrap();
    let client = net.bind_udp(LOOPBACK_V4).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let server_addr: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    client.send_to(b"ping", server_addr).await.unwrap();
    let mut buf = [0; 8];
    let (_, from) = soon(server.recv_from(&mut buf)).await.unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    server.send_to(b"pong", from).await.unwrap();
    let (_, from) = soon(client.recv_from(&mut buf)).await.unwrap();
    assert_eq!(from, server_addr);

    let mut listener = net.listen(wildcard).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = soon(net.connect((Ipv4Addr::LOCALHOST, port).into())).await.unwrap();
    let (_, peer) = soon(listener.accept()).await.unwrap();
    assert!(matches!(peer, Peer::Tcp(from) if from.is_ipv4()));
}

/// Sends a little and a lot, both ways at once.
async fn echo<S>(client: &mut S, server: &mut S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    for sent in [&sent[..1], &sent[..]] {
        let (mut client_reads, mut client_writes) = tokio::io::split(&mut *client);
        let (mut server_reads, mut server_writes) = tokio::io::split(&mut *server);
        let mut got = vec![0; sent.len()];
        let (wrote, echoed, read) = soon(async {
            tokio::join!(
                client_writes.write_all(sent),
                async {
                    let mut buf = vec![0; 8192];
                    let mut left = sent.len();
                    while left > 0 {
                        let len = server_reads.read(&mut buf).await.unwrap();
                        assert_ne!(len, 0, "the stream ended early");
                        server_writes.write_all(&buf[..len]).await.unwrap();
                        left -= len;
                    }
                    server_writes.flush().await
                },
                client_reads.read_exact(&mut got),
            )
        })
        .await;
        wrote.unwrap();
        echoed.unwrap();
        read.unwrap();
        assert!(got == sent, "the echo differs");
    }
}

/// The loopback addresses of this host: some containers have no IPv6 at all.
fn loopbacks() -> Vec<SocketAddr> {
    if std::net::UdpSocket::bind(LOOPBACK_V6).is_ok() {
        vec![LOOPBACK_V4, LOOPBACK_V6]
    } else {
        eprintln!("no IPv6 on this host: IPv6 is not tested");
        vec![LOOPBACK_V4]
    }
}

/// A socket file as a killed process leaves it.
fn leave_stale_socket(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

/// Waits for what must happen; the limit only turns a hang into a failure.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future).await.expect("nothing happened in 30 s")
}

pub(crate) const LOOPBACK_V4: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LOOPBACK_V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
