//! Epochs: in whose name a node acknowledges and answers.

use std::fmt;
use std::sync::Arc;

use annulus_proto::limits::REPLICAS_MAX;
use annulus_proto::{NodeId, Version};

/// Which epoch of a slot: epochs of one lineage follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId {
    /// Who founded the slot, and when. Of two lineages that meet the smaller one stays.
    pub lineage: Version,
    /// Its place in the lineage, from 1.
    pub number: u64,
}

/// An epoch: the homes whose majority acknowledges and answers, and where they have the slot from.
///
/// Only what was founded, chosen ([`crate::Proposal`]) or forced by an operator is a configuration;
/// whoever has one may hand it to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Which epoch this is.
    pub id: EpochId,
    /// Its homes, the primary first; never none, and none twice.
    pub homes: Vec<NodeId>,
    /// The epochs that ended in this one. None for a founding.
    pub sources: Vec<Source>,
    /// Epochs of other lineages that ended in this one or an earlier one of its lineage, and with
    /// each all before it.
    pub absorbed: Vec<EpochId>,
}

/// An epoch as a source of its successor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Which epoch.
    pub id: EpochId,
    /// Its homes.
    pub homes: Vec<NodeId>,
    /// By an operator's word: the homes that are given up for lost, and with them what only these
    /// had.
    pub written_off: Option<Vec<NodeId>>,
}

/// A lineage that decided to end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Its last epoch.
    pub config: Arc<Config>,
    /// The epoch of the lineage that is to absorb it.
    pub into: EpochId,
}

/// What an epoch's homes decide once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Successor {
    /// The next epoch of the lineage.
    Next(Arc<Config>),
    /// The lineage ends, to be absorbed by a smaller one, of which this epoch was seen.
    Ended {
        /// Whom to ask to absorb it.
        into: EpochId,
    },
}

/// What a home is to its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// No home of the epoch.
    Outside,
    /// A home that has not all that was acknowledged before the epoch. What it stores counts; it
    /// answers for nothing.
    Fresh,
    /// Has all that was acknowledged before the epoch and all that it acknowledged itself.
    Ready,
    /// Was ready, and lost what it had. It never answers again in this epoch: acknowledgements from
    /// before the loss may be under way. The next epoch makes it ready again.
    Lost,
    /// Lost what it had before it was ready.
    Blank,
    /// Left, and dropped what it had against receipts.
    HandedOver,
}

/// A ballot of the Paxos that decides a successor: no node uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Greater than any that the proposer has promised.
    pub round: u64,
    /// The proposer.
    pub node: NodeId,
}

/// A home's promise to accept nothing below the ballot, and what it had accepted before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    /// The epoch whose successor is sought.
    pub under: EpochId,
    /// The ballot.
    pub ballot: Ballot,
    /// The successor it accepted last.
    pub accepted: Option<(Ballot, Successor)>,
}

/// Why a home does not do what it was asked to in the name of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The epoch is not the one that it knows: exchange configurations ([`Seat::config`],
    /// [`Seat::learn`]) and ask again.
    #[error("another epoch of the slot is known here")]
    OtherEpoch,
    /// It is no home of this epoch. Ask its homes.
    #[error("not a home of the slot")]
    NotHome,
    /// It is not ready. Others may be.
    #[error("a home that does not have all of the slot yet")]
    NotReady,
    /// Nobody comes by so great a ballot.
    #[error("the ballot is out of range")]
    OutOfRange,
    /// It has promised a greater ballot. Propose with a greater one still.
    #[error("a greater ballot was promised")]
    Outbid(Ballot),
}

/// That a configuration was not followed, since it is behind what is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the configuration is older than the one that is known here")]
pub struct Behind;

/// What the configuration that another node has is to this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meeting {
    /// The same.
    Same,
    /// Theirs is behind: send ours.
    TheyAreBehind,
    /// Ours is behind: [`Seat::learn`] theirs.
    WeAreBehind,
    /// Two lineages, of which ours is greater. Once a majority of their homes is in contact, the
    /// homes of ours should decide [`Successor::Ended`].
    WeYield,
    /// Two lineages, of which theirs is greater.
    TheyYield,
}

/// What a comparison was begun with. It goes with the question, and has to come back with the
/// answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The epoch that is to be answered for.
    pub under: EpochId,
    /// How often the asking node lost its copy in this run.
    pub losses: u32,
}

/// What a node says of itself to one that compares with it, along with all that it holds. It is
/// drawn up before what is sent along is read; where that takes more than one message, once more
/// after it, and both have to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Testimony {
    /// Its standing in the asking node's epoch.
    pub here: Standing,
    /// Its standing in one of that epoch's sources, by the source's index.
    pub before: Option<(u8, Standing)>,
}

/// One node's place in the epochs of one slot.
///
/// **Rules.** An epoch's homes decide its one successor by single-decree Paxos (Lamport, *Paxos
/// Made Simple*, 2001), by a majority of all homes, the dead counted. Following the successor
/// ([`Seat::learn`]) *seals* the epoch at a home: it acknowledges and answers nothing in its name
/// from then on, and speaks for it as a source. Of R homes, m are a majority. A home of the
/// successor is *ready* once it compared with R − m + 1 homes of each source that were ready there,
/// one of which is in every majority; or with all of them, if none has handed over; or with one
/// home of its own epoch that is ready. Only ready homes answer. Whoever loses its memory answers
/// no more in that epoch, and gets back by the next one.
///
/// **Calls.** A request names the epoch of its coordinator. [`Seat::may_store`] says whether a copy
/// may be stored and counted; [`Seat::may_answer`] whether a promise, *absent*, a read of a
/// majority or a freshness may be answered; [`Seat::may_coordinate`] whether this node may start
/// one. Whatever answers [`Refused::OtherEpoch`] exchanges configurations. What a node merges
/// beside (hints, comparison) is no business of the seat.
///
/// After each call that takes `&mut self` and says so, [`Seat::record`] has to be on disk before
/// anything that follows from it leaves the node. Whatever a comparison brings is stored before
/// [`Seat::on_compared`] is told.
///
/// Costs 40 bytes, and a box while something is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    me: NodeId,
    config: Option<Arc<Config>>,
    underway: Option<Box<Underway>>,
    losses: u32,
    standing: Standing,
    before: Option<(u8, Standing)>,
}

/// What has to survive every restart, with memory or without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The newest epoch that is known.
    pub config: Option<Arc<Config>>,
    /// The node's standing in it.
    pub standing: Standing,
    /// Its standing in one of the sources, by index.
    pub before: Option<(u8, Standing)>,
    /// The greatest ballot it promised in this epoch.
    pub promised: Option<Ballot>,
    /// The successor it accepted last.
    pub accepted: Option<(Ballot, Successor)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Underway {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Successor)>,
    /// Whom this node compared with, and what these were before.
    compared: Vec<(NodeId, Option<(u8, Standing)>)>,
}

impl Config {
    /// The first epoch of a lineage, with its founder as the only home.
    pub fn founding(lineage: Version) -> Self {
        let id = EpochId { lineage, number: 1 };
        Self { id, homes: vec![lineage.node], sources: Vec::new(), absorbed: Vec::new() }
    }

    /// The next epoch, with these homes. `ended` are lineages that have decided to end
    /// ([`Successor::Ended`] was chosen): those that end in this one, or in one that is absorbed,
    /// are absorbed; others, and those absorbed before, are left out.
    pub fn next(&self, homes: Vec<NodeId>, ended: &[Ending]) -> Self {
        let mut next = Self {
            id: EpochId { number: self.id.number.saturating_add(1), ..self.id },
            homes,
            sources: vec![self.as_source(None)],
            absorbed: self.absorbed.clone(),
        };
        while let Some(Ending { config, .. }) = ended.iter().find(|ending| {
            let (id, into) = (ending.config.id, ending.into.lineage);
            let ends_here =
                next.id.lineage == into || next.absorbed.iter().any(|a| a.lineage == into);
            ends_here && !next.supersedes(id) && next.sources.len() + 1 < SOURCES_MAX
        }) {
            next.sources.push(config.as_source(None));
            next.absorbed.extend(config.absorbed.iter().chain([&config.id]));
        }
        next.absorbed.sort_unstable();
        next.absorbed.dedup();
        next
    }

    /// By an operator's word, without a majority: a lineage of its own that goes on from this epoch
    /// without those homes. None if nobody is left.
    ///
    /// Unsafe for what the dead alone held, and for what they do if they are alive: two lineages
    /// may go on side by side then, until they meet.
    pub fn forced(&self, lineage: Version, dead: &[NodeId]) -> Option<Self> {
        let homes: Vec<_> = self.homes.iter().filter(|it| !dead.contains(it)).copied().collect();
        let mut absorbed = self.absorbed.clone();
        absorbed.push(self.id);
        absorbed.sort_unstable();
        // Nobody who is left may have got everything from the epoch before.
        let mut sources = self.sources.clone();
        sources.insert(0, self.as_source(None));
        for source in &mut sources {
            let is_dead = |home: &&NodeId| dead.contains(home);
            source.written_off = Some(source.homes.iter().filter(is_dead).copied().collect());
        }
        let id = EpochId { lineage, number: 1 };
        (!homes.is_empty()).then_some(Self { id, homes, sources, absorbed })
    }

    /// Whether it can have come about. What arrives from outside has to be, before anything else is
    /// asked of it.
    pub fn is_well_formed(&self) -> bool {
        let distinct = |nodes: &[NodeId]| {
            let first = |(at, node)| !nodes[..at].contains(node);
            nodes.iter().enumerate().all(first)
        };
        let homes = |nodes: &[NodeId]| (1..=REPLICAS_MAX).contains(&nodes.len()) && distinct(nodes);
        let number = |id: EpochId| (1..=COUNT_MAX).contains(&id.number);
        let source = |source: &Source| {
            let dead = source.written_off.as_deref().unwrap_or(&[]);
            let is_home = |node: &NodeId| source.homes.contains(node);
            number(source.id) && homes(&source.homes) && distinct(dead) && dead.iter().all(is_home)
        };
        number(self.id)
            && homes(&self.homes)
            && self.sources.len() <= SOURCES_MAX
            && self.sources.iter().all(source)
            && self.absorbed.is_sorted()
            && self.sources.is_empty() == (self.id.number == 1 && self.absorbed.is_empty())
    }

    /// How many homes are a majority.
    pub fn majority(&self) -> usize {
        self.homes.len() / 2 + 1
    }

    /// Whether that epoch came to an end in this one or before it.
    pub fn supersedes(&self, other: EpochId) -> bool {
        let goes_on = |id: &EpochId| id.lineage == other.lineage && id.number >= other.number;
        (self.id != other && goes_on(&self.id)) || self.absorbed.iter().any(goes_on)
    }

    fn as_source(&self, written_off: Option<Vec<NodeId>>) -> Source {
        Source { id: self.id, homes: self.homes.clone(), written_off }
    }
}

impl Source {
    /// How many homes have one in common with every majority.
    fn readers(&self) -> usize {
        self.homes.len() - self.homes.len() / 2
    }
}

impl Standing {
    /// Whether all that was acknowledged before the epoch has been here, whatever became of it.
    fn inherited(self) -> bool {
        matches!(self, Self::Ready | Self::Lost)
    }

    fn after_loss(self) -> Self {
        match self {
            Self::Ready | Self::Lost => Self::Lost,
            Self::Fresh | Self::Blank => Self::Blank,
            Self::Outside | Self::HandedOver => self,
        }
    }
}

impl Seat {
    /// Of a node that knows nothing of the slot.
    pub fn new(me: NodeId) -> Self {
        let standing = Standing::Outside;
        Self { me, config: None, underway: None, losses: 0, standing, before: None }
    }

    /// Of a node that founds the slot. To be recorded.
    pub fn founded(config: Arc<Config>) -> Self {
        let me = config.id.lineage.node;
        Self { standing: Standing::Ready, config: Some(config), ..Self::new(me) }
    }

    /// After a restart, from what was recorded last. Without its copy of the slot, or with less
    /// than all of it, `has_memory` is false; to be recorded then.
    pub fn reopened(me: NodeId, record: Record, has_memory: bool) -> Self {
        let Record { config, standing, before, promised, accepted } = record;
        let mut seat = Self { config, standing, before, ..Self::new(me) };
        if promised.is_some() || accepted.is_some() {
            let underway = Underway { promised, accepted, compared: Vec::new() };
            seat.underway = Some(Box::new(underway));
        }
        if !has_memory {
            seat.lose();
        }
        seat
    }

    /// What has to be on disk.
    pub fn record(&self) -> Record {
        Record {
            config: self.config.clone(),
            standing: self.standing,
            before: self.before,
            promised: self.underway.as_ref().and_then(|underway| underway.promised),
            accepted: self.underway.as_ref().and_then(|underway| underway.accepted.clone()),
        }
    }

    /// The newest epoch that is known.
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// The node's standing in that epoch.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it is one of that epoch's homes.
    pub fn is_home(&self) -> bool {
        !matches!(self.standing, Standing::Outside | Standing::HandedOver)
    }

    /// Whether it is a home that has everything, and may give receipts.
    pub fn is_ready(&self) -> bool {
        self.standing == Standing::Ready
    }

    /// The successor that this home accepted last. Whoever does not hear what came of it proposes
    /// again.
    pub fn accepted(&self) -> Option<&Successor> {
        self.underway.as_ref().and_then(|underway| underway.accepted.as_ref()).map(|(_, it)| it)
    }

    /// Whether a copy that is written in the name of an epoch may be stored and counted as held.
    ///
    /// # Errors
    /// Why not. Storing it nevertheless is allowed; counting it is not.
    pub fn may_store(&self, under: EpochId) -> Result<(), Refused> {
        if self.id() != Some(under) {
            return Err(Refused::OtherEpoch);
        }
        if self.is_home() { Ok(()) } else { Err(Refused::NotHome) }
    }

    /// Whether this home's answer counts toward a majority of the epoch: a promise, what it holds
    /// of a key or that it holds nothing, that it vouches for a slot.
    ///
    /// # Errors
    /// Why not.
    pub fn may_answer(&self, under: EpochId) -> Result<(), Refused> {
        self.may_store(under)?;
        if self.is_ready() { Ok(()) } else { Err(Refused::NotReady) }
    }

    /// Whether this node may coordinate, and in the name of which epoch. Once an epoch has a home
    /// that is ready, nothing that begins in the name of its predecessors is acknowledged.
    ///
    /// # Errors
    /// Why not.
    pub fn may_coordinate(&self) -> Result<&Arc<Config>, Refused> {
        let config = self.config.as_ref().ok_or(Refused::OtherEpoch)?;
        self.may_answer(config.id).map(|()| config)
    }

    /// What another node's configuration is to this one's.
    pub fn meet(&self, theirs: &Config) -> Meeting {
        let Some(ours) = &self.config else { return Meeting::WeAreBehind };
        if ours.id == theirs.id {
            Meeting::Same
        } else if ours.supersedes(theirs.id) {
            Meeting::TheyAreBehind
        } else if theirs.supersedes(ours.id) {
            Meeting::WeAreBehind
        } else if ours.id.lineage > theirs.id.lineage {
            Meeting::WeYield
        } else {
            Meeting::TheyYield
        }
    }

    /// Follows a configuration that succeeds the one that is known; whether anything changed. To be
    /// recorded if so.
    ///
    /// # Errors
    /// [`Behind`] if ours is newer, or of another lineage: [`Seat::meet`] says which.
    pub fn learn(&mut self, theirs: &Arc<Config>) -> Result<bool, Behind> {
        match self.meet(theirs) {
            Meeting::Same => return Ok(false),
            Meeting::WeAreBehind => {}
            _ => return Err(Behind),
        }
        let was = self.id();
        let lists_me = |source: &Source| source.homes.contains(&self.me);
        // A source that named this node without its knowledge got nothing from it.
        let standing = |source: &Source| match was {
            Some(id) if id == source.id => self.standing,
            _ => Standing::Fresh,
        };
        let indexed = (0..=u8::MAX).zip(&theirs.sources);
        let mut sources = indexed.filter(|(_, source)| lists_me(source));
        let known = sources.clone().find(|(_, source)| Some(source.id) == was);
        let before = known.or_else(|| sources.next());
        self.before = before.map(|(index, source)| (index, standing(source)));
        let is_home = theirs.homes.contains(&self.me);
        self.standing = if is_home { Standing::Fresh } else { Standing::Outside };
        self.config = Some(theirs.clone());
        self.underway = None;
        self.inherit();
        Ok(true)
    }

    /// The nodes that a home which is not ready compares with, in ascending order: the homes of its
    /// epoch and of the sources. Those that were compared with are among them, for they may have
    /// become ready. None for other nodes.
    pub fn wanted(&self) -> Vec<NodeId> {
        if !matches!(self.standing, Standing::Fresh | Standing::Blank) {
            return Vec::new();
        }
        let Some(config) = &self.config else { return Vec::new() };
        let sources = config.sources.iter().flat_map(|source| &source.homes);
        let mut all: Vec<_> = config.homes.iter().chain(sources).copied().collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|node| *node != self.me);
        all
    }

    /// Whether a node is one of [`Self::wanted`].
    pub fn wants(&self, node: NodeId) -> bool {
        let waits = matches!(self.standing, Standing::Fresh | Standing::Blank);
        let config = self.config.as_ref().filter(|_| waits && node != self.me);
        config.is_some_and(|config| {
            let is_of_source = |source: &Source| source.homes.contains(&node);
            config.homes.contains(&node) || config.sources.iter().any(is_of_source)
        })
    }

    /// Begins a comparison.
    pub fn ask(&self) -> Option<Ask> {
        self.id().map(|under| Ask { under, losses: self.losses })
    }

    /// What to say of oneself to a node that compares, for its copy of the slot: to be called
    /// before anything is read for the answer.
    ///
    /// # Errors
    /// [`Refused::OtherEpoch`]: exchange configurations first. So whoever testifies has sealed the
    /// sources.
    pub fn testify(&self, under: EpochId) -> Result<Testimony, Refused> {
        if self.id() != Some(under) {
            return Err(Refused::OtherEpoch);
        }
        Ok(Testimony { here: self.standing, before: self.before })
    }

    /// A comparison is done: everything that the other held when it testified is stored here, and
    /// no promise of it is lower here. Whether this home's standing changed, which is to be
    /// recorded.
    pub fn on_compared(&mut self, ask: Ask, from: NodeId, testimony: Testimony) -> bool {
        let waits = matches!(self.standing, Standing::Fresh | Standing::Blank);
        if !waits || self.ask() != Some(ask) || from == self.me {
            return false;
        }
        let of_epoch = self.config.as_ref().is_some_and(|config| config.homes.contains(&from));
        if of_epoch && testimony.here == Standing::Ready {
            self.become_inherited();
            return true;
        }
        let compared = &mut self.underway.get_or_insert_default().compared;
        match compared.iter_mut().find(|(node, _)| *node == from) {
            Some((_, before)) => *before = testimony.before,
            None => compared.push((from, testimony.before)),
        }
        compared.sort_unstable_by_key(|(node, _)| *node);
        self.inherit()
    }

    /// The copy was lost, or part of it, or was thrown away unasked. To be recorded before anything
    /// else leaves the node.
    pub fn lose(&mut self) {
        self.losses = self.losses.wrapping_add(1);
        self.standing = self.standing.after_loss();
        self.before = self.before.map(|(source, standing)| (source, standing.after_loss()));
        if let Some(underway) = &mut self.underway {
            underway.compared.clear();
        }
        self.inherit();
    }

    /// The copy is about to be dropped against receipts ([`crate::Holding::on_receipt`]). To be
    /// recorded before it is.
    pub fn hand_over(&mut self) {
        debug_assert!(!self.is_home(), "a home drops nothing");
        self.before = self.before.map(|(source, _)| (source, Standing::HandedOver));
    }

    /// A ballot for a proposal of this home: greater than all it promised.
    pub fn next_ballot(&self) -> Ballot {
        let promised = self.underway.as_ref().and_then(|underway| underway.promised);
        Ballot { round: promised.map_or(1, |ballot| ballot.round + 1), node: self.me }
    }

    /// Promises a ballot. To be recorded before the promise leaves.
    ///
    /// # Errors
    /// Why not; nothing changed.
    pub fn on_prepare(&mut self, under: EpochId, ballot: Ballot) -> Result<Promise, Refused> {
        let promised = self.check_ballot(under, ballot)?;
        *promised = Some(ballot);
        let accepted = self.underway.as_ref().and_then(|underway| underway.accepted.clone());
        Ok(Promise { under, ballot, accepted })
    }

    /// Accepts a successor. To be recorded before the answer leaves. Until the successor is known
    /// to be chosen, and is followed, the epoch goes on.
    ///
    /// # Errors
    /// Why not; nothing changed. A home that never had all that was acknowledged before the epoch
    /// accepts nothing: what it lacks would be out of reach for its successors.
    pub fn on_accept(
        &mut self,
        under: EpochId,
        ballot: Ballot,
        successor: &Successor,
    ) -> Result<(), Refused> {
        let inherited = self.standing.inherited();
        let promised = self.check_ballot(under, ballot)?;
        if !inherited {
            return Err(Refused::NotReady);
        }
        *promised = Some(ballot);
        self.underway.get_or_insert_default().accepted = Some((ballot, successor.clone()));
        Ok(())
    }

    fn check_ballot(
        &mut self,
        under: EpochId,
        ballot: Ballot,
    ) -> Result<&mut Option<Ballot>, Refused> {
        if self.id() != Some(under) {
            return Err(Refused::OtherEpoch);
        }
        if !self.is_home() {
            return Err(Refused::NotHome);
        }
        if ballot.round > COUNT_MAX {
            return Err(Refused::OutOfRange);
        }
        let promised = &mut self.underway.get_or_insert_default().promised;
        match promised {
            Some(promised) if *promised > ballot => Err(Refused::Outbid(*promised)),
            _ => Ok(promised),
        }
    }

    fn id(&self) -> Option<EpochId> {
        self.config.as_ref().map(|config| config.id)
    }

    /// Whether every source was compared with as far as it has to be; then this home has inherited.
    fn inherit(&mut self) -> bool {
        let Some(config) = &self.config else { return false };
        let waits = matches!(self.standing, Standing::Fresh | Standing::Blank);
        let known = self.underway.as_ref().map_or(&[][..], |underway| &underway.compared);
        let enough = |(index, source): (u8, &Source)| {
            let standing = |home: &NodeId| {
                let before = if *home == self.me {
                    Some(self.before)
                } else {
                    known.iter().find(|(node, _)| node == home).map(|(_, before)| *before)
                };
                before.map(|before| match before {
                    Some((of, standing)) if of == index => standing,
                    _ => Standing::Fresh,
                })
            };
            let ready = |home: &&NodeId| standing(home) == Some(Standing::Ready);
            let written_off = source.written_off.as_deref();
            let asked = |home: &NodeId| match standing(home) {
                Some(Standing::HandedOver) => written_off.is_some(),
                Some(_) => true,
                None => written_off.is_some_and(|dead| dead.contains(home)),
            };
            source.homes.iter().filter(ready).count() >= source.readers()
                || source.homes.iter().all(asked)
        };
        let inherits = waits && (0..=u8::MAX).zip(&config.sources).all(enough);
        if inherits {
            self.become_inherited();
        }
        inherits
    }

    fn become_inherited(&mut self) {
        self.standing = match self.standing {
            Standing::Blank => Standing::Lost,
            _ => Standing::Ready,
        };
        if let Some(underway) = &mut self.underway {
            underway.compared.clear();
        }
        let idle = |it: &Underway| it.promised.is_none() && it.accepted.is_none();
        if self.underway.as_deref().is_some_and(idle) {
            self.underway = None;
        }
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lineage, self.number)
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochId({self})")
    }
}

/// Whom an epoch's successor should have as homes: those that placement wants, and as many of the
/// present ones as are needed so that there are no fewer than now. Whoever `left` for good stays
/// only if nobody else would.
///
/// The dead stay in as long as there is nobody to take their place: were they left out, fewer and
/// fewer would be a majority, down to one that has nothing.
pub fn successor_homes(
    now: &[NodeId],
    wanted: &[NodeId],
    left: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    let staying = now.iter().filter(|home| !left(**home)).count();
    let mut homes = wanted.to_vec();
    for home in now.iter().filter(|home| !left(**home)) {
        if homes.len() < staying && !homes.contains(home) {
            homes.push(*home);
        }
    }
    if homes.is_empty() { now.to_vec() } else { homes }
}

/// How many epochs may end in one. Of more lineages that ended at a time the rest waits for the next
/// epoch; one place is kept for an operator's word.
pub const SOURCES_MAX: usize = 64;

/// Epochs and ballots are counted one by one, and nobody gets this far.
const COUNT_MAX: u64 = 1 << 62;

const _: () = assert!(size_of::<Seat>() <= 40);

#[cfg(test)]
mod tests;
