//! Commands with their arguments read.

mod debug;
mod parse;

use crate::arguments::{Argument, Arguments};
use crate::decimal::Decimal;
use crate::number::integer;
use crate::reply::Protocol;
use crate::table::Spec;

/// A command with its arguments, slices of the buffer in which it arrived. `Debug` shows no key, value or password, nor a
/// number that is or becomes a value.
///
/// Those that differ in spelling alone are one: INCR, DECR, INCRBY and DECRBY are [`IncrBy`](Self::IncrBy), SETEX and PSETEX
/// are a [`Set`](Self::Set).
#[derive(Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// HELLO. Redis does one option after the other, up to one that it refuses; here nothing is done if one is wrong. Of several
    /// AUTH the last one counts, where Redis tries each and refuses at the first that is wrong; of several SETNAME, too.
    Hello {
        /// The version from now on; `None` = as it is.
        protocol: Option<Protocol>,
        /// Whom to authenticate first.
        credentials: Option<Credentials<'a>>,
        /// The connection's name from now on; empty = none.
        name: Option<Argument<'a>>,
    },
    /// AUTH. After it, as after HELLO with credentials, [`Parser::set_authenticated`](crate::Parser::set_authenticated) has to
    /// be called before the next request is looked for.
    Auth(Credentials<'a>),
    /// PING: `+PONG`, or the message.
    Ping {
        /// What to say instead.
        message: Option<Argument<'a>>,
    },
    /// ECHO.
    Echo {
        /// What to say.
        message: Argument<'a>,
    },
    /// ACL WHOAMI: the user's name.
    AclWhoAmI,
    /// QUIT: `+OK`, and the connection ends.
    Quit,
    /// RESET: the connection is as at its beginning, RESP2 and unauthenticated; `+RESET`. The parser is to be told before it
    /// looks for the next request ([`Parser::set_authenticated`](crate::Parser::set_authenticated)).
    Reset,
    /// SELECT. Which numbers there are is the caller's to know.
    Select {
        /// The table's number.
        index: i32,
    },
    /// CLIENT SETINFO.
    ClientSetInfo {
        /// What is said.
        attribute: ClientAttribute,
        /// Printable, without blanks; empty = nothing any more.
        value: Argument<'a>,
    },
    /// CLIENT ID.
    ClientId,
    /// CLIENT GETNAME.
    ClientGetName,
    /// CLIENT SETNAME.
    ClientSetName {
        /// Printable, without blanks; empty = none any more.
        name: Argument<'a>,
    },
    /// CLIENT INFO.
    ClientInfo,
    /// CLIENT LIST.
    ClientList(ClientList<'a>),
    /// CLIENT KILL.
    ClientKill(KillFilter<'a>),
    /// CLIENT REPLY.
    ClientReply(ReplyMode),
    /// CLIENT NO-EVICT.
    ClientNoEvict(bool),
    /// CLIENT NO-TOUCH.
    ClientNoTouch(bool),
    /// COMMAND, which [`table::answer`](crate::table::answer) answers.
    Command(CommandQuery<'a>),
    /// HELP of ACL, CLIENT, CLUSTER, CONFIG, OBJECT, PUBSUB or SCRIPT, which [`table::help`](crate::table::help) answers.
    Help(&'static Spec),
    /// INFO.
    Info {
        /// The sections asked for, in any case, known or not; none = the usual ones.
        sections: Arguments<'a>,
    },
    /// TIME.
    Time,
    /// DBSIZE.
    DbSize,
    /// ASKING.
    Asking,
    /// CLUSTER SLOTS.
    ClusterSlots,
    /// CLUSTER SHARDS.
    ClusterShards,
    /// CLUSTER NODES.
    ClusterNodes,
    /// CLUSTER INFO.
    ClusterInfo,
    /// CLUSTER MYID.
    ClusterMyId,
    /// CLUSTER KEYSLOT.
    ClusterKeySlot {
        /// The key.
        key: Argument<'a>,
    },
    /// CLUSTER COUNTKEYSINSLOT. Where there is no cluster, Redis does not look at the slot; so that is the caller's:
    /// [`NotInteger`](crate::CommandError::NotInteger), and [`INVALID_SLOT`](crate::texts::INVALID_SLOT) if there is no such.
    ClusterCountKeysInSlot {
        /// The slot, as it was written.
        slot: Argument<'a>,
    },
    /// READONLY.
    ReadOnly,
    /// READWRITE.
    ReadWrite,
    /// CONFIG GET.
    ConfigGet {
        /// For [`matches`](crate::matches), in any case; at least one, and [`PATTERN_BYTES_MAX`](crate::PATTERN_BYTES_MAX)
        /// together.
        patterns: Arguments<'a>,
    },
    /// CONFIG SET.
    ConfigSet {
        /// Names and values, at least one pair.
        pairs: Arguments<'a>,
    },
    /// WAIT.
    Wait {
        /// How many replicas; if not positive, none is waited for.
        replicas: i64,
        /// How long, in milliseconds, at least 0; 0 = without an end. It may be `i64::MAX`: to add it to the current time
        /// may overflow.
        timeout_ms: i64,
    },
    /// GET.
    Get {
        /// The key.
        key: Argument<'a>,
    },
    /// SET, SETEX and PSETEX.
    Set {
        /// The key.
        key: Argument<'a>,
        /// The new value.
        value: Argument<'a>,
        /// When it is written, until when it lives, and what is answered.
        options: SetOptions<'a>,
    },
    /// SETNX: as SET with NX, but its answer is 1 or 0.
    SetNx {
        /// The key.
        key: Argument<'a>,
        /// The new value.
        value: Argument<'a>,
    },
    /// GETEX. Redis looks at the time after the key: it answers null where there is none, also to a time that is invalid.
    GetEx {
        /// The key.
        key: Argument<'a>,
        /// What becomes of its deadline.
        ttl: TtlChange,
    },
    /// GETDEL.
    GetDel {
        /// The key.
        key: Argument<'a>,
    },
    /// GETSET.
    GetSet {
        /// The key.
        key: Argument<'a>,
        /// The new value.
        value: Argument<'a>,
    },
    /// MGET.
    MGet {
        /// At least one.
        keys: Arguments<'a>,
    },
    /// MSET.
    MSet {
        /// Keys and values by turns: [`Arguments::pairs`], at least one.
        pairs: Arguments<'a>,
    },
    /// MSETNX.
    MSetNx {
        /// Keys and values by turns: [`Arguments::pairs`], at least one.
        pairs: Arguments<'a>,
    },
    /// STRLEN.
    StrLen {
        /// The key.
        key: Argument<'a>,
    },
    /// APPEND.
    Append {
        /// The key.
        key: Argument<'a>,
        /// What is appended.
        value: Argument<'a>,
    },
    /// GETRANGE.
    GetRange {
        /// The key.
        key: Argument<'a>,
        /// The offset of the first byte; negative = from the end, of which the last byte is -1.
        start: i64,
        /// That of the last byte, likewise.
        end: i64,
    },
    /// SETRANGE.
    SetRange {
        /// The key.
        key: Argument<'a>,
        /// Where, at least 0. Whether the string may become so long is the caller's to check.
        offset: i64,
        /// What is written there.
        value: Argument<'a>,
    },
    /// INCR, DECR, INCRBY and DECRBY.
    IncrBy {
        /// The key.
        key: Argument<'a>,
        /// What is added.
        by: i64,
    },
    /// INCRBYFLOAT.
    IncrByFloat {
        /// The key.
        key: Argument<'a>,
        /// What is added.
        by: Decimal,
    },
    /// HSET and HMSET.
    HSet {
        /// The key.
        key: Argument<'a>,
        /// Names of fields and values by turns: [`Arguments::pairs`], at least one.
        pairs: Arguments<'a>,
        /// Whether the answer is how many fields are new, and not OK.
        counts: bool,
    },
    /// HSETNX.
    HSetNx {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
        /// Its value.
        value: Argument<'a>,
    },
    /// HGET.
    HGet {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
    },
    /// HMGET.
    HMGet {
        /// The key.
        key: Argument<'a>,
        /// The names of fields, at least one.
        fields: Arguments<'a>,
    },
    /// HGETALL, HKEYS and HVALS.
    HGetAll {
        /// The key.
        key: Argument<'a>,
        /// What of each field.
        parts: HashParts,
    },
    /// HLEN.
    HLen {
        /// The key.
        key: Argument<'a>,
    },
    /// HEXISTS.
    HExists {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
    },
    /// HSTRLEN.
    HStrLen {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
    },
    /// HDEL.
    HDel {
        /// The key.
        key: Argument<'a>,
        /// The names of fields, at least one.
        fields: Arguments<'a>,
    },
    /// HINCRBY.
    HIncrBy {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
        /// What is added.
        by: i64,
    },
    /// HINCRBYFLOAT.
    HIncrByFloat {
        /// The key.
        key: Argument<'a>,
        /// The field's name.
        field: Argument<'a>,
        /// What is added.
        by: Decimal,
    },
    /// HSCAN. Redis looks at the options after the key: it answers with no fields where there is none, also to options that
    /// are wrong.
    HScan {
        /// The key.
        key: Argument<'a>,
        /// What is asked for; `holds` is none.
        scan: Scan<'a>,
    },
    /// HEXPIRE, HPEXPIRE, HEXPIREAT and HPEXPIREAT. (Redis looks at the key before most of its arguments.)
    HExpire {
        /// The key.
        key: Argument<'a>,
        /// Their new deadline; one in the past deletes them.
        expiry: Expiry,
        /// For which it is set.
        condition: TtlCondition,
        /// Names of fields, at least one.
        fields: Arguments<'a>,
    },
    /// HPERSIST.
    HPersist {
        /// The key.
        key: Argument<'a>,
        /// Names of fields, at least one.
        fields: Arguments<'a>,
    },
    /// HTTL, HPTTL, HEXPIRETIME and HPEXPIRETIME.
    HTtl {
        /// The key.
        key: Argument<'a>,
        /// Names of fields, at least one.
        fields: Arguments<'a>,
        /// Whether it is asked for in milliseconds, and not in seconds.
        milliseconds: bool,
        /// Whether what is asked for is when they expire, and not in how long.
        is_deadline: bool,
    },
    /// HRANDFIELD.
    HRandField {
        /// The key.
        key: Argument<'a>,
        /// How many, each once; if negative, as many as its opposite says, of which some may be there again. `None` = one, and
        /// null of none.
        count: Option<i64>,
        /// Whether with their values; in RESP3 each is an array of two then.
        with_values: bool,
    },
    /// SADD.
    SAdd {
        /// The key.
        key: Argument<'a>,
        /// At least one.
        members: Arguments<'a>,
    },
    /// SREM.
    SRem {
        /// The key.
        key: Argument<'a>,
        /// At least one.
        members: Arguments<'a>,
    },
    /// SMEMBERS.
    SMembers {
        /// The key.
        key: Argument<'a>,
    },
    /// SISMEMBER.
    SIsMember {
        /// The key.
        key: Argument<'a>,
        /// What may be one.
        member: Argument<'a>,
    },
    /// SMISMEMBER.
    SMIsMember {
        /// The key.
        key: Argument<'a>,
        /// What may be some, at least one.
        members: Arguments<'a>,
    },
    /// SCARD.
    SCard {
        /// The key.
        key: Argument<'a>,
    },
    /// SSCAN; as to the options, as [`HScan`](Self::HScan).
    SScan {
        /// The key.
        key: Argument<'a>,
        /// What is asked for; `holds` is none.
        scan: Scan<'a>,
    },
    /// ZADD and ZINCRBY.
    ZAdd {
        /// The key.
        key: Argument<'a>,
        /// What is done with whom, and what is answered.
        options: ZAddOptions,
        /// Scores and members by turns: [`Arguments::pairs`], at least one; with `increments` one. Each score is a
        /// [`score`](crate::score).
        members: Arguments<'a>,
    },
    /// ZREM.
    ZRem {
        /// The key.
        key: Argument<'a>,
        /// At least one.
        members: Arguments<'a>,
    },
    /// ZREMRANGEBYSCORE.
    ZRemRangeByScore {
        /// The key.
        key: Argument<'a>,
        /// Who is removed.
        scores: ScoreRange,
    },
    /// ZSCORE.
    ZScore {
        /// The key.
        key: Argument<'a>,
        /// Whose score.
        member: Argument<'a>,
    },
    /// ZCARD.
    ZCard {
        /// The key.
        key: Argument<'a>,
    },
    /// ZCOUNT.
    ZCount {
        /// The key.
        key: Argument<'a>,
        /// Who counts.
        scores: ScoreRange,
    },
    /// ZRANGE, ZREVRANGE, ZRANGEBYSCORE and ZREVRANGEBYSCORE.
    ZRange {
        /// The key.
        key: Argument<'a>,
        /// Who is told.
        range: MemberRange,
        /// Whether the highest score comes first.
        is_reversed: bool,
        /// Whether scores are told, too.
        with_scores: bool,
    },
    /// ZSCAN; as to the options, as [`HScan`](Self::HScan).
    ZScan {
        /// The key.
        key: Argument<'a>,
        /// What is asked for; `holds` is none.
        scan: Scan<'a>,
    },
    /// DUMP.
    Dump {
        /// The key.
        key: Argument<'a>,
    },
    /// RESTORE.
    Restore {
        /// The key.
        key: Argument<'a>,
        /// What DUMP told.
        payload: Argument<'a>,
        /// Until when it lives; `None` = for ever.
        expiry: Option<Expiry>,
        /// Whether it takes the place of what is there.
        replace: bool,
    },
    /// DEL.
    Del {
        /// At least one.
        keys: Arguments<'a>,
    },
    /// UNLINK.
    Unlink {
        /// At least one.
        keys: Arguments<'a>,
    },
    /// EXISTS: a key that is named twice counts twice.
    Exists {
        /// At least one.
        keys: Arguments<'a>,
    },
    /// TOUCH.
    Touch {
        /// At least one.
        keys: Arguments<'a>,
    },
    /// EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT.
    Expire {
        /// The key.
        key: Argument<'a>,
        /// Its new deadline; one in the past deletes it. If [`Expiry::deadline_ms`] is none, the answer is that of
        /// [`CommandError::Expire`](crate::CommandError::Expire).
        expiry: Expiry,
        /// When it is set.
        condition: TtlCondition,
    },
    /// TTL and PTTL.
    Ttl {
        /// The key.
        key: Argument<'a>,
        /// Whether it is asked for in milliseconds, and not in seconds.
        milliseconds: bool,
    },
    /// EXPIRETIME and PEXPIRETIME.
    ExpireTime {
        /// The key.
        key: Argument<'a>,
        /// Whether it is asked for in milliseconds, and not in seconds.
        milliseconds: bool,
    },
    /// PERSIST.
    Persist {
        /// The key.
        key: Argument<'a>,
    },
    /// TYPE.
    Type {
        /// The key.
        key: Argument<'a>,
    },
    /// SCAN.
    Scan(Scan<'a>),
    /// KEYS.
    Keys {
        /// For [`matches`](crate::matches).
        pattern: Argument<'a>,
    },
    /// RANDOMKEY.
    RandomKey,
    /// RENAME.
    Rename {
        /// The key that is no more.
        key: Argument<'a>,
        /// What it is called instead.
        to: Argument<'a>,
    },
    /// RENAMENX.
    RenameNx {
        /// The key that is no more.
        key: Argument<'a>,
        /// What it is called instead.
        to: Argument<'a>,
    },
    /// FLUSHDB.
    FlushDb(Flush),
    /// FLUSHALL.
    FlushAll(Flush),
    /// MULTI: commands are queued from here on.
    Multi,
    /// EXEC: those that were queued are done.
    Exec,
    /// DISCARD: they are forgotten.
    Discard,
    /// WATCH.
    Watch {
        /// The keys that nobody else is to change until EXEC.
        keys: Arguments<'a>,
    },
    /// UNWATCH: none any more.
    Unwatch,
    /// EVAL and EVALSHA. [`Script`](crate::Script) says which ones are done.
    Eval {
        /// The script, or its SHA-1 in 40 digits.
        script: Argument<'a>,
        /// Whether it is the SHA-1.
        by_sha1: bool,
        /// `KEYS`.
        keys: Arguments<'a>,
        /// `ARGV`.
        arguments: Arguments<'a>,
    },
    /// SCRIPT LOAD.
    ScriptLoad {
        /// The script.
        script: Argument<'a>,
    },
    /// SCRIPT EXISTS.
    ScriptExists {
        /// What may be SHA-1s.
        scripts: Arguments<'a>,
    },
    /// SCRIPT FLUSH.
    ScriptFlush,
    /// SUBSCRIBE, PSUBSCRIBE and SSUBSCRIBE.
    Subscribe {
        /// To what.
        kind: ChannelKind,
        /// At least one.
        names: Arguments<'a>,
    },
    /// UNSUBSCRIBE, PUNSUBSCRIBE and SUNSUBSCRIBE.
    Unsubscribe {
        /// From what.
        kind: ChannelKind,
        /// None = all.
        names: Arguments<'a>,
    },
    /// PUBLISH and SPUBLISH.
    Publish {
        /// The channel; never a pattern.
        channel: Argument<'a>,
        /// What its subscribers are told.
        message: Argument<'a>,
        /// Whether it is a sharded channel.
        is_sharded: bool,
    },
    /// PUBSUB CHANNELS and SHARDCHANNELS.
    PubSubChannels {
        /// For [`matches`](crate::matches); `None` = all.
        pattern: Option<Argument<'a>>,
        /// Whether sharded channels are asked for.
        is_sharded: bool,
    },
    /// PUBSUB NUMSUB and SHARDNUMSUB.
    PubSubNumSub {
        /// The channels; perhaps none.
        channels: Arguments<'a>,
        /// Whether they are sharded.
        is_sharded: bool,
    },
    /// PUBSUB NUMPAT.
    PubSubNumPat,
    /// OBJECT, but for its HELP. Of a key that is not there, Redis 7.0 answers null to each.
    Object {
        /// What is asked.
        query: ObjectQuery,
        /// Of which key.
        key: Argument<'a>,
    },
}

/// Who somebody says to be. Its `==` takes longer the more bytes agree, and so tells how many do: compare passwords, or hashes
/// of them, in constant time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The user; `None` = the default one, of AUTH with a password alone.
    pub user: Option<Argument<'a>>,
    /// The password.
    pub password: Argument<'a>,
}

/// What is subscribed to. Each kind is a name space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Channels.
    Plain,
    /// Patterns of channels.
    Pattern,
    /// Sharded channels.
    Sharded,
}

/// What a library says of itself with CLIENT SETINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAttribute {
    /// LIB-NAME.
    LibraryName,
    /// LIB-VER.
    LibraryVersion,
}

/// The connections that CLIENT LIST is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientList<'a> {
    /// All of them.
    All,
    /// Those of a type.
    Type(ClientType),
    /// Those with numbers, as they were written: [`ClientList::numbers`] reads them.
    Ids(Arguments<'a>),
}

impl ClientList<'_> {
    /// The numbers that are asked for, if such are.
    pub fn numbers(&self) -> impl Iterator<Item = i64> {
        let ids = match self {
            Self::Ids(ids) => Some(*ids),
            _ => None,
        };
        ids.into_iter().flat_map(|ids| ids.iter().filter_map(|id| integer(&id)))
    }
}

/// A type of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientType {
    /// Ordinary ones.
    Normal,
    /// Those of replicas, of which we have none.
    Replica,
    /// Those that have subscribed.
    PubSub,
    /// That to a primary, of which we have none.
    Master,
}

/// The connections that CLIENT KILL ends: those that pass all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillFilter<'a> {
    /// Whether it is the form with an address alone, which answers `+OK` or `No such client`, and not their number.
    pub one: bool,
    /// The number, at least 1.
    pub id: Option<i64>,
    /// The type.
    pub client_type: Option<ClientType>,
    /// The address of the client.
    pub address: Option<Argument<'a>>,
    /// The address at which it connected.
    pub local_address: Option<Argument<'a>>,
    /// The user. Whether there is such a one is the caller's to check (`No such user '…'`).
    pub user: Option<Argument<'a>>,
    /// Whether the connection that asks is spared.
    pub skip_me: bool,
}

/// Which answers a connection wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    /// All, and an answer to this.
    On,
    /// None, nor one to this.
    Off,
    /// All but that to this and the next.
    Skip,
}

/// What COMMAND is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandQuery<'a> {
    /// COMMAND, and COMMAND INFO: what is known of commands.
    Info {
        /// Of which ones, at most [`NAMES_MAX`](crate::table::NAMES_MAX); none = of all.
        names: Arguments<'a>,
    },
    /// COMMAND DOCS: what commands are for.
    Docs {
        /// Of which ones, at most [`NAMES_MAX`](crate::table::NAMES_MAX); none = of all.
        names: Arguments<'a>,
    },
    /// COMMAND COUNT.
    Count,
    /// COMMAND GETKEYS: which keys a request has.
    GetKeys {
        /// The request.
        request: Arguments<'a>,
    },
    /// COMMAND LIST.
    List {
        /// Which ones; `None` = all.
        filter: Option<ListFilter<'a>>,
    },
    /// COMMAND HELP.
    Help,
}

/// Which commands COMMAND LIST lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFilter<'a> {
    /// Those of a module, of which we have none.
    Module(Argument<'a>),
    /// Those of a category.
    Category(Argument<'a>),
    /// Those that match a pattern.
    Pattern(Argument<'a>),
}

/// Until when something lives, in milliseconds. Where it is a time to live, the current time has to be added, which nothing
/// here knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So long from now on.
    In(i64),
    /// Until then, since 1970.
    At(i64),
}

impl Expiry {
    /// The deadline, in milliseconds since 1970; `None` if it is beyond 64 bits: the answer is then that of
    /// [`CommandError::Expire`](crate::CommandError::Expire). Redis finds it before it looks at the key (but for GETEX).
    pub fn deadline_ms(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::In(ms) => ms.checked_add(now_ms),
            Self::At(ms) => Some(ms),
        }
    }
}

/// What SET is told besides the key and the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions<'a> {
    /// When it is written.
    pub condition: SetCondition<'a>,
    /// Until when it lives.
    pub ttl: KeepTtl,
    /// Whether the answer is what was there before, written or not.
    pub get: bool,
}

/// When SET writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCondition<'a> {
    /// In any case.
    Always,
    /// NX: where there is nothing.
    Absent,
    /// XX: where there is something.
    Present,
    /// IFEQ: where there is this. Valkey has it since 8.1 and Redis since 8.4.
    Equal(Argument<'a>),
}

/// What SET does with the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepTtl {
    /// There is none any more.
    Remove,
    /// KEEPTTL: it stays.
    Keep,
    /// It is this one, which is positive. If it is in the past, the key is gone then, whatever was there, and the answer is
    /// still `+OK`. [`Expiry::deadline_ms`] may still be none.
    Set(Expiry),
}

/// What GETEX does with the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlChange {
    /// It stays: GETEX is then a GET.
    Keep,
    /// PERSIST: there is none any more.
    Remove,
    /// It is this one, which is positive; one in the past deletes the key. [`Expiry::deadline_ms`] may still be none.
    Set(Expiry),
}

/// When EXPIRE sets a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlCondition {
    /// In any case.
    Always,
    /// NX: where there is none.
    Absent,
    /// XX: where there is one.
    Present,
    /// GT, with or without XX: where there is an earlier one.
    Later,
    /// LT: where there is a later one, or none.
    Earlier,
    /// LT and XX: where there is a later one.
    PresentAndEarlier,
}

/// What is told of each field of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashParts {
    /// HGETALL: its name and its value.
    All,
    /// HKEYS: its name.
    Names,
    /// HVALS: its value.
    Values,
}

/// What ZADD does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZAddOptions {
    /// NX or XX: whether those are left alone that are members, or those that are none.
    pub only: Option<Membership>,
    /// GT or LT: whose score is changed, of those that are members.
    pub only_if: Option<ScoreChange>,
    /// CH: the answer counts also those whose score has changed.
    pub counts_changed: bool,
    /// INCR, and ZINCRBY: what is given is added to the score, and the answer is what becomes of it.
    pub increments: bool,
}

/// Of whom ZADD takes note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// NX: of those that are no members.
    Absent,
    /// XX: of those that are.
    Present,
}

/// How a score has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreChange {
    /// GT: to a greater one.
    Greater,
    /// LT: to a lesser one.
    Less,
}

/// Members of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemberRange {
    /// Those from one place to another one, from 0 on; negative = from the end, of which the last is -1.
    Places {
        /// The first place.
        start: i64,
        /// The last place.
        stop: i64,
    },
    /// Those with these scores.
    Scores {
        /// Which scores.
        scores: ScoreRange,
        /// How many of them are passed over first; if negative, all.
        offset: i64,
        /// How many are told then; negative = all.
        count: i64,
    },
}

/// Scores from one to another one.
#[derive(Clone, Copy, PartialEq)]
pub struct ScoreRange {
    /// The least, and whether it is none of them itself.
    pub min: (f64, bool),
    /// The greatest, likewise.
    pub max: (f64, bool),
}

impl ScoreRange {
    /// Whether a score is one of these.
    pub fn contains(&self, score: f64) -> bool {
        let (min, is_above) = self.min;
        let (max, is_below) = self.max;
        (if is_above { score > min } else { score >= min })
            && (if is_below { score < max } else { score <= max })
    }
}

/// What SCAN or HSCAN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Where it goes on; 0 = at the beginning.
    pub cursor: u64,
    /// For [`matches`](crate::matches); `None` = all.
    pub pattern: Option<Argument<'a>>,
    /// About how many, at least 1; Redis' default is 10. It is the client's wish, which may be 2^63 - 1.
    pub count: Option<i64>,
    /// What they hold, by the name that TYPE gives it, in any case; no error, if there is no such type.
    pub holds: Option<Argument<'a>>,
}

/// How FLUSHDB and FLUSHALL free the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// As configured.
    Default,
    /// Later.
    Async,
    /// Before the answer.
    Sync,
}

/// What OBJECT tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectQuery {
    /// How long ago it was used, in seconds.
    IdleTime,
    /// How often it is used.
    Freq,
    /// How its value is encoded.
    Encoding,
    /// How many refer to its value.
    RefCount,
}

#[cfg(test)]
mod tests;
