//! One session in one line of JSON.

use annulus_proto::limits::{FIELD_NAME_BYTES_MAX, OWNER_BYTES_MAX, VALUE_BYTES_MAX};
use annulus_proto::{Key, Kind, Value, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::core::{Overflowed, WhyLeft};

/// The longest line that is read, in bytes, without its end: more than is written of the largest value, of which the two
/// sides of a partition may have written one half each, and of which each byte may take two.
pub const LINE_BYTES_MAX: usize = 8 << 20;

const _: () = assert!(LINE_BYTES_MAX >= 3 * 2 * VALUE_BYTES_MAX + (64 << 10));

/// Why a line is no session. It says nothing of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is none, or was cut off.
    #[error("no JSON object, or one that was cut off")]
    Syntax,
    /// It is another object.
    #[error("an object that is no session: {0} is missing, or of another kind")]
    Field(&'static str),
    /// It has more bytes than any session.
    #[error("longer than any session ({LINE_BYTES_MAX} bytes)")]
    TooLong,
}

/// The line. What a reader does not know is passed over, so that there may be more of it one day.
#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    key: Bytes,
    why: &'static str,
    owner: Bytes,
    replicas: u8,
    birth: Version,
    version: Version,
    idle_ms: u64,
    touched_ms: u64,
    deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
    /// What the fields are, if they are no map.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

#[derive(Serialize)]
struct Field {
    name: Bytes,
    value: Bytes,
}

/// Bytes: text as it is, if it is printed as it is, else `{"base64": "…"}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Encoded { base64: String },
}

const SET: &str = "set";
const SORTED_SET: &str = "sorted set";

/// Appends a session, and the end of its line.
pub fn write_line(session: &Overflowed, out: &mut Vec<u8>) {
    let (value, fields) = match &session.value {
        Value::Bytes(bytes) => (Some(Bytes::of(bytes)), None),
        Value::Map(fields) | Value::Set(fields) | Value::SortedSet(fields) => {
            let field = |(name, value): (&Vec<u8>, &Vec<u8>)| Field {
                name: Bytes::of(name),
                value: Bytes::of(value),
            };
            (None, Some(fields.iter().map(field).collect()))
        }
    };
    let line = Line {
        table: &session.table,
        key: Bytes::of(session.key.as_bytes()),
        why: session.why.name(),
        owner: Bytes::of(&session.owner),
        replicas: session.replicas,
        birth: session.birth,
        version: session.version,
        idle_ms: session.idle_ms,
        touched_ms: session.touched_ms,
        deadline_ms: session.deadline_ms,
        value,
        fields,
        kind: match session.value.kind() {
            Kind::Bytes | Kind::Map => None,
            Kind::Set => Some(SET),
            Kind::SortedSet => Some(SORTED_SET),
        },
    };
    serde_json::to_writer(&mut *out, &line).expect("memory takes it, and all names are text");
    out.push(b'\n');
}

/// Reads a session from a line, with its end or without.
///
/// # Errors
/// [`LineError`], of anything that [`write_line`] does not write, but for what it may write one day besides.
pub fn read_line(line: &[u8]) -> Result<Overflowed, LineError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    let object: serde_json::Value = serde_json::from_slice(line).map_err(|_| LineError::Syntax)?;
    let mut fields = Fields(object);
    let value = match (fields.has("value"), fields.has("fields")) {
        (true, false) => Value::Bytes(fields.bytes("value", 2 * VALUE_BYTES_MAX)?),
        (false, true) => {
            let kind = match fields.has("kind").then(|| fields.text("kind")).transpose()?.as_deref()
            {
                None => Kind::Map,
                Some(SET) => Kind::Set,
                Some(SORTED_SET) => Kind::SortedSet,
                Some(_) => return Err(LineError::Field("kind")),
            };
            Value::of_fields(kind, fields.map()?)
        }
        _ => return Err(LineError::Field("value")),
    };
    let key = fields.bytes("key", usize::MAX)?;
    let why = fields.text("why")?;
    let all = [WhyLeft::Expired, WhyLeft::Evicted];
    Ok(Overflowed {
        table: fields.text("table")?,
        key: Key::new(key).map_err(|_| LineError::Field("key"))?,
        value,
        owner: fields.bytes("owner", OWNER_BYTES_MAX)?,
        replicas: u8::try_from(fields.number("replicas")?)
            .map_err(|_| LineError::Field("replicas"))?,
        birth: fields.version("birth")?,
        version: fields.version("version")?,
        idle_ms: fields.number("idle_ms")?,
        touched_ms: fields.number("touched_ms")?,
        deadline_ms: fields.number("deadline_ms")?,
        why: all.into_iter().find(|it| it.name() == why).ok_or(LineError::Field("why"))?,
    })
}

/// What stands in a line, taken out one by one.
struct Fields(serde_json::Value);

impl Fields {
    fn has(&self, name: &'static str) -> bool {
        self.0.get(name).is_some()
    }

    fn take(&mut self, name: &'static str) -> Result<serde_json::Value, LineError> {
        self.0.get_mut(name).map(serde_json::Value::take).ok_or(LineError::Field(name))
    }

    fn text(&mut self, name: &'static str) -> Result<String, LineError> {
        match self.take(name)? {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(LineError::Field(name)),
        }
    }

    fn number(&mut self, name: &'static str) -> Result<u64, LineError> {
        self.take(name)?.as_u64().ok_or(LineError::Field(name))
    }

    fn version(&mut self, name: &'static str) -> Result<Version, LineError> {
        Version::parse(&self.text(name)?).ok_or(LineError::Field(name))
    }

    fn bytes(&mut self, name: &'static str, max: usize) -> Result<Vec<u8>, LineError> {
        bytes(self.take(name)?).filter(|bytes| bytes.len() <= max).ok_or(LineError::Field(name))
    }

    fn map(&mut self) -> Result<std::collections::BTreeMap<Vec<u8>, Vec<u8>>, LineError> {
        let wrong = LineError::Field("fields");
        let serde_json::Value::Array(items) = self.take("fields")? else { return Err(wrong) };
        let mut map = std::collections::BTreeMap::new();
        for item in items {
            let mut field = Self(item);
            let name = field.bytes("name", FIELD_NAME_BYTES_MAX).map_err(|_| wrong)?;
            let value = field.bytes("value", 2 * VALUE_BYTES_MAX).map_err(|_| wrong)?;
            if map.insert(name, value).is_some() {
                return Err(wrong);
            }
        }
        Ok(map)
    }
}

fn bytes(value: serde_json::Value) -> Option<Vec<u8>> {
    match serde_json::from_value(value).ok()? {
        Bytes::Text(text) => Some(text.into_bytes()),
        Bytes::Encoded { base64: text } => STANDARD.decode(text).ok(),
    }
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        // Each byte of text takes two at most. What a terminal would obey is for none to see.
        let is_plain = |text: &&str| !text.chars().any(|char| char.is_control() && char != '\n');
        match str::from_utf8(bytes).ok().filter(is_plain) {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Encoded { base64: STANDARD.encode(bytes) },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use annulus_proto::{Hlc, NodeId};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || prop_oneof![vec(any::<u8>(), 0..64), any::<String>().prop_map(String::into)];
        prop_oneof![
            bytes().prop_map(Value::Bytes),
            btree_map(bytes(), bytes(), 0..8).prop_map(Value::Map),
            btree_map(bytes(), bytes(), 0..8).prop_map(Value::Set),
            btree_map(bytes(), bytes(), 0..8).prop_map(Value::SortedSet),
        ]
    }

    fn version() -> impl Strategy<Value = Version> {
        let version = |(hlc, node)| Version::new(Hlc::from_bits(hlc), NodeId::from_bits(node));
        any::<(u64, u64)>().prop_map(version)
    }

    prop_compose! {
        pub(in crate::archive) fn session()(
            (table, key) in ("[a-z]{1,9}", prop_oneof![
                vec(any::<u8>(), 1..=255),
                "\\PC{1,60}".prop_map(String::into),
            ]),
            (value, owner, replicas) in (value(), vec(any::<u8>(), 0..=255), any::<u8>()),
            (birth, version) in (version(), version()),
            times: (u64, u64, u64),
            is_evicted: bool,
        ) -> Overflowed {
            let key = Key::new(key).expect("1 to 255 bytes");
            let why = if is_evicted { WhyLeft::Evicted } else { WhyLeft::Expired };
            let (idle_ms, touched_ms, deadline_ms) = times;
            Overflowed {
                table, key, value, owner, replicas, birth, version, idle_ms, touched_ms,
                deadline_ms, why,
            }
        }
    }

    fn is_equal(one: &Overflowed, other: &Overflowed) -> bool {
        one == other
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(session in session()) {
            let mut line = Vec::new();
            write_line(&session, &mut line);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert!(line.ends_with(b"\n"));
            prop_assert!(!line[..line.len() - 1].iter().any(u8::is_ascii_control));
            prop_assert!(is_equal(&read_line(&line).expect("it is one"), &session));
            prop_assert!(is_equal(&read_line(line.trim_ascii_end()).expect("it is one"), &session));
        }

        #[test]
        fn a_line_that_was_cut_off_is_none(session in session(), part in 0.0..1.0f64) {
            let mut line = Vec::new();
            write_line(&session, &mut line);
            let cut = ((line.len() - 1) as f64 * part) as usize;
            prop_assert_eq!(read_line(&line[..cut]), Err(LineError::Syntax));
        }

        #[test]
        fn no_bytes_make_it_panic(session in session(), at: prop::sample::Index, byte: u8) {
            let mut line = Vec::new();
            write_line(&session, &mut line);
            let at = at.index(line.len());
            line[at] = byte;
            let _ = read_line(&line);
        }
    }

    #[test]
    fn the_longest_session_fits() {
        // Each takes two bytes.
        let value = Value::Bytes(vec![b'"'; 2 * VALUE_BYTES_MAX]);
        let birth = Version::ZERO;
        let session = Overflowed {
            table: "t".repeat(63),
            key: Key::new(vec![0xff; 255]).expect("255 bytes"),
            value,
            owner: vec![0xff; OWNER_BYTES_MAX],
            replicas: 7,
            birth,
            version: birth,
            idle_ms: u64::MAX,
            touched_ms: u64::MAX,
            deadline_ms: u64::MAX,
            why: WhyLeft::Expired,
        };
        let mut line = Vec::new();
        write_line(&session, &mut line);
        assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
        assert_eq!(read_line(&line), Ok(session.clone()));
        // A map of as many of the smallest fields as there is room for.
        let fields = 2 * VALUE_BYTES_MAX / 45;
        let name = |number: usize| number.to_be_bytes()[4..].to_vec();
        let fields = (0..fields).map(|number| (name(number), vec![0xff])).collect();
        let session = Overflowed { value: Value::Map(fields), ..session };
        line.clear();
        write_line(&session, &mut line);
        assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
        assert_eq!(read_line(&line), Ok(session));
    }

    #[test]
    fn a_line_tells_what_is_wrong_with_it_and_not_what_stands_there() {
        let right = r#"{"table":"t","key":"secret-k","why":"expired","owner":"","replicas":0,"birth":"1.0@0000000000a1","version":"1.0@0000000000a1","idle_ms":0,"touched_ms":1,"deadline_ms":2,"value":"secret-v"}"#;
        assert!(read_line(right.as_bytes()).is_ok());
        for (from, to, field) in [
            (r#""key":"secret-k""#, r#""key":"""#, "key"),
            (r#""key":"secret-k""#, r#""key":{"base64":"secret-k"}"#, "key"),
            (r#""why":"expired""#, r#""why":"secret-w""#, "why"),
            (r#""replicas":0"#, r#""replicas":-1"#, "replicas"),
            (r#""replicas":0"#, r#""replicas":256"#, "replicas"),
            (r#""birth":"1.0@0000000000a1""#, r#""birth":"secret-b""#, "birth"),
            (r#""touched_ms":1"#, r#""touched_ms":"secret-t""#, "touched_ms"),
            (r#""value":"secret-v""#, r#""value":["secret-v"]"#, "value"),
            (r#""value":"secret-v""#, r#""value":"","fields":[]"#, "value"),
            (r#""value":"secret-v""#, r#""fields":[{"name":"secret-n"}]"#, "fields"),
        ] {
            assert!(right.contains(from), "{from}");
            let wrong = read_line(right.replace(from, to).as_bytes());
            assert_eq!(wrong, Err(LineError::Field(field)), "{to}");
            let text = format!("{0} {0:?}", wrong.expect_err("it is wrong"));
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(read_line(b"[]"), Err(LineError::Field("value")));
        assert_eq!(read_line(b"\xff"), Err(LineError::Syntax));
        assert_eq!(read_line(&[b'['; 100_000]), Err(LineError::Syntax));
        let more = right.replace('}', r#","more":{"of":"it"}}"#);
        assert!(read_line(more.as_bytes()).is_ok(), "what is not known is passed over");
        let shown = format!("{:?}", read_line(right.as_bytes()));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
