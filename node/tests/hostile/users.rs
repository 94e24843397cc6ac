//! Processes of other users at the Unix socket, who may do less than they ask for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use annulus_client::{
    Acknowledged, Builder, Change, Client, ConnectError, Error, Lane, LaneCaller, LaneError,
    Rejected, Role, StartOptions, Via,
};
use annulus_node::NodeSettings;
use annulus_node::driver::LocalRoles;
use annulus_proto::message::Message;

use crate::harness::{LONG, Node, bytes, counted, read, settings};
use crate::wire::{Raw, a_node};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

// With threads of the node's own: calls through a lane block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_do_what_its_role_allows_over_the_socket_and_through_a_lane() {
    let dir = tempfile::tempdir().unwrap();
    let local_roles = LocalRoles { default: Role::Worker, ..LocalRoles::default() };
    let node = Node::start(NodeSettings { local_roles, ..settings(dir.path()) }).await;
    let client = node.client().await;
    client.start("kept", bytes("started"), StartOptions::default()).await.unwrap();

    // The node's own user may do everything, or less if it asks for less.
    for role in [Role::Development, Role::Authority] {
        for access in Access::of_all_kinds(node.socket(), &node.cluster, role).await {
            access.start("own", "started").await.unwrap();
            access.change("own", "changed").await.unwrap();
            access.end("own").await.unwrap();
        }
    }
    changes_and_no_more(node.socket(), &node.cluster, Role::Worker, "by its own user").await;
    assert_eq!(read(&client, "kept").await.session.value, bytes("by its own user"));

    // Only root may run something as somebody else.
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(node.socket(), Permissions::from_mode(0o666)).unwrap();
        // This binary may lie where that user cannot look; this link it can follow all the same.
        let child = Command::new("/proc/self/exe")
            .args(["--exact", "users::a_process_of_nobody_tries_everything", "--nocapture"])
            .env(SOCKET, node.socket())
            .env(CLUSTER, &node.cluster)
            .uid(NOBODY)
            .stdin(Stdio::null())
            .output();
        let child = child.unwrap();
        assert!(child.status.success(), "{child:?}");
        assert_eq!(read(&client, "kept").await.session.value, bytes("by nobody"));
        counted(&client, "roles_not_granted", 5).await;
    }
    let new = client.get("new").await;
    assert!(matches!(new, Err(Error::Absent)), "{new:?}");
    node.stop().await;
}

const SOCKET: &str = "ANNULUS_HOSTILE_SOCKET";
const CLUSTER: &str = "ANNULUS_HOSTILE_CLUSTER_OF_SOCKET";

/// No test, but what a process of another user does; without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_nobody_tries_everything() {
    let (Ok(socket), Ok(cluster)) = (std::env::var(SOCKET), std::env::var(CLUSTER)) else { return };
    let socket = Path::new(&socket);
    assert_eq!(rustix::process::geteuid().as_raw(), NOBODY);
    // Whoever asks for everything gets what there is for its user.
    for role in [Role::Development, Role::Worker] {
        changes_and_no_more(socket, &cluster, role, "by nobody").await;
    }
    for asked in [Role::Authority, Role::Monitor] {
        let expected = Rejected::RoleNotGranted { asked, granted: Role::Worker };
        let error = builder(socket, &cluster, asked).connect().await.expect_err("it may not");
        let ConnectError::Rejected { reason, .. } = &error else { panic!("{error}") };
        assert_eq!(*reason, expected);
        assert!(error.to_string().contains("`local_roles`"), "{error}");
        match Lane::open(socket, caller(&cluster, asked)) {
            Err(LaneError::Rejected(reason)) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }
    // Nor does it help to be a node.
    let answer = Raw::local(socket).await.greet(&cluster, a_node(5)).await;
    let asked = Role::Development;
    let expected = Rejected::RoleNotGranted { asked, granted: Role::Worker };
    assert_eq!(answer, Some(Message::Rejected(expected)));
}

/// With this role the session `kept` can be changed and not ended, and no other be started.
async fn changes_and_no_more(socket: &Path, cluster: &str, role: Role, value: &str) {
    for access in Access::of_all_kinds(socket, cluster, role).await {
        access.change("kept", value).await.unwrap();
        // Through a lane both ways: what is too long for its ring goes over its stream.
        for long in ["short", &"long ".repeat(10_000)] {
            let started = access.start("new", long).await;
            assert_eq!(started, Err(Error::Refused(REFUSED.to_owned())));
        }
        assert_eq!(access.end("kept").await, Err(Error::Refused(REFUSED.to_owned())));
    }
}

const REFUSED: &str = "the role worker may not do this";

/// A way of asking for something.
enum Access {
    Stream(Client),
    Lane(Lane),
}

impl Access {
    async fn of_all_kinds(socket: &Path, cluster: &str, role: Role) -> [Self; 2] {
        let client = builder(socket, cluster, role).connect().await.unwrap();
        let lane = Lane::open(socket, caller(cluster, role)).unwrap();
        [Self::Stream(client), Self::Lane(lane)]
    }

    async fn start(&self, key: &str, value: &str) -> Result<Acknowledged, Error> {
        let (value, options) = (bytes(value), StartOptions::default());
        match self {
            Self::Stream(client) => client.start(key, value, options).await,
            Self::Lane(lane) => lane.table("sessions").unwrap().start(key, value, options),
        }
    }

    async fn change(&self, key: &str, value: &str) -> Result<(), Error> {
        match self {
            Self::Stream(client) => {
                client.update(key, None, Change::Value(bytes(value))).await?;
                client.touch(key, None).await?;
                client.get(key).await?;
            }
            Self::Lane(lane) => {
                let sessions = lane.table("sessions").unwrap();
                sessions.update_bytes(key, None, value.as_bytes())?;
                sessions.touch(key, None)?;
            }
        }
        Ok(())
    }

    async fn end(&self, key: &str) -> Result<Acknowledged, Error> {
        match self {
            Self::Stream(client) => client.end(key, None).await,
            Self::Lane(lane) => lane.table("sessions").unwrap().end(key, None),
        }
    }
}

fn builder(socket: &Path, cluster: &str, role: Role) -> Builder {
    let builder = Client::builder().cluster(cluster).local_socket(socket).via(Via::Local);
    builder.role(role).without_shared_memory().without_lane().timeout(LONG)
}

fn caller(cluster: &str, role: Role) -> LaneCaller {
    LaneCaller {
        cluster: cluster.to_owned(),
        client: rand::random(),
        role,
        software: "hostile".to_owned(),
        timeout: LONG,
    }
}
