use std::future::poll_fn;
use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::TokioNet;
use crate::tests::{LOOPBACK_V4, soon};

#[tokio::test]
async fn full_loss_loses_everything() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    faults.set_rates(Rates { loss: Rate::ALWAYS, ..Rates::default() });
    let got = exchange(&faults, &client, &server, &packets(50)).await;
    assert_eq!(got, Vec::<Vec<u8>>::new());
    assert_eq!(faults.tally().lost, 50);
}

#[tokio::test]
async fn full_duplication_doubles_everything() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    faults.set_rates(Rates { duplication: Rate::ALWAYS, ..Rates::default() });
    let sent = packets(50);
    let got = exchange(&faults, &client, &server, &sent).await;
    let doubled: Vec<_> = sent.iter().flat_map(|p| [p.clone(), p.clone()]).collect();
    assert_eq!(got, doubled);
    assert_eq!(faults.tally().duplicated, 50);
}

#[tokio::test]
async fn corruption_changes_bytes_and_only_that() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    faults.set_rates(Rates { corruption: Rate::ALWAYS, ..Rates::default() });
    let sent = packets(50);
    let got = exchange(&faults, &client, &server, &sent).await;
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert_eq!(got.len(), sent.len());
        let flipped: u32 = got.iter().zip(sent).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!((1..=8).contains(&flipped), "{flipped} bits flipped");
    }
    assert_eq!(faults.tally().corrupted, 50);
}

#[tokio::test]
async fn truncation_leaves_a_shorter_beginning() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    faults.set_rates(Rates { truncation: Rate::ALWAYS, ..Rates::default() });
    let sent = packets(50);
    let got = exchange(&faults, &client, &server, &sent).await;
    assert_eq!(got.len(), sent.len());
    for (got, sent) in got.iter().zip(&sent) {
        assert!(got.len() < sent.len());
        assert!(sent.starts_with(got));
    }
    assert_eq!(faults.tally().truncated, 50);
}

#[tokio::test]
async fn reordering_lets_the_next_one_overtake() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    faults.set_rates(Rates { reordering: Rate::ALWAYS, ..Rates::default() });
    let sent = packets(6);
    let got = exchange(&faults, &client, &server, &sent).await;
    let order = [1, 0, 3, 2, 5, 4].map(|i: usize| sent[i].clone());
    assert_eq!(got, order);
    assert_eq!(faults.tally().reordered, 3);
}

#[tokio::test]
async fn a_held_datagram_leaves_late_after_healing() {
    let faults = Faults::seeded(7);
    let (client, server) = udp_pair(&faults).await;
    let to = server.local_addr().unwrap();
    faults.set_rates(Rates { reordering: Rate::ALWAYS, ..Rates::default() });
    client.send_to(b"early", to).await.unwrap();
    faults.heal();
    client.send_to(b"late", to).await.unwrap();
    assert_eq!(receive(&server).await, b"late");
    assert_eq!(receive(&server).await, b"early");
}

#[tokio::test]
async fn same_seed_gives_the_same_decisions() {
    let first = mixed_run(42).await;
    let second = mixed_run(42).await;
    let other = mixed_run(43).await;
    assert_eq!(first, second);
    assert_ne!(first.0, other.0);
    let tally = first.1;
    for count in [tally.lost, tally.duplicated, tally.corrupted, tally.truncated, tally.reordered] {
        assert!(count > 0, "a fault never struck: {tally:?}");
        assert!(count < tally.sent, "a fault always struck: {tally:?}");
    }
}

async fn mixed_run(seed: u64) -> (Vec<Vec<u8>>, Tally) {
    let faults = Faults::seeded(seed);
    let (client, server) = udp_pair(&faults).await;
    let rate = Rate::per_mille(200).unwrap();
    faults.set_rates(Rates {
        loss: rate,
        duplication: rate,
        corruption: rate,
        truncation: rate,
        reordering: rate,
    });
    let got = exchange(&faults, &client, &server, &packets(100)).await;
    (got, faults.tally())
}

#[test]
fn one_fault_does_not_reshuffle_another() {
    let lost_with = |duplication, blocked| {
        let faults = Faults::seeded(5);
        faults.set_rates(Rates {
            loss: Rate::per_mille(300).unwrap(),
            duplication,
            ..Rates::default()
        });
        (0..200)
            .map(|n| {
                // Blocks for a while, in one of the runs: later fates are the same.
                if n == 0 && blocked {
                    faults.block(Side::Any, Side::Any);
                } else if n == 100 {
                    faults.unblock(Side::Any, Side::Any);
                }
                let verdict = faults.judge(Place::UNKNOWN, Place::UNKNOWN, b"data");
                verdict.copies.is_empty()
            })
            .collect::<Vec<_>>()
    };
    let plain = lost_with(Rate::NEVER, false);
    assert_eq!(plain, lost_with(Rate::ALWAYS, false));
    let blocked = lost_with(Rate::NEVER, true);
    assert!(blocked[..100].iter().all(|lost| *lost));
    assert_eq!(plain[100..], blocked[100..]);
}

#[test]
fn rates_come_out_as_asked() {
    let faults = Faults::seeded(11);
    faults.set_rates(Rates { loss: Rate::per_mille(100).unwrap(), ..Rates::default() });
    for _ in 0..10_000 {
        faults.judge(Place::UNKNOWN, Place::UNKNOWN, b"");
    }
    // A fixed seed, so this either always holds or never.
    let lost = faults.tally().lost;
    assert!((900..1100).contains(&lost), "{lost} of 10000 at 10 %");
}

#[test]
fn a_rate_above_always_is_refused_with_its_value() {
    assert_eq!(Rate::per_mille(0), Ok(Rate::NEVER));
    assert_eq!(Rate::per_mille(1000), Ok(Rate::ALWAYS));
    let error = Rate::per_mille(1001).unwrap_err();
    assert!(error.to_string().contains("1001"), "{error}");
}

#[test]
fn empty_datagrams_survive_every_damage() {
    let faults = Faults::seeded(3);
    faults.set_rates(Rates {
        corruption: Rate::ALWAYS,
        truncation: Rate::ALWAYS,
        ..Rates::default()
    });
    let verdict = faults.judge(Place::UNKNOWN, Place::UNKNOWN, b"");
    assert_eq!(verdict.copies, vec![Vec::<u8>::new()]);
}

#[tokio::test]
async fn a_udp_block_is_one_way() {
    let faults = Faults::seeded(7);
    let (a, b) = udp_pair(&faults).await;
    let (a_addr, b_addr) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    faults.block(a_addr, b_addr);
    a.send_to(b"vanishes", b_addr).await.unwrap();
    b.send_to(b"arrives", a_addr).await.unwrap();
    assert_eq!(receive(&a).await, b"arrives");
    assert_eq!(faults.tally().blocked, 1);

    faults.unblock(a_addr, b_addr);
    a.send_to(b"arrives now", b_addr).await.unwrap();
    assert_eq!(receive(&b).await, b"arrives now");
}

#[tokio::test]
async fn a_block_is_kept_by_the_receiver_too() {
    let faults = Faults::seeded(7);
    let receiver = FaultyNet::new(TokioNet::default(), faults.clone());
    let receiver = receiver.bind_udp(LOOPBACK_V4).await.unwrap();
    let sender = TokioNet::default().bind_udp(LOOPBACK_V4).await.unwrap();
    let friend = TokioNet::default().bind_udp(LOOPBACK_V4).await.unwrap();
    let to = receiver.local_addr().unwrap();
    faults.block(sender.local_addr().unwrap(), Side::Any);
    sender.send_to(b"vanishes", to).await.unwrap();
    friend.send_to(b"arrives", to).await.unwrap();
    assert_eq!(receive(&receiver).await, b"arrives");
}

#[tokio::test]
async fn a_wildcard_socket_is_where_its_network_is() {
    let faults = Faults::seeded(7);
    let wildcard: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let host: IpAddr = "127.0.0.1".parse().unwrap();
    let net = FaultyNet::new(TokioNet::default(), faults.clone()).at(host);
    let (a, b) = (
        net.bind_udp(wildcard).await.unwrap(),
        TokioNet::default().bind_udp(LOOPBACK_V4).await.unwrap(),
    );
    let b_addr = b.local_addr().unwrap();
    faults.block(host, b_addr);
    a.send_to(b"vanishes", b_addr).await.unwrap();
    faults.heal();
    a.send_to(b"arrives", b_addr).await.unwrap();
    assert_eq!(receive(&b).await, b"arrives");
}

#[test]
fn sides_cover_what_they_say() {
    let addr: SocketAddr = "10.0.0.1:7001".parse().unwrap();
    let other_port: SocketAddr = "10.0.0.1:7002".parse().unwrap();
    let other_host: SocketAddr = "10.0.0.2:7001".parse().unwrap();
    let covered = |side: Side| {
        [Place::from(addr), Place::from(other_port), Place::from(other_host), Place::UNKNOWN]
            .map(|place| side.covers(place))
    };
    assert_eq!(covered(Side::Any), [true; 4]);
    assert_eq!(covered(addr.ip().into()), [true, true, false, false]);
    assert_eq!(covered(addr.into()), [true, false, false, false]);
}

#[tokio::test]
async fn a_tcp_block_is_one_way_and_what_it_swallowed_never_comes() {
    let faults = Faults::seeded(7);
    let (mut client, mut server, addr) = tcp_pair(&faults).await;
    faults.block(CLIENT, addr);
    client.write_all(b"vanishes").await.unwrap();
    server.write_all(b"arrives").await.unwrap();
    let mut buf = [0; 7];
    soon(client.read_exact(&mut buf)).await.unwrap();
    assert_eq!(&buf, b"arrives");

    // No hole in a byte stream: the direction stays dead, up to the end of the stream.
    faults.heal();
    client.write_all(b"vanishes too").await.unwrap();
    client.shutdown().await.unwrap();
    server.write_all(b"arrives").await.unwrap();
    soon(client.read_exact(&mut buf)).await.unwrap();
    drop(client);
    let mut got = Vec::new();
    // The end or a reset, from the dropped socket; but not a byte.
    let _ = soon(server.read_to_end(&mut got)).await;
    assert_eq!(got, b"");
}

#[tokio::test]
async fn a_blocked_reader_sees_neither_bytes_nor_the_end() {
    let faults = Faults::seeded(7);
    let (mut client, mut server, addr) = tcp_pair(&faults).await;
    // Only the client's end knows who it is, so its reading does the work: the bytes do arrive.
    faults.block(addr, CLIENT);
    server.write_all(b"vanishes").await.unwrap();
    server.shutdown().await.unwrap();
    let before = faults.tally().blocked;
    let mut buf = [0; 8];
    soon(poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut buf);
        assert!(Pin::new(&mut client).poll_read(cx, &mut buf).is_pending());
        assert_eq!(buf.filled(), b"");
        if faults.tally().blocked > before { Poll::Ready(()) } else { Poll::Pending }
    }))
    .await;

    // Dead for reading for ever, alive for writing.
    faults.heal();
    client.write_all(b"arrives").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(server.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"arrives");
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut buf);
        assert!(Pin::new(&mut client).poll_read(cx, &mut buf).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn an_idle_stream_survives_a_block() {
    let faults = Faults::seeded(7);
    let (mut client, mut server, addr) = tcp_pair(&faults).await;
    faults.block(CLIENT, addr);
    faults.block(addr, CLIENT);
    let mut buf = [0; 4];
    poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut buf);
        assert!(Pin::new(&mut client).poll_read(cx, &mut buf).is_pending());
        Poll::Ready(())
    })
    .await;
    faults.heal();
    client.write_all(b"ping").await.unwrap();
    soon(server.read_exact(&mut buf)).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    soon(client.read_exact(&mut buf)).await.unwrap();
    assert_eq!(&buf, b"pong");
}

#[tokio::test]
async fn a_blocked_stream_takes_a_send_buffer_and_then_hangs() {
    let faults = Faults::seeded(7);
    let (mut client, _server, addr) = tcp_pair(&faults).await;
    faults.block(CLIENT, addr);
    let bytes = vec![0; 1000];
    let mut taken = 0;
    poll_fn(|cx| {
        while let Poll::Ready(len) = Pin::new(&mut client).poll_write(cx, &bytes) {
            taken += len.unwrap();
            assert!(taken <= SEND_BUFFER);
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(taken, SEND_BUFFER);
}

#[tokio::test]
async fn a_connect_under_a_block_hangs_or_is_refused() {
    let faults = Faults::seeded(7);
    let net = FaultyNet::new(TokioNet::default(), faults.clone()).at(CLIENT);
    let listener = net.listen(LOOPBACK_V4).await.unwrap();
    let addr = listener.local_addr().unwrap();
    for (from, to) in [(Side::Ip(CLIENT), Side::Addr(addr)), (Side::Addr(addr), Side::Ip(CLIENT))] {
        faults.block(from, to);
        faults.set_blocked_connects(BlockedConnects::Refuse);
        let error = soon(net.connect(addr)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");

        faults.set_blocked_connects(BlockedConnects::Hang);
        let before = faults.tally().blocked;
        let mut connect = Box::pin(net.connect(addr));
        poll_fn(|cx| {
            assert!(connect.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(faults.tally().blocked, before + 1);
        faults.heal();
        soon(net.connect(addr)).await.unwrap();
    }
}

#[tokio::test]
async fn local_streams_know_no_block() {
    let faults = Faults::seeded(7);
    faults.block(Side::Any, Side::Any);
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("node.sock");
    let net = FaultyNet::new(TokioNet::default(), faults);
    let mut listener = net.listen_local(&path).await.unwrap();
    let mut client = soon(net.connect_local(&path)).await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut buf = [0; 4];
    soon(server.read_exact(&mut buf)).await.unwrap();
    assert_eq!(&buf, b"ping");
}

type Socket = FaultyUdp<<TokioNet as Net>::Udp>;
type Connection = FaultyStream<<TokioNet as Net>::Stream>;

async fn udp_pair(faults: &Faults) -> (Socket, Socket) {
    let net = FaultyNet::new(TokioNet::default(), faults.clone());
    (net.bind_udp(LOOPBACK_V4).await.unwrap(), net.bind_udp(LOOPBACK_V4).await.unwrap())
}

/// The client's end, which is `CLIENT` for blocks, the server's end and the server's address.
async fn tcp_pair(faults: &Faults) -> (Connection, Connection, SocketAddr) {
    let net = FaultyNet::new(TokioNet::default(), faults.clone());
    let mut listener = net.listen(LOOPBACK_V4).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = soon(net.at(CLIENT).connect(addr)).await.unwrap();
    let (server, _) = soon(listener.accept()).await.unwrap();
    (client, server, addr)
}

/// Sends `packets` and returns what came of them, in order: all that arrives before a mark that is
/// sent after the faults have ended (the loopback keeps the order).
async fn exchange(
    faults: &Faults,
    client: &Socket,
    server: &Socket,
    packets: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let to = server.local_addr().unwrap();
    for packet in packets {
        client.send_to(packet, to).await.unwrap();
    }
    faults.heal();
    client.send_to(MARK, to).await.unwrap();
    let mut got = Vec::new();
    loop {
        let packet = receive(server).await;
        if packet == MARK {
            return got;
        }
        got.push(packet);
    }
}

async fn receive(socket: &impl Udp) -> Vec<u8> {
    let mut buf = [0; 2048];
    let (len, _) = soon(socket.recv_from(&mut buf)).await.unwrap();
    buf[..len].to_vec()
}

/// Distinct packets of several lengths, all longer than nothing and few enough for a socket buffer.
fn packets(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![n; 20 + usize::from(n)]).collect()
}

const MARK: &[u8] = b"this is the end";

/// An address that nobody has: what the client's network is told that it is at.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
