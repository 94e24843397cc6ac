//! What happens to one input of a fuzzer: nothing may panic, and what is accepted must survive being
//! written and read again. The libFuzzer targets in `fuzz/` and the seeded tests share these bodies.

use annulus_proto::codec::{self, CHECK_BYTES, HEADER_BYTES, PROTOCOL_VERSION};
use annulus_proto::record;
use annulus_proto::submission::{Answer, Submission};

/// The input as a frame, and as kind and payload of a frame that is otherwise in order.
pub(crate) fn frame(input: &[u8]) {
    let _ = codec::frame_length(input);
    let _ = codec::decode_frame(input);
    let Some((&kind, payload)) = input.split_first() else { return };
    let frame = sealed(kind, &[], payload);
    if let Ok((header, message)) = codec::decode_frame(&frame) {
        let mut again = Vec::new();
        codec::encode_frame(header, &message, &mut again).expect("what fitted fits again");
        assert_eq!(codec::frame_length(&again), Ok(Some(again.len())));
        assert_eq!(codec::decode_frame(&again), Ok((header, message)));
    }
}

/// The input as a datagram, and as kind, name and payload of one that is otherwise in order.
pub(crate) fn datagram(input: &[u8]) {
    const CLUSTER: &str = "fuzz";
    let _ = codec::decode_datagram(input, CLUSTER);
    if let Ok((header, message)) = codec::decode_inside(input) {
        let mut again = Vec::new();
        codec::encode_inside(header, &message, usize::MAX, &mut again).expect("it fits again");
        assert_eq!(codec::decode_inside(&again), Ok((header, message)));
    }
    let Some((&kind, rest)) = input.split_first() else { return };
    let _ = codec::decode_datagram(&sealed(kind, &[], rest), CLUSTER);
    let datagram = sealed(kind, b"\x04fuzz", rest);
    if let Ok((header, message)) = codec::decode_datagram(&datagram, CLUSTER) {
        let mut again = Vec::new();
        codec::encode_datagram(header, CLUSTER, &message, &mut again)
            .expect("what fitted fits again");
        assert_eq!(codec::decode_datagram(&again, CLUSTER), Ok((header, message)));
    }
}

/// The input as a mark and a record.
pub(crate) fn record(input: &[u8]) {
    let _ = record::View::parse(input);
    let Some((mark, bytes)) = input.split_first_chunk() else { return };
    let mark = u64::from_le_bytes(*mark);
    let Ok(view) = record::View::parse(bytes) else { return };
    let _ = view.bytes();
    if let Ok(Some(mut fields)) = view.map() {
        while let Ok(Some(_)) = fields.next_field() {}
        let mut resumed = record::Fields::resume(fields.rest());
        while let Ok(Some(_)) = resumed.next_field() {}
    }
    let entry = view.entry(mark);
    let digest = entry.as_ref().map(|entry| entry.digest(b"key"));
    assert_eq!(view.digest(b"key", mark), digest.map_err(Clone::clone));
    assert_eq!(view.digest_change(b"key", mark, mark).is_ok(), entry.is_ok());
    let Ok(entry) = entry else { return };
    let mut again = Vec::new();
    record::write(&entry, &mut again);
    let view = record::View::parse(&again).expect("what was written reads");
    assert_eq!(view.entry(mark).as_ref(), Ok(&entry));
}

/// The input as a submission, and as the words of an answer.
pub(crate) fn submission(input: &[u8]) {
    if let Ok(read) = Submission::decode(input) {
        let mut again = Vec::new();
        read.encode(&mut again).expect("its key is one");
        assert_eq!(again, input);
        let _ = read.operation();
    }
    let Some(words) = input.as_chunks::<8>().0.first_chunk() else { return };
    let words = words.map(u64::from_le_bytes);
    if let Some(answer) = Answer::decode(words) {
        assert_eq!(answer.encode(), words);
    }
}

fn sealed(kind: u8, name: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = HEADER_BYTES - 4 + name.len() + payload.len() + CHECK_BYTES;
    let mut frame = (length as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&[b'A', b'N', PROTOCOL_VERSION, kind]);
    frame.resize(HEADER_BYTES, 7);
    frame.extend_from_slice(name);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&codec::check_of(&frame));
    frame
}
