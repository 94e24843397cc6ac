//! The names of all settings, once: the key in the file, from which environment variable and flag
//! follow, and a line for `--help`.

use std::fmt;

macro_rules! settings {
    ($(#[$meta:meta])* $type:ident { $($variant:ident $key:literal $value:literal $help:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each variant carries its line for --help")]
        pub enum $type { $(#[doc = $help] $variant,)+ }

        impl $type {
            /// All of them, in the order of the file.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The key in the configuration file.
            pub fn key(self) -> &'static str {
                match self { $(Self::$variant => $key,)+ }
            }

            /// What kind of value it takes, as `--help` names it.
            pub fn value_name(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            /// What it means, in a line.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }

            /// The setting with this key.
            pub fn of_key(key: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|setting| setting.key() == key)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.key())
            }
        }
    };
}

settings! {
    /// A setting of the node as a whole.
    Setting {
        Cluster "cluster" "NAME" "The cluster's name";
        Name "name" "NAME" "This node's name, for people";
        DataDir "data_dir" "DIR" "Where the node keeps its id, incarnation, clock and known peers";
        ShmDir "shm_dir" "DIR" "Where the shared-memory segments are made";
        Keyring "keyring" "FILE" "The keys of nodes and clients of other hosts; empty: none";
        Listen "listen" "ADDR" "Where to listen, UDP and TCP; port 0 picks a free one";
        Advertise "advertise" "ADDR" "Where others reach this node, if not where it listens";
        Socket "socket" "PATH" "The Unix socket for processes of this host; empty: none";
        SocketMode "socket_mode" "MODE" "Who may open the socket: 600, 660 (its group), 666 (all)";
        LocalRoles "local_roles" "USER=ROLE,…" "What processes of this host may do over the socket";
        Seeds "seeds" "ADDR,…" "Nodes to join through, host:port";
        Zone "zone" "NAME" "What fails together with this node";
        Weight "weight" "N" "Its share of the slots; 100 is the ordinary share";
        Rings "rings" "N,…" "The rings it serves";
        ConnectionsMax "connections_max" "N" "The most streams open at once";
        Cores "cores" "N" "How many cores serve sessions, each with its share of the slots";
        LanesMax "lanes_max" "N" "The most clients served through shared memory; 0: none";
        LanePollUs "lane_poll_us" "N" "Microseconds to look for submissions before sleeping";
        StopTimeout "stop_timeout" "TIME" "How long to finish what was begun when told to stop";
        OnStop "on_stop" "WHAT" "What stopping means for its slots: return, leave";
        JoinTimeout "join_timeout" "TIME" "How long to look for other members before serving alone";
        DownAfter "down_after" "TIME" "How long after a member was found dead its slots move";
        MaxClockDrift "max_clock_drift" "TIME" "How far a clock may be off before its writes are refused";
        SyncInterval "sync_interval" "TIME" "How often to compare all slots with the other homes";
        HintsMax "hints_max" "SIZE" "The most bytes of writes kept for homes out of reach";
        HintsMaxAge "hints_max_age" "TIME" "How long such a write is kept before its slot is compared";
        HintsRate "hints_rate" "SIZE" "The most bytes of such writes per second to one home";
        HandoverRate "handover_rate" "SIZE" "The most bytes per second that comparisons exchange";
        HomeTimeout "home_timeout" "TIME" "How long a home may take to answer";
        RedisListen "redis.listen" "ADDR,…" "Where clients of Redis find the node, TCP; empty: nowhere";
        RedisSocket "redis.socket" "PATH" "The Unix socket for clients of Redis; empty: none";
        RedisPasswordFile "redis.password_file" "FILE" "The password that they have to say; empty: none";
        RedisPasswordFiles "redis.password_files" "ROLE=FILE,…" "The passwords of users who are roles";
        RedisConnectionsMax "redis.connections_max" "N" "The most of their connections open at once";
        RedisOnLateSave "redis.on_late_save" "WHAT" "What becomes of a SET after the logout: error, ignore, recreate";
        RedisCluster "redis.cluster" "on|off" "Whether clients of Redis find a cluster: off, on";
        RedisAnnounce "redis.announce" "ADDR" "Where they find this node then, if not where it listens; empty: there";
        RedisKeyspaceEvents "redis.keyspace_events" "on|off" "Whether they may listen to what becomes of keys: off, on";
        Log "log" "FILTER" "What to log: error, warn, info, debug, trace, or per module";
    }
}

settings! {
    /// A setting of one table, under `[[table]]`.
    TableSetting {
        Name "name" "NAME" "The table's name";
        Replicas "replicas" "N" "How many homes a session has";
        Write "write" "HOMES" "How many homes hold a write before it is acknowledged: one, quorum, all";
        Idle "idle" "TIME" "How long a session lives unused";
        LifetimeMax "lifetime_max" "TIME" "How long a session lives at most";
        MaxValue "max_value" "SIZE" "The largest value";
        RecordSize "record_size" "SIZE" "The size of a record in shared memory";
        Memory "memory" "SIZE" "The size of the table's segment";
        OnFull "on_full" "WHAT" "What a full table does with a new session: refuse, evict";
        Overflow "overflow" "WHAT" "What becomes of sessions that expired or were evicted: drop, archive";
        ArchiveMax "archive_max" "SIZE" "The most bytes of them on disk";
        HalfLife "half_life" "TIME" "How long a session that is not used takes to lose half of its heat";
        StaleMax "stale_max" "TIME" "How long readers may trust shared memory that nobody vouches for";
        Burn "burn" "USES" "How hot a session is that is used too much, and slowed down";
        BurnHalfLife "burn_half_life" "TIME" "How long it takes to lose half of that heat";
        BurnClientMax "burn_client_max" "USES" "How much of that heat one client may account for";
        SessionRate "session_rate" "N" "How often a session may be used in a second through a node";
        TableRate "table_rate" "N" "How many requests about the table a node takes in a second";
        Hold "hold" "TIME" "How long a request for a session that is slowed down is held";
        HeldMax "held_max" "N" "How many requests are held at any time";
        OwnerSessionsMax "owner_sessions_max" "N" "How many sessions an owner may have";
        OwnerSessionsOver "owner_sessions_over" "WHAT" "What becomes of one more: end-oldest (it begins, others end), refuse";
        Read "read" "WHERE" "Where sessions are read: near (out of the host's memory, where they may be), home";
        PromoteAfter "promote_after" "READS" "Upon which read of it a session comes back from a ring further out";
        PromoteRate "promote_rate" "SIZE" "The most bytes of sessions per second that come back";
        Partition "partition" "WHAT" "What plain reads and writes do without a majority of the homes: serve, refuse";
    }
}

settings! {
    /// A setting of one ring further out, under `[[table.ring]]`.
    RingSetting {
        Name "name" "NAME" "The ring's name";
        After "after" "TIME" "How long after its only use a session goes there";
        Replicas "replicas" "N" "How many homes a session has there";
        Memory "memory" "SIZE" "The size of the ring's segment";
        Storage "storage" "WHERE" "Where that is: memory, disk";
    }
}

impl Setting {
    /// The environment variable that sets it.
    pub fn env(self) -> String {
        format!("{ENV_PREFIX}{}", self.key().to_uppercase().replace('.', "_"))
    }

    /// The flag of `annulus node` that sets it, without the dashes in front: the key with dashes, also for the dot of a
    /// section.
    pub fn flag(self) -> &'static str {
        match self {
            Self::DataDir => "data-dir",
            Self::ShmDir => "shm-dir",
            Self::SocketMode => "socket-mode",
            Self::LocalRoles => "local-roles",
            Self::ConnectionsMax => "connections-max",
            Self::LanesMax => "lanes-max",
            Self::LanePollUs => "lane-poll-us",
            Self::StopTimeout => "stop-timeout",
            Self::OnStop => "on-stop",
            Self::JoinTimeout => "join-timeout",
            Self::DownAfter => "down-after",
            Self::MaxClockDrift => "max-clock-drift",
            Self::SyncInterval => "sync-interval",
            Self::HintsMax => "hints-max",
            Self::HintsMaxAge => "hints-max-age",
            Self::HintsRate => "hints-rate",
            Self::HandoverRate => "handover-rate",
            Self::HomeTimeout => "home-timeout",
            Self::RedisListen => "redis-listen",
            Self::RedisSocket => "redis-socket",
            Self::RedisPasswordFile => "redis-password-file",
            Self::RedisPasswordFiles => "redis-password-files",
            Self::RedisConnectionsMax => "redis-connections-max",
            Self::RedisOnLateSave => "redis-on-late-save",
            Self::RedisCluster => "redis-cluster",
            Self::RedisAnnounce => "redis-announce",
            Self::RedisKeyspaceEvents => "redis-keyspace-events",
            one_word => one_word.key(),
        }
    }

    /// The setting that this environment variable sets.
    pub fn of_env(variable: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|setting| variable == setting.env())
    }
}

/// What every environment variable of ours begins with.
pub(super) const ENV_PREFIX: &str = "ANNULUS_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_the_key_with_dashes_and_a_variable_the_key_in_capitals() {
        for setting in Setting::ALL.iter().copied() {
            assert_eq!(setting.flag(), setting.key().replace(['_', '.'], "-"));
            assert_eq!(Setting::of_env(&setting.env()), Some(setting));
        }
        assert_eq!(Setting::of_env("ANNULUS_data_dir"), None);
        assert_eq!(Setting::of_env("DATA_DIR"), None);
    }
}
