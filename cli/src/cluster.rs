//! Finding a cluster to talk to.

use std::path::{Path, PathBuf};

use annulus_client::{Client, Key, Listed, Member, Table};
use annulus_node::config::{Config, Flags, Problem, SOCKET, Setting, Sources};

use crate::args::Global;
use crate::commands::keys;
use crate::exit::Failed;

/// A cluster, a table of it, and how to answer.
pub(crate) struct Cluster {
    /// The connection.
    pub(crate) client: Client,
    /// The table that was asked for.
    pub(crate) table: Table,
    /// Whether to answer in JSON.
    pub(crate) json: bool,
    /// What key tags are made with.
    tag_secret: u64,
}

impl Cluster {
    /// Connects to the nodes that the command line or the environment names, else to this host's
    /// node as it is configured.
    pub(crate) async fn connect(global: &Global) -> anyhow::Result<Self> {
        let Target { name, seeds, socket } = Target::find(global, Sources::from_process())?;
        let mut builder = Client::builder()
            .cluster(&name)
            .seeds(seeds)
            .table(&global.table)
            .timeout(global.timeout)
            .without_lane()
            .software(concat!("annulus ", env!("CARGO_PKG_VERSION")));
        if let Some(socket) = socket {
            builder = builder.local_socket(socket);
        }
        if let Some(path) = &global.key_file {
            builder = builder.key(keys::read_file(path)?);
        }
        let client = builder.connect().await?;
        let table = client.table(&global.table);
        let tag_secret = fnv(name.as_bytes());
        Ok(Self { client, table, json: global.json, tag_secret })
    }

    /// What stands for a key where it is not shown.
    pub(crate) fn tag(&self, listed: &Listed) -> String {
        self.tag_of(&listed.key)
    }

    /// As [`Cluster::tag`].
    pub(crate) fn tag_of(&self, key: &Key) -> String {
        key.tag(self.tag_secret)
    }

    /// The members that take part, as the connected node knows them.
    pub(crate) async fn active_members(&self) -> anyhow::Result<Vec<Member>> {
        let members = self.client.members().await?.members;
        Ok(members.into_iter().filter(|member| member.status.is_active()).collect())
    }

    /// The member with this name or id, as the connected node knows it.
    pub(crate) async fn member(&self, name: &str) -> anyhow::Result<Member> {
        let members = self.client.members().await?.members;
        let is_meant = |member: &Member| member.name == name || member.id.to_string() == name;
        let mut found = members.into_iter().filter(is_meant);
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member),
            (None, _) => {
                Err(Failed::usage(format!("no member is called {name:?}; see `annulus members`")))
            }
            _ => Err(Failed::usage(format!("several members are called {name:?}; give an id"))),
        }
    }
}

/// Whom to connect to.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    seeds: Vec<String>,
    socket: Option<PathBuf>,
}

impl Target {
    fn find(global: &Global, sources: Sources) -> anyhow::Result<Self> {
        let explicit = !global.node.is_empty() || global.socket.is_some();
        let mut flags = Flags::default();
        if let Some(cluster) = &global.cluster {
            flags.set(Setting::Cluster, cluster);
        }
        let env = sources.env.clone();
        let sources = Sources { file: global.config.clone(), flags: flags.clone(), ..sources };
        let config = match Config::load(sources) {
            Ok(config) => config,
            // The node's configuration may be none of this user's business, or wrong: that keeps
            // nobody from talking to a node. Flags are still checked.
            Err(error) => {
                let unreadable = |problem: &Problem| matches!(problem, Problem::Unreadable { .. });
                let forgivable = error.problems().iter().all(unreadable) && global.config.is_none();
                if !explicit && !forgivable {
                    return Err(error.into());
                }
                let home = |(variable, _): &(String, String)| !variable.starts_with("ANNULUS_");
                let env = env.into_iter().filter(home).collect();
                Config::load(Sources { file: Some("/dev/null".into()), env, flags })?
            }
        };
        let settings = config.settings();
        let socket =
            global.socket.as_ref().map(PathBuf::from).filter(|p| !p.as_os_str().is_empty());
        if explicit {
            return Ok(Self { name: settings.cluster, seeds: global.node.clone(), socket });
        }
        let configured = settings.socket.into_iter().chain([PathBuf::from(SOCKET)]);
        let socket = configured.into_iter().find(|path| Path::exists(path));
        let addr = settings.advertise.unwrap_or(settings.listen);
        let seeds = if addr.port() == 0 { Vec::new() } else { vec![addr.to_string()] };
        Ok(Self { name: settings.cluster, seeds, socket })
    }
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn target(line: &str, file: &str, env: &[(&str, &str)]) -> anyhow::Result<Target> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("annulus.toml");
        std::fs::write(&path, file).expect("written");
        let path = path.to_str().expect("text").to_owned();
        let mut env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        env.push(("ANNULUS_CONFIG".to_owned(), path));
        env.push(("HOME".to_owned(), dir.path().to_str().expect("text").to_owned()));
        let cli = args::parse(line.split_whitespace()).expect("a right command line");
        Target::find(&cli.global, Sources { env, ..Sources::default() })
    }

    #[test]
    fn without_a_word_the_host_s_own_node_is_meant() {
        let found = target("annulus members", "cluster = \"c\"\nlisten = \"127.0.0.1:9\"", &[]);
        let found = found.expect("it is right");
        assert_eq!(
            (found.name.as_str(), found.seeds.as_slice()),
            ("c", &["127.0.0.1:9".to_owned()][..])
        );
        let found = target("annulus members", "advertise = \"10.0.0.1:8\"", &[]).expect("right");
        assert_eq!(found.seeds, ["10.0.0.1:8"]);
        let env = [("ANNULUS_LISTEN", "127.0.0.1:0"), ("ANNULUS_CLUSTER", "e")];
        let found = target("annulus members", "cluster = \"c\"", &env).expect("right");
        assert_eq!((found.name.as_str(), found.seeds.len()), ("e", 0));
    }

    #[test]
    fn who_names_nodes_means_them_alone() {
        let line = "annulus members --node a:1 --node b:2 --cluster x";
        let found = target(line, "cluster = \"c\"", &[]).expect("right");
        assert_eq!(found.name, "x");
        assert_eq!(found.seeds, ["a:1", "b:2"]);
        assert_eq!(found.socket, None);
        let found = target("annulus members --socket /s", "", &[]).expect("right");
        assert_eq!((found.seeds.len(), found.socket), (0, Some(PathBuf::from("/s"))));
    }

    #[test]
    fn a_wrong_configuration_matters_only_where_it_is_needed() {
        let error = target("annulus members", "weight = -1", &[]).expect_err("it is needed");
        assert_eq!(crate::exit::code(&error), crate::exit::USAGE);
        target("annulus members --node a:1", "weight = -1", &[]).expect("it is not needed");
        target("annulus members --node a:1 --cluster a/b", "", &[]).expect_err("a wrong name");
    }

    #[test]
    fn tags_differ_from_cluster_to_cluster() {
        let key = Key::new("k").expect("a key");
        assert_ne!(key.tag(fnv(b"one")), key.tag(fnv(b"two")));
    }
}
