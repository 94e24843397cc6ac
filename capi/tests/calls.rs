//! The calls as C makes them, right and wrong.

#![allow(unsafe_code, reason = "this is the caller that hands over pointers")]

mod support;

use std::ffi::{CStr, CString, c_int};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use annulus::*;
use annulus_proto::Value;
use annulus_shm::{TableOptions, open_or_create};
use support::{BEGAN_MS, FILE, LIFETIME_MS, NODE, Writers, put, session, table};

struct Open(*mut Table);

impl Open {
    fn path(path: &Path) -> Result<Self, c_int> {
        let path = CString::new(path.to_str().expect("text")).expect("no zero");
        let mut reader = null_mut();
        // SAFETY: both live during the call.
        match unsafe { annulus_open(path.as_ptr(), &raw mut reader) } {
            0 => Ok(Self(reader)),
            error => {
                assert!(reader.is_null());
                Err(error)
            }
        }
    }

    fn named(directory: &Path, cluster: &str, table: &str) -> Result<Self, c_int> {
        let [directory, cluster, table] = [directory.to_str().expect("text"), cluster, table]
            .map(|text| CString::new(text).expect("no zero"));
        let (mut reader, texts) = (null_mut(), [&directory, &cluster, &table].map(|t| t.as_ptr()));
        // SAFETY: all live during the call.
        let code = unsafe { annulus_open_table(texts[0], texts[1], texts[2], &raw mut reader) };
        if code == 0 { Ok(Self(reader)) } else { Err(code) }
    }

    fn get(&self, key: &[u8], buffer: &mut [u8]) -> Session {
        let mut found = Session::none(Status::Internal);
        let (at, size) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: all live during the call.
        let code =
            unsafe { annulus_get(self.0, key.as_ptr(), key.len(), at, size, &raw mut found) };
        assert_eq!(code, found.status);
        found
    }

    fn status(&self, key: &[u8]) -> i32 {
        self.get(key, &mut [0; 4096]).status
    }

    fn detached(&self) -> c_int {
        // SAFETY: it is open.
        unsafe { annulus_detached(self.0) }
    }

    fn reopen(&self) -> c_int {
        // SAFETY: it is open.
        unsafe { annulus_reopen(self.0) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: it is open, and this is its last use.
        unsafe { annulus_close(self.0) };
    }
}

// SAFETY: the header lets any number of threads use a reader.
unsafe impl Sync for Open {}

fn value<'a>(found: &Session, buffer: &'a [u8]) -> &'a [u8] {
    let start = found.value.addr() - buffer.as_ptr().addr();
    &buffer[start..start + found.value_size]
}

fn fields(found: &Session) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut fields, mut cursor) = (Vec::new(), 0);
    let mut field = no_field();
    // SAFETY: the session's buffer lives in the caller, and the rest here.
    while unsafe { annulus_map_next(found, &raw mut cursor, &raw mut field) } == 1 {
        // SAFETY: both lie in that buffer.
        let [name, value] = unsafe {
            [
                std::slice::from_raw_parts(field.name, field.name_size),
                std::slice::from_raw_parts(field.value, field.value_size),
            ]
        };
        fields.push((name.to_vec(), value.to_vec()));
    }
    fields
}

fn no_field() -> Field {
    let version = VersionParts::default();
    Field { name: null(), name_size: 0, value: null(), value_size: 0, version, expire_at_ms: 0 }
}

fn last_error() -> String {
    // SAFETY: it is a string, until the next failure of this thread.
    unsafe { CStr::from_ptr(annulus_last_error()) }.to_str().expect("text").to_owned()
}

#[test]
fn every_kind_of_session_has_its_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    let mut buffer = [0; 4096];

    let found = reader.get(b"bytes", &mut buffer);
    assert_eq!((found.status, found.kind), (0, Kind::Bytes as u32));
    assert_eq!(value(&found, &buffer), b"value");
    assert_eq!(found.birth, VersionParts { hlc: BEGAN_MS << 16, node: NODE });
    assert_eq!(found.version, found.birth);
    assert_eq!((found.deadline_ms, found.touched_ms), (BEGAN_MS + LIFETIME_MS, BEGAN_MS));
    assert!(found.read_at_ms > BEGAN_MS && found.read_at_ms < found.deadline_ms);
    assert_eq!(found.needed, found.value.addr() - buffer.as_ptr().addr() + 5);

    let found = reader.get(b"empty", &mut buffer);
    assert_eq!((found.status, found.value_size, found.value.is_null()), (0, 0, false));
    let found = reader.get(b"\0key\xff", &mut buffer);
    assert_eq!(value(&found, &buffer), b"\0\xff");

    let found = reader.get(b"ended", &mut buffer);
    assert_eq!((found.status, found.kind, found.value.is_null()), (1, 0, true));
    assert_eq!(found.version.hlc, found.birth.hlc + 1);

    let found = reader.get(b"slowed", &mut buffer);
    assert_eq!((found.status, found.kind, found.value.is_null()), (9, 0, true));
    assert_eq!(found.deadline_ms, BEGAN_MS + LIFETIME_MS, "it is kept away until then");
    assert!(found.read_at_ms > BEGAN_MS && found.read_at_ms < found.deadline_ms);
    assert_eq!((found.birth.node, found.version), (NODE, found.birth), "a verdict is no write");
    let found = reader.get(b"cooled", &mut buffer);
    assert_eq!((found.status, value(&found, &buffer)), (0, &b"cool"[..]));

    for (key, status) in [
        (&b"nobody"[..], Status::Miss),
        (b"expired", Status::Expired),
        (b"stale", Status::Stale),
        (b"damaged", Status::Damaged),
        (b"moved", Status::Miss),
    ] {
        assert_eq!(reader.status(key), status.code(), "{status:?}");
    }
}

#[test]
fn what_does_not_fit_says_what_it_needs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");

    let found = reader.get(b"large", &mut []);
    assert_eq!((found.status, found.value.is_null()), (Status::TooSmall.code(), true));
    assert!(found.needed > 50_000);
    let mut buffer = vec![0; found.needed - 1];
    assert_eq!(reader.get(b"large", &mut buffer).status, Status::TooSmall.code());
    buffer.push(0);
    let found = reader.get(b"large", &mut buffer);
    assert_eq!((found.status, found.needed), (0, buffer.len()));
    assert_eq!(value(&found, &buffer), [b'x'; 50_000]);
}

#[test]
fn a_map_is_walked_without_the_deleted_and_the_expired() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    let mut buffer = [0; 4096];
    let found = reader.get(b"map", &mut buffer);
    assert_eq!((found.status, found.kind), (0, Kind::Map as u32));
    let expected = [("cart", "3"), ("user", "ada")];
    assert_eq!(fields(&found), expected.map(|(name, value)| (name.into(), value.into())));

    let mut field = no_field();
    let mut look = |name: &[u8]| {
        // SAFETY: all live during the call.
        unsafe { annulus_map_get(&raw const found, name.as_ptr(), name.len(), &raw mut field) }
    };
    assert_eq!([&b"cart"[..], b"gone", b"late", b"", b"user"].map(&mut look), [1, 0, 0, 0, 1]);
    // SAFETY: the buffer still holds it.
    let user = unsafe { std::slice::from_raw_parts(field.value, field.value_size) };
    assert_eq!((user, field.version.node), (&b"ada"[..], NODE));
}

#[test]
fn a_map_in_a_spoilt_buffer_ends_with_an_error_and_inside_the_buffer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    let mut buffer = [0_u8; 4096];
    let found = reader.get(b"map", &mut buffer);
    let start = found.value.addr() - buffer.as_ptr().addr();
    let good = buffer;
    for at in start..start + found.value_size {
        for byte in [0, 1, 0x7f, 0xff] {
            buffer = good;
            buffer[at] = byte;
            let walked = fields(&Session { value: buffer[start..].as_ptr(), ..found });
            assert!(walked.len() <= found.value_size);
        }
    }
    let (mut cursor, mut field) = (usize::MAX, no_field());
    // SAFETY: all live during the call.
    let end = unsafe { annulus_map_next(&raw const found, &raw mut cursor, &raw mut field) };
    assert_eq!(end, 0, "behind the end there is nothing");
}

#[test]
fn many_keys_have_the_answers_of_single_gets() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut writer, path) = table(dir.path(), FILE);
    let mut names: Vec<Vec<u8>> = (0..40).map(|n| format!("k{n}").into_bytes()).collect();
    for name in &names {
        put(&mut writer, name, &session(Value::Bytes(name.repeat(5))));
    }
    let others = ["bytes", "large", "map", "ended", "nobody", "expired", "stale", "damaged"];
    names.extend(others.into_iter().chain(["slowed", "cooled", ""]).map(Vec::from));
    names.push(vec![b'k'; 256]);

    let reader = Open::path(&path).expect("it opens");
    let keys: Vec<KeyBytes> =
        names.iter().map(|name| KeyBytes { bytes: name.as_ptr(), size: name.len() }).collect();
    let mut found = vec![Session::none(Status::Internal); keys.len()];
    let mut many = |buffer: &mut [u8]| {
        let (keys_at, count) = (keys.as_ptr(), keys.len());
        let (at, size, out) = (buffer.as_mut_ptr(), buffer.len(), found.as_mut_ptr());
        // SAFETY: all live during the call.
        assert_eq!(unsafe { annulus_get_many(reader.0, keys_at, count, at, size, out) }, 0);
        found.clone()
    };

    let mut buffer = vec![0; 100_000];
    let mut single = vec![0; 100_000];
    for (name, found) in names.iter().zip(many(&mut buffer)) {
        let alone = reader.get(name, &mut single);
        assert_eq!((found.status, found.kind), (alone.status, alone.kind), "{}", name.len());
        assert_eq!((found.birth, found.version), (alone.birth, alone.version));
        assert_eq!(found.needed, alone.needed);
        if found.status == 0 {
            assert_eq!(value(&found, &buffer), value(&alone, &single));
        }
    }

    // Room for some: what does not fit says so, and what is shorter still gets in.
    let found = many(&mut buffer[..1_000]);
    let (large, bytes) = (found[41], found[40]);
    assert_eq!(large.status, Status::TooSmall.code());
    assert!(large.needed > 50_000);
    let fitted: usize = found.iter().filter(|f| f.status == 0).map(|f| f.needed).sum();
    assert!(fitted <= 1_000 && fitted > 500, "{fitted}");
    assert_eq!(found[0].status, 0);
    assert!(bytes.status == 0 || bytes.status == Status::TooSmall.code());
    assert_eq!(many(&mut []).iter().filter(|f| f.status == 0).count(), 0);
}

#[test]
fn impossible_arguments_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    let refused = Status::Argument.code();
    let key = b"bytes";
    let mut buffer = [0_u64; 64];
    let at = buffer.as_mut_ptr().cast::<u8>();
    let mut sessions = [Session::none(Status::Internal); 2];
    let out = sessions.as_mut_ptr();
    let odd = |pointer: *mut Session| pointer.cast::<u8>().wrapping_add(1).cast::<Session>();

    // SAFETY: what is wrong with each is refused before it is used.
    unsafe {
        let get = |reader, key, key_size, buffer, size, out| {
            annulus_get(reader, key, key_size, buffer, size, out)
        };
        for code in [
            get(null(), key.as_ptr(), 5, at, 512, out),
            get(reader.0.cast::<u8>().wrapping_add(1).cast(), key.as_ptr(), 5, at, 512, out),
            get(reader.0, null(), 5, at, 512, out),
            get(reader.0, key.as_ptr(), 0, at, 512, out),
            get(reader.0, key.as_ptr(), 256, at, 512, out),
            get(reader.0, key.as_ptr(), usize::MAX, at, 512, out),
            get(reader.0, key.as_ptr(), 5, null_mut(), 512, out),
            get(reader.0, key.as_ptr(), 5, at, usize::MAX, out),
            get(reader.0, key.as_ptr(), 5, at, isize::MAX as usize + 1, out),
            get(reader.0, at.wrapping_add(511), 5, at, 512, out),
        ] {
            assert_eq!(code, refused);
        }
        assert_eq!(sessions[0].status, refused, "the result says it too");
        assert_eq!(get(reader.0, key.as_ptr(), 5, at, 512, null_mut()), refused);
        assert_eq!(get(reader.0, key.as_ptr(), 5, at, 512, odd(out)), refused);
        assert_eq!(
            get(reader.0, key.as_ptr(), 5, null_mut(), 0, out),
            Status::TooSmall.code(),
            "no buffer is a buffer of no size"
        );

        let keys = [KeyBytes { bytes: key.as_ptr(), size: 5 }, KeyBytes { bytes: null(), size: 1 }];
        let many = |keys, count, buffer, size, out| {
            annulus_get_many(reader.0, keys, count, buffer, size, out)
        };
        for code in [
            many(null(), 2, at, 512, out),
            many(keys.as_ptr(), usize::MAX, at, 512, out),
            many(keys.as_ptr(), usize::MAX / size_of::<KeyBytes>(), at, 512, out),
            many(keys.as_ptr(), 2, null_mut(), 1, out),
            many(keys.as_ptr(), 2, at, 512, null_mut()),
            many(keys.as_ptr(), 2, at, 512, odd(out)),
            many(keys.as_ptr(), 2, at, 512, at.cast()),
            many(at.cast(), 2, at, 512, out),
            many(out.cast(), 2, at, 512, out),
        ] {
            assert_eq!(code, refused);
        }
        assert_eq!(many(null(), 0, null_mut(), 0, null_mut()), 0, "nothing is not wrong");
        assert_eq!(many(keys.as_ptr(), 2, at, 512, out), 0);
        assert_eq!(sessions.map(|session| session.status), [0, refused]);

        let (mut cursor, mut field) = (0, no_field());
        let text = sessions[0];
        for session in [null(), &raw const text, &raw const sessions[1], odd(out).cast_const()] {
            let next = annulus_map_next(session, &raw mut cursor, &raw mut field);
            assert_eq!(next, refused);
            let got = annulus_map_get(session, key.as_ptr(), 5, &raw mut field);
            assert_eq!(got, refused);
        }

        let mut opened = null_mut();
        assert_eq!(annulus_open(null(), &raw mut opened), refused);
        assert_eq!(annulus_open(c"/".as_ptr(), null_mut()), refused);
        let name = c"sessions".as_ptr();
        assert_eq!(annulus_open_table(null(), null(), name, &raw mut opened), refused);
        assert_eq!(annulus_open_table(null(), c"\xff".as_ptr(), name, &raw mut opened), refused);
        assert_eq!(annulus_detached(null()), refused);
        assert_eq!(annulus_reopen(null_mut()), refused);
        annulus_close(null_mut());
    }
}

#[test]
fn a_table_is_found_by_name_and_failures_say_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Open::named(dir.path(), "test", "sessions");
    assert_eq!(open().err(), Some(Status::Open.code()));
    assert!(last_error().starts_with("no node has made table \"sessions\""), "{}", last_error());

    let (_writer, path) = table(dir.path(), FILE);
    std::fs::write(dir.path().join(format!("{FILE}.aside.0")), "").expect("written");
    std::fs::write(dir.path().join("annulus-test-zzzz456789ab-sessions"), "").expect("written");
    assert_eq!(open().expect("there is one").status(b"bytes"), 0);
    assert!(Open::named(dir.path(), "te", "sessions").is_err());
    assert!(Open::named(dir.path(), "test", "session").is_err());

    let other = dir.path().join("annulus-test-ba9876543210-sessions");
    std::fs::copy(&path, &other).expect("copied");
    assert_eq!(open().err(), Some(Status::Ambiguous.code()));
    assert!(last_error().contains(other.to_str().expect("text")), "{}", last_error());

    std::fs::write(&other, "no segment").expect("written");
    assert_eq!(Open::path(&other).err(), Some(Status::Segment.code()));
    assert!(last_error().contains("annulus-test-ba9876543210"), "{}", last_error());
    let nowhere = dir.path().join("nowhere");
    assert_eq!(Open::path(&nowhere).err(), Some(Status::Open.code()));
    assert_eq!(Open::named(&nowhere, "test", "sessions").err(), Some(Status::Open.code()));
}

#[test]
fn a_segment_that_was_given_up_is_said_to_be_and_can_be_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    assert_eq!((reader.detached(), reader.status(b"bytes")), (0, 0));
    assert_eq!((reader.reopen(), reader.status(b"bytes")), (0, 0), "the same again");

    drop(writer);
    let options = TableOptions { segment_bytes: 4 << 20, ..TableOptions::new(3, 4) };
    let opened = open_or_create(&path, &options).expect("a smaller one, with one shard");
    assert!(opened.carried.is_some(), "with what was in the other");
    assert_eq!((reader.detached(), reader.status(b"bytes")), (1, Status::NotAttached.code()));
    let mut writer = Writers(opened.writers);
    put(&mut writer, b"bytes", &session(Value::Bytes(b"anew".to_vec())));
    assert_eq!(reader.reopen(), 0);
    let mut buffer = [0; 128];
    let found = reader.get(b"bytes", &mut buffer);
    assert_eq!((reader.detached(), value(&found, &buffer)), (0, &b"anew"[..]));

    std::fs::remove_file(&path).expect("removed");
    assert_eq!(reader.detached(), 1);
    assert_eq!(reader.reopen(), Status::Open.code());
    assert_eq!(reader.status(b"bytes"), 0, "the old one stays attached");
}

#[test]
fn threads_read_while_another_attaches_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_writer, path) = table(dir.path(), FILE);
    let reader = Open::path(&path).expect("it opens");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut buffer = [0; 256];
                while !done.load(Ordering::Relaxed) {
                    let found = reader.get(b"bytes", &mut buffer);
                    assert_eq!(value(&found, &buffer), b"value");
                }
            });
        }
        for _ in 0..200 {
            assert_eq!(reader.reopen(), 0);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn every_code_has_a_sentence() {
    for code in -10..20 {
        // SAFETY: it is a string that lives for ever.
        let text = unsafe { CStr::from_ptr(annulus_strerror(code)) }.to_str().expect("text");
        let known = Status::ALL.iter().any(|status| status.code() == code);
        assert_eq!(text != "no such code", known, "{code}: {text}");
    }
    assert_eq!(annulus_abi(), ABI);
}
