//! Sessions that are used too much, as monitors see them: lists, changes, and sentences.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, Net, SystemClock, TokioNet};
use annulus_proto::message::{Judge, Sentence, Suspect};
use annulus_proto::{Key, NodeId, Slot, Version};
use tokio::time::{Instant, sleep_until};

use crate::client::Handle;
use crate::error::Error;
use crate::everybody;
use crate::node::NodeHandle;
use crate::request::Whom;
use crate::table::Table;

/// What a suspect is called where its key must not appear: the slot, and 12 hex digits of what stands for the key
/// ([`Suspect::word`]), such as `7629-00a1b2c3d4e5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SuspectName {
    word: u64,
}

/// What was written is not the name of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a suspect: a slot and 12 hex digits, such as 7629-00a1b2c3d4e5")]
pub struct SuspectNameError;

/// The suspects of a table; see [`Table::suspects`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuspectList {
    /// Each of them once, by their words: with the last verdict that a home knows of, and the highest heat.
    pub suspects: Vec<Suspect>,
    /// Active members that did not answer. Suspects that only they know of are missing.
    pub silent: Vec<NodeId>,
}

/// How the suspects of a table have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuspectChange {
    /// A session became a suspect, or was one when the watch began.
    Appeared(Suspect),
    /// It was judged again, and is kept away for longer.
    Extended(Suspect),
    /// It is none any more: its time is over, or it was released, or ended. This is how it was seen last.
    Gone(Suspect),
}

/// Tells of each change of the suspects of a table; see [`Table::watch_suspects`].
///
/// What came and went between two looks is not told of. While a member does not answer, what is missing without it
/// is not gone before its time is over. Holds each suspect once, and what it has not told yet.
pub struct SuspectWatch<N: Net = TokioNet, C: Clock = SystemClock> {
    table: Table<N, C>,
    period: Duration,
    looked_at: Option<Instant>,
    /// By word and birth.
    known: BTreeMap<(u64, Version), Known>,
    news: VecDeque<SuspectChange>,
}

/// How often nodes judge, and as often a monitor may as well look.
pub const SUSPECTS_PERIOD: Duration = Duration::from_millis(200);
/// The longest time between two looks.
const PERIOD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The bits of a word that are not the slot.
const HASH_BITS: u32 = 47;

/// A suspect that was told of.
#[derive(Clone)]
struct Known {
    suspect: Suspect,
    /// When its time is over; `None` = later than can be counted.
    over: Option<Instant>,
}

impl SuspectName {
    /// The name of the suspect that this word stands for.
    pub fn of_word(word: u64) -> Self {
        Self { word }
    }

    /// The name of the session under a key.
    pub fn of_key(key: &Key) -> Self {
        Self::of_word(key.word())
    }

    /// The word that it is written for.
    pub fn word(self) -> u64 {
        self.word
    }
}

impl fmt::Display for SuspectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.word & ((1 << HASH_BITS) - 1);
        write!(f, "{}-{hash:012x}", self.word >> HASH_BITS)
    }
}

impl FromStr for SuspectName {
    type Err = SuspectNameError;

    fn from_str(text: &str) -> Result<Self, SuspectNameError> {
        let read = || {
            let (slot, hash) = text.split_once('-')?;
            let slot = slot.parse().ok().and_then(Slot::new)?;
            let hash = u64::from_str_radix(hash, 16).ok().filter(|hash| hash >> HASH_BITS == 0)?;
            Some(Self::of_word(u64::from(slot.index()) << HASH_BITS | hash))
        };
        // Written in this way and no other, so that names can be compared as texts.
        read().filter(|name| name.to_string() == text).ok_or(SuspectNameError)
    }
}

impl SuspectList {
    /// Puts together what homes say.
    fn merge(said: impl IntoIterator<Item = Suspect>, silent: Vec<NodeId>) -> Self {
        let mut merged: BTreeMap<(u64, Version), Suspect> = BTreeMap::new();
        for suspect in said {
            let known =
                merged.entry((suspect.word, suspect.birth)).or_insert_with(|| suspect.clone());
            let heat = known.heat.max(suspect.heat);
            if suspect.judged > known.judged {
                *known = suspect;
            }
            known.heat = heat;
        }
        Self { suspects: merged.into_values().collect(), silent }
    }
}

impl SuspectChange {
    /// The suspect that it is about.
    pub fn suspect(&self) -> &Suspect {
        match self {
            Self::Appeared(suspect) | Self::Extended(suspect) | Self::Gone(suspect) => suspect,
        }
    }
}

impl<N: Net, C: Clock> SuspectWatch<N, C> {
    pub(crate) fn new(table: Table<N, C>, period: Duration) -> Self {
        let (known, news) = (BTreeMap::new(), VecDeque::new());
        // A clock does not go on for ever.
        let period = period.min(PERIOD_MAX);
        Self { table, period, looked_at: None, known, news }
    }

    /// The next change: those of one look come one by one, the gone ones first, by their words. Waits for as long as
    /// there is none. May be dropped and called again.
    ///
    /// # Errors
    /// As [`Table::suspects`]; the watch goes on where it was when it is called again.
    pub async fn next(&mut self) -> Result<SuspectChange, Error> {
        loop {
            if let Some(change) = self.news.pop_front() {
                return Ok(change);
            }
            if let Some(looked_at) = self.looked_at {
                sleep_until(looked_at + self.period).await;
            }
            self.looked_at = Some(Instant::now());
            let list = self.table.suspects().await?;
            self.compare(list, Instant::now());
        }
    }

    fn compare(&mut self, list: SuspectList, now: Instant) {
        let SuspectList { suspects, silent } = list;
        let listed: BTreeMap<_, _> =
            suspects.into_iter().map(|suspect| ((suspect.word, suspect.birth), suspect)).collect();
        self.known.retain(|name, Known { suspect, over }| {
            let is_over = silent.is_empty() || over.is_some_and(|over| over <= now);
            let is_gone = is_over && !listed.contains_key(name);
            if is_gone {
                self.news.push_back(SuspectChange::Gone(suspect.clone()));
            }
            !is_gone
        });
        for (name, suspect) in listed {
            match self.known.get(&name) {
                // From a home that lags behind.
                Some(known) if suspect.judged < known.suspect.judged => continue,
                Some(known) if suspect.judged == known.suspect.judged => {}
                Some(_) => self.news.push_back(SuspectChange::Extended(suspect.clone())),
                None => self.news.push_back(SuspectChange::Appeared(suspect.clone())),
            }
            let over = now.checked_add(Duration::from_millis(suspect.left_ms));
            self.known.insert(name, Known { suspect, over });
        }
    }
}

/// See [`Table::suspects`].
pub(crate) async fn list<N: Net, C: Clock>(
    handle: &Arc<Handle<N, C>>,
    table: &str,
    only: Option<SocketAddr>,
) -> Result<SuspectList, Error> {
    if only.is_some() {
        let said = all_of(&NodeHandle::new(handle.clone(), only), table).await?;
        return Ok(SuspectList::merge(said, Vec::new()));
    }
    let table = table.to_owned();
    let ask = move |node: NodeHandle<N, C>| {
        let table = table.clone();
        async move { all_of(&node, &table).await }
    };
    let (said, silent) = everybody::ask(handle, None, ask).await?;
    Ok(SuspectList::merge(said.into_iter().flatten(), silent))
}

/// All suspects that a node is a home of.
async fn all_of<N: Net, C: Clock>(
    node: &NodeHandle<N, C>,
    table: &str,
) -> Result<Vec<Suspect>, Error> {
    let (mut all, mut place) = (Vec::new(), (0, None));
    loop {
        let page = node.suspects(table, place).await?;
        all.extend(page.suspects);
        match page.next {
            None => return Ok(all),
            Some(next) if next > place => place = next,
            Some(_) => {
                let why = "its pages of suspects come to no end".to_owned();
                return Err(Error::Protocol { at: "a node".to_owned(), why });
            }
        }
    }
}

/// Passes a sentence at a home of the session: the first of them that answers and knows of it as a suspect.
pub(crate) async fn judge<N: Net, C: Clock>(
    handle: &Arc<Handle<N, C>>,
    table: &str,
    only: Option<SocketAddr>,
    (word, birth): (u64, Version),
    sentence: Sentence,
) -> Result<(), Error> {
    let inner = &handle.inner;
    let deadline = Instant::now() + inner.settings.timeout;
    let Some(slot) = Slot::of_word(word) else { return Err(Error::Absent) };
    let homes: Vec<SocketAddr> = match (only, inner.routes.load_full()) {
        (Some(addr), _) => vec![addr],
        (None, Some(routes)) => routes.homes(slot).map(|home| home.addr).collect(),
        (None, None) => {
            let routes = inner.fetch_routes(Whom::Any).await?;
            routes.homes(slot).map(|home| home.addr).collect()
        }
    };
    let mut outcome = Error::Unavailable { answered: 0, needed: 1, homes: 0 };
    for (index, home) in homes.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if index + 1 == homes.len() { left } else { left / 2 };
        let judge = Judge { table: table.to_owned(), word, birth, patience_ms: 0, sentence };
        let node = NodeHandle::new(handle.clone(), Some(*home));
        let error = match node.judge_until(judge, Instant::now() + patience).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match (&outcome, &error) {
            // Whatever others say: it may have been done.
            (Error::TimedOut, _) if is_elsewhere(&error) => {}
            // One that answered knows more than those that did not.
            (Error::Absent, other) if is_elsewhere(other) && *other != Error::TimedOut => {}
            (_, other) if is_elsewhere(other) => outcome = error,
            _ => return Err(error),
        }
    }
    Err(outcome)
}

/// Whether another home may do what one has answered so.
fn is_elsewhere(error: &Error) -> bool {
    matches!(
        error,
        Error::Absent
            | Error::TimedOut
            | Error::NoNode { .. }
            | Error::Disconnected { .. }
            | Error::Rejected { .. }
            | Error::Unavailable { homes: 0, .. }
    )
}

impl<N: Net, C: Clock> Clone for SuspectWatch<N, C> {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            period: self.period,
            looked_at: self.looked_at,
            known: self.known.clone(),
            news: self.news.clone(),
        }
    }
}

impl<N: Net, C: Clock> fmt::Debug for SuspectWatch<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuspectWatch")
            .field("table", &self.table)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}
