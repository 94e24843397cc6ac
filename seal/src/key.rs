//! A key: a secret, and what its holder may say.

use std::fmt;
use std::str::FromStr;

use annulus_proto::message::Role;
use zeroize::Zeroizing;

use crate::derive::{SECRET_BYTES, Secret, derive};

/// A secret that is shared by those who may talk to each other, and what it lets them do.
///
/// As text it is one line, `annulus-key-1:KIND:SECRET:ID`: the kind `node` or a role, the secret
/// and the id in hexadecimal digits. The id is a hash of kind and secret, so a slip in copying is
/// found.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    kind: KeyKind,
    secret: Secret,
}

/// What tells keys apart, and is no secret: a hash of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; Self::BYTES]);

/// Who a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The nodes of a cluster.
    Node,
    /// Clients, which may do what this role may; never [`Role::Development`].
    Client(Role),
}

/// Text that is no key. It says what is wrong and shows nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// It does not begin as keys do.
    #[error("not a key: keys begin with \"annulus-key-1:\"; `annulus keys generate` makes one")]
    NoKey,
    /// A part is missing, or there are too many.
    #[error("a key has four parts with colons between them, this has {0}; was it cut off?")]
    Parts(usize),
    /// The kind is none. What stands there is not shown: it may be a misplaced secret.
    #[error("the key's kind must be node, authority, worker, monitor or operator")]
    Kind,
    /// The secret is not as long as it must be.
    #[error("the key's secret must have 64 hexadecimal digits, this has {0} characters")]
    Length(usize),
    /// The secret contains something else.
    #[error("the key's secret must have hexadecimal digits only, 0-9 and a-f")]
    Digits,
    /// Secret and id do not belong together.
    #[error("the key is damaged: its last part does not match the rest; copy it again")]
    Damaged,
}

const PREFIX: &str = "annulus-key-1";

impl Key {
    /// The key of this kind with this secret, which must have come from a source that nobody can
    /// guess. The caller wipes its own copy.
    ///
    /// # Panics
    /// If the kind is a client's with [`Role::Development`]: that role is for clusters without
    /// keys.
    pub fn new(kind: KeyKind, secret: &[u8; SECRET_BYTES]) -> Self {
        assert!(kind != KeyKind::Client(Role::Development), "no key grants this role");
        let secret = Secret::new(*secret);
        let hash = derive(&secret, "annulus key id", &[kind.name().as_bytes()]);
        let id = *hash.first_chunk().expect("a hash is longer than an id");
        Self { id: KeyId(id), kind, secret }
    }

    /// What tells it apart.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whom it is for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key as text, secret and all: for files and terminals of those who may have it.
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex(self.secret.as_ref()));
        Zeroizing::new(format!("{PREFIX}:{}:{}:{}", self.kind, *secret, self.id))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whether it is the same key, and not another one with the same id.
    pub(crate) fn is(&self, other: &Self) -> bool {
        // Who may compare knows both: nothing is learned from how long it takes.
        self.id == other.id && self.kind == other.kind && self.secret == other.secret
    }
}

impl FromStr for Key {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let text = text.trim();
        if text.split(':').next() != Some(PREFIX) {
            return Err(KeyTextError::NoKey);
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [_, kind, secret, id] = parts[..] else {
            return Err(KeyTextError::Parts(parts.len()));
        };
        let kind = KeyKind::of_name(kind).ok_or(KeyTextError::Kind)?;
        if secret.len() != 2 * SECRET_BYTES {
            return Err(KeyTextError::Length(secret.chars().count()));
        }
        let mut bytes = Secret::default();
        unhex(secret, bytes.as_mut()).ok_or(KeyTextError::Digits)?;
        let key = Self::new(kind, &bytes);
        if id.parse() == Ok(key.id) { Ok(key) } else { Err(KeyTextError::Damaged) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {})", self.id, self.kind)
    }
}

impl KeyId {
    /// Its size, in bytes.
    pub const BYTES: usize = 4;

    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The id with this number, of which its digits are the hexadecimal ones.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits.to_be_bytes())
    }

    /// Its number, as it stands in messages.
    pub const fn bits(self) -> u32 {
        u32::from_be_bytes(self.0)
    }

    /// Its bytes, in the order of its digits.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id of a key has 8 hexadecimal digits, such as 1f00ab42; `annulus keys list` shows them"
)]
pub struct KeyIdError;

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let mut bytes = [0; Self::BYTES];
        unhex(text, &mut bytes).ok_or(KeyIdError)?;
        Ok(Self(bytes))
    }
}

impl KeyKind {
    /// Its name, as keys are written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client(role) => role.name(),
        }
    }

    /// The kind of this name; `None` for others and for `development`.
    pub fn of_name(name: &str) -> Option<Self> {
        match (name, Role::of_name(name)) {
            ("node", _) => Some(Self::Node),
            (_, None | Some(Role::Development)) => None,
            (_, Some(role)) => Some(Self::Client(role)),
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
    text
}

/// Fills `bytes` from exactly as many pairs of digits.
fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).expect("two digits make a byte");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [KeyKind; 5] = [
        KeyKind::Node,
        KeyKind::Client(Role::Authority),
        KeyKind::Client(Role::Worker),
        KeyKind::Client(Role::Monitor),
        KeyKind::Client(Role::Operator),
    ];

    #[test]
    fn a_key_survives_being_written_down() {
        for kind in KINDS {
            let key = Key::new(kind, &[0xa5; 32]);
            let read: Key = key.reveal().parse().unwrap();
            assert!(read.is(&key));
            assert_eq!((read.id(), read.kind()), (key.id(), kind));
            assert!(format!(" {}\n", *key.reveal()).parse::<Key>().unwrap().is(&key));
            assert_eq!(key.id().to_string().parse(), Ok(key.id()));
            assert_eq!(KeyId::from_bits(key.id().bits()), key.id());
            assert_eq!(format!("{:08x}", key.id().bits()), key.id().to_string());
        }
    }

    #[test]
    fn the_id_depends_on_secret_and_kind() {
        let mut ids = std::collections::BTreeSet::new();
        for kind in KINDS {
            for secret in [[0; 32], [1; 32]] {
                assert!(ids.insert(Key::new(kind, &secret).id()));
            }
        }
    }

    #[test]
    fn every_wrong_character_of_a_key_is_found() {
        let text = Key::new(KeyKind::Client(Role::Worker), &[0x3c; 32]).reveal();
        for at in 0..text.len() {
            let mut wrong = text.to_string().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(wrong.parse::<Key>().is_err(), "at {at}");
            assert!(text[..at].parse::<Key>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_the_secret() {
        let key = Key::new(KeyKind::Node, &[0xbe; 32]);
        let text = key.reveal();
        let secret = hex(&[0xbe; 32]);
        for (wrong, expected) in [
            (String::new(), KeyTextError::NoKey),
            (secret.clone(), KeyTextError::NoKey),
            (format!("annulus-key-1:{secret}"), KeyTextError::Parts(2)),
            (format!("{}:", *text), KeyTextError::Parts(5)),
            (text.replace("node", "development"), KeyTextError::Kind),
            (text.replace("node", &secret), KeyTextError::Kind),
            (text.replace(&secret, &secret[1..]), KeyTextError::Length(63)),
            (text.replace(&secret, &secret.replace('b', "g")), KeyTextError::Digits),
            (text.replace("node", "worker"), KeyTextError::Damaged),
        ] {
            let error = wrong.parse::<Key>().unwrap_err();
            assert_eq!(error, expected, "{wrong}");
            assert!(!format!("{error} {error:?}").contains("bebe"), "{error}");
        }
    }

    #[test]
    fn nothing_but_reveal_shows_the_secret() {
        let key = Key::new(KeyKind::Node, &[0xbe; 32]);
        assert!(key.reveal().contains(&hex(&[0xbe; 32])));
        let shown = format!("{key:?} {key:#?} {} {:?}", key.id(), key.kind());
        assert!(!shown.contains("bebe") && !shown.contains("190"), "{shown}");
        assert!(shown.contains(&format!("Key({}, node)", key.id())), "{shown}");
    }
}
