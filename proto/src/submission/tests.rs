use proptest::prelude::*;

use super::*;
use crate::arbitrary::{failure, keys, operation, version, versions};
use crate::fuzz_bodies;

fn submission<'a>(key: &'a [u8], action: Action<'a>) -> Submission<'a> {
    Submission { table: 2, key, sequence: 3, call: 4, patience_ms: 5, action }
}

fn bytes(submission: &Submission<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    submission.encode(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_is_encoded_as_it_always_was() {
    let birth = Some(version(6, 7));
    let cases = [
        (
            Action::Touch { birth },
            "01010103020000000300000000000000040000000500000000000600000000000700000000000000000000000000000061646 1",
        ),
        (
            Action::Update { birth: None, value: b"u1" },
            "010200030200000003000000000000000400000005000000000000000000000000000000000000000200000000000000616461 7531",
        ),
        (
            Action::End { birth },
            "010301030200000003000000000000000400000005000000000006000000000007000000000000000000000000000000616461",
        ),
        (
            Action::Other(&[4, 0]),
            "0104000302000000030000000000000004000000050000000000000000000000000000000000000002000000000000006164610400",
        ),
    ];
    for (action, expected) in cases {
        let expected = expected.replace(' ', "");
        assert_eq!(hex(&bytes(&submission(b"ada", action))), expected);
    }
}

#[test]
fn every_answer_is_encoded_as_it_always_was() {
    let acknowledged =
        Acknowledged { birth: version(1, 2), version: version(3, 4), held_by: 5, homes: 6 };
    let node = NodeId::from_bits(9);
    let cases = [
        (Answer::Acknowledged(acknowledged), [0x6_05_80, 1 << 16, 2, 3 << 16, 4, 0]),
        (Answer::Failed(Failure::Absent), [0; 6]),
        (Answer::Failed(Failure::Ended), [1, 0, 0, 0, 0, 0]),
        (Answer::Failed(Failure::Expired), [2, 0, 0, 0, 0, 0]),
        (
            Answer::Failed(Failure::Unavailable { answered: 1, needed: 2, homes: 3 }),
            [0x3_02_01_03, 0, 0, 0, 0, 0],
        ),
        (Answer::Failed(Failure::TooLarge { size: 7, limit: 8 }), [4, 7, 8, 0, 0, 0]),
        (Answer::Failed(Failure::TableFull { node }), [5, 9, 0, 0, 0, 0]),
        (Answer::Failed(Failure::TimedOut), [7, 0, 0, 0, 0, 0]),
        (Answer::Failed(Failure::Conflict { version: version(3, 4) }), [8, 3 << 16, 4, 0, 0, 0]),
        (Answer::Failed(Failure::SlowDown { retry_after_ms: 7 }), [9, 7, 0, 0, 0, 0]),
        (Answer::AskElsewhere, [0x81, 0, 0, 0, 0, 0]),
    ];
    for (answer, words) in cases {
        assert_eq!(answer.encode(), words);
        assert_eq!(Answer::decode(words), Some(answer));
    }
    assert_eq!(Answer::decode([6, 0, 0, 0, 0, 0]), None);
    assert_eq!(Answer::decode([0, 1, 0, 0, 0, 0]), None);
    assert_eq!(Answer::decode([u64::MAX; 6]), None);
    let refused = SessionReply::Failed(Failure::Refused("no".into()));
    assert_eq!(Answer::of(&refused), Answer::AskElsewhere);
}

#[test]
fn what_is_no_submission_is_told_apart() {
    let good = bytes(&submission(b"ada", Action::Touch { birth: None }));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Submission::decode(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, 2), SubmissionError::Version(2));
    assert_eq!(with(1, 0), SubmissionError::Kind(0));
    assert_eq!(with(1, 9), SubmissionError::Kind(9));
    for at in [2, 6, 7, 24, 38, 44, 47] {
        assert_eq!(with(at, 2), SubmissionError::Header, "byte {at}");
    }
    assert_eq!(with(3, 4), SubmissionError::Size { have: 51, need: 52 });
    assert_eq!(with(43, 1), SubmissionError::Size { have: 51, need: 51 + (1 << 24) });
    for size in 0..good.len() {
        assert!(Submission::decode(&good[..size]).is_err());
    }
    let mut no_key = good[..SUBMISSION_HEADER_BYTES].to_vec();
    no_key[3] = 0;
    assert_eq!(Submission::decode(&no_key).map(|_| ()), Err(KeyError::Empty.into()));
    let mut out = vec![1];
    let long = [b'k'; 256];
    for key in [&[][..], &long] {
        assert!(submission(key, Action::Touch { birth: None }).encode(&mut out).is_err());
        assert!(out.is_empty());
    }
    for other in [&[1][..], &[9], &[], &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
        let bytes = bytes(&submission(b"ada", Action::Other(other)));
        let read = Submission::decode(&bytes).unwrap().operation();
        assert!(matches!(read, Err(SubmissionError::Operation(_))), "{other:?}");
    }
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(
        key in keys(), operation in operation(), table: u16, sequence: u64, call: u32,
        patience_ms: u32,
    ) {
        let mut room = Vec::new();
        let Some(action) = Submission::action(&operation, &mut room) else { return Ok(()) };
        let submission =
            Submission { table, key: key.as_bytes(), sequence, call, patience_ms, action };
        let bytes = bytes(&submission);
        let decoded = Submission::decode(&bytes).unwrap();
        prop_assert!(decoded == submission);
        prop_assert_eq!(decoded.operation(), Ok((key, operation)));
    }

    #[test]
    fn random_bytes_are_refused_or_survive(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), shaped: bool) {
        if shaped && bytes.len() > SUBMISSION_HEADER_BYTES {
            bytes[0] = SUBMISSION_VERSION;
            bytes[1] %= 5;
            bytes[2] %= 2;
            bytes[3] = (bytes.len() - SUBMISSION_HEADER_BYTES) as u8;
            bytes[6..8].fill(0);
            bytes[38..48].fill(0);
        }
        fuzz_bodies::submission(&bytes);
    }

    #[test]
    fn answers_pass(failure in failure(), birth in versions(), version in versions(), held_by: u8, homes: u8) {
        let failed = Answer::of(&SessionReply::Failed(failure));
        let acknowledged = Answer::Acknowledged(Acknowledged { birth, version, held_by, homes });
        for answer in [failed, acknowledged] {
            prop_assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
    }

    #[test]
    fn random_words_are_refused_or_survive(words: [u64; 6], number: u8) {
        for words in [words, [number.into(), 0, 0, 0, 0, 0]] {
            if let Some(answer) = Answer::decode(words) {
                prop_assert_eq!(answer.encode(), words);
            }
        }
    }
}
