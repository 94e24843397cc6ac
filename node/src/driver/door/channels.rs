//! Who on this node listens to which channels, and the messages that wait for them.
//!
//! A message is left with all who listen, and forgotten: whoever publishes waits for nobody. Who reads more slowly than
//! messages come is given up when too much waits, so that what he was told has no gaps that he does not know of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annulus_proto::limits::CHANNEL_BYTES_MAX;
use annulus_proto::message::Published;
use annulus_resp::{Case, ChannelKind, Protocol, Writer, matches};
use bytes::Bytes;

use super::super::tally::Tally;
use super::connection::Client;

/// All who listen.
pub(in super::super) struct Channels {
    lists: Mutex<Lists>,
    /// The bytes that wait for all of them.
    waiting: Arc<AtomicUsize>,
    tally: Arc<Tally>,
}

/// A channel's name, or a pattern.
pub(super) type Name = Arc<[u8]>;

/// Something of each [`ChannelKind`].
pub(super) type OfKinds<T> = [T; 3];

#[derive(Default)]
struct Lists {
    /// Who listens to what, by their numbers.
    listeners: OfKinds<BTreeMap<Name, BTreeMap<u64, Arc<Listener>>>>,
    /// How often somebody listens to something.
    count: usize,
    /// The bytes of all patterns.
    pattern_bytes: usize,
}

/// What a connection listens to. When this is dropped, that is over.
pub(super) struct Subscriptions {
    channels: Arc<Channels>,
    listener: Arc<Listener>,
    names: OfKinds<BTreeSet<Name>>,
}

/// A connection that listens, as those see it that have a message for it.
struct Listener {
    client: Arc<Client>,
    queue: Mutex<Queue>,
    waiting: Arc<AtomicUsize>,
}

/// What waits for a connection.
struct Queue {
    protocol: Protocol,
    messages: VecDeque<Bytes>,
    bytes: usize,
    is_given_up: bool,
}

/// Why a subscription was refused, in words.
pub(super) struct Full(pub(super) String);

/// The most bytes that wait for one connection, and for all together. Beyond the latter those are given up for whom
/// something waits already.
pub(super) const QUEUE_BYTES_MAX: usize = 8 << 20;
const WAITING_BYTES_MAX: usize = 128 << 20;
/// What a message costs beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// The most channels and patterns of a connection, and of all together.
const OF_CONNECTION_MAX: usize = 16 << 10;
const OF_NODE_MAX: usize = 128 << 10;
/// The most different patterns, and the bytes that they have together: each message is compared with all of them.
const PATTERNS_MAX: usize = 1 << 10;
const PATTERN_BYTES_MAX: usize = 8 << 10;

impl Channels {
    pub(in super::super) fn new(tally: Arc<Tally>) -> Self {
        Self { lists: Mutex::default(), waiting: Arc::default(), tally }
    }

    /// Tells all who listen here of a message. Returns how many that are.
    pub(super) fn tell(&self, published: &Published) -> usize {
        let Published { channel, message, is_sharded } = published;
        let lists = self.lists();
        let (kind, word) = match is_sharded {
            true => (ChannelKind::Sharded, &b"smessage"[..]),
            false => (ChannelKind::Plain, &b"message"[..]),
        };
        let mut told = 0;
        if let Some(listeners) = lists.listeners[kind as usize].get(&channel[..]) {
            told += self.leave(listeners, &[word, channel, message]);
        }
        let patterns = &lists.listeners[ChannelKind::Pattern as usize];
        for (pattern, listeners) in patterns.iter().filter(|_| !is_sharded) {
            if matches(pattern, channel, Case::Sensitive) {
                told += self.leave(listeners, &[b"pmessage", pattern, channel, message]);
            }
        }
        drop(lists);
        self.tally.add_many("redis_messages_delivered", told as u64);
        told
    }

    /// The same of a message that another member has sent.
    pub(in super::super) fn tell_from_afar(&self, published: &Published) {
        if published.channel.len() > CHANNEL_BYTES_MAX {
            return self.tally.add("redis_messages_refused");
        }
        self.tally.add("redis_messages_from_nodes");
        self.tell(published);
    }

    /// Leaves a message of these words with each of them. Returns how many have taken it.
    fn leave(&self, listeners: &BTreeMap<u64, Arc<Listener>>, words: &[&[u8]]) -> usize {
        let mut forms = Forms { words, written: [None, None] };
        let mut told = 0;
        for listener in listeners.values() {
            match listener.take_in(&mut forms) {
                Some(true) => told += 1,
                Some(false) => self.tally.add("redis_subscribers_too_slow"),
                None => {}
            }
        }
        told
    }

    /// How many channels, patterns and sharded channels somebody listens to.
    pub(super) fn counts(&self) -> OfKinds<usize> {
        let lists = self.lists();
        lists.listeners.each_ref().map(BTreeMap::len)
    }

    /// What somebody listens to.
    pub(super) fn names(&self, kind: ChannelKind) -> Vec<Name> {
        self.lists().listeners[kind as usize].keys().cloned().collect()
    }

    /// How many listen to this.
    pub(super) fn count(&self, kind: ChannelKind, name: &[u8]) -> usize {
        self.lists().listeners[kind as usize].get(name).map_or(0, BTreeMap::len)
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn add(&mut self, kind: ChannelKind, names: &[Name], by: &Arc<Listener>) -> Result<(), Full> {
        if self.count + names.len() > OF_NODE_MAX {
            let text = format!("this node's clients subscribe {OF_NODE_MAX} times at most");
            return Err(Full(text));
        }
        let listeners = &mut self.listeners[kind as usize];
        if kind == ChannelKind::Pattern {
            let new = names.iter().filter(|name| !listeners.contains_key(*name));
            let (count, bytes) =
                new.fold((0, 0), |(count, bytes), name| (count + 1, bytes + name.len()));
            if listeners.len() + count > PATTERNS_MAX
                || self.pattern_bytes + bytes > PATTERN_BYTES_MAX
            {
                let text = format!(
                    "this node's clients have {PATTERNS_MAX} patterns of {PATTERN_BYTES_MAX} bytes at most"
                );
                return Err(Full(text));
            }
            self.pattern_bytes += bytes;
        }
        for name in names {
            listeners.entry(name.clone()).or_default().insert(by.client.number, by.clone());
        }
        self.count += names.len();
        Ok(())
    }

    fn remove<'a>(
        &mut self,
        kind: ChannelKind,
        names: impl Iterator<Item = &'a Name>,
        number: u64,
    ) {
        let listeners = &mut self.listeners[kind as usize];
        for name in names {
            let Some(of_name) = listeners.get_mut(name) else { continue };
            self.count -= usize::from(of_name.remove(&number).is_some());
            if of_name.is_empty() {
                listeners.remove(name);
                if kind == ChannelKind::Pattern {
                    self.pattern_bytes -= name.len();
                }
            }
        }
    }
}

impl Subscriptions {
    /// None, of this client's connection.
    pub(super) fn new(channels: Arc<Channels>, client: Arc<Client>, protocol: Protocol) -> Self {
        let queue = Queue { protocol, messages: VecDeque::new(), bytes: 0, is_given_up: false };
        let (queue, waiting) = (Mutex::new(queue), channels.waiting.clone());
        let listener = Listener { client, queue, waiting };
        Self { channels, listener: Arc::new(listener), names: OfKinds::default() }
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> OfKinds<usize> {
        self.names.each_ref().map(BTreeSet::len)
    }

    /// The number that Redis tells with each change of this kind.
    pub(super) fn count_with(&self, kind: ChannelKind) -> usize {
        let [plain, patterns, sharded] = self.counts();
        if kind == ChannelKind::Sharded { sharded } else { plain + patterns }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts() == [0, 0, 0]
    }

    /// Those of a kind.
    pub(super) fn names(&self, kind: ChannelKind) -> Vec<Name> {
        self.names[kind as usize].iter().cloned().collect()
    }

    /// Listens to all of these, or to none more. `then` is told of each name, and how many there are with it.
    pub(super) fn add(
        &mut self,
        kind: ChannelKind,
        names: &[Name],
        mut then: impl FnMut(&Name, usize),
    ) -> Result<(), Full> {
        let own = &self.names[kind as usize];
        let new: BTreeSet<&Name> = names.iter().filter(|name| !own.contains(*name)).collect();
        let new: Vec<Name> = new.into_iter().cloned().collect();
        if self.counts().iter().sum::<usize>() + new.len() > OF_CONNECTION_MAX {
            let text =
                format!("a connection has {OF_CONNECTION_MAX} channels and patterns at most");
            return Err(Full(text));
        }
        self.channels.lists().add(kind, &new, &self.listener)?;
        for name in names {
            self.names[kind as usize].insert(name.clone());
            then(name, self.count_with(kind));
        }
        Ok(())
    }

    /// Listens to none of these any more. `then` is told of each name, and how many there are without it.
    pub(super) fn remove(
        &mut self,
        kind: ChannelKind,
        names: &[Name],
        mut then: impl FnMut(&Name, usize),
    ) {
        let own = &self.names[kind as usize];
        let known = names.iter().filter(|name| own.contains(*name));
        self.channels.lists().remove(kind, known, self.listener.client.number);
        for name in names {
            self.names[kind as usize].remove(name);
            then(name, self.count_with(kind));
        }
    }

    /// In which messages that come from now on are written. Appends those that came before.
    pub(super) fn speak(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut queue = self.listener.queue();
        self.take_from(&mut queue, out, usize::MAX);
        queue.protocol = protocol;
    }

    /// Appends what waits, until there are so many bytes.
    pub(super) fn take(&self, out: &mut Vec<u8>, bytes_max: usize) {
        self.take_from(&mut self.listener.queue(), out, bytes_max);
    }

    fn take_from(&self, queue: &mut Queue, out: &mut Vec<u8>, bytes_max: usize) {
        while out.len() < bytes_max
            && let Some(message) = queue.messages.pop_front()
        {
            let size = message.len() + MESSAGE_OVERHEAD_BYTES;
            queue.bytes -= size;
            self.listener.waiting.fetch_sub(size, Ordering::Relaxed);
            out.extend_from_slice(&message);
        }
    }

    /// Whether something waits, or this was given up.
    pub(super) fn has_news(&self) -> bool {
        let queue = self.listener.queue();
        queue.is_given_up || !queue.messages.is_empty()
    }

    /// Whether more waited than may.
    pub(super) fn is_given_up(&self) -> bool {
        self.listener.queue().is_given_up
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let mut lists = self.channels.lists();
        for kind in [ChannelKind::Plain, ChannelKind::Pattern, ChannelKind::Sharded] {
            lists.remove(kind, self.names[kind as usize].iter(), self.listener.client.number);
        }
        drop(lists);
        // Nobody leaves anything any more.
        self.listener.queue().clear(&self.listener.waiting);
    }
}

impl Listener {
    /// Takes a message; `Some(false)`: it is given up for it, `None`: it was before.
    fn take_in(&self, forms: &mut Forms<'_>) -> Option<bool> {
        let mut queue = self.queue();
        if queue.is_given_up {
            return None;
        }
        let message = forms.of(queue.protocol);
        let size = message.len() + MESSAGE_OVERHEAD_BYTES;
        let all = self.waiting.load(Ordering::Relaxed) + size;
        let is_too_much =
            queue.bytes + size > QUEUE_BYTES_MAX || queue.bytes > 0 && all > WAITING_BYTES_MAX;
        if is_too_much {
            queue.clear(&self.waiting);
            queue.is_given_up = true;
        } else {
            queue.messages.push_back(message);
            queue.bytes += size;
            self.waiting.fetch_add(size, Ordering::Relaxed);
        }
        drop(queue);
        self.client.wake();
        Some(!is_too_much)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn clear(&mut self, waiting: &AtomicUsize) {
        self.messages = VecDeque::new();
        waiting.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

/// A message as it is written, once for all who speak alike.
struct Forms<'a> {
    words: &'a [&'a [u8]],
    /// In RESP2, and in RESP3.
    written: [Option<Bytes>; 2],
}

impl Forms<'_> {
    fn of(&mut self, protocol: Protocol) -> Bytes {
        let words = self.words;
        let write = || {
            let mut bytes = Vec::new();
            let mut out = Writer::new(&mut bytes, protocol);
            out.push(words.len());
            words.iter().for_each(|word| out.bulk(word));
            Bytes::from(bytes)
        };
        let written = &mut self.written[usize::from(protocol == Protocol::Resp3)];
        written.get_or_insert_with(write).clone()
    }
}

#[cfg(test)]
mod tests;
