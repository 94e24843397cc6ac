use std::net::SocketAddr;

use annulus_proto::limits::NAME_BYTES_MAX;
use annulus_proto::{Load, NodeId, Status};
use foca::Codec;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

fn peer(number: u64) -> Peer {
    let addr = if number.is_multiple_of(2) {
        SocketAddr::from(([10, 0, 0, 1], number as u16))
    } else {
        SocketAddr::from(([0xfe80, 0, 0, 0, 1, 2, 3, 4], number as u16))
    };
    Peer { id: NodeId::from_bits(number << 40), incarnation: number << 50, addr }
}

fn headers() -> Vec<Header<Peer>> {
    let target = peer(5);
    let messages = [
        Message::Ping(7),
        Message::Ack(255),
        Message::PingReq { target, probe_number: 1 },
        Message::IndirectPing { origin: target, probe_number: 2 },
        Message::IndirectAck { target, probe_number: 3 },
        Message::ForwardedAck { origin: target, probe_number: 4 },
        Message::Announce,
        Message::Feed,
        Message::Gossip,
        Message::Broadcast,
        Message::TurnUndead,
    ];
    let header = |message| Header { src: peer(2), src_incarnation: 300, dst: peer(3), message };
    messages.into_iter().map(header).collect()
}

#[test]
fn headers_and_members_read_back() {
    for header in headers() {
        let mut bytes = Vec::new();
        SwimCodec.encode_header(&header, &mut bytes).unwrap();
        bytes.push(0xaa);
        let mut rest = bytes.as_slice();
        assert_eq!(SwimCodec.decode_header(&mut rest).unwrap(), header);
        assert_eq!(rest, [0xaa], "exactly one header is read");
    }
    for state in [State::Alive, State::Suspect, State::Down] {
        let member = foca::Member::new(peer(9), u16::MAX, state);
        let mut bytes = Vec::new();
        SwimCodec.encode_member(&member, &mut bytes).unwrap();
        assert_eq!(SwimCodec.decode_member(bytes.as_slice()).unwrap(), member);
    }
}

#[test]
fn the_encoding_stays_what_it_is() {
    let header = Header {
        src: Peer { id: NodeId::from_bits(1), incarnation: 2, addr: ([10, 0, 0, 1], 7).into() },
        src_incarnation: 3,
        dst: Peer { id: NodeId::from_bits(4), incarnation: 5, addr: ([10, 0, 0, 2], 8).into() },
        message: Message::<Peer>::Ping(6),
    };
    let mut bytes = Vec::new();
    SwimCodec.encode_header(&header, &mut bytes).unwrap();
    let golden = [1, 2, 0, 10, 0, 0, 1, 7, 3, 4, 5, 0, 10, 0, 0, 2, 8, 1, 6, 0];
    assert_eq!(bytes, golden);
    let packet = swim(0x0102, &bytes);
    assert_eq!(packet[..9], [1, 2, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn doubts_and_vouchers_read_back() {
    let said = Doubt { from: peer(2), suspect: peer(3), incarnation: 4 };
    let packet = doubt(9, &said);
    assert!(matches!(Frame::decode(&packet), Some((9, Frame::Doubt(read))) if read == said));
    let packet = vouch(9, &said);
    assert!(matches!(Frame::decode(&packet), Some((9, Frame::Vouch(read))) if read == said));
}

#[test]
fn foca_reads_of_no_member_from_beyond_the_bound() {
    let bound = Bound::default();
    let mut codec = BoundedCodec(bound.clone());
    let member = foca::Member::new(Peer { incarnation: 1_000, ..peer(9) }, 0, State::Alive);
    let mut bytes = Vec::new();
    codec.encode_member(&member, &mut bytes).unwrap();
    bound.move_to(999);
    assert!(matches!(codec.decode_member(bytes.as_slice()), Err(CodecError::Incarnation(1_000))));
    bound.move_to(1_000);
    assert_eq!(codec.decode_member(bytes.as_slice()).unwrap(), member);
}

#[test]
fn nothing_is_written_where_there_is_no_room() {
    for header in headers() {
        let mut whole = Vec::new();
        SwimCodec.encode_header(&header, &mut whole).unwrap();
        let mut room = vec![0xee; whole.len() - 1];
        let mut rest = room.as_mut_slice();
        assert!(SwimCodec.encode_header(&header, &mut rest).is_err());
        assert!(room.iter().all(|&byte| byte == 0xee));
    }
}

#[test]
fn random_and_flipped_bytes_decode_to_an_error_or_a_value() {
    let mut rng = StdRng::seed_from_u64(1);
    let member = Member {
        id: NodeId::from_bits(1),
        incarnation: 2,
        revision: 3,
        status: Status::Up,
        addr: SocketAddr::from(([10, 0, 0, 1], 7_000)),
        name: "n".repeat(NAME_BYTES_MAX),
        zone: "z".repeat(NAME_BYTES_MAX),
        weight: 100,
        rings: 1,
        door: None,
        load: Load::default(),
    };
    let mut packets = vec![
        announce(1, &member),
        facts(1, &[&member, &member]),
        claim(1, &Claim { member: member.clone(), nonce: 7, answer: false }),
        doubt(1, &Doubt { from: peer(2), suspect: peer(3), incarnation: 4 }),
        vouch(1, &Doubt { from: peer(2), suspect: peer(3), incarnation: 4 }),
    ];
    for header in headers() {
        let mut body = Vec::new();
        SwimCodec.encode_header(&header, &mut body).unwrap();
        packets.push(swim(1, &body));
    }
    let mut decoded = 0;
    for round in 0..100_000 {
        let mut bytes = packets[round % packets.len()].clone();
        if round % 3 == 0 {
            bytes.truncate(rng.random_range(0..=bytes.len()));
            rng.fill_bytes(&mut bytes);
        } else {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
        }
        if let Some((_, Frame::Swim(mut body))) = Frame::decode(&bytes) {
            decoded += usize::from(SwimCodec.decode_header(&mut body).is_ok());
            let _ = SwimCodec.decode_member(&mut body);
        }
    }
    assert!(decoded > 1_000, "the flips reached the inside: {decoded}");
}

#[test]
fn the_largest_facts_fit_a_packet() {
    let member = Member {
        id: NodeId::from_bits(u64::MAX),
        incarnation: u64::MAX,
        revision: u32::MAX,
        status: Status::Left,
        addr: SocketAddr::from(([u16::MAX; 8], u16::MAX)),
        name: "n".repeat(NAME_BYTES_MAX),
        zone: "z".repeat(NAME_BYTES_MAX),
        weight: u16::MAX,
        rings: u8::MAX,
        door: Some(SocketAddr::from(([u16::MAX; 8], u16::MAX))),
        load: Load { cpu_permille: u16::MAX, memory_permille: u16::MAX, sessions: u64::MAX },
    };
    let claim = Claim { member: member.clone(), nonce: u64::MAX, answer: true };
    assert!(super::claim(u64::MAX, &claim).len() <= 600);
    assert!(announce(u64::MAX, &member).len() <= 600);
    assert!(facts(u64::MAX, &[&member]).len() <= 600);
}
