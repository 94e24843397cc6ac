//! Counters that are spread over processes, each of which embeds a node: the application holds what it
//! counts in slots, and the node tells it which of them to take up, from whom, and which to give away.
//!
//! ```text
//! cargo run -p annulus-examples --bin annulus-counter -- --counters 127.0.0.1:8001 --listen 127.0.0.1:7001
//! cargo run -p annulus-examples --bin annulus-counter -- --counters 127.0.0.1:8002 --listen 127.0.0.1:7002 --seeds 127.0.0.1:7001
//! printf 'add visits ada 1\nadd visits ada 2\nget visits\n' | nc -q1 127.0.0.1:8001
//! ```
//!
//! A counter is what each client has counted, added up: `add KEY CLIENT N` says that this client has come to N, and may
//! be said again. So copies merge by taking the greater number of each client, whatever they have seen and how
//! often, and nothing is counted twice. It is answered `ok` when two processes hold it, and `again` when they could not
//! be reached, or are not the slot's homes (any more): say it again, here or elsewhere.
//!
//! SIGTERM has the process give everything away before it ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_client::{Client, Key, NodeId, Order};
use annulus_node::config::{Config, Flags, Setting, Sources};
use annulus_node::{
    GiveUp, SlotHolder, SlotMember, SlotOffer, SlotSet, SlotSetPolicy, SlotsHandle, TakeUp,
};
use anyhow::Context as _;
use clap::Parser;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Counters that are spread over processes, each of which embeds a node")]
struct Args {
    /// Where to count.
    #[arg(long)]
    counters: SocketAddr,
    /// Where the node listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Nodes to join through, `host:port`, separated by commas.
    #[arg(long, default_value = "")]
    seeds: String,
    /// The cluster's name.
    #[arg(long, default_value = "counters")]
    cluster: String,
    /// Where the node keeps what it has. Default: a directory of its own in the working directory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How long after a process was found dead others take over.
    #[arg(long, default_value = "5s")]
    down_after: String,
}

/// Homes of each slot, and how many of them hold what was answered `ok`.
const REPLICAS: u8 = 2;
const SLOTS: u16 = 64;
/// How long another process may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest line of a client or another process.
const LINE_BYTES_MAX: u64 = 1_024;
/// After how long what failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What each client has counted, by counter.
type Counts = BTreeMap<(String, String), u64>;

/// What is here.
#[derive(Default)]
struct Counters {
    slots: Mutex<BTreeMap<u16, Slot>>,
}

/// What is here of a slot.
#[derive(Default)]
struct Slot {
    counts: Counts,
    /// Whether what arrives is stored.
    is_held: bool,
    /// Whether everything is here that belongs here.
    is_whole: bool,
    /// How often it was to be taken up: an earlier time is of no interest any more.
    taken_up: u64,
    /// How often it was offered, and when last by whom.
    offers: u64,
    last_offers: BTreeMap<NodeId, u64>,
}

impl Counters {
    /// Whatever changes a slot, and whatever is said of it, happens under this lock.
    fn slots(&self) -> MutexGuard<'_, BTreeMap<u16, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is stored here now.
    fn store(&self, slot: u16, key: &str, client: &str, count: u64) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(&slot).filter(|slot| slot.is_held) else { return false };
        merge(&mut slot.counts, [((key.to_owned(), client.to_owned()), count)]);
        true
    }

    /// The counter, if everything that belongs to its slot is here.
    fn read(&self, slot: u16, key: &str) -> Option<u64> {
        let slots = self.slots();
        let slot = slots.get(&slot).filter(|slot| slot.is_whole)?;
        Some(slot.counts.iter().filter(|((of, _), _)| of == key).map(|(_, count)| count).sum())
    }

    fn contents(&self, slot: u16) -> Counts {
        self.slots().get(&slot).map(|slot| slot.counts.clone()).unwrap_or_default()
    }
}

fn merge(counts: &mut Counts, more: impl IntoIterator<Item = ((String, String), u64)>) {
    for (name, count) in more {
        let known = counts.entry(name).or_default();
        *known = count.max(*known);
    }
}

/// The part of the application that the node calls.
struct Holder(Arc<Counters>);

impl SlotHolder for Holder {
    fn take_up(&self, handle: &SlotsHandle, taking: TakeUp) {
        let mut slots = self.0.slots();
        let slot = slots.entry(taking.slot()).or_default();
        (slot.is_held, slot.is_whole) = (true, false);
        slot.taken_up += 1;
        let time = slot.taken_up;
        drop(slots);
        let (counters, handle) = (self.0.clone(), handle.clone());
        tokio::spawn(async move {
            let current = |counters: &Counters| {
                let slots = counters.slots();
                slots.get(&taking.slot()).is_some_and(|slot| slot.taken_up == time && slot.is_held)
            };
            for holder in taking.holders() {
                let theirs = loop {
                    if !current(&counters) {
                        return;
                    }
                    match fetch(holder, taking.slot()).await {
                        Ok(theirs) => break theirs,
                        Err(_) => tokio::time::sleep(PAUSE).await,
                    }
                };
                if let Some(slot) = counters.slots().get_mut(&taking.slot()) {
                    merge(&mut slot.counts, theirs);
                }
            }
            if current(&counters) {
                if let Some(slot) = counters.slots().get_mut(&taking.slot()) {
                    slot.is_whole = true;
                }
                handle.taken_up(&taking);
            }
        });
    }

    fn offered(&self, handle: &SlotsHandle, offer: SlotOffer) {
        let (counters, handle) = (self.0.clone(), handle.clone());
        let mut slots = counters.slots();
        let Some(slot) = slots.get_mut(&offer.slot()) else { return };
        slot.offers += 1;
        let time = slot.offers;
        slot.last_offers.insert(offer.from().node, time);
        drop(slots);
        tokio::spawn(async move {
            let mut pause = PAUSE;
            loop {
                let theirs = fetch(offer.from(), offer.slot()).await;
                {
                    let mut slots = counters.slots();
                    let slot = slots.get_mut(&offer.slot()).filter(|slot| slot.is_held);
                    let last =
                        |slot: &&mut Slot| slot.last_offers.get(&offer.from().node) == Some(&time);
                    let Some(slot) = slot.filter(last) else { return };
                    if let Ok(theirs) = theirs {
                        merge(&mut slot.counts, theirs);
                        return handle.has_all(&offer);
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PATIENCE);
            }
        });
    }

    fn leave(&self, _handle: &SlotsHandle, slot: u16) {
        let mut slots = self.0.slots();
        let slot = slots.entry(slot).or_default();
        (slot.is_held, slot.is_whole) = (false, false);
    }

    fn give_up(&self, _handle: &SlotsHandle, slot: &GiveUp) -> bool {
        // Nothing is stored in a slot that is not held, so there is nothing to announce as a change.
        let mut slots = self.0.slots();
        slot.holds() && slots.remove(&slot.slot()).is_some()
    }
}

/// What another process has of a slot. The name of its node says where it counts.
async fn fetch(holder: &SlotMember, slot: u16) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    for line in ask(&holder.name, &format!("fetch {slot}")).await? {
        let mut words = line.split(' ');
        let (key, client, count) = (words.next(), words.next(), words.next());
        let count = count.context("no count")?.parse()?;
        counts.insert((key.context("no key")?.into(), client.context("no client")?.into()), count);
    }
    Ok(counts)
}

/// The lines of another process's answer, which ends with an empty one.
async fn ask(addr: &str, question: &str) -> anyhow::Result<Vec<String>> {
    let asking = async {
        let stream = TcpStream::connect(addr).await?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(format!("{question}\n").as_bytes()).await?;
        let mut lines = stream.lines();
        let mut answer = Vec::new();
        while let Some(line) = lines.next_line().await? {
            if line.is_empty() {
                return Ok(answer);
            }
            answer.push(line);
        }
        anyhow::bail!("the answer was cut off")
    };
    tokio::time::timeout(PATIENCE, asking).await?
}

/// What serves clients and other processes.
#[derive(Clone)]
struct Server {
    me: String,
    counters: Arc<Counters>,
    handle: SlotsHandle,
}

impl Server {
    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while let Ok(1..) = (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await {
                    if !line.ends_with('\n') {
                        return; // It is cut off, or longer than it may be.
                    }
                    let answer = server.answer(line.trim_end()).await;
                    if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    }

    async fn answer(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["add", key, client, count] => match (slot_of(&self.handle, key), count.parse()) {
                (Some(slot), Ok(count)) => self.add(slot, key, client, count).await,
                _ => None,
            },
            ["get", key] => match slot_of(&self.handle, key) {
                Some(slot) => self.get(slot, key).await.map(|count| count.to_string()),
                None => None,
            },
            // Between processes.
            ["store", slot, key, client, count] => match (slot.parse(), count.parse()) {
                (Ok(slot), Ok(count)) if self.counters.store(slot, key, client, count) => {
                    Some("ok".to_owned())
                }
                _ => None,
            },
            ["read", slot, key] => {
                let slot = slot.parse().ok();
                slot.and_then(|slot| self.counters.read(slot, key)).map(|count| count.to_string())
            }
            ["fetch", slot] => {
                let counts = slot.parse().map(|slot| self.counters.contents(slot));
                let line = |((key, client), count): (&(String, String), &u64)| {
                    format!("{key} {client} {count}\n")
                };
                return counts.unwrap_or_default().iter().map(line).collect::<String>() + "\n";
            }
            ["held"] => Some(self.counters.slots().len().to_string()),
            _ => Some("?".to_owned()),
        };
        format!("{}\n\n", answer.unwrap_or_else(|| "again".to_owned()))
    }

    /// Has all homes of a slot store this.
    async fn add(&self, slot: u16, key: &str, client: &str, count: u64) -> Option<String> {
        let homes = self.handle.homes(slot);
        let mut stored = 0;
        for home in homes {
            let is_stored = if home.name == self.me {
                self.counters.store(slot, key, client, count)
            } else {
                let question = format!("store {slot} {key} {client} {count}");
                ask(&home.name, &question).await.is_ok_and(|answer| answer == ["ok"])
            };
            stored += u8::from(is_stored);
        }
        (stored >= REPLICAS).then(|| "ok".to_owned())
    }

    /// Asks the homes of a slot, one after the other.
    async fn get(&self, slot: u16, key: &str) -> Option<u64> {
        for home in self.handle.homes(slot) {
            let count = if home.name == self.me {
                self.counters.read(slot, key)
            } else {
                let answer = ask(&home.name, &format!("read {slot} {key}")).await.ok();
                answer.and_then(|answer| answer.first()?.parse().ok())
            };
            if count.is_some() {
                return count;
            }
        }
        None
    }
}

fn slot_of(handle: &SlotsHandle, key: &str) -> Option<u16> {
    Some(handle.slot_of(&Key::new(key).ok()?))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let me = args.counters.to_string();
    let data_dir = args.data_dir.unwrap_or_else(|| PathBuf::from(format!("counter-{}", me)));
    let mut flags = Flags::default();
    let dir = data_dir.display().to_string();
    flags.set(Setting::DataDir, &dir);
    // Of the node's own sessions there are none here: where their segment lies does not matter, and with the rest
    // it goes away with the directory.
    flags.set(Setting::ShmDir, &dir);
    flags.set(Setting::Cluster, &args.cluster);
    flags.set(Setting::Listen, args.listen.to_string());
    flags.set(Setting::Seeds, args.seeds);
    flags.set(Setting::DownAfter, args.down_after);
    flags.set(Setting::OnStop, "leave");
    flags.set(Setting::Socket, "");
    // Other processes find the counters by it.
    flags.set(Setting::Name, &me);
    let settings = Config::load(Sources { flags, ..Sources::default() })?.settings();

    let counters = Arc::new(Counters::default());
    let policy = SlotSetPolicy {
        name: "counters".to_owned(),
        slots: SLOTS,
        replicas: REPLICAS.try_into()?,
        members_min: 1,
        held: Vec::new(),
    };
    let set = SlotSet::new(policy, Arc::new(Holder(counters.clone())))?;
    let server = Server { me, counters: counters.clone(), handle: set.handle() };
    tokio::spawn(server.serve(TcpListener::bind(args.counters).await?));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut drained = Ok(());
    let stop = async {
        terminate.recv().await;
        drained = drain(&args.cluster, args.listen, &counters).await;
    };
    annulus_node::embed(settings, vec![set], stop, |ready| {
        println!("node {} at {}", ready.node, ready.addr);
    })
    .await?;
    drained.context("not everything was given away")
}

/// Has the node give its slots away, and waits until nothing is here.
async fn drain(cluster: &str, node: SocketAddr, counters: &Counters) -> anyhow::Result<()> {
    let client = Client::builder().cluster(cluster).seed(node.to_string()).connect().await?;
    client.any_node().order(Order::Drain).await?;
    while !counters.slots().is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
