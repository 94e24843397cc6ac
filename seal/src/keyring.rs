//! The keys that a node accepts, and the one that it uses.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::key::{Key, KeyId, KeyKind, KeyTextError};

/// Keys of nodes and of clients. All are accepted; one of the nodes' is the one in use, with which
/// everything is sealed that leaves for other nodes.
///
/// As text: a key per line, and a line `use ID`, without which the only key of nodes is in use.
/// Empty lines and those that begin with `#` say nothing.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Arc<Key>>,
    in_use: Arc<Key>,
}

/// The most keys in a ring: two of each kind at a time, and some more. Each costs those who must
/// tell whose a packet is a comparison.
pub const KEYS_MAX: usize = 16;

/// Text that is no keyring, or a change that would leave none. The ring is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A line is no key.
    #[error("line {line}: {source}")]
    Key {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: KeyTextError,
    },
    /// A line is neither a key nor anything else that may stand there. It is not shown: it may be a
    /// secret.
    #[error("line {0}: neither a key nor `use ID`, with an id of 8 hexadecimal digits")]
    Line(usize),
    /// There are two lines that say which key is in use.
    #[error("line {0}: a second `use`; keep one")]
    UsedTwice(usize),
    /// No key is for nodes.
    #[error("no key of nodes in it: `annulus keys generate` makes one")]
    NoNodeKey,
    /// There are several keys of nodes, and none is said to be in use.
    #[error("several keys of nodes, and no line `use ID` that says which one is in use")]
    NothingInUse,
    /// There is no such key.
    #[error("no key {0} in this keyring")]
    Unknown(KeyId),
    /// The key is for clients, and so cannot be in use between nodes.
    #[error("key {id} is for clients ({kind}); only a key of nodes can be in use")]
    NotForNodes {
        /// The key.
        id: KeyId,
        /// Its kind.
        kind: KeyKind,
    },
    /// The key is in use.
    #[error("key {0} is in use; `annulus keys use` another one first")]
    InUse(KeyId),
    /// Another key has the same id.
    #[error("another key has the id {0} already: generate a new one")]
    Taken(KeyId),
    /// There are too many keys.
    #[error("a keyring holds at most {KEYS_MAX} keys; remove one that is not needed any more")]
    Full,
}

impl Keyring {
    /// A ring with one key, which is in use.
    ///
    /// # Errors
    /// [`KeyringError::NotForNodes`] for a key of clients.
    pub fn new(key: Key) -> Result<Self, KeyringError> {
        let key = Arc::new(key);
        match key.kind() {
            KeyKind::Node => Ok(Self { keys: vec![key.clone()], in_use: key }),
            kind => Err(KeyringError::NotForNodes { id: key.id(), kind }),
        }
    }

    /// All keys, in the order in which they came.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Arc<Key>> {
        self.keys.iter()
    }

    /// The key with which everything is sealed that leaves for other nodes.
    pub fn in_use(&self) -> &Arc<Key> {
        &self.in_use
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.keys.iter().find(|key| key.id() == id)
    }

    /// Adds a key. `false` if it was there.
    ///
    /// # Errors
    /// [`KeyringError::Full`] and [`KeyringError::Taken`].
    pub fn install(&mut self, key: Key) -> Result<bool, KeyringError> {
        match self.get(key.id()) {
            Some(there) if there.is(&key) => Ok(false),
            Some(_) => Err(KeyringError::Taken(key.id())),
            None if self.keys.len() >= KEYS_MAX => Err(KeyringError::Full),
            None => {
                self.keys.push(Arc::new(key));
                Ok(true)
            }
        }
    }

    /// Uses this key from now on. `false` if it was in use.
    ///
    /// # Errors
    /// [`KeyringError::Unknown`] and [`KeyringError::NotForNodes`].
    pub fn use_key(&mut self, id: KeyId) -> Result<bool, KeyringError> {
        let key = self.get(id).ok_or(KeyringError::Unknown(id))?.clone();
        if key.kind() != KeyKind::Node {
            return Err(KeyringError::NotForNodes { id, kind: key.kind() });
        }
        let is_new = self.in_use.id() != id;
        self.in_use = key;
        Ok(is_new)
    }

    /// Removes a key. `false` if there was no such key.
    ///
    /// # Errors
    /// [`KeyringError::InUse`].
    pub fn remove(&mut self, id: KeyId) -> Result<bool, KeyringError> {
        if self.in_use.id() == id {
            return Err(KeyringError::InUse(id));
        }
        let before = self.keys.len();
        self.keys.retain(|key| key.id() != id);
        Ok(self.keys.len() < before)
    }

    /// The ring as text, secrets and all: for the file that only its node may read.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(128 * (self.keys.len() + 2)));
        text.push_str(
            "# The keys that this node accepts. `annulus keys` changes them on all nodes.\n",
        );
        for key in &self.keys {
            text.push_str(&key.reveal());
            text.push('\n');
        }
        text.push_str(&format!("use {}\n", self.in_use.id()));
        text
    }
}

impl FromStr for Keyring {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<Arc<Key>> = Vec::new();
        let mut used = None;
        for (line, content) in (1..).zip(text.lines().map(str::trim)) {
            let words: Vec<&str> = content.split_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["use", id] => {
                    let id: KeyId = id.parse().map_err(|_| KeyringError::Line(line))?;
                    if used.replace(id).is_some() {
                        return Err(KeyringError::UsedTwice(line));
                    }
                }
                [text] => {
                    let key: Key =
                        text.parse().map_err(|source| KeyringError::Key { line, source })?;
                    if keys.iter().any(|other| other.id() == key.id()) {
                        return Err(KeyringError::Taken(key.id()));
                    }
                    if keys.len() >= KEYS_MAX {
                        return Err(KeyringError::Full);
                    }
                    keys.push(Arc::new(key));
                }
                _ => return Err(KeyringError::Line(line)),
            }
        }
        let mut nodes = keys.iter().filter(|key| key.kind() == KeyKind::Node);
        let in_use = match (used, nodes.next(), nodes.next()) {
            (_, None, _) => return Err(KeyringError::NoNodeKey),
            (None, Some(only), None) => only.id(),
            (None, Some(_), Some(_)) => return Err(KeyringError::NothingInUse),
            (Some(id), ..) => id,
        };
        let key = keys.iter().find(|key| key.id() == in_use);
        let key = key.ok_or(KeyringError::Unknown(in_use))?.clone();
        if key.kind() != KeyKind::Node {
            return Err(KeyringError::NotForNodes { id: in_use, kind: key.kind() });
        }
        Ok(Self { keys, in_use: key })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_use = self.in_use.id();
        f.debug_struct("Keyring").field("keys", &self.keys).field("in_use", &in_use).finish()
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::message::Role;

    use super::*;

    fn node(number: u8) -> Key {
        Key::new(KeyKind::Node, &[number; 32])
    }

    fn worker(number: u8) -> Key {
        Key::new(KeyKind::Client(Role::Worker), &[number; 32])
    }

    #[test]
    fn a_ring_survives_being_written_down() {
        let mut ring = Keyring::new(node(1)).unwrap();
        assert_eq!(ring.install(worker(2)), Ok(true));
        assert_eq!(ring.install(node(3)), Ok(true));
        assert_eq!(ring.use_key(node(3).id()), Ok(true));
        let read: Keyring = ring.reveal().parse().unwrap();
        let ids = |ring: &Keyring| ring.keys().map(|key| key.id()).collect::<Vec<_>>();
        assert_eq!(ids(&read), ids(&ring));
        assert_eq!(read.in_use().id(), node(3).id());
        assert!(read.keys().zip(ring.keys()).all(|(one, other)| one.is(other)));
    }

    #[test]
    fn one_key_of_nodes_alone_is_a_ring() {
        let text = format!("\n# ours\n  {}\n{}\n", *node(1).reveal(), *worker(1).reveal());
        let ring: Keyring = text.parse().unwrap();
        assert_eq!(ring.in_use().id(), node(1).id());
        assert_eq!(ring.keys().len(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_ring_is_said_without_secrets() {
        let (one, two, of_worker) = (node(0xbe).reveal(), node(2).reveal(), worker(3).reveal());
        let (id, worker_id) = (node(0xbe).id(), worker(3).id());
        let unknown = KeyId::from_bytes([0; 4]);
        let source = KeyTextError::Parts(3);
        let not_for_nodes =
            KeyringError::NotForNodes { id: worker_id, kind: KeyKind::Client(Role::Worker) };
        for (text, expected) in [
            (String::new(), KeyringError::NoNodeKey),
            ((*of_worker).clone(), KeyringError::NoNodeKey),
            (format!("{}\n{}", *one, *two), KeyringError::NothingInUse),
            (format!("{}\n{}", *one, *one), KeyringError::Taken(id)),
            (format!("{}\nuse {unknown}", *one), KeyringError::Unknown(unknown)),
            (format!("{}\n{}\nuse {worker_id}", *one, *of_worker), not_for_nodes),
            (format!("{}\nuse {id}\nuse {id}", *one), KeyringError::UsedTwice(3)),
            (format!("{}\nuse me", *one), KeyringError::Line(2)),
            (format!("key {}", *one), KeyringError::Line(1)),
            (one[..one.len() - 9].to_owned(), KeyringError::Key { line: 1, source }),
        ] {
            let error = text.parse::<Keyring>().unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!format!("{error} {error:?}").contains("bebe"), "{error}");
        }
        let ring = Keyring::new(node(0xbe)).unwrap();
        assert!(!format!("{ring:?}").contains("bebe"));
    }

    #[test]
    fn the_key_in_use_stays_and_a_client_s_is_never_in_use() {
        let mut ring = Keyring::new(node(1)).unwrap();
        ring.install(worker(2)).unwrap();
        let kind = KeyKind::Client(Role::Worker);
        let refused = Err(KeyringError::NotForNodes { id: worker(2).id(), kind });
        assert_eq!(ring.use_key(worker(2).id()), refused);
        assert_eq!(Keyring::new(worker(2)).map(|_| true), refused);
        assert_eq!(ring.remove(node(1).id()), Err(KeyringError::InUse(node(1).id())));
        assert_eq!(ring.use_key(node(9).id()), Err(KeyringError::Unknown(node(9).id())));
        ring.install(node(3)).unwrap();
        assert_eq!(ring.use_key(node(3).id()), Ok(true));
        assert_eq!(ring.use_key(node(3).id()), Ok(false));
        assert_eq!(ring.remove(node(1).id()), Ok(true));
        assert_eq!(ring.remove(node(1).id()), Ok(false));
        assert!(ring.get(node(1).id()).is_none());
    }

    #[test]
    fn a_ring_is_bounded_and_installing_twice_changes_nothing() {
        let mut ring = Keyring::new(node(0)).unwrap();
        for number in 1..KEYS_MAX {
            assert_eq!(ring.install(worker(number as u8)), Ok(true));
            assert_eq!(ring.install(worker(number as u8)), Ok(false));
        }
        assert_eq!(ring.install(node(99)), Err(KeyringError::Full));
        let one_more = format!("{}{}", *ring.reveal(), *node(99).reveal());
        assert_eq!(one_more.parse::<Keyring>().unwrap_err(), KeyringError::Full);
    }
}
