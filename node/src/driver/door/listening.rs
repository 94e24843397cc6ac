//! Commands about channels.

use annulus_net::Clock;
use annulus_proto::limits::{CHANNEL_BYTES_MAX, PUBLISHED_BYTES_MAX};
use annulus_proto::message::Published;
use annulus_resp::table::Id;
use annulus_resp::{Argument, Arguments, Case, ChannelKind, Command, Protocol, Writer, matches};

use super::channels::{Full, Name, QUEUE_BYTES_MAX, Subscriptions};
use super::connection::Connection;
use super::store::{Outcome, Trouble};

/// The most bytes of names that PUBSUB CHANNELS answers.
const NAMES_BYTES_MAX: usize = 4 << 20;

impl<C: Clock> Connection<C> {
    /// Whether it listens to anything.
    pub(super) fn is_listening(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Whether it may do nothing but what belongs to listening: in RESP2 its client could not tell an answer from a message.
    pub(super) fn only_listens(&self) -> bool {
        self.is_listening() && self.protocol() == Protocol::Resp2 && self.staged.is_none()
    }

    /// Whether messages wait, or it was given up.
    pub(super) fn has_news(&self) -> bool {
        self.subscriptions.as_ref().is_some_and(|it| it.has_news())
    }

    /// Whether it was given up, because it reads too slowly.
    pub(super) fn is_given_up(&self) -> bool {
        self.subscriptions.as_ref().is_some_and(|it| it.is_given_up())
    }

    /// Appends messages that wait, until there are so many bytes.
    pub(super) fn hear(&self, answers: &mut Vec<u8>, bytes_max: usize) {
        if let Some(subscriptions) = &self.subscriptions {
            subscriptions.take(answers, bytes_max);
        }
    }

    /// Takes out all messages that wait, for them to stand before the answer of the command under way. Of a transaction with many
    /// of these no more than may wait: what comes beyond that waits still, and too much of it gives the connection up.
    pub(super) fn hear_first(&mut self) {
        if let Some(subscriptions) = &self.subscriptions {
            subscriptions.take(&mut self.messages, QUEUE_BYTES_MAX);
        }
    }

    /// Messages that come from now on are written in this version.
    pub(super) fn hear_in(&mut self, protocol: Protocol) {
        if let Some(subscriptions) = &self.subscriptions {
            subscriptions.speak(protocol, &mut self.messages);
        }
    }

    /// Listens to nothing any more.
    pub(super) fn stop_listening(&mut self) {
        self.hear_first();
        self.subscriptions = None;
        self.note_subscriptions();
    }

    /// Does PING, or a command about channels.
    pub(super) fn listen<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::Ping { message } => self.ping(message, out),
            Command::Subscribe { kind, names } => self.subscribe(kind, names, out)?,
            Command::Unsubscribe { kind, names } => self.unsubscribe(kind, names, out),
            Command::Publish { channel, message, is_sharded } => {
                let count = self.publish(channel, message, is_sharded)?;
                out.integer(count);
            }
            Command::PubSubChannels { pattern, is_sharded } => {
                self.list_channels(pattern, of(is_sharded), out)?;
            }
            Command::PubSubNumSub { channels, is_sharded } => {
                out.array(2 * channels.len());
                for channel in channels.iter() {
                    out.bulk(&channel);
                    let count = self.door.channels().count(of(is_sharded), &channel);
                    out.integer(count as i64);
                }
            }
            _ => {
                let [_, patterns, _] = self.door.channels().counts();
                out.integer(patterns as i64);
            }
        }
        Ok(())
    }

    fn ping(&self, message: Option<Argument<'_>>, out: &mut Writer<'_>) {
        // Also within a transaction.
        if self.is_listening() && self.protocol() == Protocol::Resp2 {
            out.array(2);
            out.bulk(b"pong");
            out.bulk(message.as_deref().unwrap_or_default());
            return;
        }
        match message {
            None => out.simple("PONG"),
            Some(message) => out.bulk(&message),
        }
    }

    fn subscribe<'a>(
        &mut self,
        kind: ChannelKind,
        names: Arguments<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let names: Vec<Name> = names.iter().map(channel_name).collect::<Outcome<'_, _>>()?;
        self.hear_first();
        let (client, protocol) = (self.client().clone(), self.protocol());
        let mut subscriptions = self.subscriptions.take().unwrap_or_else(|| {
            Box::new(Subscriptions::new(self.door.channels().clone(), client, protocol))
        });
        let word = word(kind, true);
        let added = subscriptions.add(kind, &names, |name, count| {
            tell_change(word, Some(name), count, out);
        });
        if !subscriptions.is_empty() {
            self.subscriptions = Some(subscriptions);
        }
        added.map_err(|Full(why)| Trouble::Error("ERR", why.into()))?;
        self.note_subscriptions();
        self.is_push = true;
        Ok(())
    }

    fn unsubscribe(&mut self, kind: ChannelKind, names: Arguments<'_>, out: &mut Writer<'_>) {
        let mut named: Vec<Name> = names.iter().map(|name| Name::from(&*name)).collect();
        if let Some(subscriptions) = &self.subscriptions
            && names.is_empty()
        {
            named = subscriptions.names(kind);
        }
        let word = word(kind, false);
        match &mut self.subscriptions {
            Some(subscriptions) if !named.is_empty() => {
                subscriptions.remove(kind, &named, |name, count| {
                    tell_change(word, Some(name), count, out);
                });
            }
            Some(subscriptions) => tell_change(word, None, subscriptions.count_with(kind), out),
            None if named.is_empty() => tell_change(word, None, 0, out),
            None => named.iter().for_each(|name| tell_change(word, Some(name), 0, out)),
        }
        self.hear_first();
        if self.subscriptions.as_ref().is_some_and(|it| it.is_empty()) {
            self.subscriptions = None;
        }
        self.note_subscriptions();
        self.is_push = true;
    }

    /// Tells this node's subscribers, and the other members theirs. Returns how many heard of it here.
    fn publish<'a>(
        &mut self,
        channel: Argument<'a>,
        message: Argument<'a>,
        is_sharded: bool,
    ) -> Outcome<'a, i64> {
        channel_name(channel)?;
        if message.len() > PUBLISHED_BYTES_MAX {
            let text = format!("a message has {PUBLISHED_BYTES_MAX} bytes at most");
            return Err(Trouble::Error("ERR", text.into()));
        }
        let (channel, message) = (channel.to_vec(), message.to_vec());
        let published = Published { channel, message, is_sharded };
        let count = self.door.channels().tell(&published);
        self.door.reception.tally.add("redis_published");
        (self.door.abroad)(published);
        self.hear_first();
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn list_channels<'a>(
        &self,
        pattern: Option<Argument<'a>>,
        kind: ChannelKind,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        let mut names = self.door.channels().names(kind);
        if let Some(pattern) = pattern {
            names.retain(|name| matches(&pattern, name, Case::Sensitive));
        }
        if names.iter().map(|name| name.len()).sum::<usize>() > NAMES_BYTES_MAX {
            let text = format!("the names have {NAMES_BYTES_MAX} bytes at most; say a pattern");
            return Err(Trouble::Error("ERR", text.into()));
        }
        out.array(names.len());
        names.iter().for_each(|name| out.bulk(name));
        Ok(())
    }

    /// For CLIENT LIST.
    fn note_subscriptions(&self) {
        let counts = self.subscriptions.as_ref().map(|it| it.counts());
        self.client().facts().subscriptions = counts.unwrap_or_default();
    }
}

/// Whether a command is about channels, or has another answer for those who listen. In a transaction it is done once what the
/// others do is written, and so no more than once.
pub(super) fn is_about_channels(id: Id) -> bool {
    let pubsub = [
        Id::PubSubChannels,
        Id::PubSubNumPat,
        Id::PubSubNumSub,
        Id::PubSubShardChannels,
        Id::PubSubShardNumSub,
    ];
    matches!(id, Id::Ping | Id::Publish | Id::SPublish) || changes(id) || pubsub.contains(&id)
}

/// Whether a command may be done by who [only listens](Connection::only_listens).
pub(super) fn is_for_listeners(id: Id) -> bool {
    matches!(id, Id::Ping | Id::Quit | Id::Reset) || changes(id)
}

/// Whether a command changes what a connection listens to.
fn changes(id: Id) -> bool {
    matches!(
        id,
        Id::Subscribe
            | Id::PSubscribe
            | Id::SSubscribe
            | Id::Unsubscribe
            | Id::PUnsubscribe
            | Id::SUnsubscribe
    )
}

fn of(is_sharded: bool) -> ChannelKind {
    if is_sharded { ChannelKind::Sharded } else { ChannelKind::Plain }
}

/// By which word a change of what a connection listens to is told.
fn word(kind: ChannelKind, begins: bool) -> &'static str {
    match (kind, begins) {
        (ChannelKind::Plain, true) => "subscribe",
        (ChannelKind::Pattern, true) => "psubscribe",
        (ChannelKind::Sharded, true) => "ssubscribe",
        (ChannelKind::Plain, false) => "unsubscribe",
        (ChannelKind::Pattern, false) => "punsubscribe",
        (ChannelKind::Sharded, false) => "sunsubscribe",
    }
}

fn tell_change(word: &str, name: Option<&Name>, count: usize, out: &mut Writer<'_>) {
    out.push(3);
    out.bulk(word.as_bytes());
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.integer(count as i64);
}

/// # Errors
/// If it is long. (Redis takes any.)
fn channel_name(name: Argument<'_>) -> Outcome<'_, Name> {
    if name.len() > CHANNEL_BYTES_MAX {
        let text = format!("a channel or a pattern has {CHANNEL_BYTES_MAX} bytes at most");
        return Err(Trouble::Error("ERR", text.into()));
    }
    Ok(Name::from(&*name))
}
