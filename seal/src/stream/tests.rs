use std::collections::VecDeque;
use std::sync::Mutex;

use annulus_proto::message::Role;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::key::KeyKind;

const CLUSTER: &str = "shop";

fn key(number: u8) -> Key {
    Key::new(KeyKind::Node, &[number; 32])
}

fn worker(number: u8) -> Key {
    Key::new(KeyKind::Client(Role::Worker), &[number; 32])
}

fn ring() -> Keyring {
    let mut ring = Keyring::new(key(1)).unwrap();
    ring.install(worker(2)).unwrap();
    ring
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Both ends of a sealed stream over a pipe that holds so many bytes.
async fn pair(room: usize) -> (SealedStream<DuplexStream>, SealedStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let (key, ring) = (key(1), ring());
    let call = SealedStream::call(near, &key, CLUSTER, &[5; 32]);
    let answer = SealedStream::answer(far, &ring, CLUSTER, &[6; 32]);
    let (called, answered) = tokio::join!(call, answer);
    (called.unwrap(), answered.unwrap().0)
}

/// What a sealed stream writes for these bytes, closing record included, and who can read it.
async fn recorded(chunks: &[&[u8]]) -> (Vec<u8>, SealedStream<DuplexStream>) {
    let (mut writer, reader) = pair(1 << 20).await;
    for chunk in chunks {
        writer.write_all(chunk).await.unwrap();
    }
    writer.shutdown().await.unwrap();
    let SealedStream { mut inner, noise, reading, writing } = reader;
    let mut bytes = Vec::new();
    inner.read_to_end(&mut bytes).await.unwrap();
    (bytes, SealedStream { inner, noise, reading, writing })
}

/// What the reader makes of these bytes.
async fn read_back(reader: SealedStream<DuplexStream>, bytes: &[u8]) -> Result<Vec<u8>, io::Error> {
    let (mut near, far) = duplex(bytes.len().max(1));
    near.write_all(bytes).await.unwrap();
    drop(near);
    let SealedStream { noise, reading, writing, .. } = reader;
    let mut reader = SealedStream { inner: far, noise, reading, writing };
    let mut read = Vec::new();
    let result = reader.read_to_end(&mut read).await;
    if let Err(error) = &result {
        // It stays an error.
        let again = reader.read(&mut [0]).await.unwrap_err();
        assert_eq!(again.kind(), error.kind());
    }
    result.map(|_| read)
}

#[test]
fn both_sides_learn_what_the_other_says() {
    block_on(async {
        for room in [1, 7, 64, 1 << 20] {
            let (mut one, mut two) = pair(room).await;
            let there = async {
                one.write_all(b"question").await.unwrap();
                one.flush().await.unwrap();
                let mut answer = [0; 6];
                one.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"answer");
                one.shutdown().await.unwrap();
                assert!(one.write_all(b"more").await.is_err(), "it was closed");
            };
            let back = async {
                let mut question = [0; 8];
                two.read_exact(&mut question).await.unwrap();
                assert_eq!(&question, b"question");
                two.write_all(b"answer").await.unwrap();
                two.flush().await.unwrap();
                assert_eq!(two.read(&mut [0]).await.unwrap(), 0);
                assert_eq!(two.read(&mut [0]).await.unwrap(), 0);
            };
            tokio::join!(there, back);
        }
    });
}

#[test]
fn the_answering_side_learns_the_key() {
    block_on(async {
        for called_under in [key(1), worker(2)] {
            let (near, far) = duplex(1024);
            let ring = ring();
            let call = SealedStream::call(near, &called_under, CLUSTER, &[5; 32]);
            let answer = SealedStream::answer(far, &ring, CLUSTER, &[6; 32]);
            let (_, answered) = tokio::join!(call, answer);
            assert!(answered.unwrap().1.is(&called_under));
        }
    });
}

#[test]
fn nothing_travels_in_clear_and_no_two_calls_look_alike() {
    block_on(async {
        let (once, _) = recorded(&[b"a secret session"]).await;
        assert!(!once.windows(6).any(|window| window == b"secret"));
        let (near, far) = duplex(1024);
        let (key, ring) = (key(1), ring());
        let call = SealedStream::call(near, &key, CLUSTER, &[7; 32]);
        let answer = SealedStream::answer(far, &ring, CLUSTER, &[6; 32]);
        let (mut one, mut two) = {
            let (called, answered) = tokio::join!(call, answer);
            (called.unwrap(), answered.unwrap().0)
        };
        one.write_all(b"a secret session").await.unwrap();
        one.shutdown().await.unwrap();
        let mut other = Vec::new();
        two.inner.read_to_end(&mut other).await.unwrap();
        assert_eq!(once.len(), other.len());
        let alike = once.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(alike < 20, "{alike} of {} bytes", once.len());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_written_in_any_pieces_is_read_in_any_pieces(
        chunks in prop::collection::vec(
            prop_oneof![
                0usize..40,
                Just(RECORD_BYTES_MAX),
                Just(RECORD_BYTES_MAX + 1),
                0usize..200_000,
            ],
            0..6),
        room in prop_oneof![1usize..100, Just(1usize << 16)],
        read_sizes in prop::collection::vec(prop_oneof![1usize..50, 1usize..100_000], 1..5),
        flush in any::<bool>(),
    ) {
        block_on(async {
            let (mut writer, mut reader) = pair(room).await;
            let all: Vec<u8> =
                (0..chunks.iter().sum::<usize>()).map(|at| (at * 31 / 8) as u8).collect();
            let write = async {
                let mut rest = &all[..];
                for chunk in chunks {
                    let (now, later) = rest.split_at(chunk);
                    writer.write_all(now).await.unwrap();
                    if flush {
                        writer.flush().await.unwrap();
                    }
                    rest = later;
                }
                writer.shutdown().await.unwrap();
                assert!(writer.writing.sealed.capacity() <= KEPT_BYTES, "it gives memory back");
            };
            let read = async {
                let mut read = Vec::new();
                for size in read_sizes.iter().cycle() {
                    let mut buffer = vec![0; *size];
                    match reader.read(&mut buffer).await.unwrap() {
                        0 => break,
                        count => read.extend_from_slice(&buffer[..count]),
                    }
                }
                read
            };
            let ((), read) = tokio::join!(write, read);
            assert!(read == all, "{} bytes of {}", read.len(), all.len());
        });
    }
}

#[test]
fn every_changed_bit_is_found() {
    block_on(async {
        let length = recorded(&[b"one", b"two and more"]).await.0.len();
        for bit in 0..8 * length {
            let (mut bytes, reader) = recorded(&[b"one", b"two and more"]).await;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = read_back(reader, &bytes).await.expect_err("it was changed");
            let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
            assert!(kinds.contains(&error.kind()), "bit {bit}: {error}");
        }
    });
}

#[test]
fn a_stream_that_is_cut_off_anywhere_is_no_end() {
    block_on(async {
        let (whole, reader) = recorded(&[b"one", b"two"]).await;
        assert_eq!(read_back(reader, &whole).await.unwrap(), b"onetwo");
        for length in 0..whole.len() {
            let (bytes, reader) = recorded(&[b"one", b"two"]).await;
            let error = read_back(reader, &bytes[..length]).await.expect_err("it was cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
            assert!(error.to_string().contains("cut off"), "{error}");
        }
    });
}

#[test]
fn records_are_taken_once_and_in_order() {
    block_on(async {
        const RECORD: usize = 2 + 3 + TAG_BYTES;
        type Arrange = dyn Fn(&[u8]) -> Vec<u8>;
        let arrange: [&Arrange; 3] = [
            &|bytes| [&bytes[..RECORD], bytes].concat(),
            &|bytes| [&bytes[RECORD..2 * RECORD], &bytes[..RECORD], &bytes[2 * RECORD..]].concat(),
            &|bytes| bytes[RECORD..].to_vec(),
        ];
        for arranged in arrange {
            let (bytes, reader) = recorded(&[b"one", b"two"]).await;
            let error = read_back(reader, &arranged(&bytes)).await.expect_err("out of order");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        // What one side said is not taken from the other.
        let (mut one, _two) = pair(1024).await;
        let (bytes, _) = recorded(&[b"one"]).await;
        let (mut near, far) = duplex(1024);
        near.write_all(&bytes).await.unwrap();
        let error = {
            one.inner = far;
            one.read(&mut [0; 8]).await.unwrap_err()
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

/// Calls and answers with these, and tells what each side made of it.
async fn try_pair(
    called_under: &Key,
    calls: &str,
    ring: &Keyring,
) -> (Result<(), CallError>, Result<(), AnswerError>) {
    let (near, far) = duplex(1024);
    let call = SealedStream::call(near, called_under, calls, &[5; 32]);
    let answer = SealedStream::answer(far, ring, CLUSTER, &[6; 32]);
    let (called, answered) = tokio::join!(call, answer);
    (called.map(drop), answered.map(drop))
}

#[test]
fn whoever_has_another_key_or_cluster_is_not_let_in_and_learns_nothing() {
    block_on(async {
        let known = ring();
        assert!(matches!(try_pair(&key(1), CLUSTER, &known).await, (Ok(()), Ok(()))));
        let (called, answered) = try_pair(&key(9), CLUSTER, &known).await;
        assert!(matches!(called, Err(CallError::Closed(id)) if id == key(9).id()), "{called:?}");
        assert!(matches!(answered, Err(AnswerError::UnknownKey(id)) if id == key(9).id()));
        let (called, answered) = try_pair(&key(1), "shoe", &known).await;
        assert!(matches!(called, Err(CallError::Closed(_))), "{called:?}");
        assert!(matches!(answered, Err(AnswerError::NotAuthentic(_))), "{answered:?}");
        // After its removal a key is unknown.
        let mut removed = known.clone();
        removed.remove(worker(2).id()).unwrap();
        assert!(try_pair(&worker(2), CLUSTER, &known).await.1.is_ok());
        let (called, answered) = try_pair(&worker(2), CLUSTER, &removed).await;
        let error = called.unwrap_err().to_string();
        assert!(error.contains(&worker(2).id().to_string()), "{error}");
        assert!(
            error.contains("annulus keys list") && error.contains("another cluster"),
            "{error}"
        );
        assert!(matches!(answered, Err(AnswerError::UnknownKey(_))));
    });
}

/// What comes from the other side, and what goes there.
#[derive(Default)]
struct Script {
    says: VecDeque<u8>,
    hears: Mutex<Vec<u8>>,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buf.remaining() > 0 {
            let Some(byte) = self.says.pop_front() else { break };
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.hears.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn every_bit_of_a_handshake_counts_and_strangers_get_no_answer() {
    block_on(async {
        let script = |says: &[u8]| Script { says: says.to_vec().into(), ..Script::default() };
        // The first message as it should be.
        let mut out = script(b"");
        let _ = SealedStream::call(&mut out, &key(1), CLUSTER, &[5; 32]).await;
        let first = out.hears.lock().unwrap().clone();
        assert_eq!(first.len(), PREFIX_BYTES + handshake::MESSAGE_BYTES);
        let mut out = script(&first);
        SealedStream::answer(&mut out, &ring(), CLUSTER, &[6; 32]).await.unwrap();
        let second = out.hears.lock().unwrap().clone();
        assert_eq!(second.len(), ANSWER_BYTES);
        for bit in 0..8 * first.len() {
            let mut changed = first.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut out = script(&changed);
            let answered = SealedStream::answer(&mut out, &ring(), CLUSTER, &[6; 32]).await;
            assert!(answered.is_err(), "bit {bit}");
            assert!(out.hears.lock().unwrap().is_empty(), "a stranger was answered");
        }
        for bit in 0..8 * second.len() {
            let mut changed = second.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut out = script(&changed);
            let called = SealedStream::call(&mut out, &key(1), CLUSTER, &[5; 32]).await;
            assert!(called.is_err(), "bit {bit}");
        }
        // A recorded call is answered, and its sender can do nothing with the answer; a recorded
        // answer is good for the call that it was given to alone.
        let mut out = script(&second);
        let called = SealedStream::call(&mut out, &key(1), CLUSTER, &[8; 32]).await;
        assert!(matches!(called, Err(CallError::NotAuthentic(_))), "{called:?}");
        for length in 0..first.len() {
            let answered =
                SealedStream::answer(script(&first[..length]), &ring(), CLUSTER, &[6; 32]).await;
            assert!(matches!(answered, Err(AnswerError::Io(_))), "{length} bytes");
        }
    });
}

#[test]
fn a_plain_side_is_recognised() {
    block_on(async {
        let script = |says: &[u8]| Script { says: says.to_vec().into(), ..Script::default() };
        let plain = b"\x40\x00\x00\x00AN\x01\x01 a frame in clear";
        let answered = SealedStream::answer(script(plain), &ring(), CLUSTER, &[6; 32]).await;
        assert!(matches!(answered, Err(AnswerError::Foreign)), "{answered:?}");
        let called = SealedStream::call(script(plain), &key(1), CLUSTER, &[5; 32]).await;
        assert!(matches!(called, Err(CallError::Plain)), "{called:?}");
        let other =
            b"ANS\x02 whatever another version says, for as long as it likes, and then some";
        let answered = SealedStream::answer(script(other), &ring(), CLUSTER, &[6; 32]).await;
        assert!(matches!(answered, Err(AnswerError::Version(2))), "{answered:?}");
        let called = SealedStream::call(script(other), &key(1), CLUSTER, &[5; 32]).await;
        assert!(matches!(called, Err(CallError::Version(2))), "{called:?}");
    });
}

#[test]
fn the_documents_examples_are_what_is_sent() {
    block_on(async {
        let secret: [u8; 32] = std::array::from_fn(|at| at as u8);
        let key = Key::new(KeyKind::Node, &secret);
        let ring = Keyring::new(Key::new(KeyKind::Node, &secret)).unwrap();
        let mut called = Script::default();
        let _ = SealedStream::call(&mut called, &key, CLUSTER, &[5; 32]).await;
        let first = called.hears.lock().unwrap().clone();
        let mut answered = Script { says: first.clone().into(), ..Script::default() };
        SealedStream::answer(&mut answered, &ring, CLUSTER, &[6; 32]).await.unwrap();
        let second = answered.hears.lock().unwrap().clone();
        let document = include_str!("../../../docs/wire.md");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let blocks = document.split("```sealed\n").skip(2).map(|part| {
            let block = part.split("```").next().unwrap();
            let digits = block.lines().flat_map(|line| line.split('|').next());
            digits.flat_map(str::split_whitespace).collect::<String>()
        });
        let written: Vec<String> = blocks.collect();
        assert_eq!(written, [hex(&first), hex(&second)]);
    });
}
