//! The arguments of each command.

use super::{
    ChannelKind, ClientAttribute, ClientList, ClientType, Command, CommandQuery, Credentials,
    Expiry, Flush, HashParts, KeepTtl, KillFilter, ListFilter, MemberRange, Membership,
    ObjectQuery, ReplyMode, Scan, ScoreChange, ScoreRange, SetCondition, SetOptions, TtlChange,
    TtlCondition, ZAddOptions,
};
use crate::arguments::{Argument, Arguments};
use crate::decimal::{Decimal, is_infinite};
use crate::error::CommandError;
use crate::glob::PATTERN_BYTES_MAX;
use crate::number::{bound, cursor, integer, score};
use crate::reply::Protocol;
use crate::script::SHA1_BYTES;
use crate::table::{Id, NAMES_MAX, Spec, named};

type Outcome<'a, T> = Result<T, CommandError<'a>>;

/// Whether a time is one to live, or a deadline.
type Of = fn(i64) -> Expiry;

impl<'a> Command<'a> {
    /// Reads the arguments of a request for the command that [`table::find`](crate::table::find) found for it, and that the client
    /// may ask for: whether it has authenticated comes before. Allocates nothing.
    ///
    /// # Errors
    /// [`CommandError`], in the order in which Redis finds them. Those that depend on data, the time or the caller's state
    /// are not among them.
    pub fn parse(spec: &'static Spec, arguments: Arguments<'a>) -> Outcome<'a, Self> {
        let words = Words { spec, arguments };
        let (key, from) = (|| words.at(1), |index| arguments.skip(index));
        let command = match spec.id {
            Id::Hello => words.hello()?,
            Id::Auth => words.auth()?,
            Id::Ping if arguments.len() > 2 => return Err(CommandError::Arity(spec)),
            Id::Ping => Self::Ping { message: arguments.get(1) },
            Id::Echo => Self::Echo { message: words.at(1)? },
            Id::AclWhoAmI => Self::AclWhoAmI,
            Id::Quit => Self::Quit,
            Id::Reset => Self::Reset,
            Id::Select => {
                let index = words.integer(1)?;
                let index = i32::try_from(index).map_err(|_| CommandError::OutOfIntRange)?;
                Self::Select { index }
            }
            Id::ClientSetInfo => words.client_set_info()?,
            Id::ClientId => Self::ClientId,
            Id::ClientGetName => Self::ClientGetName,
            Id::ClientSetName => Self::ClientSetName { name: printable_name(words.at(2)?)? },
            Id::ClientInfo => Self::ClientInfo,
            Id::ClientList => Self::ClientList(words.client_list()?),
            Id::ClientKill => Self::ClientKill(words.kill_filter()?),
            Id::ClientReply => Self::ClientReply(match words.at(2)? {
                mode if mode.is("on") => ReplyMode::On,
                mode if mode.is("off") => ReplyMode::Off,
                mode if mode.is("skip") => ReplyMode::Skip,
                _ => return Err(CommandError::Syntax),
            }),
            Id::ClientNoEvict => Self::ClientNoEvict(words.on_or_off(2)?),
            Id::ClientNoTouch => Self::ClientNoTouch(words.on_or_off(2)?),
            Id::Command => Self::Command(CommandQuery::Info { names: names(from(1))? }),
            Id::CommandInfo => Self::Command(CommandQuery::Info { names: names(from(2))? }),
            Id::CommandDocs => Self::Command(CommandQuery::Docs { names: names(from(2))? }),
            Id::CommandCount => Self::Command(CommandQuery::Count),
            Id::CommandGetKeys => Self::Command(CommandQuery::GetKeys { request: from(2) }),
            Id::CommandList => Self::Command(CommandQuery::List { filter: words.list_filter()? }),
            Id::CommandHelp => Self::Command(CommandQuery::Help),
            Id::AclHelp
            | Id::ClientHelp
            | Id::ClusterHelp
            | Id::ConfigHelp
            | Id::ObjectHelp
            | Id::PubSubHelp
            | Id::ScriptHelp => Self::Help(words.container()?),
            // Containers without a subcommand have too few arguments.
            Id::Acl
            | Id::Client
            | Id::Cluster
            | Id::Config
            | Id::Object
            | Id::PubSub
            | Id::Script => {
                return Err(CommandError::Arity(spec));
            }
            Id::Asking => Self::Asking,
            Id::ClusterSlots => Self::ClusterSlots,
            Id::ClusterShards => Self::ClusterShards,
            Id::ClusterNodes => Self::ClusterNodes,
            Id::ClusterInfo => Self::ClusterInfo,
            Id::ClusterMyId => Self::ClusterMyId,
            Id::ClusterKeySlot => Self::ClusterKeySlot { key: words.at(2)? },
            Id::ClusterCountKeysInSlot => Self::ClusterCountKeysInSlot { slot: words.at(2)? },
            Id::Info => Self::Info { sections: from(1) },
            Id::Time => Self::Time,
            Id::DbSize => Self::DbSize,
            Id::ReadOnly => Self::ReadOnly,
            Id::ReadWrite => Self::ReadWrite,
            Id::ConfigGet => Self::ConfigGet { patterns: patterns(from(2))? },
            Id::ConfigSet if from(2).len() % 2 != 0 => return Err(CommandError::Syntax),
            Id::ConfigSet => Self::ConfigSet { pairs: from(2) },
            Id::Wait => words.wait()?,
            Id::Multi => Self::Multi,
            Id::Exec => Self::Exec,
            Id::Discard => Self::Discard,
            Id::Watch => Self::Watch { keys: from(1) },
            Id::Unwatch => Self::Unwatch,
            Id::Eval => words.eval(false)?,
            Id::EvalSha if words.at(1)?.len() != SHA1_BYTES => return Err(CommandError::NoScript),
            Id::EvalSha => words.eval(true)?,
            Id::ScriptLoad => Self::ScriptLoad { script: words.at(2)? },
            Id::ScriptExists => Self::ScriptExists { scripts: from(2) },
            Id::ScriptFlush => match arguments.get(2) {
                Some(_) if arguments.len() > 3 => return Err(CommandError::ScriptFlush),
                Some(mode) if !mode.is("sync") && !mode.is("async") => {
                    return Err(CommandError::ScriptFlush);
                }
                _ => Self::ScriptFlush,
            },
            Id::Subscribe => Self::Subscribe { kind: ChannelKind::Plain, names: from(1) },
            Id::PSubscribe => Self::Subscribe { kind: ChannelKind::Pattern, names: from(1) },
            Id::SSubscribe => Self::Subscribe { kind: ChannelKind::Sharded, names: from(1) },
            Id::Unsubscribe => Self::Unsubscribe { kind: ChannelKind::Plain, names: from(1) },
            Id::PUnsubscribe => Self::Unsubscribe { kind: ChannelKind::Pattern, names: from(1) },
            Id::SUnsubscribe => Self::Unsubscribe { kind: ChannelKind::Sharded, names: from(1) },
            Id::Publish | Id::SPublish => Self::Publish {
                channel: words.at(1)?,
                message: words.at(2)?,
                is_sharded: spec.id == Id::SPublish,
            },
            Id::PubSubChannels => words.channels(false)?,
            Id::PubSubShardChannels => words.channels(true)?,
            Id::PubSubNumSub => Self::PubSubNumSub { channels: from(2), is_sharded: false },
            Id::PubSubShardNumSub => Self::PubSubNumSub { channels: from(2), is_sharded: true },
            Id::PubSubNumPat => Self::PubSubNumPat,
            Id::Get => Self::Get { key: key()? },
            Id::Set => words.set()?,
            Id::SetEx => words.set_with(Unit::Seconds)?,
            Id::PSetEx => words.set_with(Unit::Milliseconds)?,
            Id::SetNx => Self::SetNx { key: key()?, value: words.at(2)? },
            Id::GetEx => Self::GetEx { key: key()?, ttl: words.ttl_change()? },
            Id::GetDel => Self::GetDel { key: key()? },
            Id::GetSet => Self::GetSet { key: key()?, value: words.at(2)? },
            Id::MGet => Self::MGet { keys: from(1) },
            Id::MSet => Self::MSet { pairs: words.pairs()? },
            Id::MSetNx => Self::MSetNx { pairs: words.pairs()? },
            Id::StrLen => Self::StrLen { key: key()? },
            Id::Append => Self::Append { key: key()?, value: words.at(2)? },
            Id::GetRange => {
                Self::GetRange { key: key()?, start: words.integer(2)?, end: words.integer(3)? }
            }
            Id::SetRange => {
                let offset = words.integer(2)?;
                if offset < 0 {
                    return Err(CommandError::Offset);
                }
                Self::SetRange { key: key()?, offset, value: words.at(3)? }
            }
            Id::Incr => Self::IncrBy { key: key()?, by: 1 },
            Id::Decr => Self::IncrBy { key: key()?, by: -1 },
            Id::IncrBy => Self::IncrBy { key: key()?, by: words.integer(2)? },
            Id::DecrBy => {
                let by = words.integer(2)?.checked_neg();
                Self::IncrBy { key: key()?, by: by.ok_or(CommandError::DecrementOverflow)? }
            }
            Id::IncrByFloat => {
                let by = words.decimal(2)?.ok_or(CommandError::SumNotFinite)?;
                Self::IncrByFloat { key: key()?, by }
            }
            Id::HSet | Id::HMSet if !arguments.len().is_multiple_of(2) => {
                return Err(CommandError::Arity(spec));
            }
            Id::HSet | Id::HMSet => {
                Self::HSet { key: key()?, pairs: from(2), counts: spec.id == Id::HSet }
            }
            Id::HSetNx => Self::HSetNx { key: key()?, field: words.at(2)?, value: words.at(3)? },
            Id::HGet => Self::HGet { key: key()?, field: words.at(2)? },
            Id::HMGet => Self::HMGet { key: key()?, fields: from(2) },
            Id::HGetAll => Self::HGetAll { key: key()?, parts: HashParts::All },
            Id::HKeys => Self::HGetAll { key: key()?, parts: HashParts::Names },
            Id::HVals => Self::HGetAll { key: key()?, parts: HashParts::Values },
            Id::HLen => Self::HLen { key: key()? },
            Id::HExists => Self::HExists { key: key()?, field: words.at(2)? },
            Id::HStrLen => Self::HStrLen { key: key()?, field: words.at(2)? },
            Id::HDel => Self::HDel { key: key()?, fields: from(2) },
            Id::HIncrBy => {
                Self::HIncrBy { key: key()?, field: words.at(2)?, by: words.integer(3)? }
            }
            Id::HIncrByFloat => {
                let by = words.decimal(3)?.ok_or(CommandError::NotFinite)?;
                Self::HIncrByFloat { key: key()?, field: words.at(2)?, by }
            }
            Id::HScan => Self::HScan { key: key()?, scan: words.scan(2, false)? },
            Id::HExpire => words.expire_fields(Expiry::In, Unit::Seconds)?,
            Id::HPExpire => words.expire_fields(Expiry::In, Unit::Milliseconds)?,
            Id::HExpireAt => words.expire_fields(Expiry::At, Unit::Seconds)?,
            Id::HPExpireAt => words.expire_fields(Expiry::At, Unit::Milliseconds)?,
            Id::HPersist => Self::HPersist { key: key()?, fields: words.counted_fields(2)? },
            Id::HTtl | Id::HPTtl | Id::HExpireTime | Id::HPExpireTime => Self::HTtl {
                key: key()?,
                fields: words.counted_fields(2)?,
                milliseconds: matches!(spec.id, Id::HPTtl | Id::HPExpireTime),
                is_deadline: matches!(spec.id, Id::HExpireTime | Id::HPExpireTime),
            },
            Id::HRandField => words.random_fields()?,
            Id::SAdd => Self::SAdd { key: key()?, members: from(2) },
            Id::SRem => Self::SRem { key: key()?, members: from(2) },
            Id::SMembers => Self::SMembers { key: key()? },
            Id::SIsMember => Self::SIsMember { key: key()?, member: words.at(2)? },
            Id::SMIsMember => Self::SMIsMember { key: key()?, members: from(2) },
            Id::SCard => Self::SCard { key: key()? },
            Id::SScan => Self::SScan { key: key()?, scan: words.scan(2, false)? },
            Id::ZAdd => words.z_add(false)?,
            // As Redis has it, what stands before the number may be an option.
            Id::ZIncrBy => words.z_add(true)?,
            Id::ZRem => Self::ZRem { key: key()?, members: from(2) },
            Id::ZRemRangeByScore => {
                Self::ZRemRangeByScore { key: key()?, scores: words.scores(2, 3)? }
            }
            Id::ZScore => Self::ZScore { key: key()?, member: words.at(2)? },
            Id::ZCard => Self::ZCard { key: key()? },
            Id::ZCount => Self::ZCount { key: key()?, scores: words.scores(2, 3)? },
            Id::ZRange => words.z_range(None, None)?,
            Id::ZRevRange => words.z_range(Some(false), Some(true))?,
            Id::ZRangeByScore => words.z_range(Some(true), Some(false))?,
            Id::ZRevRangeByScore => words.z_range(Some(true), Some(true))?,
            Id::ZScan => Self::ZScan { key: key()?, scan: words.scan(2, false)? },
            Id::Dump => Self::Dump { key: key()? },
            Id::Restore => words.restore()?,
            Id::Del => Self::Del { keys: from(1) },
            Id::Unlink => Self::Unlink { keys: from(1) },
            Id::Exists => Self::Exists { keys: from(1) },
            Id::Touch => Self::Touch { keys: from(1) },
            Id::Expire => words.expire(Expiry::In, Unit::Seconds)?,
            Id::PExpire => words.expire(Expiry::In, Unit::Milliseconds)?,
            Id::ExpireAt => words.expire(Expiry::At, Unit::Seconds)?,
            Id::PExpireAt => words.expire(Expiry::At, Unit::Milliseconds)?,
            Id::Ttl | Id::PTtl => Self::Ttl { key: key()?, milliseconds: spec.id == Id::PTtl },
            Id::ExpireTime | Id::PExpireTime => {
                Self::ExpireTime { key: key()?, milliseconds: spec.id == Id::PExpireTime }
            }
            Id::Persist => Self::Persist { key: key()? },
            Id::Type => Self::Type { key: key()? },
            Id::Scan => Self::Scan(words.scan(1, true)?),
            Id::Keys => Self::Keys { pattern: pattern(words.at(1)?)? },
            Id::RandomKey => Self::RandomKey,
            Id::Rename => Self::Rename { key: key()?, to: words.at(2)? },
            Id::RenameNx => Self::RenameNx { key: key()?, to: words.at(2)? },
            Id::FlushDb => Self::FlushDb(words.flush()?),
            Id::FlushAll => Self::FlushAll(words.flush()?),
            Id::ObjectIdleTime => words.object(ObjectQuery::IdleTime)?,
            Id::ObjectFreq => words.object(ObjectQuery::Freq)?,
            Id::ObjectEncoding => words.object(ObjectQuery::Encoding)?,
            Id::ObjectRefCount => words.object(ObjectQuery::RefCount)?,
        };
        Ok(command)
    }
}

/// The arguments of a command.
#[derive(Clone, Copy)]
struct Words<'a> {
    spec: &'static Spec,
    arguments: Arguments<'a>,
}

/// In which a time is given.
#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Milliseconds,
}

impl<'a> Words<'a> {
    /// The argument at an index. It is there, if the arity was checked.
    fn at(self, index: usize) -> Outcome<'a, Argument<'a>> {
        self.arguments.get(index).ok_or(CommandError::Arity(self.spec))
    }

    fn integer(self, index: usize) -> Outcome<'a, i64> {
        integer(&self.at(index)?).ok_or(CommandError::NotInteger)
    }

    fn on_or_off(self, index: usize) -> Outcome<'a, bool> {
        match self.at(index)? {
            word if word.is("on") => Ok(true),
            word if word.is("off") => Ok(false),
            _ => Err(CommandError::Syntax),
        }
    }

    fn eval(self, by_sha1: bool) -> Outcome<'a, Command<'a>> {
        let count = self.integer(2)?;
        let rest = self.arguments.skip(3);
        if count > rest.len() as i64 {
            return Err(CommandError::KeysBeyondArguments);
        }
        let count = usize::try_from(count).map_err(|_| CommandError::KeysNegative)?;
        let (keys, arguments) = (rest.first(count), rest.skip(count));
        Ok(Command::Eval { script: self.at(1)?, by_sha1, keys, arguments })
    }

    fn random_fields(self) -> Outcome<'a, Command<'a>> {
        let key = self.at(1)?;
        let (mut count, mut with_values) = (None, false);
        if self.arguments.len() > 2 {
            let given = self.integer(2)?;
            if given == i64::MIN {
                return Err(CommandError::OutOfCountRange);
            }
            with_values = match (self.arguments.get(3), self.arguments.len()) {
                (None, _) => false,
                (Some(word), 4) if word.is("withvalues") => true,
                _ => return Err(CommandError::Syntax),
            };
            if with_values && given.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
                return Err(CommandError::OutOfPairsRange);
            }
            count = Some(given);
        }
        Ok(Command::HRandField { key, count, with_values })
    }

    fn channels(self, is_sharded: bool) -> Outcome<'a, Command<'a>> {
        if self.arguments.len() > 3 {
            return Err(CommandError::SubcommandArity(self.container()?, self.at(1)?));
        }
        let pattern = self.arguments.get(2).map(pattern).transpose()?;
        Ok(Command::PubSubChannels { pattern, is_sharded })
    }

    fn container(self) -> Outcome<'a, &'static Spec> {
        named(&self.at(0)?).ok_or(CommandError::UnknownCommand(self.arguments))
    }

    fn pairs(self) -> Outcome<'a, Arguments<'a>> {
        if self.arguments.len().is_multiple_of(2) {
            return Err(CommandError::Arity(self.spec));
        }
        Ok(self.arguments.skip(1))
    }

    fn hello(self) -> Outcome<'a, Command<'a>> {
        let protocol = match self.arguments.get(1).map(|version| integer(&version)) {
            None => None,
            Some(Some(2)) => Some(Protocol::Resp2),
            Some(Some(3)) => Some(Protocol::Resp3),
            Some(Some(_)) => return Err(CommandError::NoProtocol),
            Some(None) => return Err(CommandError::ProtocolVersion),
        };
        let (mut credentials, mut name) = (None, None);
        let mut rest = self.arguments.skip(2);
        while let Some(option) = rest.get(0) {
            match (rest.get(1), rest.get(2)) {
                (Some(user), Some(password)) if option.is("auth") => {
                    credentials = Some(Credentials { user: Some(user), password });
                    rest = rest.skip(3);
                }
                (Some(given), _) if option.is("setname") => {
                    name = Some(printable_name(given)?);
                    rest = rest.skip(2);
                }
                _ => return Err(CommandError::HelloOption(option)),
            }
        }
        Ok(Command::Hello { protocol, credentials, name })
    }

    fn auth(self) -> Outcome<'a, Command<'a>> {
        let credentials = match self.arguments.len() {
            2 => Credentials { user: None, password: self.at(1)? },
            3 => Credentials { user: Some(self.at(1)?), password: self.at(2)? },
            _ => return Err(CommandError::Syntax),
        };
        Ok(Command::Auth(credentials))
    }

    fn client_set_info(self) -> Outcome<'a, Command<'a>> {
        let (word, value) = (self.at(2)?, self.at(3)?);
        let attribute = match word {
            word if word.is("lib-name") => ClientAttribute::LibraryName,
            word if word.is("lib-ver") => ClientAttribute::LibraryVersion,
            word => return Err(CommandError::ClientOption(word)),
        };
        if !is_printable(&value) {
            return Err(CommandError::ClientAttribute(word));
        }
        Ok(Command::ClientSetInfo { attribute, value })
    }

    fn client_list(self) -> Outcome<'a, ClientList<'a>> {
        let count = self.arguments.len();
        match self.arguments.get(2) {
            None => Ok(ClientList::All),
            Some(word) if count == 4 && word.is("type") => {
                Ok(ClientList::Type(client_type(self.at(3)?)?))
            }
            Some(word) if count > 3 && word.is("id") => {
                let ids = self.arguments.skip(3);
                if ids.iter().any(|id| integer(&id).is_none()) {
                    return Err(CommandError::ClientId);
                }
                Ok(ClientList::Ids(ids))
            }
            Some(_) => Err(CommandError::Syntax),
        }
    }

    fn kill_filter(self) -> Outcome<'a, KillFilter<'a>> {
        let mut filter = KillFilter {
            one: false,
            id: None,
            client_type: None,
            address: None,
            local_address: None,
            user: None,
            skip_me: true,
        };
        if self.arguments.len() == 3 {
            let address = Some(self.at(2)?);
            return Ok(KillFilter { one: true, address, skip_me: false, ..filter });
        }
        let mut rest = self.arguments.skip(2);
        while let Some(option) = rest.get(0) {
            let value = rest.get(1).ok_or(CommandError::Syntax)?;
            match option {
                option if option.is("id") => match integer(&value) {
                    Some(id @ 1..) => filter.id = Some(id),
                    _ => return Err(CommandError::ClientIdPositive),
                },
                option if option.is("type") => filter.client_type = Some(client_type(value)?),
                option if option.is("addr") => filter.address = Some(value),
                option if option.is("laddr") => filter.local_address = Some(value),
                option if option.is("user") => filter.user = Some(value),
                option if option.is("skipme") && value.is("yes") => filter.skip_me = true,
                option if option.is("skipme") && value.is("no") => filter.skip_me = false,
                _ => return Err(CommandError::Syntax),
            }
            rest = rest.skip(2);
        }
        Ok(filter)
    }

    fn list_filter(self) -> Outcome<'a, Option<ListFilter<'a>>> {
        if self.arguments.len() == 2 {
            return Ok(None);
        }
        if self.arguments.len() != 5 || !self.at(2)?.is("filterby") {
            return Err(CommandError::Syntax);
        }
        let value = self.at(4)?;
        match self.at(3)? {
            by if by.is("module") => Ok(Some(ListFilter::Module(value))),
            by if by.is("aclcat") => Ok(Some(ListFilter::Category(value))),
            by if by.is("pattern") => Ok(Some(ListFilter::Pattern(pattern(value)?))),
            _ => Err(CommandError::Syntax),
        }
    }

    fn wait(self) -> Outcome<'a, Command<'a>> {
        let replicas = self.integer(1)?;
        match integer(&self.at(2)?) {
            Some(timeout_ms @ 0..) => Ok(Command::Wait { replicas, timeout_ms }),
            Some(_) => Err(CommandError::TimeoutNegative),
            None => Err(CommandError::Timeout),
        }
    }

    fn set(self) -> Outcome<'a, Command<'a>> {
        let mut condition = SetCondition::Always;
        let (mut keep, mut get, mut time) = (false, false, None);
        let mut rest = self.arguments.skip(3);
        while let Some(option) = rest.get(0) {
            let mut took = 1;
            match (option, condition) {
                (word, SetCondition::Always | SetCondition::Absent) if word.is("nx") => {
                    condition = SetCondition::Absent;
                }
                (word, SetCondition::Always | SetCondition::Present) if word.is("xx") => {
                    condition = SetCondition::Present;
                }
                (word, SetCondition::Always) if word.is("ifeq") => {
                    condition = SetCondition::Equal(rest.get(1).ok_or(CommandError::Syntax)?);
                    took = 2;
                }
                (word, _) if word.is("get") => get = true,
                (word, _) if word.is("keepttl") && time.is_none() => keep = true,
                (word, _) if !keep => {
                    time = Some(ExpiryWords::next(word, rest.get(1), time)?);
                    took = 2;
                }
                _ => return Err(CommandError::Syntax),
            }
            rest = rest.skip(took);
        }
        let ttl = match time {
            Some(time) => KeepTtl::Set(self.expiry(time)?),
            None if keep => KeepTtl::Keep,
            None => KeepTtl::Remove,
        };
        let options = SetOptions { condition, ttl, get };
        Ok(Command::Set { key: self.at(1)?, value: self.at(2)?, options })
    }

    /// SETEX and PSETEX.
    fn set_with(self, unit: Unit) -> Outcome<'a, Command<'a>> {
        let time = ExpiryWords { of: Expiry::In, unit, word: "", time: self.at(2)? };
        let ttl = KeepTtl::Set(self.expiry(time)?);
        let options = SetOptions { condition: SetCondition::Always, ttl, get: false };
        Ok(Command::Set { key: self.at(1)?, value: self.at(3)?, options })
    }

    fn ttl_change(self) -> Outcome<'a, TtlChange> {
        let (mut persist, mut time) = (false, None);
        let mut rest = self.arguments.skip(2);
        while let Some(option) = rest.get(0) {
            if option.is("persist") && time.is_none() {
                persist = true;
                rest = rest.skip(1);
            } else if !persist {
                time = Some(ExpiryWords::next(option, rest.get(1), time)?);
                rest = rest.skip(2);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(match time {
            Some(time) => TtlChange::Set(self.expiry(time)?),
            None if persist => TtlChange::Remove,
            None => TtlChange::Keep,
        })
    }

    /// The time that an option gives, which has to be positive.
    fn expiry(self, words: ExpiryWords<'a>) -> Outcome<'a, Expiry> {
        match integer(&words.time).ok_or(CommandError::NotInteger)? {
            time @ 1.. => self.milliseconds(time, words.unit).map(words.of),
            _ => Err(CommandError::Expire(self.spec)),
        }
    }

    fn milliseconds(self, time: i64, unit: Unit) -> Outcome<'a, i64> {
        match unit {
            Unit::Milliseconds => Ok(time),
            Unit::Seconds => time.checked_mul(1000).ok_or(CommandError::Expire(self.spec)),
        }
    }

    fn expire(self, of: Of, unit: Unit) -> Outcome<'a, Command<'a>> {
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for option in self.arguments.skip(3).iter() {
            match option {
                option if option.is("nx") => nx = true,
                option if option.is("xx") => xx = true,
                option if option.is("gt") => gt = true,
                option if option.is("lt") => lt = true,
                option => return Err(CommandError::UnsupportedOption(option)),
            }
        }
        let condition = match (nx, xx, gt, lt) {
            (true, false, false, false) => TtlCondition::Absent,
            (true, ..) => return Err(CommandError::NotExistsWithOthers),
            (_, _, true, true) => return Err(CommandError::GreaterWithLess),
            (_, _, true, false) => TtlCondition::Later,
            (_, true, false, true) => TtlCondition::PresentAndEarlier,
            (_, false, false, true) => TtlCondition::Earlier,
            (_, true, false, false) => TtlCondition::Present,
            (_, false, false, false) => TtlCondition::Always,
        };
        let time = self.milliseconds(self.integer(2)?, unit)?;
        Ok(Command::Expire { key: self.at(1)?, expiry: of(time), condition })
    }

    fn expire_fields(self, of: Of, unit: Unit) -> Outcome<'a, Command<'a>> {
        let time = self.integer(2)?;
        if time < 0 {
            return Err(CommandError::NegativeExpire);
        }
        let time = self.milliseconds(time, unit)?;
        let condition = match self.at(3)? {
            word if word.is("nx") => TtlCondition::Absent,
            word if word.is("xx") => TtlCondition::Present,
            word if word.is("gt") => TtlCondition::Later,
            word if word.is("lt") => TtlCondition::Earlier,
            _ => TtlCondition::Always,
        };
        let at = if condition == TtlCondition::Always { 3 } else { 4 };
        let fields = self.counted_fields(at)?;
        Ok(Command::HExpire { key: self.at(1)?, expiry: of(time), condition, fields })
    }

    /// FIELDS, their number, and the fields, up to the end.
    fn counted_fields(self, at: usize) -> Outcome<'a, Arguments<'a>> {
        if !self.arguments.get(at).is_some_and(|word| word.is("fields")) {
            return Err(CommandError::NoFields);
        }
        let count = self.arguments.get(at + 1).and_then(|count| integer(&count));
        let count = count.filter(|count| *count > 0).ok_or(CommandError::FieldsNumber)?;
        let fields = self.arguments.skip(at + 2);
        if usize::try_from(count) != Ok(fields.len()) {
            return Err(CommandError::FieldsCount);
        }
        Ok(fields)
    }

    /// What is asked for from the cursor at an index on; `of_keys` may be of one type.
    fn scan(self, at: usize, of_keys: bool) -> Outcome<'a, Scan<'a>> {
        let cursor = cursor(&self.at(at)?).ok_or(CommandError::Cursor)?;
        let mut scan = Scan { cursor, pattern: None, count: None, holds: None };
        let mut rest = self.arguments.skip(at + 1);
        while let Some(option) = rest.get(0) {
            let value = rest.get(1).ok_or(CommandError::Syntax)?;
            match option {
                option if option.is("count") => match integer(&value) {
                    Some(count @ 1..) => scan.count = Some(count),
                    Some(_) => return Err(CommandError::Syntax),
                    None => return Err(CommandError::NotInteger),
                },
                option if option.is("match") => scan.pattern = Some(pattern(value)?),
                option if option.is("type") && of_keys => scan.holds = Some(value),
                _ => return Err(CommandError::Syntax),
            }
            rest = rest.skip(2);
        }
        Ok(scan)
    }

    fn restore(self) -> Outcome<'a, Command<'a>> {
        let (mut replace, mut of): (bool, Of) = (false, Expiry::In);
        // How the key was used, of which there may be one.
        let mut has_use = false;
        let mut rest = self.arguments.skip(4);
        while let Some(option) = rest.get(0) {
            let number = rest.get(1).map(|value| integer(&value).ok_or(CommandError::NotInteger));
            let mut took = 1;
            match (option, number) {
                (option, _) if option.is("replace") => replace = true,
                (option, _) if option.is("absttl") => of = Expiry::At,
                (option, Some(idle)) if option.is("idletime") && !has_use => {
                    idle.and_then(|idle| (idle >= 0).then_some(()).ok_or(CommandError::IdleTime))?;
                    (has_use, took) = (true, 2);
                }
                (option, Some(often)) if option.is("freq") && !has_use => {
                    let is_one = |often: i64| (0..=255).contains(&often).then_some(());
                    often.and_then(|often| is_one(often).ok_or(CommandError::Frequency))?;
                    (has_use, took) = (true, 2);
                }
                _ => return Err(CommandError::Syntax),
            }
            rest = rest.skip(took);
        }
        let expiry = match self.integer(2)? {
            0 => None,
            ttl @ 1.. => Some(of(ttl)),
            _ => return Err(CommandError::RestoreTtl),
        };
        Ok(Command::Restore { key: self.at(1)?, payload: self.at(3)?, expiry, replace })
    }

    /// A number that need not be whole; `None` = an infinity.
    fn decimal(self, index: usize) -> Outcome<'a, Option<Decimal>> {
        let text = self.at(index)?;
        if is_infinite(&text) {
            return Ok(None);
        }
        Decimal::read(&text).map(Some).ok_or(CommandError::NotFloat)
    }

    fn z_add(self, mut increments: bool) -> Outcome<'a, Command<'a>> {
        let (mut absent, mut present, mut greater, mut less) = (false, false, false, false);
        let mut counts_changed = false;
        let mut members = self.arguments.skip(2);
        while let Some(option) = members.get(0) {
            match option {
                option if option.is("nx") => absent = true,
                option if option.is("xx") => present = true,
                option if option.is("gt") => greater = true,
                option if option.is("lt") => less = true,
                option if option.is("ch") => counts_changed = true,
                option if option.is("incr") => increments = true,
                _ => break,
            }
            members = members.skip(1);
        }
        if members.is_empty() || !members.len().is_multiple_of(2) {
            return Err(CommandError::Syntax);
        }
        let only = match (absent, present) {
            (true, true) => return Err(CommandError::PresentWithAbsent),
            (true, false) => Some(Membership::Absent),
            (false, true) => Some(Membership::Present),
            (false, false) => None,
        };
        let only_if = match (greater, less) {
            (true, true) => return Err(CommandError::ScoreConditions),
            (true, false) => Some(ScoreChange::Greater),
            (false, true) => Some(ScoreChange::Less),
            (false, false) => None,
        };
        if absent && only_if.is_some() {
            return Err(CommandError::ScoreConditions);
        }
        if increments && members.len() > 2 {
            return Err(CommandError::OneIncrement);
        }
        if members.pairs().any(|(text, _)| score(&text).is_none()) {
            return Err(CommandError::NotFloat);
        }
        let options = ZAddOptions { only, only_if, counts_changed, increments };
        Ok(Command::ZAdd { key: self.at(1)?, options, members })
    }

    /// ZRANGE and its like. Where its name does not say whether it is by scores and whether it is reversed, options do.
    fn z_range(
        self,
        by_scores: Option<bool>,
        is_reversed: Option<bool>,
    ) -> Outcome<'a, Command<'a>> {
        let (mut by, mut reversed, mut with_scores) = (by_scores, is_reversed, false);
        let mut limit = None;
        let mut rest = self.arguments.skip(4);
        while let Some(option) = rest.get(0) {
            let mut took = 1;
            match option {
                option if option.is("withscores") => with_scores = true,
                option if option.is("limit") && rest.len() > 2 => {
                    let number = |at| rest.get(at).and_then(|number| integer(&number));
                    let number = |at| number(at).ok_or(CommandError::NotInteger);
                    (limit, took) = (Some((number(1)?, number(2)?)), 3);
                }
                option if option.is("rev") && reversed.is_none() => reversed = Some(true),
                option if option.is("byscore") && by.is_none() => by = Some(true),
                option if option.is("bylex") && by.is_none() => return Err(CommandError::ByLex),
                _ => return Err(CommandError::Syntax),
            }
            rest = rest.skip(took);
        }
        let (by_scores, is_reversed) = (by.unwrap_or(false), reversed.unwrap_or(false));
        // Redis does not tell the count -1 from none.
        if !by_scores && limit.is_some_and(|(_, count)| count != -1) {
            return Err(CommandError::LimitOfPlaces);
        }
        let range = if by_scores {
            let scores = if is_reversed { self.scores(3, 2)? } else { self.scores(2, 3)? };
            let (offset, count) = limit.unwrap_or((0, -1));
            MemberRange::Scores { scores, offset, count }
        } else {
            MemberRange::Places { start: self.integer(2)?, stop: self.integer(3)? }
        };
        Ok(Command::ZRange { key: self.at(1)?, range, is_reversed, with_scores })
    }

    /// The scores between those at two places.
    fn scores(self, min: usize, max: usize) -> Outcome<'a, ScoreRange> {
        let bound = |at| {
            let text = self.at(at)?;
            let (excluded, number) = match text.strip_prefix(b"(") {
                Some(number) => (true, number),
                None => (false, &*text),
            };
            Ok((bound(number).ok_or(CommandError::ScoreBounds)?, excluded))
        };
        Ok(ScoreRange { min: bound(min)?, max: bound(max)? })
    }

    fn flush(self) -> Outcome<'a, Flush> {
        match (self.arguments.get(1), self.arguments.len()) {
            (None, _) => Ok(Flush::Default),
            (Some(how), 2) if how.is("async") => Ok(Flush::Async),
            (Some(how), 2) if how.is("sync") => Ok(Flush::Sync),
            _ => Err(CommandError::Syntax),
        }
    }

    fn object(self, query: ObjectQuery) -> Outcome<'a, Command<'a>> {
        Ok(Command::Object { query, key: self.at(2)? })
    }
}

/// EX, PX, EXAT or PXAT, and the time behind it.
#[derive(Clone, Copy)]
struct ExpiryWords<'a> {
    of: Of,
    unit: Unit,
    word: &'static str,
    time: Argument<'a>,
}

impl<'a> ExpiryWords<'a> {
    /// An option that has to be one of these, and the same as before if there was one; the last one counts. What its time
    /// is, Redis looks at when there is no other error.
    fn next(
        option: Argument<'a>,
        time: Option<Argument<'a>>,
        before: Option<Self>,
    ) -> Outcome<'a, Self> {
        let all: [(&'static str, Of, Unit); 4] = [
            ("ex", Expiry::In, Unit::Seconds),
            ("px", Expiry::In, Unit::Milliseconds),
            ("exat", Expiry::At, Unit::Seconds),
            ("pxat", Expiry::At, Unit::Milliseconds),
        ];
        let (word, of, unit) =
            all.into_iter().find(|(word, ..)| option.is(word)).ok_or(CommandError::Syntax)?;
        match (time, before) {
            (Some(time), None) => Ok(Self { of, unit, word, time }),
            (Some(time), Some(before)) if before.word == word => Ok(Self { of, unit, word, time }),
            _ => Err(CommandError::Syntax),
        }
    }
}

fn client_type(word: Argument<'_>) -> Outcome<'_, ClientType> {
    match word {
        word if word.is("normal") => Ok(ClientType::Normal),
        word if word.is("slave") || word.is("replica") => Ok(ClientType::Replica),
        word if word.is("pubsub") => Ok(ClientType::PubSub),
        word if word.is("master") => Ok(ClientType::Master),
        word => Err(CommandError::ClientType(word)),
    }
}

fn names(names: Arguments<'_>) -> Outcome<'_, Arguments<'_>> {
    if names.len() <= NAMES_MAX { Ok(names) } else { Err(CommandError::TooManyNames) }
}

fn pattern(pattern: Argument<'_>) -> Outcome<'_, Argument<'_>> {
    if pattern.len() <= PATTERN_BYTES_MAX { Ok(pattern) } else { Err(CommandError::PatternLength) }
}

/// Patterns for the same names, which together are as dear as one of their size.
fn patterns(patterns: Arguments<'_>) -> Outcome<'_, Arguments<'_>> {
    let bytes: usize = patterns.iter().map(|pattern| pattern.len()).sum();
    if bytes <= PATTERN_BYTES_MAX { Ok(patterns) } else { Err(CommandError::PatternLength) }
}

fn printable_name(name: Argument<'_>) -> Outcome<'_, Argument<'_>> {
    if is_printable(&name) { Ok(name) } else { Err(CommandError::ClientName) }
}

/// Whether CLIENT LIST, which has blanks and line breaks between things, can show it.
fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}
