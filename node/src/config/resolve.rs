//! From what was given to what is meant: layers, types, bounds, and how values go together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use annulus_gossip::MeshConfig;
use annulus_proto::limits::{NAME_BYTES_MAX, REPLICAS_MAX, VALUE_BYTES_MAX};
use annulus_proto::message::Role;
use annulus_shm::{RECORD_SIZE_MAX, RECORD_SIZE_MIN};

use super::error::{ConfigError, Origin, Problem};
use super::file::{self, Document, Given, GivenRing, GivenTable, Raw};
use super::host::{self, Host};
use super::setting::{ENV_PREFIX, RingSetting, Setting, TableSetting};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use super::{Config, Sources};
use crate::core::{
    CoreSettings, OnFull, OverLimit, Overflow, OwnerLimit, Partition, Promotion, ReadFrom,
    SuspectPolicy, TablePolicy, WriteHomes, record_bytes_max,
};
use crate::driver::{
    CORES_MAX, LaneSettings, LocalRoles, NodeSettings, OnLateSave, RECORD_SIZE_DEFAULT,
    REDIS_LISTEN, ROOT, RedisSettings, Storage, TableSettings,
};

pub(super) fn load(sources: &Sources, host: &Host) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let path = find_file(sources, host);
    let document = match &path {
        None => Document::default(),
        Some(path) => file::parse(&file::read(path)?, path, &mut problems),
    };
    let (given, tables) = layer(document, sources);
    let (explained, warnings) = (Vec::new(), Vec::new());
    let (cores, has_file) = (NonZeroU16::MIN, path.is_some());
    let mut resolver = Resolver { given, problems, explained, warnings, cores, has_file };
    resolver.note_unknown_variables(sources);
    let (settings, log) = resolver.node(&tables, &sources.env, host);
    let Resolver { problems, explained, warnings, .. } = resolver;
    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }
    Ok(Config { settings, log, file: path, explained, warnings })
}

fn find_file(sources: &Sources, host: &Host) -> Option<PathBuf> {
    let variable = || {
        let named = sources.env.iter().rev().find(|(variable, _)| variable == CONFIG_VARIABLE);
        named.map(|(_, path)| PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty())
    };
    sources.file.clone().or_else(variable).or_else(|| host.config_file())
}

/// The winner of each setting: flags over environment over file.
fn layer(document: Document, sources: &Sources) -> (BTreeMap<Setting, Given>, Vec<GivenTable>) {
    let Document { settings: mut given, tables } = document;
    for (variable, value) in &sources.env {
        if let Some(setting) = Setting::of_env(variable) {
            let origin = Origin::Environment { variable: variable.clone() };
            given.insert(setting, Given { origin, raw: Raw::Text(value.clone()) });
        }
    }
    for (setting, value) in &sources.flags.given {
        let origin = Origin::Flag { flag: format!("--{}", setting.flag()) };
        given.insert(*setting, Given { origin, raw: Raw::Text(value.clone()) });
    }
    (given, tables)
}

struct Resolver {
    /// Into how many parts each table is divided; 1 until that is known.
    cores: NonZeroU16,
    /// Whether a configuration was written.
    has_file: bool,
    given: BTreeMap<Setting, Given>,
    problems: Vec<Problem>,
    explained: Vec<(String, String, Origin)>,
    warnings: Vec<String>,
}

impl Resolver {
    fn node(
        &mut self,
        tables: &[GivenTable],
        env: &[(String, String)],
        host: &Host,
    ) -> (NodeSettings, String) {
        let core = CoreSettings::default();
        let mesh = MeshConfig::default();
        let cluster = self.take(Setting::Cluster, "annulus".to_owned(), identifier, Clone::clone);
        let name = self.take(Setting::Name, host.name(), person_name, Clone::clone);
        let data_dir = self.take(Setting::DataDir, host.data_dir(env), path, show_path);
        let shm_dir = self.take(Setting::ShmDir, PathBuf::from("/dev/shm"), path, show_path);
        let keyring = self.take(Setting::Keyring, None, optional_path, show_optional_path);
        let has_keys = keyring.is_some();
        let listen =
            self.take(Setting::Listen, LISTEN, |raw| listen(raw, has_keys), SocketAddr::to_string);
        let advertise = self.take(Setting::Advertise, None, advertise, |addr| {
            addr.map_or_else(|| format!("{listen} (as listen)"), |addr| addr.to_string())
        });
        let default_socket = host.socket(&data_dir);
        if default_socket.is_none() && !self.given.contains_key(&Setting::Socket) {
            self.warnings.push(format!(
                "no Unix socket: {} is too long a path for one; set `socket`",
                data_dir.join("node.sock").display()
            ));
        }
        let socket = self.take(Setting::Socket, default_socket, socket, show_optional_path);
        let socket_mode =
            self.take(Setting::SocketMode, 0o600, socket_mode, |mode| format!("{mode:o}"));
        let local_roles = self.take(
            Setting::LocalRoles,
            LocalRoles::default(),
            |raw| local_roles(raw, host),
            show_local_roles,
        );
        if local_roles.users.get(&ROOT).is_some_and(|role| *role != Role::Development) {
            self.warnings.push("local_roles: root has every role, whatever it is given".to_owned());
        }
        let seeds = self.take(Setting::Seeds, Vec::new(), seeds, |seeds| show_list(seeds));
        let zone = self.take(Setting::Zone, String::new(), zone, Clone::clone);
        let weight = self.take(Setting::Weight, 100, whole(0..=u16::MAX.into()), u16::to_string);
        let rings = self.take(Setting::Rings, u8::MAX, rings, show_rings);
        let connections_max =
            self.take(Setting::ConnectionsMax, 1_024, whole(1..=1_000_000), u32::to_string);
        let cores = self.take(
            Setting::Cores,
            NonZeroU16::MIN,
            |raw| {
                let count: u16 = whole(1..=CORES_MAX.into())(raw)?;
                Ok(NonZeroU16::new(count).expect("one at least"))
            },
            NonZeroU16::to_string,
        );
        self.cores = cores;
        let lanes = LaneSettings::default();
        let lanes = LaneSettings {
            max: self.take(Setting::LanesMax, lanes.max, whole(0..=65_536), u32::to_string),
            poll: self.take(
                Setting::LanePollUs,
                lanes.poll,
                |raw| whole(0..=10_000)(raw).map(Duration::from_micros),
                |poll| poll.as_micros().to_string(),
            ),
        };
        let stop_timeout =
            self.take_time(Setting::StopTimeout, Duration::from_secs(5), ZERO..=10 * MINUTE);
        let leave_on_stop = self.take(Setting::OnStop, false, leaves, |leave| {
            if *leave { "leave" } else { "return" }.to_owned()
        });
        let join_timeout =
            self.take_time(Setting::JoinTimeout, core.join_timeout, ZERO..=10 * MINUTE);
        let down_after = self.take_time(Setting::DownAfter, mesh.down_after, ZERO..=60 * MINUTE);
        let max_clock_drift =
            self.take_time(Setting::MaxClockDrift, core.max_clock_drift, MS..=60 * MINUTE);
        let sync_interval =
            self.take_time(Setting::SyncInterval, core.sync_interval, 100 * MS..=24 * 60 * MINUTE);
        let hints_bytes_max = self.take(
            Setting::HintsMax,
            core.hints_bytes_max,
            |raw| {
                let bytes = size(raw, 64 << 10..=1 << 40)?;
                Ok(NonZeroU64::new(bytes).expect("64 KiB at least"))
            },
            |bytes| show_size(bytes.get()),
        );
        let hints_max_age = self.take_time(
            Setting::HintsMaxAge,
            core.hints_max_age,
            Duration::from_secs(1)..=24 * 60 * MINUTE,
        );
        let hints_rate = self.take(
            Setting::HintsRate,
            core.hints_rate,
            |raw| {
                let bytes = size(raw, 4 << 10..=1 << 40)?;
                Ok(NonZeroU64::new(bytes).expect("4 KiB at least"))
            },
            |bytes| show_size(bytes.get()),
        );
        let handover_rate = self.take(
            Setting::HandoverRate,
            core.handover_rate,
            |raw| {
                let bytes = size(raw, 64 << 10..=1 << 40)?;
                Ok(NonZeroU64::new(bytes).expect("64 KiB at least"))
            },
            |bytes| show_size(bytes.get()),
        );
        let home_timeout = self.take_time(Setting::HomeTimeout, core.home_timeout, MS..=MINUTE);
        // The one on this host, if several are tried out.
        let is_development = !self.has_file && !has_keys && listen == LISTEN;
        let (redis, tells_gone) = self.redis(is_development);
        let log = self.take(Setting::Log, "info".to_owned(), filter, Clone::clone);
        let settings = NodeSettings {
            cluster,
            name,
            data_dir,
            shm_dir,
            keyring,
            listen,
            advertise: advertise.filter(|addr| *addr != listen),
            socket,
            socket_mode,
            local_roles,
            seeds,
            zone,
            weight,
            rings,
            connections_max,
            cores,
            lanes,
            stop_timeout,
            leave_on_stop,
            mesh: MeshConfig {
                down_after,
                isolated_after: mesh.isolated_after.max(3 * down_after),
                ..mesh
            },
            core: CoreSettings {
                max_clock_drift,
                join_timeout,
                sync_interval,
                hints_bytes_max,
                hints_max_age,
                hints_rate,
                handover_rate,
                home_timeout,
                tells_gone,
                ..core
            },
            redis,
            tables: self.tables(tables),
        };
        (settings, log)
    }

    /// What clients of Redis find, and whether nodes tell each other what becomes of keys, for them.
    fn redis(&mut self, is_development: bool) -> (RedisSettings, bool) {
        let default = RedisSettings::default();
        let gives_way = is_development && !self.given.contains_key(&Setting::RedisListen);
        // Looked at out of their order in the file, since one depends on the other.
        let given = |setting| self.given.get(&setting).map(|given| &given.raw);
        let one = given(Setting::RedisPasswordFile).map(optional_path);
        let more = given(Setting::RedisPasswordFiles).map(password_files);
        let has_password = matches!(one, Some(Ok(Some(_))))
            || more.is_some_and(|more| !more.is_ok_and(|it| it.is_empty()));
        let listen = self.take(
            Setting::RedisListen,
            if gives_way { vec![REDIS_LISTEN] } else { default.listen },
            |raw| redis_listen(raw, has_password),
            |addrs| {
                let shown = show_list(&addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
                if gives_way { format!("{shown} (if it is free)") } else { shown }
            },
        );
        // What may give way is nothing to be found at.
        let listens = !listen.is_empty() && !gives_way;
        let redis = RedisSettings {
            listen,
            gives_way,
            socket: self.take(Setting::RedisSocket, default.socket, socket, show_optional_path),
            password_file: self.take(
                Setting::RedisPasswordFile,
                default.password_file,
                optional_path,
                show_optional_path,
            ),
            password_files: self.take(
                Setting::RedisPasswordFiles,
                default.password_files,
                password_files,
                |files| show_password_files(files),
            ),
            connections_max: self.take(
                Setting::RedisConnectionsMax,
                default.connections_max,
                whole(1..=1_000_000),
                u32::to_string,
            ),
            on_late_save: self.take(
                Setting::RedisOnLateSave,
                default.on_late_save,
                on_late_save,
                |what| {
                    match what {
                        OnLateSave::Error => "error",
                        OnLateSave::Ignore => "ignore",
                        OnLateSave::Recreate => "recreate",
                    }
                    .to_owned()
                },
            ),
            cluster: self.take(
                Setting::RedisCluster,
                default.cluster,
                |raw| redis_cluster(raw, listens),
                |is_on| if *is_on { "on" } else { "off" }.to_owned(),
            ),
            announce: self.take(
                Setting::RedisAnnounce,
                default.announce,
                |raw| match raw {
                    Raw::Text(text) if text.is_empty() => Ok(None),
                    raw => advertise(raw),
                },
                |addr| addr.map(|addr| addr.to_string()).unwrap_or_default(),
            ),
        };
        let tells_gone = self.take(
            Setting::RedisKeyspaceEvents,
            CoreSettings::default().tells_gone,
            on_or_off,
            |is_on| if *is_on { "on" } else { "off" }.to_owned(),
        );
        (redis, tells_gone)
    }

    /// The value of a setting: the winner's, else the default. A value that is wrong is reported,
    /// and the default stands in for it so that the rest is checked too.
    fn take<T>(
        &mut self,
        setting: Setting,
        default: T,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let given = self.given.get(&setting);
        let (value, origin) = understand(given, default, parse, setting.key(), &mut self.problems);
        self.explained.push((setting.key().to_owned(), show(&value), origin));
        value
    }

    fn take_time(
        &mut self,
        setting: Setting,
        default: Duration,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        self.take(setting, default, |raw| duration(raw, bounds), |time| show_duration(*time))
    }

    fn tables(&mut self, given: &[GivenTable]) -> Vec<TableSettings> {
        if given.is_empty() {
            let (settings, rings) = (BTreeMap::new(), Vec::new());
            let none = GivenTable { origin: Origin::Default, settings, rings };
            return vec![self.table(&none)];
        }
        if let Some(extra) = given.get(TABLES_MAX) {
            self.problems.push(Problem::Value {
                origin: extra.origin.clone(),
                key: "table".to_owned(),
                value: format!("({} of them)", given.len()),
                why: format!("a node has at most {TABLES_MAX} tables"),
            });
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let mut tables = Vec::new();
        for table in given {
            let name = table.settings.get(&TableSetting::Name);
            let Some(name) = name else {
                self.problems.push(Problem::Missing {
                    origin: table.origin.clone(),
                    key: "name".to_owned(),
                    hint: "each [[table]] has one, such as name = \"sessions\"".to_owned(),
                });
                continue;
            };
            let settings = self.table(table);
            if !names.insert(settings.policy.name.clone()) {
                self.problems.push(Problem::Value {
                    origin: name.origin.clone(),
                    key: "table.name".to_owned(),
                    value: name.raw.to_string(),
                    why: "there is a table of this name above; each needs its own".to_owned(),
                });
            }
            let rings = self.rings(&settings, &table.rings);
            tables.push(settings);
            for (after, ring) in rings {
                // Sessions come here from the one inside of it.
                if let Some(inside) = tables.last_mut() {
                    inside.policy.cools_after = Some(after);
                }
                tables.push(ring);
            }
            if tables.len() > TABLES_MAX {
                self.problems.push(Problem::Value {
                    origin: table.origin.clone(),
                    key: "table".to_owned(),
                    value: format!("({} with their rings)", tables.len()),
                    why: format!(
                        "a node has at most {TABLES_MAX} tables, each ring counted as one"
                    ),
                });
                return tables;
            }
        }
        tables
    }

    /// The rings of a table further out, each with after how long sessions go there.
    fn rings(
        &mut self,
        table: &TableSettings,
        given: &[GivenRing],
    ) -> Vec<(Duration, TableSettings)> {
        if let Some(extra) = given.get(RINGS_MAX) {
            self.problems.push(Problem::Value {
                origin: extra.origin.clone(),
                key: format!("table.{}.ring", table.policy.name),
                value: format!("({} of them)", given.len()),
                why: format!("a table has at most {RINGS_MAX} rings further out"),
            });
            return Vec::new();
        }
        let mut rings: Vec<(Duration, TableSettings)> = Vec::new();
        for (number, given) in (1..).zip(given) {
            let missing = [
                (RingSetting::Name, "each [[table.ring]] has one, such as name = \"cold\""),
                (RingSetting::After, "how long after its only use a session goes there: \"1h\""),
            ];
            for (setting, hint) in missing {
                if !given.settings.contains_key(&setting) {
                    self.problems.push(Problem::Missing {
                        origin: given.origin.clone(),
                        key: setting.key().to_owned(),
                        hint: hint.to_owned(),
                    });
                }
            }
            let (after, ring) = self.ring(table, number, given);
            let refuse = |resolver: &mut Self, setting: RingSetting, why: String| {
                if let Some(given) = given.settings.get(&setting) {
                    resolver.problems.push(Problem::Value {
                        origin: given.origin.clone(),
                        key: format!("table.{}.ring.{}", table.policy.name, setting.key()),
                        value: given.raw.to_string(),
                        why,
                    });
                }
            };
            if rings.iter().any(|(_, other)| other.policy.name == ring.policy.name) {
                let why = "there is a ring of this name above; each needs its own".to_owned();
                refuse(self, RingSetting::Name, why);
            }
            if ring.policy.name.len() > NAME_BYTES_MAX {
                let why = format!(
                    "{:?} has {} bytes; the names of table and ring have at most {} together",
                    ring.policy.name,
                    ring.policy.name.len(),
                    NAME_BYTES_MAX - 1
                );
                refuse(self, RingSetting::Name, why);
            }
            if let Some((before, _)) = rings.last()
                && after <= *before
            {
                let why = format!(
                    "sessions go to the ring before it after {}, and cannot be here before that: \
                     raise it, or change the order of the rings",
                    show_duration(*before)
                );
                refuse(self, RingSetting::After, why);
            }
            let told_apart = table.policy.half_life * HALF_LIVES_TOLD_APART;
            if after > told_apart {
                let why = format!(
                    "half_life = {} tells times up to {} apart: raise one, or lower the other",
                    show_duration(table.policy.half_life),
                    show_duration(told_apart)
                );
                refuse(self, RingSetting::After, why);
            }
            if !table.policy.idle.is_zero() && after >= table.policy.idle {
                self.warnings.push(format!(
                    "table {}: no session comes to ring {} that does not ask for a longer life, \
                     since after = {} is no shorter than idle = {}",
                    table.policy.name,
                    ring.policy.name,
                    show_duration(after),
                    show_lifetime(&table.policy.idle),
                ));
            }
            rings.push((after, ring));
        }
        rings
    }

    fn ring(
        &mut self,
        table: &TableSettings,
        number: u8,
        given: &GivenRing,
    ) -> (Duration, TableSettings) {
        let prefix = format!("table.{}.ring", table.policy.name);
        let mut ring = PartResolver::new(prefix, &given.settings, self);
        let name = ring.take(RingSetting::Name, number.to_string(), identifier, Clone::clone);
        ring.rename(&name);
        let after = ring.take(
            RingSetting::After,
            table.policy.idle,
            |raw| duration(raw, Duration::from_secs(1)..=365 * 24 * 60 * MINUTE),
            |time| show_duration(*time),
        );
        let replicas =
            ring.take(RingSetting::Replicas, table.policy.replicas, replicas, NonZeroU8::to_string);
        let least =
            least_memory_of_cores(ring.resolver.cores, table.policy.max_value, table.record_size);
        let enough = |raw: &Raw| {
            let bytes = size(raw, 1..=1 << 46)?;
            let why = || {
                let least = show_size(least);
                format!("too small for the table's max_value and record_size: at least {least:?}")
            };
            if bytes >= least { Ok(bytes) } else { Err(why()) }
        };
        let memory =
            ring.take(RingSetting::Memory, MEMORY.max(least), enough, |bytes| show_size(*bytes));
        let storage = ring.take(RingSetting::Storage, Storage::Memory, storage, |storage| {
            match storage {
                Storage::Memory => "memory",
                Storage::Disk => "disk",
            }
            .to_owned()
        });
        let policy = TablePolicy {
            name: format!("{}@{name}", table.policy.name),
            replicas,
            on_full: OnFull::Refuse,
            ring: number,
            suspects: None,
            owner_limit: None,
            ..table.policy.clone()
        };
        let &TableSettings { record_size, archive_max, .. } = table;
        (after, TableSettings { policy, memory, storage, record_size, archive_max })
    }

    fn table(&mut self, given: &GivenTable) -> TableSettings {
        let default = TablePolicy::default();
        let mut table = PartResolver::new("table".to_owned(), &given.settings, self);
        let name = table.take(TableSetting::Name, default.name, identifier, Clone::clone);
        table.rename(&name);
        let replicas =
            table.take(TableSetting::Replicas, default.replicas, replicas, NonZeroU8::to_string);
        let write = table.take(TableSetting::Write, default.write, write_homes, |write| {
            match write {
                WriteHomes::One => "one",
                WriteHomes::Quorum => "quorum",
                WriteHomes::All => "all",
            }
            .to_owned()
        });
        let idle = table.take(TableSetting::Idle, default.idle, lifetime, show_lifetime);
        let lifetime_max =
            table.take(TableSetting::LifetimeMax, default.lifetime_max, lifetime, show_lifetime);
        let max_value = table.take(
            TableSetting::MaxValue,
            default.max_value,
            |raw| {
                let bytes = size(raw, 1..=VALUE_BYTES_MAX as u64)?;
                Ok(u32::try_from(bytes).expect("1 MiB at most"))
            },
            |bytes| show_size((*bytes).into()),
        );
        let record_size =
            table.take(TableSetting::RecordSize, RECORD_SIZE_DEFAULT, record_size, |bytes| {
                show_size((*bytes).into())
            });
        let memory = table.take(
            TableSetting::Memory,
            MEMORY,
            |raw| size(raw, 1..=1 << 46),
            |bytes| show_size(*bytes),
        );
        let on_full = table.take(TableSetting::OnFull, default.on_full, on_full, |on_full| {
            match on_full {
                OnFull::Refuse => "refuse",
                OnFull::Evict => "evict",
            }
            .to_owned()
        });
        let overflow = table.take(TableSetting::Overflow, default.overflow, overflow, |overflow| {
            match overflow {
                Overflow::Archive => "archive",
                _ => "drop",
            }
            .to_owned()
        });
        let archive_max = table.take(
            TableSetting::ArchiveMax,
            ARCHIVE_MAX,
            |raw| size(raw, 1 << 20..=1 << 50),
            |bytes| show_size(*bytes),
        );
        let half_life = table.take(
            TableSetting::HalfLife,
            default.half_life,
            |raw| duration(raw, Duration::from_secs(1)..=30 * 24 * 60 * MINUTE),
            |time| show_duration(*time),
        );
        let stale_max = table.take(
            TableSetting::StaleMax,
            default.stale_max,
            |raw| duration(raw, 100 * MS..=365 * 24 * 60 * MINUTE),
            |time| show_duration(*time),
        );
        let read = table.take(TableSetting::Read, default.read, read_from, |read| {
            match read {
                ReadFrom::Near => "near",
                ReadFrom::Home => "home",
            }
            .to_owned()
        });
        let partition =
            table.take(TableSetting::Partition, default.partition, partition, |partition| {
                match partition {
                    Partition::Serve => "serve",
                    Partition::Refuse => "refuse",
                }
                .to_owned()
            });
        let promotion = Promotion {
            after: table.take(
                TableSetting::PromoteAfter,
                default.promotion.after,
                |raw| {
                    let reads: u8 = whole(1..=255)(raw)?;
                    Ok(NonZeroU8::new(reads).expect("one at least"))
                },
                NonZeroU8::to_string,
            ),
            rate: table.take(
                TableSetting::PromoteRate,
                default.promotion.rate,
                |raw| {
                    let bytes = size(raw, 64 << 10..=1 << 40)?;
                    Ok(NonZeroU64::new(bytes).expect("64 KiB at least"))
                },
                |bytes| show_size(bytes.get()),
            ),
        };
        let suspects = table.suspects();
        let owner_limit = table.owner_limit();
        table.check_memory(memory, max_value, record_size);
        if !lifetime_max.is_zero() && (idle.is_zero() || idle > lifetime_max) {
            let (idle, cap) = (show_lifetime(&idle), show_lifetime(&lifetime_max));
            let sentence = format!(
                "table {name}: idle = {idle} never applies, since lifetime_max = {cap} comes first"
            );
            if table.origin(TableSetting::Idle) != Origin::Default && idle != "never" {
                self.warnings.push(sentence);
            }
        }
        let policy = TablePolicy {
            name,
            replicas,
            write,
            idle,
            lifetime_max,
            max_value,
            on_full,
            half_life,
            stale_max,
            partition,
            read,
            merge: None,
            ring: 0,
            cools_after: None,
            promotion,
            suspects,
            owner_limit,
            overflow,
        };
        TableSettings { policy, memory, storage: Storage::Memory, record_size, archive_max }
    }

    /// Variables that look like ours and set nothing. Not an error: orchestrators make such up for
    /// each service they know (`ANNULUS_SERVICE_HOST`, `ANNULUS_PORT`).
    fn note_unknown_variables(&mut self, sources: &Sources) {
        let known = Setting::ALL.iter().map(|setting| setting.env());
        let known: Vec<String> = known.chain(OTHER_VARIABLES.map(str::to_owned)).collect();
        for (variable, _) in &sources.env {
            let ours = variable.starts_with(ENV_PREFIX) && !known.contains(variable);
            if !ours || variable.starts_with("ANNULUS_PORT") || variable.contains("_SERVICE_") {
                continue;
            }
            let hint = file::suggest(variable, known.iter().map(String::as_str));
            let hint = if hint.starts_with("did") { hint } else { "it sets nothing".to_owned() };
            self.warnings.push(format!("unknown variable {variable}: {hint}"));
        }
    }
}

/// Resolves the settings of one table, or of one of its rings.
struct PartResolver<'r, S> {
    prefix: String,
    given: &'r BTreeMap<S, Given>,
    resolver: &'r mut Resolver,
    origins: BTreeMap<S, Origin>,
}

impl<'r, S: Copy + Ord + fmt::Display> PartResolver<'r, S> {
    fn new(prefix: String, given: &'r BTreeMap<S, Given>, resolver: &'r mut Resolver) -> Self {
        Self { prefix, given, resolver, origins: BTreeMap::new() }
    }

    fn take<T>(
        &mut self,
        setting: S,
        default: T,
        parse: impl FnOnce(&Raw) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let key = format!("{}.{setting}", self.prefix);
        let given = self.given.get(&setting);
        let (value, origin) = understand(given, default, parse, &key, &mut self.resolver.problems);
        self.resolver.explained.push((key, show(&value), origin.clone()));
        self.origins.insert(setting, origin);
        value
    }

    /// Now that its name is known, its keys carry it.
    fn rename(&mut self, name: &str) {
        self.prefix = format!("{}.{name}", self.prefix);
        if let Some((key, ..)) = self.resolver.explained.last_mut() {
            *key = format!("{}.name", self.prefix);
        }
    }

    fn origin(&self, setting: S) -> Origin {
        self.origins.get(&setting).cloned().unwrap_or(Origin::Default)
    }
}

impl PartResolver<'_, TableSetting> {
    /// When sessions are used too much; `None` = nothing says so.
    fn suspects(&mut self) -> Option<SuspectPolicy> {
        let burn = self.take(TableSetting::Burn, None, some_or("never", 10..=BURN_MAX), |rate| {
            show_some_or("never", *rate)
        });
        let of_session = SuspectPolicy::new(burn.unwrap_or(NonZeroU32::MAX));
        let half_life = self.take(
            TableSetting::BurnHalfLife,
            of_session.half_life,
            |raw| duration(raw, Duration::from_secs(1)..=60 * MINUTE),
            |time| show_duration(*time),
        );
        let client_max = self.take(
            TableSetting::BurnClientMax,
            None,
            some_or("half", 1..=u32::MAX.into()),
            |uses| show_some_or("half", *uses),
        );
        let client_max = client_max.map_or(of_session.client_max, NonZeroU32::get);
        let mut rate = |setting| {
            self.take(setting, None, some_or("never", 1..=RATE_MAX), |rate| {
                show_some_or("never", *rate)
            })
        };
        let session_rate = rate(TableSetting::SessionRate);
        let table_rate = rate(TableSetting::TableRate);
        let hold = self.take(
            TableSetting::Hold,
            of_session.hold,
            |raw| duration(raw, ZERO..=HOLD_MAX),
            |time| show_duration(*time),
        );
        let held_max = self.take(
            TableSetting::HeldMax,
            of_session.held_max,
            whole(1..=16_384),
            usize::to_string,
        );
        let says_so = burn.or(session_rate).or(table_rate).is_some();
        let changed = [
            (TableSetting::BurnHalfLife, half_life != of_session.half_life),
            (TableSetting::BurnClientMax, client_max != of_session.client_max),
            (TableSetting::Hold, hold != of_session.hold),
            (TableSetting::HeldMax, held_max != of_session.held_max),
        ];
        let without = changed.into_iter().find(|(_, is_changed)| *is_changed);
        if let (false, Some((setting, _))) = (says_so, without) {
            self.resolver.warnings.push(format!(
                "{}: {setting} never applies without burn, session_rate or table_rate",
                self.prefix
            ));
        }
        says_so.then_some(SuspectPolicy {
            half_life,
            client_max,
            session_rate,
            table_rate,
            hold,
            held_max,
            ..of_session
        })
    }

    /// How many sessions an owner may have; `None` = any number.
    fn owner_limit(&mut self) -> Option<OwnerLimit> {
        let sessions_max = self.take(
            TableSetting::OwnerSessionsMax,
            None,
            some_or("any", 1..=OwnerLimit::SESSIONS_MAX.into()),
            |most| show_some_or("any", *most),
        );
        let over =
            self.take(TableSetting::OwnerSessionsOver, OverLimit::EndOldest, over_limit, |over| {
                match over {
                    OverLimit::EndOldest => "end-oldest".to_owned(),
                    OverLimit::Refuse => "refuse".to_owned(),
                }
            });
        if sessions_max.is_none() && over != OverLimit::EndOldest {
            self.resolver.warnings.push(format!(
                "{}: owner_sessions_over never applies without owner_sessions_max",
                self.prefix
            ));
        }
        sessions_max.map(|sessions_max| OwnerLimit { sessions_max, over })
    }

    fn check_memory(&mut self, memory: u64, max_value: u32, record_size: u32) {
        let cores = self.resolver.cores.get();
        let least = least_memory_of_cores(self.resolver.cores, max_value, record_size);
        if memory >= least {
            return;
        }
        let causes = [TableSetting::Memory, TableSetting::MaxValue, TableSetting::RecordSize];
        let origins = causes.map(|setting| self.origin(setting));
        let origin = origins.into_iter().find(|origin| *origin != Origin::Default);
        self.resolver.problems.push(Problem::Value {
            origin: origin.unwrap_or(Origin::Default),
            key: format!("{}.memory", self.prefix),
            value: format!("\"{}\"", show_size(memory)),
            why: format!(
                "too small for max_value = \"{}\" and record_size = {record_size}{}: raise memory to at \
                 least \"{}\", or change one of them",
                show_size(max_value.into()),
                if cores > 1 { format!(" on {cores} cores") } else { String::new() },
                show_size(least),
            ),
        });
    }
}

fn understand<T>(
    given: Option<&Given>,
    default: T,
    parse: impl FnOnce(&Raw) -> Result<T, String>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> (T, Origin) {
    let Some(Given { origin, raw }) = given else { return (default, Origin::Default) };
    let value = parse(raw).unwrap_or_else(|why| {
        let (key, value) = (key.to_owned(), raw.to_string());
        problems.push(Problem::Value { origin: origin.clone(), key, value, why });
        default
    });
    (value, origin.clone())
}

/// What a segment must have that is divided into as many parts.
fn least_memory_of_cores(cores: NonZeroU16, max_value: u32, record_size: u32) -> u64 {
    u64::from(cores.get()) * least_memory(max_value, record_size)
}

/// What each part of a segment must have for a few values of any allowed size, rounded up to 64 KiB: index lines of 28 records
/// each for two of the largest values, with what the node and the segment put around them and leave free, two lines at least;
/// and the segment's fixed parts.
fn least_memory(max_value: u32, record_size: u32) -> u64 {
    let value = u64::from(record_bytes_max(max_value)) + (4 << 10);
    let records = 2 * (1 + value.div_ceil(u64::from(record_size) - 8));
    let lines = records.div_ceil(25).max(2);
    let shares = lines * (64 + 28 * u64::from(record_size));
    ((160 << 10) + shares).next_multiple_of(64 << 10)
}

fn text<'a>(raw: &'a Raw, example: &str) -> Result<&'a str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        _ => Err(format!("must be text in quotes, such as {example}")),
    }
}

/// A name that becomes part of file names and metrics.
fn identifier(raw: &Raw) -> Result<String, String> {
    let name = text(raw, "\"annulus\"")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    check_name(name)?;
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err("must be 1 to 63 of the characters a-z A-Z 0-9 - _ . and not begin with a dot"
            .to_owned());
    }
    Ok(name.to_owned())
}

fn person_name(raw: &Raw) -> Result<String, String> {
    let name = zone(raw)?;
    if name.is_empty() { Err("must not be empty; 1 to 63 bytes".to_owned()) } else { Ok(name) }
}

fn zone(raw: &Raw) -> Result<String, String> {
    let name = text(raw, "\"eu-1a\"")?;
    check_name(name)?;
    Ok(name.to_owned())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("has {} bytes; a name has at most {NAME_BYTES_MAX}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err("must not contain line breaks or other control characters".to_owned());
    }
    Ok(())
}

fn path(raw: &Raw) -> Result<PathBuf, String> {
    match text(raw, "\"/var/lib/annulus\"")? {
        "" => Err("must not be empty".to_owned()),
        path if path.contains('\0') => Err("must not contain a zero byte".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn optional_path(raw: &Raw) -> Result<Option<PathBuf>, String> {
    if matches!(raw, Raw::Text(text) if text.is_empty()) { Ok(None) } else { path(raw).map(Some) }
}

fn socket(raw: &Raw) -> Result<Option<PathBuf>, String> {
    if matches!(raw, Raw::Text(text) if text.is_empty()) {
        return Ok(None);
    }
    let path = path(raw)?;
    if host::fits_socket(&path) {
        return Ok(Some(path));
    }
    let (length, bound) = (path.as_os_str().len(), host::SOCKET_PATH_BYTES_MAX);
    Err(format!("has {length} bytes; the path of a Unix socket has at most {bound}"))
}

fn address(raw: &Raw) -> Result<SocketAddr, String> {
    let text = text(raw, "\"127.0.0.1:7946\"")?;
    text.parse().map_err(|_| {
        "must be an IP address and a port, such as \"127.0.0.1:7946\" or \"[::1]:7946\"".to_owned()
    })
}

fn listen(raw: &Raw, has_keys: bool) -> Result<SocketAddr, String> {
    let addr = address(raw)?;
    if has_keys || addr.ip().is_loopback() {
        return Ok(addr);
    }
    Err(format!(
        "a node never listens beyond loopback without a key; make one with `annulus keys generate \
         --out FILE`, give it to every node of the cluster, and name it in `keyring`; or use \
         \"127.0.0.1:{0}\" or \"[::1]:{0}\"",
        addr.port()
    ))
}

fn redis_listen(raw: &Raw, has_password: bool) -> Result<Vec<SocketAddr>, String> {
    let addrs = match raw {
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) => {
            let one = |part: &str| address(&Raw::Text(part.trim().to_owned()));
            text.split(',').map(one).collect::<Result<_, _>>()?
        }
        Raw::List(items) => items.iter().map(address).collect::<Result<Vec<_>, _>>()?,
        _ => return Err("must be a list, such as [\"127.0.0.1:6379\"]".to_owned()),
    };
    if addrs.len() > REDIS_ADDRS_MAX {
        return Err(format!("has {} addresses; at most {REDIS_ADDRS_MAX}", addrs.len()));
    }
    match addrs.iter().find(|addr| !has_password && !addr.ip().is_loopback()) {
        None => Ok(addrs),
        Some(addr) => Err(format!(
            "{addr} is beyond loopback, where whoever reaches it could use every session; name a file \
             with a password in `password_file` or in `password_files` (it travels in clear: only on networks that you trust), \
             or use \"127.0.0.1:{0}\" or \"[::1]:{0}\"",
            addr.port()
        )),
    }
}

/// A file for each of some roles.
fn password_files(raw: &Raw) -> Result<Vec<(Role, PathBuf)>, String> {
    let wrong = || {
        "must be a file for each role, such as { operator = \"/etc/annulus/operator.password\" }, or \
         operator=/etc/annulus/operator.password outside of the file"
            .to_owned()
    };
    let entries: Vec<(&str, Raw)> = match raw {
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) => {
            let entries = text.split(',').map(|entry| entry.split_once('=').ok_or_else(wrong));
            let trimmed = entries.map(|entry| {
                entry.map(|(role, file)| (role.trim(), Raw::Text(file.trim().to_owned())))
            });
            trimmed.collect::<Result<_, _>>()?
        }
        Raw::Map(entries) => {
            entries.iter().map(|(role, file)| (role.as_str(), file.clone())).collect()
        }
        _ => return Err(wrong()),
    };
    let mut files: Vec<(Role, PathBuf)> = Vec::new();
    for (name, file) in entries {
        // That one is of who has no password, and not of somebody with one.
        let role = Role::of_name(name).filter(|role| *role != Role::Development);
        let role = role.ok_or_else(|| {
            let names = Role::ALL.iter().filter(|role| **role != Role::Development);
            let names: Vec<_> = names.map(|role| format!("\"{role}\"")).collect();
            format!(
                "{name:?} must be one of {}; that of \"default\" is `password_file`",
                names.join(", ")
            )
        })?;
        if files.iter().any(|(other, _)| *other == role) {
            return Err(format!("{name:?} is a role that has a file already; write one"));
        }
        files.push((role, path(&file).map_err(|why| format!("the file of {name:?} {why}"))?));
    }
    Ok(files)
}

fn on_late_save(raw: &Raw) -> Result<OnLateSave, String> {
    match raw {
        Raw::Text(text) if text == "error" => Ok(OnLateSave::Error),
        Raw::Text(text) if text == "ignore" => Ok(OnLateSave::Ignore),
        Raw::Text(text) if text == "recreate" => Ok(OnLateSave::Recreate),
        _ => Err("must be \"error\", \"ignore\" or \"recreate\"".to_owned()),
    }
}

fn on_or_off(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Text(text) if text == "off" => Ok(false),
        Raw::Text(text) if text == "on" => Ok(true),
        _ => Err("must be \"off\" or \"on\"".to_owned()),
    }
}

fn redis_cluster(raw: &Raw, listens: bool) -> Result<bool, String> {
    match raw {
        Raw::Text(text) if text == "off" => Ok(false),
        Raw::Text(text) if text == "on" && listens => Ok(true),
        Raw::Text(text) if text == "on" => {
            let text = "clients of clusters come over TCP; write an address into `listen`, too";
            Err(text.to_owned())
        }
        raw => on_or_off(raw),
    }
}

fn advertise(raw: &Raw) -> Result<Option<SocketAddr>, String> {
    let addr = address(raw)?;
    if addr.ip().is_unspecified() {
        return Err(format!(
            "nobody can send to {}; write the address that others reach this node at",
            addr.ip()
        ));
    }
    if addr.port() == 0 {
        return Err("nobody can send to port 0; write the port that others reach".to_owned());
    }
    Ok(Some(addr))
}

fn seeds(raw: &Raw) -> Result<Vec<String>, String> {
    let items = match raw {
        // One string may be several seeds: that is how the environment and flags give them.
        Raw::Text(text) => text.split(',').map(str::trim).map(str::to_owned).collect(),
        Raw::List(items) => {
            let texts = items.iter().map(|item| text(item, "\"app2:7946\"").map(str::to_owned));
            texts.collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err("must be a list, such as [\"app2:7946\", \"app3:7946\"]".to_owned()),
    };
    if items.len() > SEEDS_MAX {
        return Err(format!("has {} seeds; at most {SEEDS_MAX} are tried", items.len()));
    }
    if items.iter().all(String::is_empty) {
        return Ok(Vec::new());
    }
    let wrong = |seed: &&String| {
        let Some((host, port)) = seed.rsplit_once(':') else { return true };
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        let strange = |char: char| char.is_whitespace() || char.is_control();
        host.is_empty()
            || host.len() > 255
            || bare_ipv6
            || host.contains(strange)
            || !port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    match items.iter().find(wrong) {
        None => Ok(items),
        Some(seed) => {
            Err(format!("{seed:?} is not host:port, such as \"app2:7946\" or \"[fd00::2]:7946\""))
        }
    }
}

fn socket_mode(raw: &Raw) -> Result<u32, String> {
    let text = if let Raw::Text(text) = raw { text.as_str() } else { "" };
    // To connect takes the right to write; no other bits would change anything.
    match text {
        "600" | "0600" => Ok(0o600),
        "660" | "0660" => Ok(0o660),
        "666" | "0666" => Ok(0o666),
        _ => {
            Err("must be \"600\", this user; \"660\", its group too; or \"666\", everybody"
                .to_owned())
        }
    }
}

/// Users by name or number, and `default` for all others.
fn local_roles(raw: &Raw, host: &Host) -> Result<LocalRoles, String> {
    let wrong = || {
        "must be a role for each user, such as [local_roles] with a line `www-data = \"worker\"`, or \
         www-data=worker,default=monitor outside of the file"
            .to_owned()
    };
    let entries: Vec<(&str, &str)> = match raw {
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) => {
            let entries = text.split(',').map(|entry| entry.split_once('=').ok_or_else(wrong));
            let trimmed = entries.map(|entry| entry.map(|(user, role)| (user.trim(), role.trim())));
            trimmed.collect::<Result<_, _>>()?
        }
        Raw::Map(entries) => {
            let entries = entries.iter().map(|(user, role)| match role {
                Raw::Text(role) => Ok((user.as_str(), role.as_str())),
                _ if Setting::of_key(user).is_some() => Err(misplaced(user)),
                _ => Err(format!("the role of {user:?} must be text in quotes: {}", all_roles())),
            });
            entries.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    let mut roles = LocalRoles::default();
    let mut has_default = false;
    for (user, role) in entries {
        let role = Role::of_name(role).ok_or_else(|| match Setting::of_key(user) {
            Some(_) => misplaced(user),
            None => format!("the role of {user:?} must be one of {}, not {role:?}", all_roles()),
        })?;
        let twice = if user == EVERYBODY {
            roles.default = role;
            std::mem::replace(&mut has_default, true)
        } else {
            let number = if user.bytes().all(|byte| byte.is_ascii_digit()) {
                // The highest number stands for nobody.
                let number = user.parse().ok().filter(|number| *number != u32::MAX);
                number
                    .ok_or_else(|| format!("{user:?} is neither the name nor number of a user"))?
            } else {
                host.user(user)?
            };
            roles.users.insert(number, role).is_some()
        };
        if twice {
            return Err(format!("{user:?} is a user who has a role already; write one"));
        }
    }
    Ok(roles)
}

fn misplaced(key: &str) -> String {
    format!("`{key}` is a key of the node, and no user: move it above [local_roles]")
}

fn all_roles() -> String {
    let names = Role::ALL.map(|role| format!("\"{role}\""));
    names.join(", ")
}

fn replicas(raw: &Raw) -> Result<NonZeroU8, String> {
    let count: u8 = whole(1..=REPLICAS_MAX as u64)(raw)?;
    Ok(NonZeroU8::new(count).expect("one at least"))
}

fn storage(raw: &Raw) -> Result<Storage, String> {
    match raw {
        Raw::Text(text) if text == "memory" => Ok(Storage::Memory),
        Raw::Text(text) if text == "disk" => Ok(Storage::Disk),
        _ => Err("must be \"memory\" or \"disk\"".to_owned()),
    }
}

fn leaves(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Text(text) if text == "return" => Ok(false),
        Raw::Text(text) if text == "leave" => Ok(true),
        _ => Err("must be \"return\" or \"leave\"".to_owned()),
    }
}

fn rings(raw: &Raw) -> Result<u8, String> {
    let wrong = || "must be a list of rings from 0 to 7, such as [0]".to_owned();
    let numbers = match raw {
        Raw::Text(text) => {
            let numbers = text.split(',').map(|item| item.trim().parse::<i128>());
            numbers.collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?
        }
        Raw::List(items) => {
            let numbers = items.iter().map(|item| match item {
                Raw::Integer(number) => Ok(*number),
                _ => Err(wrong()),
            });
            numbers.collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(wrong()),
    };
    if numbers.is_empty() {
        return Err("must name at least one ring, such as [0]".to_owned());
    }
    numbers.iter().try_fold(0u8, |bits, number| match u32::try_from(*number) {
        Ok(number @ 0..=7) => Ok(bits | 1 << number),
        _ => Err(wrong()),
    })
}

/// A whole number within bounds, which must fit `T`.
fn whole<T: TryFrom<u64>>(
    bounds: std::ops::RangeInclusive<u64>,
) -> impl Fn(&Raw) -> Result<T, String> {
    move |raw| {
        let number = match raw {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            Raw::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        let (least, most) = (bounds.start(), bounds.end());
        number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

fn duration(raw: &Raw, bounds: std::ops::RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = match raw {
        Raw::Integer(number) => parse_duration(&number.to_string())?,
        _ => parse_duration(text(raw, "\"10s\"")?)?,
    };
    if bounds.contains(&time) {
        return Ok(time);
    }
    let (least, most) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
    Err(format!("must be from \"{least}\" to \"{most}\""))
}

/// A lifetime; `"never"` and zero mean that it never ends.
fn lifetime(raw: &Raw) -> Result<Duration, String> {
    if matches!(raw, Raw::Text(text) if text == "never") {
        return Ok(ZERO);
    }
    duration(raw, ZERO..=LIFETIME_MAX)
}

fn size(raw: &Raw, bounds: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = match raw {
        Raw::Integer(number) => parse_size(&number.to_string())?,
        _ => parse_size(text(raw, "\"64KiB\"")?)?,
    };
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (show_size(*bounds.start()), show_size(*bounds.end()));
    Err(format!("must be from {least} to {most}"))
}

fn record_size(raw: &Raw) -> Result<u32, String> {
    let bytes = size(raw, RECORD_SIZE_MIN.into()..=RECORD_SIZE_MAX.into())?;
    let bytes = u32::try_from(bytes).expect("64 KiB at most");
    if bytes.is_multiple_of(8) {
        return Ok(bytes);
    }
    let (below, above) = (bytes / 8 * 8, bytes.next_multiple_of(8));
    Err(format!("must be a multiple of 8: {below} or {above}"))
}

/// A whole number within bounds that is not 0, or this word.
fn some_or(
    word: &'static str,
    bounds: std::ops::RangeInclusive<u64>,
) -> impl Fn(&Raw) -> Result<Option<NonZeroU32>, String> {
    move |raw| match raw {
        Raw::Text(text) if text == word => Ok(None),
        _ => match whole::<u32>(bounds.clone())(raw) {
            Ok(number) => Ok(NonZeroU32::new(number)),
            Err(why) => Err(format!("{why}, or {word:?}")),
        },
    }
}

fn show_some_or(word: &str, number: Option<NonZeroU32>) -> String {
    number.map_or_else(|| word.to_owned(), |number| number.to_string())
}

fn on_full(raw: &Raw) -> Result<OnFull, String> {
    match raw {
        Raw::Text(text) if text == "refuse" => Ok(OnFull::Refuse),
        Raw::Text(text) if text == "evict" => Ok(OnFull::Evict),
        _ => Err("must be \"refuse\" or \"evict\"".to_owned()),
    }
}

fn over_limit(raw: &Raw) -> Result<OverLimit, String> {
    match raw {
        Raw::Text(text) if text == "end-oldest" => Ok(OverLimit::EndOldest),
        Raw::Text(text) if text == "refuse" => Ok(OverLimit::Refuse),
        _ => Err("must be \"end-oldest\" or \"refuse\"".to_owned()),
    }
}

fn overflow(raw: &Raw) -> Result<Overflow, String> {
    match raw {
        Raw::Text(text) if text == "drop" => Ok(Overflow::Drop),
        Raw::Text(text) if text == "archive" => Ok(Overflow::Archive),
        _ => Err("must be \"drop\" or \"archive\"".to_owned()),
    }
}

fn read_from(raw: &Raw) -> Result<ReadFrom, String> {
    match raw {
        Raw::Text(text) if text == "near" => Ok(ReadFrom::Near),
        Raw::Text(text) if text == "home" => Ok(ReadFrom::Home),
        _ => Err("must be \"near\" or \"home\"".to_owned()),
    }
}

fn partition(raw: &Raw) -> Result<Partition, String> {
    match raw {
        Raw::Text(text) if text == "serve" => Ok(Partition::Serve),
        Raw::Text(text) if text == "refuse" => Ok(Partition::Refuse),
        _ => Err("must be \"serve\" or \"refuse\"".to_owned()),
    }
}

fn write_homes(raw: &Raw) -> Result<WriteHomes, String> {
    match raw {
        Raw::Text(text) if text == "one" => Ok(WriteHomes::One),
        Raw::Text(text) if text == "quorum" => Ok(WriteHomes::Quorum),
        Raw::Text(text) if text == "all" => Ok(WriteHomes::All),
        _ => Err("must be \"one\", \"quorum\" or \"all\"".to_owned()),
    }
}

fn filter(raw: &Raw) -> Result<String, String> {
    let filter = text(raw, "\"info\"")?.trim();
    if filter.is_empty() {
        Err("must not be empty, such as \"info\"".to_owned())
    } else {
        Ok(filter.to_owned())
    }
}

fn show_path(path: &impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn show_optional_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "(none)".to_owned(), show_path)
}

fn show_list(items: &[String]) -> String {
    items.join(", ")
}

fn show_local_roles(roles: &LocalRoles) -> String {
    let users = roles.users.iter().map(|(user, role)| format!(", {user}={role}"));
    format!("{EVERYBODY}={}{}", roles.default, users.collect::<String>())
}

fn show_password_files(files: &[(Role, PathBuf)]) -> String {
    if files.is_empty() {
        return "(none)".to_owned();
    }
    let files = files.iter().map(|(role, path)| format!("{role}={}", path.display()));
    show_list(&files.collect::<Vec<_>>())
}

fn show_rings(rings: &u8) -> String {
    let numbers = (0..8u8).filter(|ring| rings & 1 << ring != 0).map(|ring| ring.to_string());
    show_list(&numbers.collect::<Vec<_>>())
}

fn show_lifetime(time: &Duration) -> String {
    if time.is_zero() { "never".to_owned() } else { show_duration(*time) }
}

/// Stands for every user who is not named.
const EVERYBODY: &str = "default";

/// A port of the registered range that serf and memberlist made the usual one for gossip.
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7946);

/// What fits a container's 64 MiB of /dev/shm several times over.
const MEMORY: u64 = 8 << 20;
/// A million sessions of a kilobyte.
const ARCHIVE_MAX: u64 = 1 << 30;

/// Each table has a segment, and a place in every status message.
const TABLES_MAX: usize = 64;
/// Rings of a table beside the innermost: a member says of eight which it serves.
const RINGS_MAX: usize = 7;
/// How many half-lives a session's heat goes back, less those that it goes ahead.
const HALF_LIVES_TOLD_APART: u32 = 2_000;
const SEEDS_MAX: usize = 256;
/// The most addresses for clients of Redis.
const REDIS_ADDRS_MAX: usize = 16;
/// Of uses: heat is told apart that far.
const BURN_MAX: u64 = 1_000_000_000;
/// A second, of sessions and of tables.
const RATE_MAX: u64 = 1_000_000_000;
/// A request does not wait longer in any case.
const HOLD_MAX: Duration = Duration::from_secs(30);

const ZERO: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Ten years.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const CONFIG_VARIABLE: &str = "ANNULUS_CONFIG";
/// Variables that are ours and no settings of a node: the command line reads them.
const OTHER_VARIABLES: [&str; 6] = [
    CONFIG_VARIABLE,
    "ANNULUS_NODES",
    "ANNULUS_KEY_FILE",
    "ANNULUS_TABLE",
    "ANNULUS_TIMEOUT",
    "ANNULUS_LOG_FORMAT",
];
