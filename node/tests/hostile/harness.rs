//! Nodes in this process, and waiting for conditions.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::panic;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use annulus_client::{Client, Error, NodeStatus, Read, StartOptions, Value};
use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_node::core::{CoreSettings, TablePolicy};
use annulus_node::driver::{SystemHost, run_on};
use annulus_node::{NodeSettings, RECORD_SIZE_DEFAULT, Ready, RunError, Storage, TableSettings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The cores of a node for tests: more than one, so that what arrives has to be sorted.
pub(crate) const CORES: NonZeroU16 = NonZeroU16::new(2).expect("two is not zero");

/// A node for tests, with all its files under `dir`, and a cluster named after it.
pub(crate) fn settings(dir: &Path) -> NodeSettings {
    let part = |name: &str| dir.join(name);
    std::fs::create_dir_all(part("shm")).unwrap();
    NodeSettings {
        cluster: format!("hostile-{}", std::process::id()),
        name: "test".to_owned(),
        data_dir: part("data"),
        shm_dir: part("shm"),
        keyring: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: None,
        socket: Some(part("socket")),
        socket_mode: 0o600,
        local_roles: annulus_node::driver::LocalRoles::default(),
        seeds: Vec::new(),
        zone: String::new(),
        weight: 100,
        rings: 1,
        cores: CORES,
        connections_max: 1_024,
        lanes: annulus_node::driver::LaneSettings::default(),
        stop_timeout: Duration::from_secs(5),
        leave_on_stop: false,
        mesh: annulus_gossip::MeshConfig::default(),
        core: CoreSettings::default(),
        redis: annulus_node::driver::RedisSettings::default(),
        tables: vec![table(2 << 20, 64 << 10)],
    }
}

pub(crate) fn table(memory: u64, max_value: u32) -> TableSettings {
    TableSettings {
        policy: TablePolicy { max_value, ..TablePolicy::default() },
        memory,
        storage: Storage::Memory,
        record_size: RECORD_SIZE_DEFAULT,
        archive_max: 0,
    }
}

/// A node in a task of this process.
pub(crate) struct Node {
    pub(crate) ready: Ready,
    pub(crate) cluster: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Node {
    pub(crate) async fn start(settings: NodeSettings) -> Self {
        Self::start_on(settings, TokioNet::new(), SystemClock).await
    }

    pub(crate) async fn start_on<N: Net, C: Clock>(
        settings: NodeSettings,
        net: N,
        clock: C,
    ) -> Self {
        // A process that another test is just starting has our files open for a moment, the lock of a node
        // that has stopped among them.
        let is_locked = |error: &RunError| match error {
            RunError::DataDir { source, .. } => source.kind() == std::io::ErrorKind::WouldBlock,
            _ => false,
        };
        until("the node starts", async || {
            match Self::try_start(settings.clone(), net.clone(), clock.clone()).await {
                Ok(node) => Some(node),
                Err(error) if is_locked(&error) => None,
                Err(error) => panic!("the node does not start: {error}"),
            }
        })
        .await
    }

    pub(crate) async fn try_start<N: Net, C: Clock>(
        settings: NodeSettings,
        net: N,
        clock: C,
    ) -> Result<Self, RunError> {
        watch_for_panics();
        let fail = |source| RunError::DataDir { path: settings.data_dir.clone(), source };
        let host = SystemHost::open(&settings).map_err(fail)?;
        let cluster = settings.cluster.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, ready) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let report = move |ready: &Ready| drop(sender.send(ready.clone()));
        let task = tokio::spawn(run_on(settings, net, clock, host, stopped, report));
        match ready.await {
            Ok(ready) => Ok(Self { ready, cluster, stop: Some(stop), task }),
            Err(_) => Err(task.await.unwrap().expect_err("it never got ready")),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.ready.addr
    }

    pub(crate) fn socket(&self) -> &Path {
        self.ready.socket.as_deref().unwrap()
    }

    /// A client that reads no shared memory.
    pub(crate) async fn client(&self) -> Client {
        client(self.addr(), &self.cluster).await
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        let ended = within(LONG, "the node stops", &mut self.task).await;
        ended.expect("the node did not panic").expect("it stops without an error");
        assert_no_panics();
    }

    /// Waits until it gives up by itself.
    pub(crate) async fn error(mut self) -> RunError {
        let ended = within(LONG, "the node gives up", &mut self.task).await;
        ended.expect("the node did not panic").expect_err("it gave up")
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

pub(crate) async fn client(addr: SocketAddr, cluster: &str) -> Client {
    let builder = Client::builder().cluster(cluster).seed(addr.to_string());
    let builder = builder.without_shared_memory().timeout(Duration::from_secs(20));
    builder.connect().await.unwrap()
}

pub(crate) fn counter(status: &NodeStatus, name: &str) -> u64 {
    status.counters.iter().find(|(each, _)| each == name).map_or(0, |(_, count)| *count)
}

/// Waits until a counter of the node has reached `least`.
pub(crate) async fn counted(client: &Client, name: &str, least: u64) {
    let what = format!("{name} reaches {least}");
    until(&what, async || {
        let status = client.any_node().status().await.unwrap();
        (counter(&status, name) >= least).then_some(())
    })
    .await;
}

pub(crate) async fn until<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

pub(crate) fn bytes(value: impl AsRef<[u8]>) -> Value {
    Value::Bytes(value.as_ref().to_vec())
}

/// What session `number` of a test's own holds: of many sizes, none like another.
pub(crate) fn value_of(number: usize) -> Value {
    let seed = number as u8;
    Value::Bytes((0..20 + number * 37 % 3_000).map(|at| seed ^ (at as u8)).collect())
}

/// Stores `count` sessions that [`assert_all_there`] looks for.
pub(crate) async fn store(client: &Client, count: usize) {
    for number in 0..count {
        let started =
            client.start(format!("kept {number}"), value_of(number), StartOptions::default());
        started.await.unwrap();
    }
}

/// Reads what [`store`] stored, waiting out what is unavailable for a moment.
pub(crate) async fn assert_all_there(client: &Client, count: usize) {
    for number in 0..count {
        let read = read(client, &format!("kept {number}")).await;
        assert_eq!(read.session.value, value_of(number), "session {number}");
    }
}

pub(crate) async fn read(client: &Client, key: &str) -> Read {
    until("a read is answered", async || match client.get(key).await {
        Ok(read) => Some(read),
        Err(Error::Unavailable { .. } | Error::TimedOut | Error::Disconnected { .. }) => None,
        Err(error) => panic!("{key}: {error}"),
    })
    .await
}

/// Waits until all of them know `count` members and agree on the view, and their slots are in sync.
pub(crate) async fn settle(clients: &[&Client], count: u32) {
    until("the nodes agree", async || {
        let mut views = Vec::new();
        for client in clients {
            let status = client.any_node().status().await.ok()?;
            let synced = status.tables.iter().all(|table| table.slots_unsynced == 0);
            let homes = status.tables[0].slots_home > 0;
            if status.agreeing_members != count || !synced || !homes {
                return None;
            }
            views.push(status.view);
        }
        views.dedup();
        (views.len() == 1).then_some(())
    })
    .await;
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers panics in our own code: tokio swallows those of spawned tasks.
fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = info.location().is_some_and(|at| !at.file().contains("tests/"));
            if ours {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(info.to_string());
            }
            before(info);
        }));
    });
}

/// Nothing panicked in any node of this process so far.
#[track_caller]
pub(crate) fn assert_no_panics() {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    // An `unwrap` in a test is reported where the test stands, and so does not count.
    assert!(panics.is_empty(), "{panics:?}");
}
