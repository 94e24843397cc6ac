//! Streams from clients and other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use annulus_net::{Listener, LocalEnd, Peer};
use annulus_proto::codec::{self, DecodeError, Header, PROTOCOL_VERSION};
use annulus_proto::message::{self, Message, Pong, Rejected, Role, StreamGossip, Welcome};
use annulus_proto::{Hlc, NodeId};
use annulus_seal::KeyKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::WRITE_TIMEOUT;
use super::door::Channels;
use super::inboxes::{Inboxes, NotLeft};
use super::keys::{Job, Keys, Task};
use super::lanes::{Lane, Lanes};
use super::local_roles::{LocalRoles, grant};
use super::post::{Sink, Streams};
use super::stream::{FrameReader, ReadError, outbox};
use super::tally::Tally;
use crate::core::{Asker, Caller, HubInput, Request, Standing};

/// What every incoming stream is checked against, and counted in.
pub(super) struct Reception {
    pub(super) cluster: String,
    pub(super) welcome: Welcome,
    /// The bound on each of the four numbers that follow. They are apart so that clients cannot
    /// keep other nodes out, nor strangers (who have not said hello) clients, nor those of the network
    /// this host's.
    pub(super) streams_max: u32,
    pub(super) strangers: AtomicU32,
    pub(super) local_strangers: AtomicU32,
    pub(super) clients: AtomicU32,
    pub(super) nodes: AtomicU32,
    pub(super) next: AtomicU64,
    pub(super) local_roles: LocalRoles,
    /// The user that this node runs as.
    pub(super) user: u32,
    pub(super) inboxes: Inboxes,
    pub(super) streams: Arc<Streams>,
    pub(super) tally: Arc<Tally>,
    /// `None` where clients are given no lanes.
    pub(super) lanes: Option<Arc<Lanes>>,
    /// `None` where everything travels in clear.
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) key_jobs: mpsc::Sender<Job>,
    pub(super) channels: Arc<Channels>,
    /// Who is a member.
    pub(super) standing: watch::Receiver<Arc<Standing>>,
}

/// How long a caller may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one may take to prove that it has a key. Who has one sends that first, unasked; who has
/// none keeps a place for no longer than this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest frame that is taken from somebody who has not said hello.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// How long a stream may be silent. Clients open a new one when they need it.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// The same for one that a lane belongs to: for ever.
const IDLE_WITH_LANE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes that may wait to be written to one stream; a reader that is slower is cut off.
const OUTBOX_BYTES: usize = 16 << 20;
/// The pause after a failed accept, as when descriptors run out.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts streams for ever.
pub(super) async fn accept<L>(mut listener: L, reception: Arc<Reception>)
where
    L: Listener,
    L::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let end = L::local_end(&stream);
                tokio::spawn(receive(stream, peer, end, reception.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a stream; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn receive<S>(
    stream: S,
    peer: Peer,
    end: std::io::Result<Option<LocalEnd>>,
    reception: Arc<Reception>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Strangers beyond the limit are not even told: nothing is spent on them.
    let strangers = match peer {
        Peer::Tcp(_) => &reception.strangers,
        Peer::Local => &reception.local_strangers,
    };
    let Some(stranger) = Place::take(strangers, reception.streams_max) else {
        return reception.tally.add("streams_refused");
    };
    if let (Some(keys), Peer::Tcp(_)) = (&reception.keys, peer) {
        let answered = tokio::time::timeout(HANDSHAKE_TIMEOUT, keys.answer(stream)).await;
        match answered {
            Ok(Ok((stream, key))) => {
                let may = May::Key(key.kind());
                let local = Local { end: None, may, may_see_to_keys: false };
                let removed = keys.removed(key.id());
                serve(stream, peer, local, &reception, stranger, removed).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(?peer, %error, "a caller was not let in");
                reception.tally.add(error.counter());
            }
            Err(_) => reception.tally.add("streams_without_hello"),
        }
        return;
    }
    match end.and_then(|end| reception.recognize(end)) {
        Ok(local) => {
            serve(stream, peer, local, &reception, stranger, std::future::pending()).await;
        }
        Err(error) => {
            tracing::error!(%error, "the user behind a local stream is unknown; it is closed");
            reception.tally.add("local_users_unknown");
        }
    }
}

/// What is known of the other side before it says anything.
struct Local {
    /// Its end, if it came in over a real local socket.
    end: Option<LocalEnd>,
    /// What it may do at most.
    may: May,
    /// Whether its user may, if its role does.
    may_see_to_keys: bool,
}

/// What a caller may be and do.
#[derive(Clone, Copy)]
enum May {
    /// What this role may; with [`Role::Development`] it may be a node, too.
    Role(Role),
    /// What this key is for.
    Key(KeyKind),
}

/// One of a bounded number, given back when it is dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicU32, limit: u32) -> Option<Self> {
        let place = Self(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve<S>(
    stream: S,
    peer: Peer,
    local: Local,
    reception: &Reception,
    stranger: Place<'_>,
    key_removed: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read_half, mut write_half) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read_half);
    reader.limit(HELLO_BYTES_MAX);
    let limit = reception.streams_max;
    let greeted =
        tokio::time::timeout(HELLO_TIMEOUT, greet(&mut reader, local.may, reception)).await;
    let greeted = greeted.unwrap_or(Err(None)).and_then(|hello| {
        let places = match hello {
            message::Caller::Client { .. } => &reception.clients,
            message::Caller::Node { .. } => &reception.nodes,
        };
        let place = Place::take(places, limit);
        Ok((hello, place.ok_or(Some(Rejected::TooManyConnections { limit }))?))
    });
    let (hello, _place) = match greeted {
        Ok(greeted) => greeted,
        Err(Some(rejected)) => {
            tracing::debug!(?peer, %rejected, "a stream was refused");
            reception.tally.add("streams_refused");
            return reject(write_half, rejected).await;
        }
        Err(None) => return reception.tally.add("streams_without_hello"),
    };
    let caller = match hello {
        message::Caller::Client { role, .. } => Caller::Client(role),
        message::Caller::Node { id, .. } => Caller::Node(id),
    };
    drop(stranger);
    reader.limit(usize::MAX);
    let mut key_removed = std::pin::pin!(key_removed);
    let welcomed = tokio::select! {
        // The key may be gone since the handshake.
        biased;
        () = &mut key_removed => return reception.tally.add("streams_of_removed_keys"),
        sent = send(&mut write_half, reception.welcome.clone()) => sent,
    };
    if welcomed.is_err() {
        return;
    }
    let number = reception.next.fetch_add(1, Ordering::Relaxed);
    let (outbox, outgoing) = outbox(OUTBOX_BYTES);
    reception.streams.open(number, Sink::Frames(outbox));
    // The lane closes with this stream.
    let mut lane = None;
    let mut has_asked = false;
    let mut writing = tokio::spawn(outgoing.write_to(write_half, WRITE_TIMEOUT));
    let written = loop {
        // Over a stream with a lane nothing comes, as a rule.
        let idle = if lane.is_some() { IDLE_WITH_LANE } else { IDLE };
        let frames = tokio::select! {
            // However much comes under it: a removed key is good for nothing more.
            biased;
            () = &mut key_removed => {
                tracing::info!(?peer, "a stream is closed: its key was removed");
                reception.tally.add("streams_of_removed_keys");
                break false;
            }
            // Over when nothing can be sent to it any more, or the other side takes nothing.
            _ = &mut writing => break true,
            frames = tokio::time::timeout(idle, reader.frames()) => frames,
        };
        match frames {
            Ok(Ok(mut frames)) => {
                if let [(header, Message::LaneRequest(_))] = frames[..] {
                    // Descriptors must not get between the bytes of an answer on its way.
                    let end = local.end.as_ref().filter(|_| !has_asked);
                    match reception.give_lane(end, header.id, hello) {
                        Ok(given) => lane = Some(given),
                        Err(why) => reception.answer(number, header.id, Rejected::NoLane { why }),
                    }
                    frames.clear();
                }
                has_asked = true;
                if let Caller::Node(node) = caller {
                    reception.take_gossip(number, node, &mut frames);
                    reception.take_published(number, node, &mut frames);
                }
                let to_hub_and_cores = |(header, message): &(Header, Message)| {
                    if let message::Caller::Client { client, .. } = hello
                        && let Some(rejected) = in_anothers_name(client, message)
                    {
                        reception.tally.add(IN_ANOTHERS_NAME);
                        reception.answer(number, header.id, rejected);
                        return false;
                    }
                    let asking = (caller, peer, local.may_see_to_keys);
                    !reception.take_key_job(number, asking, header.id, message)
                };
                frames.retain(to_hub_and_cores);
                let asker = match peer {
                    Peer::Local => Asker::Local(number),
                    Peer::Tcp(_) => Asker::Stream(number),
                };
                let request = |(header, message)| Request { asker, caller, header, message };
                let requests = frames.into_iter().map(request).collect();
                if reception.inboxes.request(requests).await.is_err() {
                    break false;
                }
            }
            Ok(Err(ReadError::Malformed(error))) => {
                tracing::debug!(?peer, %error, "a stream is closed for a malformed frame");
                reception.tally.add("frames_malformed");
                reception.answer(number, 0, rejection(&error));
                break false;
            }
            Ok(Err(ReadError::Closed)) | Err(_) => break false,
        }
    };
    drop(lane);
    reception.streams.close(number);
    if !written {
        // What is queued still goes out; the queue ends when nobody holds its other end.
        let _ = writing.await;
    }
}

/// Reads the hello and checks it: who calls, with the role that is granted. `Err(None)`: the stream
/// closed before it said anything.
async fn greet<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    may: May,
    reception: &Reception,
) -> Result<message::Caller, Option<Rejected>> {
    let hello = match reader.frame().await {
        Ok((_, Message::Hello(hello))) => hello,
        Ok((_, other)) => {
            let why = format!("{} came where Hello should", other.name());
            return Err(Some(Rejected::Malformed { why }));
        }
        Err(ReadError::Malformed(error)) => {
            reception.tally.add("frames_malformed");
            return Err(Some(rejection(&error)));
        }
        Err(ReadError::Closed) => return Err(None),
    };
    if hello.cluster != reception.cluster {
        reception.tally.add("streams_of_other_clusters");
        return Err(Some(Rejected::WrongCluster { asked: hello.cluster }));
    }
    let not_with = |asked: &str, key: KeyKind| Rejected::NotWithThisKey {
        asked: asked.to_owned(),
        key: key.name().to_owned(),
    };
    let refused = match (hello.caller, may) {
        (message::Caller::Client { client, role }, May::Role(may)) => match grant(role, may) {
            Ok(role) => return Ok(message::Caller::Client { client, role }),
            Err(refused) => refused,
        },
        (message::Caller::Client { client, role }, May::Key(key)) => match key {
            KeyKind::Client(may) if grant(role, may).is_ok() => {
                return Ok(message::Caller::Client { client, role: may });
            }
            _ => not_with(role.name(), key),
        },
        // Nodes may do more than any client.
        (message::Caller::Node { .. }, May::Role(may)) if may != Role::Development => {
            Rejected::RoleNotGranted { asked: Role::Development, granted: may }
        }
        (message::Caller::Node { .. }, May::Key(key @ KeyKind::Client(_))) => {
            not_with(KeyKind::Node.name(), key)
        }
        (message::Caller::Node { id, .. }, _) if id == reception.welcome.node => {
            reception.tally.add("ids_in_use");
            return Err(Some(node_id_in_use(id)));
        }
        (node, _) => return Ok(node),
    };
    reception.tally.add("roles_not_granted");
    Err(Some(refused))
}

fn node_id_in_use(id: NodeId) -> Rejected {
    Rejected::NodeIdInUse { id, addr: std::net::SocketAddr::from(([0, 0, 0, 0], 0)) }
}

/// What to tell somebody whose bytes are no frame.
pub(super) fn rejection(error: &DecodeError) -> Rejected {
    match error {
        DecodeError::Version(theirs) => {
            Rejected::WrongVersion { ours: PROTOCOL_VERSION, theirs: *theirs }
        }
        other => Rejected::Malformed { why: other.to_string() },
    }
}

/// What is counted for [`in_anothers_name`].
pub(super) const IN_ANOTHERS_NAME: &str = "requests_in_anothers_name";

/// What to tell a client that asks under another one's number. Answers are remembered by that number:
/// it would be answered in the other's place, or leave it an answer that it never asked for. Nodes
/// pass requests on as they came.
pub(super) fn in_anothers_name(client: u64, message: &Message) -> Option<Rejected> {
    let Message::SessionRequest(request) = message else { return None };
    (request.request.client != client).then(|| {
        let why = format!(
            "a request as of client {:x} came from client {client:x}; use the number of its own",
            request.request.client
        );
        Rejected::Malformed { why }
    })
}

async fn reject<W: AsyncWrite + Unpin>(mut stream: W, rejected: Rejected) {
    // Whether it arrives is the other side's matter.
    let _ = send(&mut stream, rejected).await;
    let _ = stream.shutdown().await;
}

async fn send<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: impl Into<Message>,
) -> std::io::Result<()> {
    let mut frame = Vec::new();
    let header = Header { id: 0, view: 0, hlc: Hlc::ZERO };
    codec::encode_frame(header, &message.into(), &mut frame).map_err(std::io::Error::other)?;
    tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&frame)).await??;
    stream.flush().await
}

impl Reception {
    /// What the user at our end of a stream in clear may do at most.
    ///
    /// # Errors
    /// As [`Reception::recognize`].
    pub(super) fn role_at(&self, end: Option<LocalEnd>) -> std::io::Result<Role> {
        let user = end.as_ref().map(LocalEnd::peer_user).transpose()?;
        Ok(user.map_or(Role::Development, |user| self.local_roles.of(user, self.user)))
    }

    /// What a stream in clear may do at most. Without a real local socket that is everything.
    ///
    /// # Errors
    /// If the system does not tell whose process is at the other end.
    fn recognize(&self, end: Option<LocalEnd>) -> std::io::Result<Local> {
        let user = end.as_ref().map(LocalEnd::peer_user).transpose()?;
        let of_user = |user| {
            let roles = &self.local_roles;
            (roles.of(user, self.user), roles.may_see_to_keys(user, self.user))
        };
        let (may, may_see_to_keys) = user.map_or((Role::Development, true), of_user);
        Ok(Local { end, may: May::Role(may), may_see_to_keys })
    }

    /// Takes a request that is about keys, which neither hub nor core sees.
    fn take_key_job(
        &self,
        stream: u64,
        (caller, peer, may_see_to_keys): (Caller, Peer, bool),
        id: u64,
        message: &Message,
    ) -> bool {
        let may = match (message, caller, peer) {
            (Message::KeyOrder(_), Caller::Node(_), Peer::Tcp(_)) => self.keys.is_some(),
            (Message::KeysRequest(_), Caller::Client(role), Peer::Local) => {
                may_see_to_keys && role.includes(Role::Operator)
            }
            (Message::KeyOrder(_) | Message::KeysRequest(_), ..) => false,
            _ => return false,
        };
        let task = match message {
            Message::KeyOrder(order) if may => Task::Here(order.clone()),
            Message::KeysRequest(request) if may => Task::Everywhere(request.clone()),
            _ => {
                self.tally.add("requests_out_of_place");
                let why =
                    "keys are seen to over this host's Unix socket, by root, the node's own user, \
                           or one that `local_roles` names an operator"
                        .to_owned();
                self.answer(stream, id, Rejected::Malformed { why });
                return true;
            }
        };
        if self.key_jobs.try_send(Job { stream, id, task }).is_err() {
            let why = "too many changes of keys wait; try again".to_owned();
            self.answer(stream, id, Rejected::Malformed { why });
        }
        true
    }

    /// Gives a client its lane.
    ///
    /// # Errors
    /// Why it gets none.
    fn give_lane(
        &self,
        end: Option<&LocalEnd>,
        id: u64,
        caller: message::Caller,
    ) -> Result<Lane, String> {
        let Some(lanes) = &self.lanes else {
            return Err("this node gives none; see `lanes_max`".to_owned());
        };
        let Some(end) = end else {
            return Err("ask for it over the local socket, before anything else".to_owned());
        };
        match caller {
            message::Caller::Client { client, role } => lanes.give(end, id, client, role),
            message::Caller::Node { .. } => Err("lanes are for clients".to_owned()),
        }
    }

    /// Takes the membership packets out of what a node sent, and leaves them with the hub if there is
    /// room: they wait behind no request, and what does not fit is as good as lost.
    fn take_gossip(&self, stream: u64, node: NodeId, frames: &mut Vec<(Header, Message)>) {
        let mut has_any = false;
        frames.retain_mut(|(_, message)| {
            let Message::StreamGossip(StreamGossip { packet }) = message else { return true };
            has_any = true;
            let packet = std::mem::take(packet);
            let gossip = HubInput::StreamGossip { node, packet };
            if self.inboxes.try_gossip(gossip) == Err(NotLeft::Full) {
                self.tally.add("stream_gossip_refused_busy");
            }
            false
        });
        if has_any {
            self.answer(stream, 0, Pong { node: self.welcome.node });
        }
    }

    /// Takes the messages to channels out of what a node sent, and tells those who listen here, if it is a member.
    fn take_published(&self, stream: u64, node: NodeId, frames: &mut Vec<(Header, Message)>) {
        if !frames.iter().any(|(_, message)| matches!(message, Message::Published(_))) {
            return;
        }
        let is_member = self.standing.borrow().is_active(node);
        frames.retain(|(_, message)| {
            let Message::Published(published) = message else { return true };
            match is_member {
                true => self.channels.tell_from_afar(published),
                false => self.tally.add("redis_messages_refused"),
            }
            false
        });
        self.answer(stream, 0, Pong { node: self.welcome.node });
    }

    /// Answers what neither hub nor core sees.
    fn answer(&self, stream: u64, id: u64, answer: impl Into<Message>) {
        let header = Header { id, view: 0, hlc: Hlc::ZERO };
        self.streams.send(stream, header, answer.into());
    }
}
