use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::golden::golden;
use super::*;
use crate::arbitrary::{headers, messages, version};
use crate::entry::{Attributes, Kind, Note, Value};
use crate::limits::*;
use crate::member::{Load, Member, Status};
use crate::message::*;
use crate::{Entry, Key, NodeId, Rtt, SLOT_COUNT, Slot, SlotSet, Version, fuzz_bodies};

mod golden;
mod maxima;

const HEADER: Header =
    Header { id: 42, view: 0x1122_3344_5566_7788, hlc: Hlc::from_ms(1_790_000_000_000) };

fn frame_of(message: &Message) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(HEADER, message, &mut frame).unwrap();
    frame
}

fn datagram_of(message: &Message) -> Vec<u8> {
    let mut datagram = Vec::new();
    encode_datagram(HEADER, "shop", message, &mut datagram).unwrap();
    datagram
}

/// Makes the check right again after a test has changed the bytes before it.
fn reseal(frame: &mut Vec<u8>) {
    frame.truncate(frame.len() - CHECK_BYTES);
    frame.extend_from_slice(&check_of(frame));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn every_kind_is_encoded_as_it_always_was() {
    let mut kinds = Vec::new();
    for (message, expected) in golden() {
        let frame = frame_of(&message);
        let payload = &frame[HEADER_BYTES..frame.len() - CHECK_BYTES];
        if std::env::var_os("PRINT_GOLDEN").is_some() {
            println!("GOLDEN {}", hex(payload));
            continue;
        }
        assert_eq!(hex(payload), expected, "{message:?}");
        let decoded = decode_payload(message.kind(), &unhex(expected));
        assert_eq!(decoded.as_ref(), Ok(&message));
        kinds.push(message.kind());
    }
    kinds.dedup();
    assert_eq!(kinds, Message::KINDS);
}

/// bincode's derive writes a variant's position and ignores its discriminant. This is where the two
/// are held together, and where a new variant must be entered.
#[test]
fn every_variant_has_its_number() {
    macro_rules! numbers {
        ($($type:ty { $($number:literal $pattern:pat),+ $(,)? })+) => {$({
            let number = |value: &$type| match value { $($pattern => $number as u8,)+ };
            let mut seen: Vec<u8> = variants::<$type>()
                .iter()
                .map(|value| {
                    assert_eq!(encode_value(value)[0], number(value), "{value:?}");
                    number(value)
                })
                .collect();
            seen.dedup();
            assert_eq!(seen, [$($number as u8),+], "an instance of every variant");
            let next = [seen.len() as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            assert!(decode_value::<$type>(&next).unwrap_err().contains("UnexpectedVariant"));
        })+};
    }
    numbers! {
        Caller { 0 Caller::Client { .. }, 1 Caller::Node { .. } }
        Role { 0 Role::Development, 1 Role::Authority, 2 Role::Worker, 3 Role::Monitor, 4 Role::Operator }
        Rejected {
            0 Rejected::WrongCluster { .. }, 1 Rejected::WrongVersion { .. },
            2 Rejected::TooManyConnections { .. }, 3 Rejected::Malformed { .. },
            4 Rejected::NodeIdInUse { .. }, 5 Rejected::AskOverStream,
            6 Rejected::NoLane { .. }, 7 Rejected::RoleNotGranted { .. },
            8 Rejected::NotWithThisKey { .. },
        }
        Operation {
            0 Operation::Start { .. }, 1 Operation::Get, 2 Operation::Update { .. },
            3 Operation::Touch { .. }, 4 Operation::End { .. }, 5 Operation::UpdateIf { .. },
            6 Operation::StartIfAbsent { .. }, 7 Operation::EndIf { .. },
            8 Operation::StartInstead { .. }, 9 Operation::Put { .. },
            10 Operation::UpdateFieldsIf { .. },
        }
        Change {
            0 Change::Value(_), 1 Change::Fields { .. }, 2 Change::Lifetimes(_), 3 Change::Pin(_),
            4 Change::Whole(_, _),
        }
        Affinity {
            0 Affinity::Cpu, 1 Affinity::Memory, 2 Affinity::Io, 3 Affinity::Network,
        }
        SessionReply {
            0 SessionReply::Session(_), 1 SessionReply::Acknowledged(_), 2 SessionReply::Failed(_),
        }
        Failure {
            0 Failure::Absent, 1 Failure::Ended, 2 Failure::Expired, 3 Failure::Unavailable { .. },
            4 Failure::TooLarge { .. }, 5 Failure::TableFull { .. }, 6 Failure::Refused(_),
            7 Failure::TimedOut, 8 Failure::Conflict { .. }, 9 Failure::SlowDown { .. },
        }
        Sentence { 0 Sentence::Release { .. }, 1 Sentence::End }
        Served { 0 Served::Memory, 1 Served::HomesWhileSyncing, 2 Served::Homes }
        CopyState {
            0 CopyState::NotAsked, 1 CopyState::Silent, 2 CopyState::Absent { .. },
            3 CopyState::Held { .. }, 4 CopyState::Moved { .. },
        }
        Replicated {
            0 Replicated::Stored, 1 Replicated::Differs(_), 2 Replicated::Missing,
            3 Replicated::Failed(_), 4 Replicated::Promised { .. },
            5 Replicated::NoHome, 6 Replicated::OtherEpoch,
        }
        EpochSuccessor { 0 EpochSuccessor::Next(_), 1 EpochSuccessor::Ended(_) }
        EpochStanding {
            0 EpochStanding::Outside, 1 EpochStanding::Fresh, 2 EpochStanding::Ready,
            3 EpochStanding::Lost, 4 EpochStanding::Blank, 5 EpochStanding::HandedOver,
        }
        EpochStep {
            0 EpochStep::Meet(_), 1 EpochStep::Learn(_), 2 EpochStep::Testify(_),
            3 EpochStep::Prepare { .. }, 4 EpochStep::Accept { .. }, 5 EpochStep::Absorb { .. },
        }
        EpochAnswer {
            0 EpochAnswer::Agrees, 1 EpochAnswer::Knows(_), 2 EpochAnswer::Testimony { .. },
            3 EpochAnswer::Promise { .. }, 4 EpochAnswer::Accepted { .. }, 5 EpochAnswer::Outbid(_),
            6 EpochAnswer::Refused,
        }
        Fresh { 0 Fresh::No, 1 Fresh::Yes, 2 Fresh::By(_) }
        ComparedDifference {
            0 ComparedDifference::None, 1 ComparedDifference::One { .. },
            2 ComparedDifference::More { .. },
        }
        Status { 0 Status::Joining, 1 Status::Up, 2 Status::Draining, 3 Status::Down, 4 Status::Left }
        PeerState {
            0 PeerState::Alive, 1 PeerState::Suspected, 2 PeerState::Missing,
            3 PeerState::Presumed, 4 PeerState::Down, 5 PeerState::Left
        }
        KeyChange {
            0 KeyChange::List, 1 KeyChange::Install(_), 2 KeyChange::Use(_), 3 KeyChange::Remove(_),
        }
        KeyOrdered {
            0 KeyOrdered::Done { .. }, 1 KeyOrdered::Refused(_), 2 KeyOrdered::Silent(_),
        }
        Kind { 0 Kind::Bytes, 1 Kind::Map, 2 Kind::Set, 3 Kind::SortedSet }
        Value {
            0 Value::Bytes(_), 1 Value::Map(_), 2 Value::Set(_), 3 Value::SortedSet(_)
        }
    }
    // Where there are no fields, the discriminants that are written in the source are the numbers.
    for (at, status) in variants::<Status>().into_iter().enumerate() {
        assert_eq!(status as usize, at);
    }
    for (at, role) in variants::<Role>().into_iter().enumerate() {
        assert_eq!(role as usize, at);
        assert_eq!(role, Role::ALL[at]);
    }
    for (at, served) in variants::<Served>().into_iter().enumerate() {
        assert_eq!(served as usize, at);
    }
    for (at, kind) in variants::<Kind>().into_iter().enumerate() {
        assert_eq!(kind as usize, at);
    }
}

/// One value of each variant, found by decoding: number after number, before bytes that suit any.
fn variants<T: bincode::Decode<()>>() -> Vec<T> {
    let decode = |number: u8| {
        let bytes = [&[number][..], &[0; 64]].concat();
        bincode::decode_from_slice::<T, _>(&bytes, standard()).ok().map(|(value, _)| value)
    };
    (0..=250).map_while(decode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_message_reads_back_what_was_written(header in headers(), message in messages()) {
        let mut bytes = b"before".to_vec();
        encode_frame(header, &message, &mut bytes).unwrap();
        let frame = &bytes[6..];
        prop_assert_eq!(frame_length(frame), Ok(Some(frame.len())));
        prop_assert_eq!(decode_frame(frame), Ok((header, message.clone())));

        let mut bytes = b"before".to_vec();
        encode_inside(header, &message, usize::MAX, &mut bytes).unwrap();
        prop_assert_eq!(decode_inside(&bytes[6..]), Ok((header, message.clone())));

        let mut bytes = b"before".to_vec();
        match encode_datagram(header, "shop", &message, &mut bytes) {
            Ok(()) => {
                prop_assert!(bytes.len() <= 6 + DATAGRAM_BYTES_MAX);
                prop_assert_eq!(decode_datagram(&bytes[6..], "shop"), Ok((header, message)));
            }
            Err(error) => {
                prop_assert!(error.size > error.limit && bytes == b"before");
                prop_assert_eq!(error.name, message.name());
            }
        }
    }
}

#[test]
fn the_strategy_draws_every_kind() {
    let mut runner = TestRunner::deterministic();
    let mut draw = || messages().new_tree(&mut runner).unwrap().current().kind();
    let mut kinds: Vec<u8> = (0..4_000).map(|_| draw()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, Message::KINDS);
}

#[test]
fn kinds_are_unique_and_have_limits() {
    assert!(Message::KINDS.is_sorted_by(|one, next| one < next));
    for kind in 0..=u8::MAX {
        assert_eq!(Message::limit(kind).is_some(), Message::KINDS.contains(&kind));
    }
}

#[test]
fn a_frame_and_a_datagram_are_laid_out_as_they_always_were() {
    let pong = Pong { node: NodeId::from_bits(5) }.into();
    let header = "414e0105 2a00000000000000 8877665544332211 0000006c50c4a001".replace(' ', "");
    assert_eq!(hex(&frame_of(&pong)), format!("21000000{header}054fd27160"));
    assert_eq!(hex(&datagram_of(&pong)), format!("26000000{header}0473686f700507d307b4"));
}

#[test]
fn a_frame_that_is_cut_short_is_incomplete_and_nothing_else() {
    for (message, _) in golden() {
        let frame = frame_of(&message);
        for length in 0..frame.len() {
            let expected = if length < PREFIX_BYTES { None } else { Some(frame.len()) };
            assert_eq!(frame_length(&frame[..length]), Ok(expected));
            let need = expected.unwrap_or(HEADER_BYTES + CHECK_BYTES);
            let error = DecodeError::CutShort { have: length, need };
            assert_eq!(decode_frame(&frame[..length]), Err(error));
        }
        let trailing = [frame.as_slice(), b"xyz"].concat();
        assert_eq!(frame_length(&trailing), Ok(Some(frame.len())));
        assert_eq!(decode_frame(&trailing), Err(DecodeError::Trailing(3)));
    }
}

#[test]
fn what_is_sealed_is_recognised_where_a_frame_should_be() {
    let sealed = *b"ANS\x01 and more";
    assert_eq!(frame_length(&sealed), Err(DecodeError::Sealed));
    assert_eq!(decode_frame(&sealed), Err(DecodeError::Sealed));
    assert_eq!(decode_datagram(&sealed, "shop"), Err(DecodeError::Sealed));
    let most = Message::KINDS.iter().filter_map(|kind| Message::limit(*kind)).max().unwrap();
    assert!(u32::from_le_bytes(*sealed.first_chunk().unwrap()) as usize & 0xff_ffff > most);
}

#[test]
fn a_datagram_that_is_cut_short_or_goes_on_is_refused() {
    for (message, _) in golden() {
        let datagram = datagram_of(&message);
        for length in 0..datagram.len() {
            let error = decode_datagram(&datagram[..length], "shop").unwrap_err();
            assert!(matches!(error, DecodeError::CutShort { have, .. } if have == length));
        }
        let trailing = [datagram.as_slice(), b"xyz"].concat();
        assert_eq!(decode_datagram(&trailing, "shop"), Err(DecodeError::Trailing(3)));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (message, _) in golden() {
        let (frame, datagram) = (frame_of(&message), datagram_of(&message));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bad).is_err());
        }
        for bit in 0..datagram.len() * 8 {
            let mut bad = datagram.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_datagram(&bad, "shop").is_err());
        }
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let frame = frame_of(&Ping {}.into());
    let with = |at: usize, byte: u8| {
        let mut bad = frame.clone();
        bad[at] = byte;
        reseal(&mut bad);
        (frame_length(&bad).err(), decode_frame(&bad).unwrap_err())
    };
    let both = |error: DecodeError| (Some(error.clone()), error);
    assert_eq!(with(4, b'B'), both(DecodeError::Magic));
    assert_eq!(with(5, b'M'), both(DecodeError::Magic));
    assert_eq!(with(6, 2), both(DecodeError::Version(2)));
    assert_eq!(with(7, 0), both(DecodeError::Kind(0)));
    assert_eq!(with(7, 130), both(DecodeError::Kind(130)));
    let length = HEADER_BYTES + CHECK_BYTES - 1;
    let short = DecodeError::CutShort { have: length, need: length + 1 };
    assert_eq!(with(0, length as u8 - 4), both(short));

    let mut damaged = frame.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(decode_frame(&damaged), Err(DecodeError::Check));

    // Another version is told apart whatever its check looks like.
    damaged[6] = 9;
    assert_eq!(decode_frame(&damaged), Err(DecodeError::Version(9)));
    assert_eq!(decode_datagram(&damaged, "shop"), Err(DecodeError::Version(9)));

    let mut trailing = frame.clone();
    trailing[0] += 1;
    trailing.insert(HEADER_BYTES, 0);
    reseal(&mut trailing);
    let error = decode_frame(&trailing).unwrap_err();
    assert_eq!(error.to_string(), "kind 4: 1 bytes follow the payload");

    let datagram = datagram_of(&Ping {}.into());
    assert_eq!(decode_datagram(&datagram, "shed"), Err(DecodeError::Cluster));
    assert_eq!(decode_datagram(&datagram, "sho"), Err(DecodeError::Cluster));
    assert_eq!(decode_datagram(&datagram, ""), Err(DecodeError::Cluster));
    let mut no_end = datagram.clone();
    no_end[HEADER_BYTES] = 200;
    reseal(&mut no_end);
    assert!(matches!(decode_datagram(&no_end, "shop"), Err(DecodeError::CutShort { .. })));
    let mut unknown = datagram;
    unknown[7] = 130;
    reseal(&mut unknown);
    assert_eq!(decode_datagram(&unknown, "shop"), Err(DecodeError::Kind(130)));
    assert_eq!(decode_datagram(&unknown, "shed"), Err(DecodeError::Cluster));
}

#[test]
fn a_length_above_the_kinds_limit_is_refused_before_the_payload_comes() {
    for &kind in Message::KINDS {
        let limit = Message::limit(kind).unwrap();
        let mut header = frame_of(&Ping {}.into());
        header[7] = kind;
        let mut announce = |size: usize| {
            let length = (HEADER_BYTES - 4 + size + CHECK_BYTES) as u32;
            header[..4].copy_from_slice(&length.to_le_bytes());
            frame_length(&header)
        };
        assert_eq!(announce(limit), Ok(Some(HEADER_BYTES + limit + CHECK_BYTES)));
        let size = limit + 1;
        assert_eq!(announce(size), Err(DecodeError::TooLong { kind, size, limit }));
        header[..4].copy_from_slice(&[0xff; 4]);
        assert!(matches!(frame_length(&header), Err(DecodeError::TooLong { .. })));
    }
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let packet = vec![0; DATAGRAM_BYTES_MAX];
    let mut out = b"before".to_vec();
    let error = encode_frame(HEADER, &Gossip { packet }.into(), &mut out).unwrap_err();
    assert_eq!(error.to_string(), "Gossip of 1403 bytes does not fit the limit of 1400");
    let packet = vec![0; datagram_payload_max("shop") - 2];
    let error = encode_datagram(HEADER, "shop", &Gossip { packet }.into(), &mut out).unwrap_err();
    assert_eq!((error.size, error.limit), (1_360, 1_359));
    assert_eq!(out, b"before");

    // And not accepted from those who send it anyway.
    let mut datagram = datagram_of(&Gossip { packet: Vec::new() }.into());
    datagram.extend(vec![0; DATAGRAM_BYTES_MAX]);
    let length = datagram.len() as u32 - 4;
    datagram[..4].copy_from_slice(&length.to_le_bytes());
    reseal(&mut datagram);
    assert!(matches!(decode_datagram(&datagram, "shop"), Err(DecodeError::TooLong { .. })));
}

#[test]
fn payloads_that_break_a_types_own_rules_are_refused() {
    let refused = |kind: u8, payload: &[u8]| {
        let error = decode_payload(kind, payload).unwrap_err();
        assert!(matches!(error, DecodeError::Payload { kind: of, .. } if of == kind), "{error}");
        error.to_string()
    };
    // A key of no bytes, one of 256, slot 16384, an unknown variant, text that is not UTF-8.
    assert!(refused(51, &[1, b't', 0]).contains("empty"));
    let long = [&[1, b't', 251, 0, 1][..], &[7; 256]].concat();
    assert!(refused(51, &long).contains("256"));
    assert!(refused(55, &[1, b't', 251, 0, 0x40, 0]).contains("16384"));
    refused(3, &[6]);
    refused(51, &[1, 0xff, 1, b'k']);
    // An entry that is not well formed.
    let mut entry = Entry::start(
        version(5, 1),
        Value::Map([(vec![b'f'], vec![b'v'])].into()),
        (0, 0),
        Attributes::default(),
        0,
    );
    entry.body.as_mut().unwrap().base.version = version(6, 1);
    let payload = encode_value(&Fetched { entry: Some(entry), synced: true, other_epoch: false });
    assert!(refused(52, &payload).contains("a field older than its value"));
}

#[test]
fn random_and_damaged_frames_and_datagrams_never_panic() {
    let mut runner = TestRunner::deterministic();
    let mut rng = StdRng::seed_from_u64(1);
    let mut corpus: Vec<Message> = golden().into_iter().map(|(message, _)| message).collect();
    corpus.extend((0..2_000).map(|_| messages().new_tree(&mut runner).unwrap().current()));
    for _ in 0..100_000 {
        let mut bytes = vec![0; rng.random_range(0..150)];
        rng.fill(&mut bytes[..]);
        if let Some(kind) = bytes.first_mut().filter(|_| rng.random_ratio(3, 4)) {
            *kind = Message::KINDS[rng.random_range(0..Message::KINDS.len())];
        }
        fuzz_bodies::frame(&bytes);
        fuzz_bodies::datagram(&bytes);
    }
    for _ in 0..100_000 {
        let message = &corpus[rng.random_range(0..corpus.len())];
        let mut frame = frame_of(message);
        damage(&mut frame, &mut rng);
        fuzz_bodies::frame(&frame);
        fuzz_bodies::datagram(&frame);
        let mut payload = frame_of(message)[HEADER_BYTES - 1..].to_vec();
        payload[0] = message.kind();
        payload.truncate(payload.len() - CHECK_BYTES);
        damage(&mut payload, &mut rng);
        fuzz_bodies::frame(&payload);
        fuzz_bodies::datagram(&payload);
    }
}

/// Flips bits, overwrites with the markers of long integers, cuts, doubles.
fn damage(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = [0, 250, 251, 252, 253, 254, 255][rng.random_range(0..7)],
            2 => bytes.truncate(at),
            _ => bytes.extend_from_within(at..(at + 20).min(bytes.len())),
        }
    }
}

const WIRE_MD: &str = include_str!("../../../docs/wire.md");

#[test]
fn the_documents_examples_are_what_is_sent() {
    let block = |text: &str| {
        let lines = text.lines().map(|line| line.split('|').next().unwrap());
        lines.flat_map(unhex).collect::<Vec<u8>>()
    };
    let after = |part: &'static str| part.split("```").next().unwrap();
    let written: Vec<Vec<u8>> = WIRE_MD.split("```hex\n").skip(1).map(after).map(block).collect();
    let version = |ms, counter, node| {
        let hlc = Hlc::from_bits(Hlc::from_ms(ms).bits() + counter);
        Version::new(hlc, NodeId::from_bits(node))
    };
    let request = SessionRequest {
        table: "sessions".into(),
        key: Key::new("s3cret").unwrap(),
        request: RequestId { client: 7, sequence: 1 },
        hops: 0,
        patience_ms: 2_000,
        operation: Operation::Start {
            value: Value::Bytes(b"ada".to_vec()),
            lifetimes: Lifetimes { idle_ms: Some(1_800_000), lifetime_ms: None },
            attributes: Attributes { replicas: 0, owner: b"u1".to_vec() },
        },
    };
    let reply = SessionReply::Acknowledged(Acknowledged {
        birth: version(1_790_000_000_000, 0, 0xa1),
        version: version(1_790_000_000_005, 1, 0xa1a2_a3a4_a5a6),
        held_by: 2,
        homes: 3,
    });
    let of_client = Header { id: 42, view: 0, hlc: Hlc::ZERO };
    let of_node = Header { hlc: Hlc::from_ms(1_790_000_000_005), ..HEADER };
    let messages: [(Header, Message); 2] = [(of_client, request.into()), (of_node, reply.into())];
    for ((header, message), written) in messages.iter().zip(&written) {
        let mut frame = Vec::new();
        encode_frame(*header, message, &mut frame).unwrap();
        assert_eq!(hex(&frame), hex(written));
        assert_eq!(decode_frame(written), Ok((*header, message.clone())));
    }
    assert_eq!(written.len(), messages.len());
    let mut datagram = Vec::new();
    encode_datagram(of_client, "shop", &messages[0].1, &mut datagram).unwrap();
    assert_eq!(datagram[..4], [76, 0, 0, 0]);
}

/// The rows of the table that begins with this heading, cell by cell.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let mut lines = WIRE_MD.lines();
    lines.find(|line| line.starts_with(&format!("| {heading} |"))).expect("there is such a table");
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_document_lists_all_kinds_with_their_limits() {
    let names: BTreeMap<u8, &str> =
        golden().iter().map(|(message, _)| (message.kind(), message.name())).collect();
    let expected: Vec<(String, &str, String)> = Message::KINDS
        .iter()
        .map(|&kind| (kind.to_string(), names[&kind], Message::limit(kind).unwrap().to_string()))
        .collect();
    let written: Vec<(String, &str, String)> =
        rows("kind | message").iter().map(|row| (row[0].into(), row[1], row[3].into())).collect();
    assert_eq!(written, expected);
}

#[test]
fn the_document_numbers_variants_and_states_limits_as_they_are() {
    /// What stands in `text` before the first character that no name has.
    fn name(text: &str) -> &str {
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap()
    }
    fn names<T: bincode::Decode<()> + std::fmt::Debug>() -> Vec<String> {
        let variants = variants::<T>().into_iter().map(|variant| format!("{variant:?}"));
        variants.enumerate().map(|(at, shown)| format!("{at} {}", name(&shown))).collect()
    }
    let in_text = |text: &str| {
        // Commas within parentheses separate fields.
        let mut depth = 0;
        let outside = text.split(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        outside
            .map(|variant| variant.trim().splitn(3, ' ').take(2).collect::<Vec<_>>().join(" "))
            .collect::<Vec<String>>()
    };
    let table = rows("type | variants");
    let written: Vec<(&str, Vec<String>)> =
        table.iter().map(|row| (row[0], in_text(row[1]))).collect();
    let expected = vec![
        ("Caller", names::<Caller>()),
        ("Role", names::<Role>()),
        ("Operation", names::<Operation>()),
        ("Change", names::<Change>()),
        ("Value", names::<Value>()),
        ("SessionReply", names::<SessionReply>()),
        ("Sentence", names::<Sentence>()),
        ("Affinity", names::<Affinity>()),
        ("Status", names::<Status>()),
        ("PeerState", names::<PeerState>()),
        ("Happened", names::<Happened>()),
        ("HowGone", names::<HowGone>()),
        ("KeyChange", names::<KeyChange>()),
        ("KeyOrdered", names::<KeyOrdered>()),
        ("EpochStep", names::<EpochStep>()),
        ("EpochAnswer", names::<EpochAnswer>()),
        ("EpochSuccessor", names::<EpochSuccessor>()),
        ("EpochStanding", names::<EpochStanding>()),
    ];
    assert_eq!(written, expected);
    let first_cells = |heading: &str| {
        let rows = rows(heading);
        rows.iter().flat_map(|row| in_text(row[0])).collect::<Vec<String>>()
    };
    assert_eq!(first_cells("Failure"), names::<Failure>());
    assert_eq!(first_cells("Rejected"), names::<Rejected>());

    let limits: Vec<usize> =
        rows("limit").iter().map(|row| name(row[1]).parse().unwrap()).collect();
    let names = [NAME_BYTES_MAX, MERGE_NAME_BYTES_MAX];
    let values = [KEY_BYTES_MAX, VALUE_BYTES_MAX, FIELD_NAME_BYTES_MAX, OWNER_BYTES_MAX];
    let channels = [CHANNEL_BYTES_MAX, PUBLISHED_BYTES_MAX];
    let expected = [&values[..], &names, &channels].concat();
    assert_eq!(limits, expected);
    assert!(WIRE_MD.contains(&format!("at most {DATAGRAM_BYTES_MAX} bytes")));
    assert!(WIRE_MD.contains(&format!("at most {REASON_BYTES_MAX} bytes")));
    assert!(WIRE_MD.contains(&format!("(at most {PAGE_ENTRIES_MAX})")));
    let one = Value::Map([(vec![], vec![])].into()).size();
    assert!(WIRE_MD.contains(&format!("{one} bytes for each")));
}
