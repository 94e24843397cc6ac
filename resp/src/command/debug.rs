//! What `Debug` shows of a command.

use std::fmt;

use super::{Command, ScoreRange};

/// All but one variant, as they would be derived.
macro_rules! derived {
    (
        $command:expr, $f:expr;
        units: $($unit:ident)*;
        tuples: $($tuple:ident)*;
        structs: $($name:ident { $($field:ident),* })*;
        $($other:tt)*
    ) => {
        match $command {
            $(Self::$unit => $f.write_str(stringify!($unit)),)*
            $(Self::$tuple(value) => $f.debug_tuple(stringify!($tuple)).field(value).finish(),)*
            $(Self::$name { $($field),* } => $f
                .debug_struct(stringify!($name))
                $(.field(stringify!($field), $field))*
                .finish(),)*
            $($other)*
        }
    };
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        derived! {
            self, f;
            units:
                AclWhoAmI Quit Reset ClientId ClientGetName ClientInfo Time DbSize ReadOnly ReadWrite
                RandomKey Multi Exec Discard Unwatch ScriptFlush PubSubNumPat
                Asking ClusterSlots ClusterShards ClusterNodes ClusterInfo ClusterMyId;
            tuples:
                Auth ClientList ClientKill ClientReply ClientNoEvict ClientNoTouch Command Help
                Scan FlushDb FlushAll;
            structs:
                Hello { protocol, credentials, name }
                Ping { message }
                Echo { message }
                Select { index }
                ClientSetInfo { attribute, value }
                ClientSetName { name }
                Info { sections }
                ConfigGet { patterns }
                ConfigSet { pairs }
                Wait { replicas, timeout_ms }
                ClusterKeySlot { key }
                ClusterCountKeysInSlot { slot }
                Get { key }
                Set { key, value, options }
                SetNx { key, value }
                GetEx { key, ttl }
                GetDel { key }
                GetSet { key, value }
                MGet { keys }
                MSet { pairs }
                MSetNx { pairs }
                StrLen { key }
                Append { key, value }
                GetRange { key, start, end }
                SetRange { key, offset, value }
                IncrByFloat { key, by }
                HSet { key, pairs, counts }
                HSetNx { key, field, value }
                HGet { key, field }
                HMGet { key, fields }
                HGetAll { key, parts }
                HLen { key }
                HExists { key, field }
                HStrLen { key, field }
                HDel { key, fields }
                HIncrByFloat { key, field, by }
                HScan { key, scan }
                HExpire { key, expiry, condition, fields }
                HPersist { key, fields }
                HTtl { key, fields, milliseconds, is_deadline }
                HRandField { key, count, with_values }
                SAdd { key, members }
                SRem { key, members }
                SMembers { key }
                SIsMember { key, member }
                SMIsMember { key, members }
                SCard { key }
                SScan { key, scan }
                ZAdd { key, options, members }
                ZRem { key, members }
                ZRemRangeByScore { key, scores }
                ZScore { key, member }
                ZCard { key }
                ZCount { key, scores }
                ZRange { key, range, is_reversed, with_scores }
                ZScan { key, scan }
                Dump { key }
                Restore { key, payload, expiry, replace }
                Del { keys }
                Unlink { keys }
                Exists { keys }
                Touch { keys }
                Expire { key, expiry, condition }
                Ttl { key, milliseconds }
                ExpireTime { key, milliseconds }
                Persist { key }
                Type { key }
                Keys { pattern }
                Rename { key, to }
                RenameNx { key, to }
                Watch { keys }
                Eval { script, by_sha1, keys, arguments }
                ScriptLoad { script }
                ScriptExists { scripts }
                Subscribe { kind, names }
                Unsubscribe { kind, names }
                Publish { channel, message, is_sharded }
                PubSubChannels { pattern, is_sharded }
                PubSubNumSub { channels, is_sharded }
                Object { query, key };
            // Added to what is not there, the number is the value.
            Self::IncrBy { key, by: _ } => {
                f.debug_struct("IncrBy").field("key", key).finish_non_exhaustive()
            }
            Self::HIncrBy { key, field, by: _ } => f
                .debug_struct("HIncrBy")
                .field("key", key)
                .field("field", field)
                .finish_non_exhaustive(),
        }
    }
}

// Scores are values.
impl fmt::Debug for ScoreRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScoreRange").finish_non_exhaustive()
    }
}
