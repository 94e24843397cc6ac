//! The calls of `include/annulus.h`: pointers are checked and become references here, and nowhere
//! else. Each call is documented in the header.

#![allow(unsafe_code, reason = "callers hand over pointers; each block says what is relied on")]
#![allow(clippy::missing_safety_doc, reason = "the header says what each call relies on")]

use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::slice;

use crate::abi::{ABI, Field, KeyBytes, Kind, Session, Status};
use crate::table::{BATCH, OpenError, Origin, Table, next_field};

/// `annulus_abi`.
#[unsafe(no_mangle)]
pub extern "C" fn annulus_abi() -> u32 {
    ABI
}

/// `annulus_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_open(path: *const c_char, out: *mut *mut Table) -> c_int {
    guard(|| {
        // SAFETY: the caller promises a zero-terminated string, or null.
        let path = unsafe { text(path) }.ok_or(Refused)?;
        let origin = Origin::Path(Path::new(OsStr::from_bytes(path.to_bytes())).to_owned());
        // SAFETY: the caller promises that `out`, unless it is null, may be written.
        unsafe { open(origin, out) }
    })
}

/// `annulus_open_table`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_open_table(
    directory: *const c_char,
    cluster: *const c_char,
    table: *const c_char,
    out: *mut *mut Table,
) -> c_int {
    guard(|| {
        // SAFETY: the caller promises zero-terminated strings, or null, for all three.
        let [directory, cluster, table] =
            [directory, cluster, table].map(|text_at| unsafe { text(text_at) });
        let directory = directory.map_or(Path::new(SHM_DIR).into(), |path| {
            PathBuf::from(OsStr::from_bytes(path.to_bytes()))
        });
        let name = |name: Option<&CStr>| Some(name?.to_str().ok()?.to_owned());
        let (cluster, table) = (name(cluster).ok_or(Refused)?, name(table).ok_or(Refused)?);
        // SAFETY: the caller promises that `out`, unless it is null, may be written.
        unsafe { open(Origin::Named { directory, cluster, table }, out) }
    })
}

/// `annulus_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_close(reader: *mut Table) {
    guard(|| {
        if !reader.is_null() && reader.is_aligned() {
            // SAFETY: the caller promises that it is from an open, that no call uses it, and that
            // none will; `open` got it from `Box::into_raw`.
            drop(unsafe { Box::from_raw(reader) });
        }
        Ok(Status::Live.code())
    });
}

/// `annulus_detached`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_detached(reader: *const Table) -> c_int {
    guard(|| {
        // SAFETY: the caller promises a reader that is open, or null.
        let reader = unsafe { borrow(reader) }?;
        Ok(reader.is_detached().into())
    })
}

/// `annulus_reopen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_reopen(reader: *const Table) -> c_int {
    guard(|| {
        // SAFETY: the caller promises a reader that is open, or null.
        let reader = unsafe { borrow(reader) }?;
        Ok(told(reader.reopen()).code())
    })
}

/// `annulus_get`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_get(
    reader: *const Table,
    key: *const u8,
    key_size: usize,
    buffer: *mut u8,
    buffer_size: usize,
    out: *mut Session,
) -> c_int {
    let session = guarded(Session::none(Status::Internal), || {
        if !is_key(key, key_size)
            || !is_place(out, 1)
            || !is_buffer(buffer, buffer_size)
            || overlaps((key.addr(), key_size), (buffer.addr(), buffer_size))
        {
            return Session::none(Status::Argument);
        }
        // SAFETY: the caller promises a reader that is open, or null.
        let Ok(reader) = (unsafe { borrow(reader) }) else {
            return Session::none(Status::Argument);
        };
        // SAFETY: not null, of a possible size, and readable for the call: the caller's promise.
        let key = unsafe { slice::from_raw_parts(key, key_size) };
        // SAFETY: the caller promises that the buffer is writable and used by nobody else during
        // the call; it does not overlap the key, and is read only where it was written before.
        let buffer = unsafe { buffer_at(buffer, buffer_size) };
        reader.get(key, buffer)
    });
    if is_place(out, 1) {
        // SAFETY: aligned and not null; the caller promises that it may be written. The borrow of
        // the buffer has ended, so that even an `out` inside it is only the caller's loss.
        unsafe { out.write(session) };
    }
    session.status
}

/// `annulus_get_many`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_get_many(
    reader: *const Table,
    keys: *const KeyBytes,
    count: usize,
    buffer: *mut u8,
    buffer_size: usize,
    out: *mut Session,
) -> c_int {
    guard(|| {
        // SAFETY: the caller promises a reader that is open, or null.
        let reader = unsafe { borrow(reader) }?;
        if count == 0 {
            return Ok(Status::Live.code());
        }
        if !is_place(keys, count) || !is_place(out, count) || !is_buffer(buffer, buffer_size) {
            return Err(Refused);
        }
        let area = (buffer.addr(), buffer_size);
        let asked = (keys.addr(), count * size_of::<KeyBytes>());
        let answered = (out.addr(), count * size_of::<Session>());
        if overlaps(area, asked) || overlaps(area, answered) || overlaps(asked, answered) {
            return Err(Refused);
        }
        // SAFETY: the caller promises that the buffer is writable and used by nobody else during
        // the call; it overlaps neither keys nor results, and no key (below).
        let buffer = unsafe { buffer_at(buffer, buffer_size) };
        let (mut record, mut used) = (Vec::new(), 0);
        for start in (0..count).step_by(BATCH) {
            let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
            let batch = &mut batch[..BATCH.min(count - start)];
            for (place, key) in batch.iter_mut().enumerate() {
                // SAFETY: within the caller's `count` keys, aligned, and readable by its promise.
                let KeyBytes { bytes, size } = unsafe { keys.add(start + place).read() };
                if is_key(bytes, size) && !overlaps(area, (bytes.addr(), size)) {
                    // SAFETY: not null, of a possible size, readable by the caller's promise, and
                    // not in the buffer. It is read before a result of its batch is written, so that
                    // results inside a key are only the caller's loss.
                    *key = unsafe { slice::from_raw_parts(bytes, size) };
                }
            }
            let mut sessions = [Session::none(Status::Argument); BATCH];
            reader.get_many(batch, &mut record, buffer, &mut used, &mut |place, session| {
                sessions[place] = session;
            });
            for (place, key) in batch.iter().enumerate() {
                // An impossible key was looked up as an empty one, and so not found.
                let impossible = Session::none(Status::Argument);
                let session = if key.is_empty() { impossible } else { sessions[place] };
                // SAFETY: within the caller's `count` results, aligned, writable by its promise.
                unsafe { out.add(start + place).write(session) };
            }
        }
        Ok(Status::Live.code())
    })
}

/// `annulus_map_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_map_next(
    session: *const Session,
    cursor: *mut usize,
    out: *mut Field,
) -> c_int {
    guard(|| {
        if !is_place(cursor, 1) || !is_place(out, 1) {
            return Err(Refused);
        }
        // SAFETY: the caller promises a session whose buffer still holds it, or null.
        let (map, now_ms) = unsafe { map_of(session) }?;
        // SAFETY: aligned and not null; the caller's promise.
        let at = unsafe { cursor.read() };
        let Some((field, next)) = next_field(map, at, now_ms).map_err(|_| Refused)? else {
            return Ok(0);
        };
        let field = field_of(field);
        // SAFETY: aligned and not null; writable by the caller's promise.
        unsafe {
            cursor.write(next);
            out.write(field);
        }
        Ok(1)
    })
}

/// `annulus_map_get`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn annulus_map_get(
    session: *const Session,
    name: *const u8,
    name_size: usize,
    out: *mut Field,
) -> c_int {
    guard(|| {
        if !is_place(out, 1) || !is_buffer(name, name_size) {
            return Err(Refused);
        }
        // SAFETY: the caller promises a session whose buffer still holds it, or null.
        let (map, now_ms) = unsafe { map_of(session) }?;
        let name = match name_size {
            0 => &[],
            // SAFETY: not null, of a possible size, readable by the caller's promise.
            _ => unsafe { slice::from_raw_parts(name, name_size) },
        };
        let mut at = 0;
        while let Some((field, next)) = next_field(map, at, now_ms).map_err(|_| Refused)? {
            if field.name == name {
                let field = field_of(field);
                // SAFETY: aligned and not null; writable by the caller's promise.
                unsafe { out.write(field) };
                return Ok(1);
            }
            at = next;
        }
        Ok(0)
    })
}

/// `annulus_strerror`.
#[unsafe(no_mangle)]
pub extern "C" fn annulus_strerror(code: c_int) -> *const c_char {
    let status = Status::ALL.iter().find(|status| status.code() == code);
    status.map_or(c"no such code", |status| status.text()).as_ptr()
}

/// `annulus_last_error`.
#[unsafe(no_mangle)]
pub extern "C" fn annulus_last_error() -> *const c_char {
    // A thread that is ending has none any more.
    LAST_ERROR.try_with(|error| error.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Where nodes make their segments, unless they are told otherwise.
const SHM_DIR: &str = "/dev/shm";

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// An argument is impossible.
struct Refused;

/// Runs a call so that a panic ends it with an error, and not its caller.
fn guard(call: impl FnOnce() -> Result<c_int, Refused>) -> c_int {
    guarded(Status::Internal.code(), || call().unwrap_or(Status::Argument.code()))
}

fn guarded<T>(poisoned: T, call: impl FnOnce() -> T) -> T {
    // What a panic could leave behind half-done is a reader: it is changed by one atomic store.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(poisoned)
}

/// # Safety
/// `out` is null, or may be written.
unsafe fn open(origin: Origin, out: *mut *mut Table) -> Result<c_int, Refused> {
    if !is_place(out, 1) {
        return Err(Refused);
    }
    let mut made = null_mut();
    let opened = Table::open(origin).map(|table| made = Box::into_raw(Box::new(table)));
    // SAFETY: aligned and not null; writable by the caller's promise.
    unsafe { out.write(made) };
    Ok(told(opened).code())
}

/// Keeps what went wrong for `annulus_last_error`.
fn told(result: Result<(), OpenError>) -> Status {
    let Err(error) = result else { return Status::Live };
    let text = CString::new(error.to_string()).unwrap_or_default();
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
    error.status()
}

/// # Safety
/// `text` is null, or zero-terminated and unchanged for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null; the rest is the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// `reader` is null, or is from [`open`] and stays open for `'a`.
unsafe fn borrow<'a>(reader: *const Table) -> Result<&'a Table, Refused> {
    if !is_place(reader, 1) {
        return Err(Refused);
    }
    // SAFETY: aligned and not null; the rest is the caller's promise. Only shared references to a
    // table are ever made.
    Ok(unsafe { &*reader })
}

/// # Safety
/// [`is_buffer`] holds, and the bytes may be written and are used by nobody else for `'a`.
unsafe fn buffer_at<'a>(buffer: *mut u8, size: usize) -> &'a mut [u8] {
    debug_assert!(is_buffer(buffer, size));
    match size {
        0 => &mut [],
        // SAFETY: not null and of a possible size; the rest is the caller's promise.
        _ => unsafe { slice::from_raw_parts_mut(buffer, size) },
    }
}

/// The map in a session, and when it was read.
///
/// # Safety
/// `session` is null, or as a call here filled it, with its buffer unchanged for `'a`.
unsafe fn map_of<'a>(session: *const Session) -> Result<(&'a [u8], u64), Refused> {
    if !is_place(session, 1) {
        return Err(Refused);
    }
    // SAFETY: aligned and not null; readable by the caller's promise.
    let Session { status, kind, read_at_ms, value, value_size, .. } = unsafe { session.read() };
    if status != Status::Live.code() || kind != Kind::Map as u32 || value.is_null() {
        return Err(Refused);
    }
    if !is_buffer(value, value_size) {
        return Err(Refused);
    }
    // SAFETY: not null and of a possible size; in the caller's buffer, by its promise.
    Ok((unsafe { slice::from_raw_parts(value, value_size) }, read_at_ms))
}

fn field_of(field: annulus_proto::record::FieldView<'_>) -> Field {
    let value = field.value.unwrap_or_default();
    Field {
        name: field.name.as_ptr(),
        name_size: field.name.len(),
        value: value.as_ptr(),
        value_size: value.len(),
        version: field.version.into(),
        expire_at_ms: field.expire_at,
    }
}

/// Whether a key may lie here.
fn is_key(key: *const u8, size: usize) -> bool {
    (1..=annulus_proto::limits::KEY_BYTES_MAX).contains(&size) && is_buffer(key, size)
}

/// Whether there may be a buffer of this size here; an empty one may be null.
fn is_buffer(buffer: *const u8, size: usize) -> bool {
    size == 0 || is_place(buffer, size)
}

/// Whether `count` values may lie here.
fn is_place<T>(place: *const T, count: usize) -> bool {
    let size = count.checked_mul(size_of::<T>());
    !place.is_null()
        && place.is_aligned()
        && size.is_some_and(|size| {
            size <= isize::MAX as usize && place.addr().checked_add(size).is_some()
        })
}

/// Whether two areas of memory, each an address and a size, share a byte.
fn overlaps(one: (usize, usize), other: (usize, usize)) -> bool {
    one.1 > 0 && other.1 > 0 && one.0 < other.0 + other.1 && other.0 < one.0 + one.1
}
