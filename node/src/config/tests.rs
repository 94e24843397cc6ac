use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::path::Path;
use std::time::Duration;

use annulus_gossip::MeshConfig;
use annulus_proto::message::Role;
use tempfile::TempDir;

use super::host::Host;
use super::*;
use crate::core::{
    CoreSettings, OnFull, OverLimit, Overflow, OwnerLimit, Partition, Promotion, ReadFrom,
    SuspectPolicy, TablePolicy, WriteHomes,
};
use crate::driver::{
    LocalRoles, OnLateSave, RECORD_SIZE_DEFAULT, RedisSettings, Storage, TableSettings,
};

/// A host on which nothing is installed, with a file to read and room for more.
struct Scene {
    root: TempDir,
    sources: Sources,
}

impl Scene {
    fn new(file: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("node.toml");
        std::fs::write(&path, file).expect("the file is written");
        let env = vec![("HOME".to_owned(), "/home/ada".to_owned())];
        Self { sources: Sources { file: Some(path), env, flags: Flags::default() }, root }
    }

    fn env(mut self, variable: &str, value: &str) -> Self {
        self.sources.env.push((variable.to_owned(), value.to_owned()));
        self
    }

    fn flag(mut self, setting: Setting, value: &str) -> Self {
        self.sources.flags.set(setting, value);
        self
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn load(&self) -> Result<Config, ConfigError> {
        resolve::load(&self.sources, &Host::at(self.root.path()))
    }

    fn settings(&self) -> NodeSettings {
        self.load().unwrap_or_else(|error| panic!("{error}")).settings()
    }

    /// The error's text, with the temporary directory cut out of it.
    fn error(&self) -> String {
        let error = self.load().expect_err("it must be refused").to_string();
        error.replace(&format!("{}/", self.root.path().display()), "")
    }

    fn origin(&self, key: &str) -> String {
        let explained = self.load().unwrap_or_else(|error| panic!("{error}")).explain();
        let row = explained.into_iter().find(|(name, ..)| name == key);
        let (_, _, origin) = row.unwrap_or_else(|| panic!("no row for {key}"));
        origin.to_string().replace(&format!("{}/", self.root.path().display()), "")
    }
}

fn error_of(file: &str) -> String {
    Scene::new(file).error()
}

fn default_table() -> TableSettings {
    TableSettings {
        policy: TablePolicy::default(),
        memory: 8 << 20,
        storage: Storage::Memory,
        record_size: RECORD_SIZE_DEFAULT,
        archive_max: 1 << 30,
    }
}

#[test]
fn nothing_at_all_is_a_development_node_on_loopback() {
    let mut scene = Scene::new("");
    scene.sources.file = None;
    let settings = scene.settings();
    assert_eq!(settings.cluster, "annulus");
    assert_eq!(settings.listen, "127.0.0.1:7946".parse().expect("an address"));
    assert_eq!(settings.advertise, None);
    assert_eq!(settings.data_dir, Path::new("/home/ada/.local/state/annulus"));
    assert_eq!(
        settings.socket.as_deref(),
        Some(Path::new("/home/ada/.local/state/annulus/node.sock"))
    );
    assert_eq!(settings.shm_dir, Path::new("/dev/shm"));
    assert_eq!((settings.socket_mode, settings.local_roles), (0o600, LocalRoles::default()));
    assert_eq!(settings.seeds, Vec::<String>::new());
    assert_eq!((settings.weight, settings.rings, settings.connections_max), (100, u8::MAX, 1_024));
    assert_eq!(settings.stop_timeout, Duration::from_secs(5));
    assert_eq!(settings.core, CoreSettings::default());
    assert_eq!(settings.mesh, MeshConfig::default());
    assert_eq!(settings.tables, [default_table()]);
    let redis = RedisSettings {
        listen: vec!["127.0.0.1:6379".parse().expect("an address")],
        gives_way: true,
        ..RedisSettings::default()
    };
    assert_eq!(settings.redis, redis);
    assert_eq!(scene.origin("redis.listen"), "default");
}

#[test]
fn a_door_for_clients_of_redis_that_nobody_asked_for_is_that_of_the_one_development_node() {
    let nothing = || {
        let mut scene = Scene::new("");
        scene.sources.file = None;
        scene
    };
    let listens = |scene: &Scene| {
        let RedisSettings { listen, gives_way, .. } = scene.settings().redis;
        assert!(!gives_way || listen.len() == 1);
        gives_way
    };
    assert!(listens(&nothing()));
    // Whatever else was said of that node.
    assert!(listens(&nothing().flag(Setting::DataDir, "/d").env("ANNULUS_LOG", "debug")));
    assert!(listens(&nothing().flag(Setting::RedisPasswordFile, "/p")));
    assert!(listens(&nothing().flag(Setting::Listen, "127.0.0.1:7946")));
    // One among several on this host, one with keys, one with a file, also with an empty one.
    for scene in [
        nothing().flag(Setting::Listen, "127.0.0.1:0"),
        nothing().flag(Setting::Listen, "[::1]:7946"),
        nothing().env("ANNULUS_KEYRING", "/k"),
        Scene::new(""),
        // Who said where, or nowhere, is told if that cannot be.
        nothing().env("ANNULUS_REDIS_LISTEN", ""),
        nothing().flag(Setting::RedisListen, ""),
        nothing().flag(Setting::RedisListen, "127.0.0.1:6379"),
    ] {
        assert!(!listens(&scene), "{:?}", scene.sources);
    }
    let scene = nothing().flag(Setting::RedisListen, "127.0.0.1:6379");
    assert_eq!(scene.settings().redis.listen.len(), 1);
    // It is nothing that clients of clusters could be told of.
    let error = nothing().flag(Setting::RedisCluster, "on").error();
    assert!(error.contains("write an address into `listen`, too"), "{error}");
}

#[test]
fn the_annotated_file_says_the_defaults() {
    let installed = |file: &str| {
        let scene = Scene::new(file);
        scene.write("proc/sys/kernel/hostname", "app1\n");
        scene.write("var/lib/annulus/keep", "");
        scene.write("run/annulus/keep", "");
        let config = scene.load().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.warnings(), [""; 0]);
        config
    };
    let commented = Config::annotated();
    let enabled: Vec<String> = commented
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest)
                if rest.starts_with(|char: char| char == '[' || char.is_ascii_lowercase()) =>
            {
                rest
            }
            _ => line,
        })
        .map(str::to_owned)
        .collect();
    let enabled = enabled.join("\n");
    let (defaults, commented, enabled) =
        (installed(""), installed(&commented), installed(&enabled));

    assert_eq!(commented.settings(), defaults.settings());
    assert!(commented.explain().iter().all(|(.., origin)| *origin == Origin::Default));

    assert_eq!(enabled.settings(), defaults.settings());
    assert_eq!(enabled.log(), defaults.log());
    let silent: Vec<_> =
        enabled.explain().into_iter().filter(|(.., o)| *o == Origin::Default).collect();
    assert_eq!(silent, [], "keys that etc/annulus.toml does not mention");
    assert_eq!(enabled.explain().len(), Setting::ALL.len() + TableSetting::ALL.len());
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "\ncluster = \"file\"\nweight = 1\nstop_timeout = \"1s\"\n";
    let scene = Scene::new(file);
    assert_eq!((scene.settings().cluster.as_str(), scene.settings().weight), ("file", 1));
    assert_eq!(scene.origin("cluster"), "node.toml:2");
    assert_eq!(scene.origin("stop_timeout"), "node.toml:4");
    assert_eq!(scene.origin("join_timeout"), "default");

    let scene = scene.env("ANNULUS_CLUSTER", "env").env("ANNULUS_WEIGHT", "2");
    assert_eq!((scene.settings().cluster.as_str(), scene.settings().weight), ("env", 2));
    assert_eq!(scene.origin("cluster"), "ANNULUS_CLUSTER");

    let scene = scene.flag(Setting::Cluster, "flag");
    assert_eq!((scene.settings().cluster.as_str(), scene.settings().weight), ("flag", 2));
    assert_eq!(scene.origin("cluster"), "--cluster");
    assert_eq!(scene.origin("weight"), "ANNULUS_WEIGHT");
    assert_eq!(scene.origin("stop_timeout"), "node.toml:4");
}

#[test]
fn a_wrong_value_that_is_overridden_does_no_harm() {
    let scene = Scene::new("weight = \"heavy\"").flag(Setting::Weight, "7");
    assert_eq!(scene.settings().weight, 7);
}

#[test]
fn every_setting_is_understood_from_file_environment_and_flags() {
    let values = [
        (Setting::Cluster, "c", "\"c\""),
        (Setting::Name, "n", "\"n\""),
        (Setting::DataDir, "/d", "\"/d\""),
        (Setting::ShmDir, "/s", "\"/s\""),
        (Setting::Keyring, "/k", "\"/k\""),
        (Setting::Listen, "[::1]:0", "\"[::1]:0\""),
        (Setting::Advertise, "10.0.0.1:9", "\"10.0.0.1:9\""),
        (Setting::Socket, "", "\"\""),
        (Setting::SocketMode, "660", "\"0660\""),
        (Setting::LocalRoles, "default=worker, 33=authority", LOCAL_ROLES),
        (Setting::Seeds, "a:1, [::2]:2", "[\"a:1\", \"[::2]:2\"]"),
        (Setting::Zone, "z", "\"z\""),
        (Setting::Weight, "0", "0"),
        (Setting::Rings, "0,7", "[7, 0]"),
        (Setting::ConnectionsMax, "5", "5"),
        (Setting::Cores, "4", "4"),
        (Setting::LanesMax, "0", "0"),
        (Setting::LanePollUs, "200", "200"),
        (Setting::StopTimeout, "0s", "\"0s\""),
        (Setting::OnStop, "leave", "\"leave\""),
        (Setting::JoinTimeout, "1m", "\"1m\""),
        (Setting::DownAfter, "20s", "\"20s\""),
        (Setting::MaxClockDrift, "1s", "\"1s\""),
        (Setting::SyncInterval, "1h", "\"1h\""),
        (Setting::HintsMax, "1MiB", "1_048_576"),
        (Setting::HintsMaxAge, "2m", "\"2m\""),
        (Setting::HintsRate, "1MiB", "\"1MiB\""),
        (Setting::HandoverRate, "8MiB", "\"8MiB\""),
        (Setting::HomeTimeout, "30ms", "\"30ms\""),
        (Setting::RedisListen, "127.0.0.1:1,[::1]:2", "[\"127.0.0.1:1\", \"[::1]:2\"]"),
        (Setting::RedisSocket, "/r", "\"/r\""),
        (Setting::RedisPasswordFile, "/p", "\"/p\""),
        (Setting::RedisPasswordFiles, "worker=/w, operator=/o", PASSWORD_FILES),
        (Setting::RedisConnectionsMax, "7", "7"),
        (Setting::RedisOnLateSave, "recreate", "\"recreate\""),
        (Setting::RedisCluster, "on", "\"on\""),
        (Setting::RedisAnnounce, "10.0.0.1:1", "\"10.0.0.1:1\""),
        (Setting::RedisKeyspaceEvents, "on", "\"on\""),
        (Setting::Log, "debug", "\"debug\""),
    ];
    assert_eq!(values.map(|(setting, ..)| setting).as_slice(), Setting::ALL);
    let lines = values.map(|(setting, _, toml)| format!("{setting} = {toml}\n"));
    let by_file = Scene::new(&lines.concat());
    let mut by_env = Scene::new("");
    let mut by_flag = Scene::new("");
    for (setting, text, _) in values {
        by_env = by_env.env(&setting.env(), text);
        by_flag = by_flag.flag(setting, text);
    }
    let settings = by_file.settings();
    assert_eq!(settings.socket, None);
    assert_eq!(settings.socket_mode, 0o660);
    assert_eq!(settings.local_roles.of(33, 1), Role::Authority);
    assert_eq!(settings.local_roles.of(34, 1), Role::Worker);
    assert_eq!(settings.rings, 0b1000_0001);
    assert_eq!(settings.seeds, ["a:1", "[::2]:2"]);
    assert_eq!(settings.core.hints_bytes_max.get(), 1 << 20);
    assert_eq!(settings.core.hints_max_age, Duration::from_secs(120));
    assert_eq!(settings.core.hints_rate.get(), 1 << 20);
    assert_eq!(settings.core.handover_rate.get(), 8 << 20);
    assert_eq!(settings.mesh.down_after, Duration::from_secs(20));
    assert!(settings.mesh.isolated_after > settings.mesh.down_after);
    assert_eq!(by_env.settings(), settings);
    assert_eq!(by_flag.settings(), settings);
    for scene in [by_file, by_env, by_flag] {
        let explained = scene.load().expect("it is right").explain();
        assert!(explained[..Setting::ALL.len()].iter().all(|(.., o)| *o != Origin::Default));
    }
}

const PASSWORD_FILES: &str = "{ worker = \"/w\", operator = \"/o\" }";
const LOCAL_ROLES: &str = "{ default = \"worker\", 33 = \"authority\" }";

#[test]
fn a_table_of_the_file_replaces_the_default_one() {
    let scene = Scene::new(
        r#"
        [[table]]
        name = "carts"
        replicas = 5
        write = "all"
        idle = "never"
        lifetime_max = "30d"
        max_value = "1MiB"
        record_size = "1KiB"
        on_full = "evict"
        memory = "32MiB"
        half_life = "1h"
        stale_max = "1s"
        partition = "refuse"
        read = "home"
        burn = 3000
        burn_half_life = "30s"
        burn_client_max = 200
        session_rate = 50
        table_rate = 10000
        hold = "2s"
        held_max = 64
        owner_sessions_max = 5
        owner_sessions_over = "refuse"
        promote_after = 3
        promote_rate = "1MiB"
        overflow = "archive"
        archive_max = "32MiB"

        [[table]]
        name = "logins"
        burn = 1001
        "#,
    );
    let tables = scene.settings().tables;
    let carts = TablePolicy {
        name: "carts".to_owned(),
        replicas: NonZeroU8::new(5).expect("not zero"),
        write: WriteHomes::All,
        on_full: OnFull::Evict,
        idle: Duration::ZERO,
        lifetime_max: Duration::from_secs(30 * 86_400),
        max_value: 1 << 20,
        half_life: Duration::from_secs(3_600),
        stale_max: Duration::from_secs(1),
        partition: Partition::Refuse,
        read: ReadFrom::Home,
        merge: None,
        ring: 0,
        cools_after: None,
        promotion: Promotion {
            after: NonZeroU8::new(3).expect("not zero"),
            rate: NonZeroU64::new(1 << 20).expect("not zero"),
        },
        suspects: Some(SuspectPolicy {
            burn: NonZeroU32::new(3_000).expect("not zero"),
            half_life: Duration::from_secs(30),
            client_max: 200,
            session_rate: NonZeroU32::new(50),
            table_rate: NonZeroU32::new(10_000),
            hold: Duration::from_secs(2),
            held_max: 64,
        }),
        owner_limit: Some(OwnerLimit {
            sessions_max: NonZeroU32::new(5).expect("not zero"),
            over: OverLimit::Refuse,
        }),
        overflow: Overflow::Archive,
    };
    assert_eq!(
        tables[0],
        TableSettings {
            policy: carts,
            memory: 32 << 20,
            storage: Storage::Memory,
            record_size: 1024,
            archive_max: 32 << 20,
        }
    );
    let suspects = SuspectPolicy::new(NonZeroU32::new(1_001).expect("not zero"));
    assert_eq!(suspects.client_max, 501);
    let suspects = Some(suspects);
    let policy = TablePolicy { name: "logins".to_owned(), suspects, ..TablePolicy::default() };
    assert_eq!(tables[1], TableSettings { policy, ..default_table() });
    assert_eq!(scene.origin("table.carts.name"), "node.toml:3");
    assert_eq!(scene.origin("table.carts.memory"), "node.toml:11");
    assert_eq!(scene.origin("table.logins.memory"), "default");
}

#[test]
fn rings_are_tables_after_their_own_and_have_its_policy() {
    let scene = Scene::new(
        r#"
        [[table]]
        name = "carts"
        max_value = "4KiB"
        on_full = "evict"
        half_life = "1s"
        burn = 100

        [[table.ring]]
        name = "cold"
        after = "10s"
        replicas = 2

        [[table.ring]]
        name = "frozen"
        after = "20m"
        memory = "32MiB"
        storage = "disk"

        [[table]]
        name = "logins"
        "#,
    );
    let tables = scene.settings().tables;
    let shown: Vec<_> = tables
        .iter()
        .map(|TableSettings { policy, memory, storage, .. }| {
            let seconds = policy.cools_after.map(|after| after.as_secs());
            let replicas = policy.replicas.get();
            (&*policy.name, policy.ring, seconds, replicas, memory >> 20, *storage)
        })
        .collect();
    let (memory, disk) = (Storage::Memory, Storage::Disk);
    assert_eq!(
        shown,
        [
            ("carts", 0, Some(10), 3, 8, memory),
            ("carts@cold", 1, Some(1_200), 2, 8, memory),
            ("carts@frozen", 2, None, 3, 32, disk),
            ("logins", 0, None, 3, 8, memory),
        ]
    );
    for ring in &tables[1..3] {
        assert_eq!((ring.policy.max_value, ring.policy.on_full), (4 << 10, OnFull::Refuse));
        assert_eq!(ring.policy.suspects, None, "clients ask for what is in the innermost ring");
    }
    assert_eq!(scene.origin("table.carts.ring.cold.after"), "node.toml:11");
    assert_eq!(scene.origin("table.carts.ring.frozen.replicas"), "default");
}

#[test]
fn rings_that_contradict_each_other_are_refused() {
    let of_rings = |rings: &str| error_of(&format!("[[table]]\nname = \"t\"\n{rings}"));
    let ring = |name: &str, rest: &str| format!("[[table.ring]]\nname = \"{name}\"\n{rest}\n");
    for (rings, expected) in [
        (ring("cold", ""), "node.toml:3: `after` is missing"),
        ("[[table.ring]]\nafter = \"1h\"\n".to_owned(), "node.toml:3: `name` is missing"),
        (
            ring("cold", "after = \"1h\"") + &ring("frozen", "after = \"1h\""),
            "raise it, or change the order of the rings",
        ),
        (
            ring("cold", "after = \"1h\"") + &ring("cold", "after = \"2h\""),
            "there is a ring of this name above",
        ),
        (ring("cold", "after = \"300d\""), "half_life = 10m tells times up to"),
        (ring("cold", "after = \"1h\"\nidle = \"1h\""), "move it above the first [[table.ring]]"),
        (ring("cold", "after = \"1h\"\nstorage = \"tape\""), "must be \"memory\" or \"disk\""),
        (ring("cold", "after = \"1h\"\nmemory = \"64KiB\""), "too small for the table's"),
        (ring(&"x".repeat(62), "after = \"1h\""), "have at most 62 together"),
        ("[table.ring]\nname = \"cold\"".to_owned(), "[[table.ring]], with two brackets"),
    ] {
        let error = of_rings(&rings);
        assert!(error.contains(expected), "{error}");
    }
    let eight: String =
        (1..=8).map(|n| ring(&format!("r{n}"), &format!("after = \"{n}h\""))).collect();
    assert!(of_rings(&eight).contains("at most 7 rings further out"));
}

#[test]
fn a_ring_that_no_session_lives_long_enough_for_is_told_of() {
    let file =
        "[[table]]\nname = \"t\"\nidle = \"1h\"\n[[table.ring]]\nname = \"cold\"\nafter = \"1h\"";
    let config = Scene::new(file).load().unwrap();
    let warnings = config.warnings().join("\n");
    assert!(warnings.contains("no session comes to ring t@cold"), "{warnings}");
}

#[test]
fn the_annotated_ring_is_one() {
    let annotated = Config::annotated();
    let lines = annotated.lines().filter_map(|line| line.strip_prefix("#     "));
    let ring: Vec<&str> = lines.collect();
    let scene = Scene::new(&format!("[[table]]\nname = \"t\"\n{}", ring.join("\n")));
    let tables = scene.settings().tables;
    assert_eq!((tables.len(), &*tables[1].policy.name), (2, "t@cold"));
    assert_eq!(tables[0].policy.cools_after, Some(Duration::from_secs(1_800)));
    let silent: Vec<_> = scene.load().unwrap().explain();
    let silent = silent.into_iter().filter(|(key, _, origin)| {
        key.starts_with("table.t.ring.cold") && *origin == Origin::Default
    });
    assert_eq!(silent.count(), 0, "keys that etc/annulus.toml does not mention");
}

#[test]
fn unknown_keys_are_refused_with_what_was_meant() {
    assert_eq!(
        error_of("\n\ndata-dir = \"/x\""),
        "node.toml:3: unknown key `data-dir`; did you mean `data_dir`?"
    );
    let error = error_of("colour = \"red\"");
    assert!(error.contains("unknown key `colour`; known here: cluster, name, "), "{error}");
    assert_eq!(
        error_of("[[table]]\nname = \"t\"\nreplica = 3"),
        "node.toml:3: unknown key `replica`; did you mean `replicas`?"
    );
}

#[test]
fn keys_in_the_wrong_place_are_sent_to_the_right_one() {
    assert_eq!(
        error_of("idle = \"2h\""),
        "node.toml:1: unknown key `idle`; `idle` belongs under [[table]]"
    );
    assert_eq!(
        error_of("[[table]]\nname = \"t\"\nlisten = \"127.0.0.1:0\""),
        "node.toml:3: unknown key `listen`; `listen` is a key of the node: move it above the first [[table]]"
    );
    for file in ["[table]\nname = \"t\"", "table = 3", "table = [1]"] {
        let error = error_of(file);
        assert!(error.contains("[[table]], with two brackets"), "{error}");
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let error = error_of("cluster = \"a\"\nname = \n");
    assert!(error.starts_with("node.toml:2: not valid TOML: "), "{error}");
    let error = error_of("cluster = \"a\"\ncluster = \"b\"\n");
    assert!(
        error.starts_with("node.toml:2: not valid TOML: ") && error.contains("duplicate"),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut scene = Scene::new("");
    scene.sources.file = Some(scene.root.path().join("no.toml"));
    assert!(
        scene.error().starts_with("no.toml: cannot read the configuration: "),
        "{}",
        scene.error()
    );
    scene.sources.file = Some(scene.root.path().to_owned());
    assert!(scene.error().contains("cannot read the configuration"), "{}", scene.error());

    let scene = Scene::new("");
    std::fs::write(scene.root.path().join("node.toml"), b"\xff\xfe").expect("written");
    assert!(scene.error().contains("not UTF-8"), "{}", scene.error());
    let long = " ".repeat((1 << 20) + 1);
    assert!(error_of(&long).contains("larger than 1 MiB"));
}

#[test]
fn the_file_is_the_named_one_then_the_variables_then_the_standard_one() {
    let mut scene = Scene::new("cluster = \"named\"");
    scene.write("env.toml", "cluster = \"env\"");
    scene.write("etc/annulus/annulus.toml", "cluster = \"standard\"");
    let by_env = scene.root.path().join("env.toml");
    scene = scene.env("ANNULUS_CONFIG", by_env.to_str().expect("text"));
    assert_eq!(scene.settings().cluster, "named");
    scene.sources.file = None;
    assert_eq!(scene.settings().cluster, "env");
    scene.sources.env.clear();
    assert_eq!(scene.settings().cluster, "standard");
    assert_eq!(scene.origin("cluster"), "etc/annulus/annulus.toml:1");
}

#[test]
fn a_wrong_unit_is_refused_wherever_it_stands() {
    assert_eq!(
        error_of("stop_timeout = 5"),
        "node.toml:1: stop_timeout = 5: a duration needs a unit: write \"5ms\" or \"5s\"; durations \
         look like \"500ms\", \"10s\", \"5m\", \"2h\", \"7d\""
    );
    let error = Scene::new("").env("ANNULUS_STOP_TIMEOUT", "5 sec").error();
    assert!(
        error.starts_with("ANNULUS_STOP_TIMEOUT: stop_timeout = \"5 sec\": not a duration"),
        "{error}"
    );
    let error = Scene::new("").flag(Setting::HintsMax, "16MB").error();
    assert!(error.starts_with("--hints-max: hints_max = \"16MB\": not a size"), "{error}");
    let error = error_of("[[table]]\nname = \"t\"\nidle = 7200");
    assert!(
        error.starts_with("node.toml:3: table.t.idle = 7200: a duration needs a unit"),
        "{error}"
    );
    let error = error_of("[[table]]\nname = \"t\"\nidle = 7200.5");
    assert!(error.contains("must be text in quotes"), "{error}");
}

#[test]
fn bounds_are_kept_and_named() {
    for (line, expected) in [
        ("weight = 65536", "must be a whole number from 0 to 65535"),
        ("weight = -1", "must be a whole number from 0 to 65535"),
        ("weight = 99999999999999999999999", "must be a whole number"),
        ("connections_max = 0", "must be a whole number from 1 to 1000000"),
        ("connections_max = \"many\"", "must be a whole number"),
        ("cores = 0", "must be a whole number from 1 to 64"),
        ("cores = 65", "must be a whole number from 1 to 64"),
        ("lanes_max = 65537", "must be a whole number from 0 to 65536"),
        ("lane_poll_us = 10001", "must be a whole number from 0 to 10000"),
        ("down_after = \"61m\"", "must be from \"0s\" to \"1h\""),
        ("home_timeout = \"0s\"", "must be from \"1ms\" to \"1m\""),
        ("hints_max_age = \"0s\"", "must be from \"1s\" to \"1d\""),
        ("hints_rate = 5", "must be from 4KiB to 1TiB"),
        ("handover_rate = 5", "must be from 64KiB to 1TiB"),
        ("hints_max = 5", "must be from 64KiB to 1TiB"),
        ("rings = []", "must name at least one ring"),
        ("rings = [8]", "must be a list of rings from 0 to 7"),
        ("rings = 0", "must be a list of rings from 0 to 7"),
        ("cluster = \"\"", "must be 1 to 63 of the characters"),
        ("cluster = \"a b\"", "must be 1 to 63 of the characters"),
        ("cluster = \"../x\"", "must be 1 to 63 of the characters"),
        ("cluster = 5", "must be text in quotes"),
        ("name = \"\"", "must not be empty"),
        ("name = \"a\\nb\"", "control characters"),
        ("data_dir = \"\"", "must not be empty"),
        ("log = \" \"", "must not be empty"),
        ("seeds = [\"app2\"]", "\"app2\" is not host:port"),
        ("seeds = [\"app2:0\"]", "is not host:port"),
        ("seeds = [\"fd00::2:7946\"]", "is not host:port"),
        ("seeds = [\"app2:7946\", \"\"]", "is not host:port"),
        ("seeds = 3", "must be a list"),
        ("socket_mode = \"644\"", "must be \"600\", this user; \"660\", its group too"),
        ("socket_mode = 0o660", "must be \"600\", this user"),
        ("socket_mode = \"\"", "must be \"600\", this user"),
    ] {
        let error = error_of(line);
        assert!(error.starts_with("node.toml:1: ") && error.contains(expected), "{line}: {error}");
    }
    for (line, expected) in [
        ("replicas = 0", "must be a whole number from 1 to 7"),
        ("replicas = 8", "must be a whole number from 1 to 7"),
        ("write = \"most\"", "must be \"one\", \"quorum\" or \"all\""),
        ("max_value = \"1025KiB\"", "must be from 1 to 1MiB"),
        ("max_value = 1048577", "must be from 1 to 1MiB"),
        ("on_full = \"drop\"", "must be \"refuse\" or \"evict\""),
        ("read = \"far\"", "must be \"near\" or \"home\""),
        ("partition = \"guess\"", "must be \"serve\" or \"refuse\""),
        ("record_size = 500", "must be a multiple of 8: 496 or 504"),
        ("record_size = 56", "must be from 64 to 64KiB"),
        ("record_size = \"128KiB\"", "must be from 64 to 64KiB"),
        ("half_life = \"500ms\"", "must be from \"1s\" to \"30d\""),
        ("burn = 9", "must be a whole number from 10 to 1000000000, or \"never\""),
        ("burn = \"often\"", "must be a whole number from 10 to 1000000000, or \"never\""),
        ("burn_half_life = \"2h\"", "must be from \"1s\" to \"1h\""),
        ("burn_client_max = 0", "must be a whole number from 1 to 4294967295, or \"half\""),
        ("session_rate = -1", "must be a whole number from 1 to 1000000000, or \"never\""),
        ("table_rate = 0", "must be a whole number from 1 to 1000000000, or \"never\""),
        ("hold = \"31s\"", "must be from \"0s\" to \"30s\""),
        ("held_max = 0", "must be a whole number from 1 to 16384"),
        ("owner_sessions_max = 0", "must be a whole number from 1 to 1000, or \"any\""),
        ("owner_sessions_over = \"end\"", "must be \"end-oldest\" or \"refuse\""),
        ("stale_max = \"0s\"", "must be from \"100ms\" to \"365d\""),
        ("lifetime_max = \"9999d\"", "must be from \"0s\" to \"3650d\""),
    ] {
        let error = error_of(&format!("[[table]]\nname = \"t\"\n{line}"));
        assert!(
            error.starts_with("node.toml:3: table.t.") && error.contains(expected),
            "{line}: {error}"
        );
    }
}

#[test]
fn what_never_applies_to_suspects_is_warned_of() {
    let warnings = |lines: &str| {
        let scene = Scene::new(&format!("[[table]]\nname = \"t\"\n{lines}"));
        scene.load().unwrap_or_else(|error| panic!("{error}")).warnings().to_vec()
    };
    let warned = "table.t: hold never applies without burn, session_rate or table_rate";
    assert_eq!(warnings("hold = \"1s\""), [warned]);
    assert_eq!(warnings("hold = \"1s\"\ntable_rate = 10"), [""; 0]);
    assert_eq!(warnings("hold = \"0s\"\nburn = \"never\""), [""; 0]);
}

#[test]
fn names_have_at_most_63_bytes() {
    let (longest, longer) = ("n".repeat(63), "n".repeat(64));
    for key in ["cluster", "name", "zone"] {
        Scene::new(&format!("{key} = \"{longest}\"")).settings();
        let error = error_of(&format!("{key} = \"{longer}\""));
        assert!(error.contains("has 64 bytes; a name has at most 63"), "{error}");
    }
    let error = error_of(&format!("[[table]]\nname = \"{longer}\""));
    assert!(error.contains("has 64 bytes"), "{error}");
}

#[test]
fn clients_of_redis_are_let_in_where_the_configuration_says() {
    assert_eq!(Scene::new("").settings().redis, RedisSettings::default());
    let file = "[redis]\nlisten = [\"127.0.0.1:6379\", \"[::1]:0\"]\nsocket = \"/run/redis.sock\"\n\
                password_files = { operator = \"/etc/o\" }\nconnections_max = 5\non_late_save = \"ignore\"\ncluster = \"on\"\n\
                announce = \"10.0.0.1:6379\"\n\n[[table]]\nname = \"t\"\n";
    let expected = RedisSettings {
        listen: vec![
            "127.0.0.1:6379".parse().expect("an address"),
            "[::1]:0".parse().expect("an address"),
        ],
        socket: Some("/run/redis.sock".into()),
        gives_way: false,
        password_file: None,
        password_files: vec![(Role::Operator, "/etc/o".into())],
        connections_max: 5,
        on_late_save: OnLateSave::Ignore,
        cluster: true,
        announce: Some("10.0.0.1:6379".parse().expect("an address")),
    };
    assert_eq!(Scene::new(file).settings().redis, expected);
    assert_eq!(Scene::new(file).origin("redis.socket"), "node.toml:3");
    let scene = Scene::new(file).env("ANNULUS_REDIS_LISTEN", "127.0.0.1:1,127.0.0.1:2");
    assert_eq!(scene.settings().redis.listen.len(), 2);
    assert_eq!(scene.origin("redis.listen"), "ANNULUS_REDIS_LISTEN");
    let scene = scene.flag(Setting::RedisCluster, "off").flag(Setting::RedisListen, "");
    assert_eq!(scene.settings().redis.listen, []);
}

#[test]
fn nodes_tell_each_other_of_keys_where_the_configuration_says() {
    assert!(!Scene::new("").settings().core.tells_gone);
    let scene = Scene::new("[redis]\nkeyspace_events = \"on\"\n");
    assert!(scene.settings().core.tells_gone, "clients may be let in elsewhere alone");
    assert!(!scene.flag(Setting::RedisKeyspaceEvents, "off").settings().core.tells_gone);
}

#[test]
fn clients_of_redis_come_from_beyond_loopback_with_a_password_alone() {
    let file = "[redis]\nlisten = [\"127.0.0.1:6379\", \"0.0.0.0:6379\"]\n";
    for keys in ["", "keyring = \"/k\"\n"] {
        let error = error_of(&format!("{keys}{file}"));
        assert!(error.contains("redis.listen = "), "{error}");
        assert!(error.contains("0.0.0.0:6379 is beyond loopback"), "{error}");
        assert!(error.contains("name a file with a password in `password_file`"), "{error}");
    }
    let settings = Scene::new(&format!("{file}password_file = \"/p\"\n")).settings();
    assert_eq!(settings.redis.listen.len(), 2);
    error_of(&format!("{file}password_file = \"\"\n"));
    // Somebody's is as good as everybody's.
    let scene = Scene::new(&format!("{file}password_files = {{ worker = \"/w\" }}\n"));
    assert_eq!(scene.settings().redis.password_files, [(Role::Worker, "/w".into())]);
    error_of(&format!("{file}password_files = {{}}\n"));
}

#[test]
fn what_is_wrong_under_redis_is_said_with_its_line() {
    for (file, expected) in [
        ("[redis]\nlisen = []\n", "node.toml:2: unknown key `lisen`; did you mean `listen`?"),
        (
            "[redis]\nzone = \"a\"\n",
            "node.toml:2: unknown key `zone`; `zone` is a key of the node: move it above [redis]",
        ),
        (
            "redis = 1\n",
            "node.toml:1: redis = 1: it is a section, written as [redis], with its keys below",
        ),
        (
            "[redis]\nlisten = 6379\n",
            "node.toml:2: redis.listen = 6379: must be a list, such as [\"127.0.0.1:6379\"]",
        ),
        (
            "[redis]\npassword_files = { root = \"/p\" }\n",
            "node.toml:2: redis.password_files = { root = \"/p\" }: \"root\" must be one of \"authority\", \"worker\", \
             \"monitor\", \"operator\"; that of \"default\" is `password_file`",
        ),
        (
            "[redis]\npassword_files = { development = \"/p\" }\n",
            "node.toml:2: redis.password_files = { development = \"/p\" }: \"development\" must be one of \"authority\", \
             \"worker\", \"monitor\", \"operator\"; that of \"default\" is `password_file`",
        ),
        (
            "[redis]\npassword_files = { worker = \"\" }\n",
            "node.toml:2: redis.password_files = { worker = \"\" }: the file of \"worker\" must not be empty",
        ),
        (
            "[redis]\npassword_files = \"worker=/p,worker=/q\"\n",
            "node.toml:2: redis.password_files = \"worker=/p,worker=/q\": \"worker\" is a role that has a file already; \
             write one",
        ),
        (
            "[redis]\npassword_files = [\"/p\"]\n",
            "node.toml:2: redis.password_files = [\"/p\"]: must be a file for each role, such as { operator = \
             \"/etc/annulus/operator.password\" }, or operator=/etc/annulus/operator.password outside of the file",
        ),
        (
            "[redis]\non_late_save = \"drop\"\n",
            "node.toml:2: redis.on_late_save = \"drop\": must be \"error\", \"ignore\" or \"recreate\"",
        ),
        (
            "[redis]\ncluster = true\n",
            "node.toml:2: redis.cluster = (true or false): must be \"off\" or \"on\"",
        ),
        (
            "[redis]\nkeyspace_events = \"Egx\"\n",
            "node.toml:2: redis.keyspace_events = \"Egx\": must be \"off\" or \"on\"",
        ),
        (
            "[redis]\ncluster = \"on\"\n",
            "node.toml:2: redis.cluster = \"on\": clients of clusters come over TCP; write an address into `listen`, too",
        ),
        (
            "[redis]\nannounce = \"0.0.0.0:6379\"\n",
            "node.toml:2: redis.announce = \"0.0.0.0:6379\": nobody can send to 0.0.0.0; write the address that \
             others reach this node at",
        ),
    ] {
        assert_eq!(error_of(file), expected);
    }
}

#[test]
fn a_node_does_not_listen_beyond_loopback() {
    for listen in ["0.0.0.0:7946", "[::]:7946", "192.168.1.7:7946"] {
        let error = error_of(&format!("listen = \"{listen}\""));
        assert!(error.contains("a node never listens beyond loopback without a key"), "{error}");
        assert!(error.contains("use \"127.0.0.1:7946\""), "{error}");
        assert!(error.contains("`annulus keys generate --out FILE`"), "{error}");
        error_of(&format!("keyring = \"\"\nlisten = \"{listen}\""));
        let settings = Scene::new(&format!("keyring = \"/k\"\nlisten = \"{listen}\"")).settings();
        assert_eq!(settings.listen, listen.parse().expect("an address"));
        assert_eq!(settings.keyring.as_deref(), Some(Path::new("/k")));
    }
    for listen in ["localhost:7946", "127.0.0.1", "7946", "127.0.0.1:70000"] {
        let error = error_of(&format!("listen = \"{listen}\""));
        assert!(error.contains("must be an IP address and a port"), "{error}");
    }
    Scene::new("listen = \"127.9.9.9:0\"").settings();
}

#[test]
fn an_address_nobody_can_send_to_is_not_advertised() {
    assert!(error_of("advertise = \"0.0.0.0:7946\"").contains("nobody can send to 0.0.0.0"));
    assert!(error_of("advertise = \"[::]:7946\"").contains("nobody can send to ::"));
    assert!(error_of("advertise = \"10.0.0.1:0\"").contains("nobody can send to port 0"));
}

#[test]
fn two_tables_of_one_name_are_refused() {
    let error = error_of("[[table]]\nname = \"t\"\n[[table]]\nname = \"t\"");
    assert_eq!(
        error,
        "node.toml:4: table.name = \"t\": there is a table of this name above; each needs its own"
    );
    let error = error_of("[[table]]\nname = \"t\"\n[[table]]\nidle = \"1h\"");
    assert!(error.starts_with("node.toml:3: `name` is missing; each [[table]] has one"), "{error}");
    let many: String = (0..65).map(|n| format!("[[table]]\nname = \"t{n}\"\n")).collect();
    assert!(error_of(&many).contains("at most 64 tables"));
}

#[test]
fn memory_that_cannot_hold_a_few_of_the_largest_values_is_refused() {
    let error = error_of("[[table]]\nname = \"t\"\nmax_value = \"1MiB\"\nmemory = \"2MiB\"");
    assert!(
        error.starts_with("node.toml:4: table.t.memory = \"2MiB\": too small for max_value"),
        "{error}"
    );
    let least = error.split("at least \"").nth(1).and_then(|rest| rest.split('"').next());
    let least = least.expect("the error names a size");
    Scene::new(&format!("[[table]]\nname = \"t\"\nmax_value = \"1MiB\"\nmemory = \"{least}\""))
        .settings();
    let error = error_of("[[table]]\nname = \"t\"\nrecord_size = \"64KiB\"\nmemory = \"2MiB\"");
    assert!(error.contains("record_size = 65536"), "{error}");
    let error = error_of("[[table]]\nname = \"t\"\nmemory = 0");
    assert!(error.contains("must be from 1 to"), "{error}");
}

/// The segment's own arithmetic has the last word at start; here it must not have one at all.
#[test]
fn memory_that_is_accepted_here_is_accepted_by_the_segment() {
    for (max_value, record_size, cores) in [
        (1, 64, 1),
        (65_536, 384, 1),
        (65_536, 512, 3),
        (65_536, 65_536, 2),
        (1 << 20, 64, 1),
        (1 << 20, 384, 3),
        (1 << 20, 65_536, 64),
        (100, 4096, 2),
    ] {
        let file = |memory: u64| {
            format!(
                "cores = {cores}\n[[table]]\nname = \"t\"\nmax_value = {max_value}\nrecord_size = {record_size}\nmemory = {memory}"
            )
        };
        let error = error_of(&file(1));
        let least = error.split("at least \"").nth(1).and_then(|rest| rest.split('"').next());
        let least = parse_size(least.expect("the error names a size")).expect("a size");
        Scene::new(&file(least)).settings();
        let options = annulus_shm::TableOptions {
            segment_bytes: least,
            shards: cores,
            record_size,
            max_value: crate::core::record_bytes_max(max_value),
            ..annulus_shm::TableOptions::new(1, 2)
        };
        let region = annulus_shm::HeapRegion::new(least as usize);
        annulus_shm::create_shards(&region.handle(), &options).expect("the segment takes it");
    }
}

#[test]
fn a_socket_whose_path_is_too_long_is_refused_and_a_default_one_is_left_out() {
    let long = format!("/{}", "d".repeat(107));
    let error = error_of(&format!("socket = \"{long}\""));
    assert!(error.contains("has 108 bytes; the path of a Unix socket has at most 107"), "{error}");
    let scene = Scene::new(&format!("data_dir = \"{long}\""));
    assert_eq!(scene.settings().socket, None);
    let warnings = scene.load().expect("it is allowed").warnings().to_vec();
    assert!(warnings[0].contains("no Unix socket"), "{warnings:?}");
}

fn with_users(file: &str) -> Scene {
    let scene = Scene::new(file);
    scene.write(
        "etc/passwd",
        "root:x:0:0:::\nhalf\nwww-data:x:33:33:w:/var/www:/bin/sh\nbad:x::1\n",
    );
    scene
}

#[test]
fn local_roles_name_users_by_name_or_number() {
    let file = "cluster = \"c\"\n\n[local_roles]\ndefault = \"worker\"\nwww-data = \"authority\"\n1000 = \"monitor\"\n";
    let scene = with_users(file);
    let users = [(33, Role::Authority), (1_000, Role::Monitor)].into();
    let expected = LocalRoles { default: Role::Worker, users };
    assert_eq!(scene.settings().local_roles, expected);
    assert_eq!(scene.origin("local_roles"), "node.toml:3");
    let row = scene.load().unwrap().explain().into_iter().find(|(key, ..)| key == "local_roles");
    assert_eq!(row.unwrap().1, "default=worker, 33=authority, 1000=monitor");

    let with_table = with_users(&format!("{file}[[table]]\nname = \"t\"\n"));
    assert_eq!(with_table.settings().local_roles, expected);
    assert_eq!(with_table.settings().tables[0].policy.name, "t");

    // Others replace it as a whole.
    let scene = scene.env("ANNULUS_LOCAL_ROLES", "www-data=operator");
    let users = [(33, Role::Operator)].into();
    assert_eq!(scene.settings().local_roles, LocalRoles { default: Role::Development, users });
    let scene = scene.flag(Setting::LocalRoles, "");
    assert_eq!(scene.settings().local_roles, LocalRoles::default());
    assert_eq!(scene.origin("local_roles"), "--local-roles");
}

#[test]
fn local_roles_that_cannot_be_are_refused_and_named() {
    for (lines, expected) in [
        ("www-dta = \"worker\"", "no user \"www-dta\" in /etc/passwd"),
        ("half = \"worker\"", "no user \"half\" in /etc/passwd"),
        ("bad = \"worker\"", "no user \"bad\" in /etc/passwd"),
        ("www-data = \"boss\"", "the role of \"www-data\" must be one of \"development\", "),
        ("default = \"\"", "the role of \"default\" must be one of"),
        ("www-data = 3", "the role of \"www-data\" must be text in quotes"),
        ("www-data = \"worker\"\n33 = \"worker\"", "\"33\" is a user who has a role already"),
        ("4294967295 = \"worker\"", "\"4294967295\" is neither the name nor number of a user"),
        ("99999999999 = \"worker\"", "\"99999999999\" is neither"),
        ("\"\" = \"worker\"", "\"\" is neither"),
        ("weight = 5", "`weight` is a key of the node, and no user: move it above [local_roles]"),
        ("cluster = \"c\"", "`cluster` is a key of the node, and no user"),
    ] {
        let error = with_users(&format!("[local_roles]\n{lines}")).error();
        let starts = error.starts_with("node.toml:1: local_roles = {");
        assert!(starts && error.contains(expected), "{lines}: {error}");
    }
    for line in ["local_roles = \"worker\"", "local_roles = [\"worker\"]", "local_roles = 3"] {
        let error = with_users(line).error();
        assert!(error.contains("must be a role for each user"), "{line}: {error}");
    }
    let twice = with_users("").env("ANNULUS_LOCAL_ROLES", "default=worker,default=monitor");
    assert!(twice.error().contains("\"default\" is a user who has a role already"));
    let error = error_of("[local_roles]\nwww-data = \"worker\"");
    assert!(error.contains("cannot look up user \"www-data\" in /etc/passwd"), "{error}");
    // By number nobody is looked up.
    Scene::new("[local_roles]\n33 = \"worker\"").settings();
}

#[test]
fn a_lesser_role_for_root_is_a_warning() {
    let scene = with_users("[local_roles]\nroot = \"worker\"");
    assert_eq!(
        scene.load().unwrap().warnings(),
        ["local_roles: root has every role, whatever it is given"]
    );
    let scene = with_users("[local_roles]\nroot = \"development\"");
    assert_eq!(scene.load().unwrap().warnings(), [""; 0]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = Scene::new("weight = -1\ncolour = 1\n[[table]]\nname = \"t\"\nreplicas = 9")
        .flag(Setting::Listen, "0.0.0.0:1")
        .error();
    let starts = [
        "node.toml:2: unknown key",
        "--listen: ",
        "node.toml:1: weight",
        "node.toml:5: table.t.replicas",
    ];
    assert_eq!(error.lines().count(), starts.len(), "{error}");
    for (line, start) in error.lines().zip(starts) {
        assert!(line.starts_with(start), "{line} / {start}");
    }
}

#[test]
fn a_variable_with_a_typing_error_is_a_warning_and_those_of_orchestrators_are_nothing() {
    let scene = Scene::new("")
        .env("ANNULUS_CLUSTR", "x")
        .env("ANNULUS_SERVICE_HOST", "10.0.0.1")
        .env("ANNULUS_PORT", "tcp://10.0.0.1:7946")
        .env("ANNULUS_NODES", "a:1")
        .env("OTHER", "x");
    let warnings = scene.load().expect("it is allowed").warnings().to_vec();
    assert_eq!(warnings, ["unknown variable ANNULUS_CLUSTR: did you mean `ANNULUS_CLUSTER`?"]);
}

#[test]
fn an_idle_time_beyond_the_cap_is_a_warning() {
    let scene = Scene::new("[[table]]\nname = \"t\"\nidle = \"8d\"");
    let warnings = scene.load().expect("it is allowed").warnings().to_vec();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("idle = 8d never applies"), "{warnings:?}");
}

#[test]
fn state_goes_where_this_user_may_write() {
    let mut scene = Scene::new("").env("XDG_STATE_HOME", "/xdg");
    assert_eq!(scene.settings().data_dir, Path::new("/xdg/annulus"));
    scene.write("var/lib/annulus/keep", "");
    assert_eq!(scene.settings().data_dir, Path::new("/var/lib/annulus"));
    assert_eq!(scene.settings().socket.as_deref(), Some(Path::new("/var/lib/annulus/node.sock")));
    scene.write("run/annulus/keep", "");
    assert_eq!(scene.settings().socket.as_deref(), Some(Path::new("/run/annulus/node.sock")));
    scene.sources.env.clear();
    scene.write("proc/sys/kernel/hostname", "app7.example\n");
    assert_eq!(scene.settings().name, "app7.example");
}
