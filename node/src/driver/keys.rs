//! The keys of a node: what is sealed and opened with them, and changing them on all nodes.
//!
//! A task of its own carries changes out. It puts a new ring on disk first, then shows it to
//! everybody who seals and opens. What hub and cores do has nothing to do with keys, and they see
//! none.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annulus_net::Net;
use annulus_proto::codec::{self, Header};
use annulus_proto::limits::REASON_BYTES_MAX;
use annulus_proto::message::{
    HeldKey, KeyChange, KeyOrder, KeyOrdered, KeysReport, KeysRequest, Message, NodeKeys,
};
use annulus_proto::{Hlc, Member, NodeId, Status};
use annulus_seal::datagram::{Epoch, NodeReceiver, NodeSender};
use annulus_seal::stream::{AnswerError, CallError, SealedStream, Wire};
use annulus_seal::{Key, KeyId, KeyKind, Keyring};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::error::RunError;
use super::host::Host;
use super::link::{Identity, hello};
use super::post::Streams;
use super::stream::FrameReader;
use crate::core::Standing;

/// What everybody in a node seals and opens with.
pub(super) struct Keys {
    cluster: String,
    held: watch::Sender<Held>,
    /// That of the epoch in which this node seals.
    incarnation: AtomicU64,
    /// A generator for cryptography, seeded by the host.
    rng: Mutex<StdRng>,
}

/// One ring, and what follows from it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) ring: Arc<Keyring>,
    pub(super) sender: Arc<NodeSender>,
}

impl Keys {
    /// Reads a node's keyring. `incarnation` is greater than that of all earlier runs.
    ///
    /// # Errors
    /// [`RunError::Keyring`].
    pub(super) fn load<H: Host>(
        host: &H,
        path: &Path,
        cluster: &str,
        id: NodeId,
        incarnation: u64,
    ) -> Result<Self, RunError> {
        let fail = |why: String| RunError::Keyring { path: path.to_owned(), why };
        let text = host.load_keyring().map_err(|error| fail(error.to_string()))?;
        let ring: Keyring = text.parse().map_err(|error| fail(format!("{error}")))?;
        let mut seed = [0; 32];
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&host.entropy().to_le_bytes());
        }
        let mut rng = StdRng::from_seed(seed);
        let epoch = Epoch::new(incarnation, rng.random());
        let sender = Arc::new(NodeSender::new(&ring, cluster, id.bits(), epoch));
        let held = watch::Sender::new(Held { ring: Arc::new(ring), sender });
        let (incarnation, rng) = (AtomicU64::new(incarnation), Mutex::new(rng));
        Ok(Self { cluster: cluster.to_owned(), held, incarnation, rng })
    }

    /// Seals in a later epoch if this incarnation, which is on disk, is greater than the last one.
    pub(super) fn raise(&self, incarnation: u64) {
        if self.incarnation.fetch_max(incarnation, Ordering::Relaxed) < incarnation {
            let [random @ .., _, _] = *self.draw().first_chunk::<8>().expect("eight of 32 bytes");
            let epoch = Epoch::new(incarnation, random);
            self.held.send_modify(|held| {
                held.sender = Arc::new(held.sender.with_epoch(&held.ring, epoch));
            });
        }
    }

    /// The keys of this moment.
    pub(super) fn held(&self) -> Held {
        self.held.borrow().clone()
    }

    /// Tells of changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Who takes datagrams in, with the keys of this moment.
    pub(super) fn receiver(&self) -> NodeReceiver {
        let Held { ring, sender } = self.held();
        NodeReceiver::new(ring, sender, &self.draw())
    }

    /// Calls another node over a stream, under the key in use, whose id is returned.
    ///
    /// # Errors
    /// [`CallError`].
    pub(super) async fn call<S>(&self, stream: S) -> Result<(Wire<S>, KeyId), CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let key = self.held().ring.in_use().clone();
        let sealed = SealedStream::call(stream, &key, &self.cluster, &self.draw()).await?;
        Ok((sealed.into(), key.id()))
    }

    /// Answers a call, and tells under which key it came.
    ///
    /// # Errors
    /// [`AnswerError`]: the caller is told nothing.
    pub(super) async fn answer<S>(
        &self,
        stream: S,
    ) -> Result<(SealedStream<S>, Arc<Key>), AnswerError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let ring = self.held().ring;
        SealedStream::answer(stream, &ring, &self.cluster, &self.draw()).await
    }

    /// Waits until this key is accepted no more.
    pub(super) async fn removed(&self, key: KeyId) {
        let mut held = self.subscribe();
        // An error means that the node is stopping.
        let _ = held.wait_for(|held| held.ring.get(key).is_none()).await;
    }

    /// Waits until this key is not the one in use any more.
    pub(super) async fn replaced(&self, key: KeyId) {
        let mut held = self.subscribe();
        let _ = held.wait_for(|held| held.ring.in_use().id() != key).await;
    }

    fn draw(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        bytes
    }
}

/// Something to do with keys, and which stream waits for the answer.
pub(super) struct Job {
    pub(super) stream: u64,
    pub(super) id: u64,
    pub(super) task: Task,
}

/// What there is to do.
pub(super) enum Task {
    /// From who runs the cluster: at all nodes.
    Everywhere(KeysRequest),
    /// From another node: here.
    Here(KeyOrder),
}

/// Jobs that may wait.
pub(super) const JOBS_MAX: usize = 64;
/// How many of those that go to all nodes may wait: each may take seconds.
const REQUESTS_MAX: usize = 8;
/// How long one node may take to do what it is asked to.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many nodes are asked at a time.
const NODES_AT_A_TIME: usize = 64;

/// The task that carries out changes.
pub(super) struct KeyTask<N, H> {
    pub(super) net: N,
    pub(super) host: Arc<H>,
    /// `None` on a node without a keyring.
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) identity: Identity,
    pub(super) name: String,
    pub(super) standing: watch::Receiver<Arc<Standing>>,
    pub(super) streams: Arc<Streams>,
    /// Held while the keyring is changed.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl<N: Net, H: Host> KeyTask<N, H> {
    /// Runs until nobody sends jobs any more.
    pub(super) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let this = Arc::new(self);
        // What goes to all nodes waits for them, and they may wait for this one meanwhile. It is done
        // one after the other, and so is what is asked of this node.
        let (for_all, requests) = mpsc::channel(REQUESTS_MAX);
        let mut asking = JoinSet::new();
        asking.spawn(this.clone().run_everywhere(requests));
        while let Some(Job { stream, id, task }) = jobs.recv().await {
            match task {
                Task::Here(order) => {
                    let ordered = this.here(order.change).await;
                    this.answer(stream, id, ordered);
                }
                Task::Everywhere(request) => {
                    if for_all.try_send((stream, id, request)).is_err() {
                        let refused = "too many changes of keys wait here; try again".to_owned();
                        this.answer(stream, id, KeysReport { refused, nodes: Vec::new() });
                    }
                }
            }
        }
    }

    async fn run_everywhere(
        self: Arc<Self>,
        mut requests: mpsc::Receiver<(u64, u64, KeysRequest)>,
    ) {
        while let Some((stream, id, request)) = requests.recv().await {
            let report = self.everywhere(request).await;
            self.answer(stream, id, report);
        }
    }

    fn answer(&self, stream: u64, id: u64, answer: impl Into<Message>) {
        let header = Header { id, view: 0, hlc: Hlc::ZERO };
        self.streams.send(stream, header, answer.into());
    }

    /// Changes this node's keys, on disk first.
    async fn here(&self, change: KeyChange) -> KeyOrdered {
        let Some(keys) = &self.keys else {
            return KeyOrdered::Refused("it has no keyring; see `keyring`".to_owned());
        };
        let _alone = self.writing.lock().await;
        let mut changed = (*keys.held().ring).clone();
        let result = match change {
            KeyChange::Install(text) => match text.0.parse() {
                Ok(key) => changed.install(key),
                Err(error) => return refused(error),
            },
            KeyChange::Use(id) => changed.use_key(KeyId::from_bits(id)),
            KeyChange::Remove(id) => changed.remove(KeyId::from_bits(id)),
            _ => Ok(false),
        };
        match result {
            Err(error) => return refused(error),
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = self.host.store_keyring(changed.reveal()).await {
                    tracing::error!(%error, "the keyring cannot be written; nothing was changed");
                    return refused(format_args!("its keyring cannot be written: {error}"));
                }
                tracing::info!(keys = ?changed, "the keyring was changed");
                keys.held.send_modify(|held| {
                    held.sender = Arc::new(held.sender.with_keys(&changed));
                    held.ring = Arc::new(changed);
                });
            }
        }
        describe(&keys.held().ring)
    }

    /// Changes the keys of all members, one after the other's consent.
    async fn everywhere(self: &Arc<Self>, request: KeysRequest) -> KeysReport {
        let KeysRequest { change, force } = request;
        let before = self.ask_all(KeyChange::List).await;
        let in_the_way = why_not(&change, &before, force);
        if in_the_way.is_some() || change == KeyChange::List {
            let refused = cut_to(REASON_BYTES_MAX, in_the_way.unwrap_or_default());
            return KeysReport { refused, nodes: before };
        }
        let nodes = self.ask_all(change).await;
        let refused = match &nodes[..] {
            [NodeKeys { keys: KeyOrdered::Refused(why), .. }, ..] => why.clone(),
            _ => String::new(),
        };
        KeysReport { refused, nodes }
    }

    /// This node first, then the others that it knows, in ascending order of their ids. Where this one
    /// refuses, nobody else is asked.
    async fn ask_all(self: &Arc<Self>, change: KeyChange) -> Vec<NodeKeys> {
        let standing = self.standing.borrow().clone();
        let here = self.here(change.clone()).await;
        let has_refused = matches!(here, KeyOrdered::Refused(_));
        let mine = standing.members().find(|member| member.id == self.identity.id);
        let mut all = vec![NodeKeys {
            node: self.identity.id,
            name: self.name.clone(),
            status: mine.map_or(Status::Up, |member| member.status),
            keys: here,
        }];
        let is_other =
            |member: &&Member| member.id != self.identity.id && member.status != Status::Left;
        let others: Vec<Member> = standing.members().filter(is_other).cloned().collect();
        for some in others.chunks(NODES_AT_A_TIME).take_while(|_| !has_refused) {
            let mut asked = JoinSet::new();
            for member in some {
                let (this, member, change) = (self.clone(), member.clone(), change.clone());
                asked.spawn(async move { this.ask(&member, change).await });
            }
            let mut answers = Vec::with_capacity(some.len());
            while let Some(answer) = asked.join_next().await {
                answers.push(answer.expect("asking does not panic"));
            }
            answers.sort_unstable_by_key(|answer| answer.node);
            all.extend(answers);
        }
        all
    }

    async fn ask(&self, member: &Member, change: KeyChange) -> NodeKeys {
        let asked = tokio::time::timeout(NODE_TIMEOUT, self.try_ask(member, change)).await;
        let keys = match asked {
            Ok(Ok(keys)) => keys,
            Ok(Err(why)) => KeyOrdered::Silent(cut(why)),
            Err(_) => KeyOrdered::Silent("no answer in time".to_owned()),
        };
        NodeKeys { node: member.id, name: member.name.clone(), status: member.status, keys }
    }

    async fn try_ask(&self, member: &Member, change: KeyChange) -> Result<KeyOrdered, String> {
        let keys = self.keys.as_ref().ok_or("this node has no keyring")?;
        let stream = self.net.connect(member.addr).await.map_err(|error| error.to_string())?;
        let (mut stream, _) = keys.call(stream).await.map_err(|error| error.to_string())?;
        send(&mut stream, 0, &hello(&self.identity)).await?;
        let mut reader = FrameReader::new(stream);
        // Whoever has its address now answers for nobody else, and is not told to do anything.
        match next(&mut reader).await? {
            Message::Welcome(welcome) if welcome.node == member.id => {}
            Message::Welcome(welcome) => return Err(format!("{} has its address", welcome.node)),
            other => return Err(format!("{} is no answer", other.name())),
        }
        send(reader.stream(), 1, &KeyOrder { change }.into()).await?;
        match next(&mut reader).await? {
            Message::KeyOrdered(ordered) => Ok(ordered),
            other => Err(format!("{} is no answer", other.name())),
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    id: u64,
    message: &Message,
) -> Result<(), String> {
    let mut frame = Vec::new();
    let header = Header { id, view: 0, hlc: Hlc::ZERO };
    codec::encode_frame(header, message, &mut frame).map_err(|error| error.to_string())?;
    stream.write_all(&frame).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())
}

async fn next<S: AsyncRead + Unpin>(reader: &mut FrameReader<S>) -> Result<Message, String> {
    match reader.frame().await {
        Ok((_, Message::Rejected(rejected))) => Err(rejected.to_string()),
        Ok((_, message)) => Ok(message),
        Err(_) => Err("it closed the stream".to_owned()),
    }
}

/// What speaks against a change, by what the nodes said of their keys.
fn why_not(change: &KeyChange, nodes: &[NodeKeys], force: bool) -> Option<String> {
    if let Some(NodeKeys { keys: KeyOrdered::Refused(why), .. }) = nodes.first() {
        return Some(why.clone());
    }
    let names = |is_so: &dyn Fn(&NodeKeys) -> bool| {
        let names = nodes.iter().filter(|node| is_so(node)).map(|node| node.name.as_str());
        let names: Vec<&str> = names.take(NAMED_MAX).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    // The dead are asked, too: they come back, and would not understand anybody.
    let silent = names(&|node| !matches!(node.keys, KeyOrdered::Done { .. }));
    let silent = silent.filter(|_| !force).map(|names| {
        format!(
            "not every member tells of its keys ({names}); it would be cut off if it lacks the key \
             in use. See to it, or use --force; then run `annulus keys install` on that host, or copy \
             the keyring file there before it starts"
        )
    });
    let holds = |node: &NodeKeys, id: u32| match &node.keys {
        KeyOrdered::Done { keys, .. } => keys.iter().any(|key| key.id == id),
        _ => true,
    };
    let uses = |node: &NodeKeys, id| matches!(&node.keys, KeyOrdered::Done { in_use, .. } if *in_use == id);
    match *change {
        KeyChange::Use(id) => {
            let lacking = names(&|node| !holds(node, id)).filter(|_| !force).map(|names| {
                let id = KeyId::from_bits(id);
                format!(
                    "{names} would not understand what is sealed with key {id}: install it first"
                )
            });
            lacking.or(silent)
        }
        KeyChange::Remove(id) => {
            let using = names(&|node| uses(node, id)).map(|names| {
                let id = KeyId::from_bits(id);
                format!("key {id} is in use at {names}: `annulus keys use` another one first")
            });
            let nowhere = || {
                let somewhere = |node: &NodeKeys| {
                    matches!(node.keys, KeyOrdered::Done { .. }) && holds(node, id)
                };
                let id = KeyId::from_bits(id);
                (!nodes.iter().any(somewhere)).then(|| format!("no node has a key {id}"))
            };
            using.or_else(nowhere).or(silent)
        }
        _ => None,
    }
}

/// How many nodes a refusal names.
const NAMED_MAX: usize = 8;

fn describe(ring: &Keyring) -> KeyOrdered {
    let held = |key: &Arc<Key>| HeldKey {
        id: key.id().bits(),
        role: match key.kind() {
            KeyKind::Node => None,
            KeyKind::Client(role) => Some(role),
        },
    };
    KeyOrdered::Done { keys: ring.keys().map(held).collect(), in_use: ring.in_use().id().bits() }
}

fn refused(why: impl std::fmt::Display) -> KeyOrdered {
    KeyOrdered::Refused(cut(why.to_string()))
}

/// As much of a reason as fits a report of all nodes.
fn cut(why: String) -> String {
    cut_to(REASON_BYTES_MAX / 2, why)
}

fn cut_to(bytes_max: usize, mut why: String) -> String {
    let mut end = why.len().min(bytes_max);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}

#[cfg(test)]
mod tests;
