//! What is said of epochs, as nodes think of it and as it goes over the wire and to disk.

use std::sync::Arc;

use annulus_proto::codec::{decode_value, encode_value};
use annulus_proto::message::{
    EpochAnswer, EpochBallot, EpochConfig, EpochName, EpochSource, EpochStanding, EpochStep,
    EpochSuccessor,
};
use annulus_proto::{Slot, SlotSet, Version};
use annulus_slots::{
    Ballot, Config, Ending, EpochId, Promise, Record, Source, Standing, Successor, Testimony,
};

/// What is asked or told of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) enum Step {
    Meet(Option<EpochId>),
    Learn(Arc<Config>),
    Testify(EpochId),
    Prepare { under: EpochId, ballot: Ballot },
    Accept { under: EpochId, ballot: Ballot, successor: Successor },
    Absorb(Ending),
}

/// What is answered of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) enum Said {
    Agrees,
    Knows(Option<Arc<Config>>),
    Testimony { under: EpochId, testimony: Testimony, floor: Version },
    Promise(Promise),
    Accepted { under: EpochId, ballot: Ballot },
    Outbid(Ballot),
    Refused,
}

/// The longest that an epoch may be, in bytes as it is encoded: what a slot ever absorbed is in it, some
/// five hundred lineages.
pub(in crate::core) const CONFIG_BYTES_MAX: usize = 16 << 10;

impl Step {
    pub(in crate::core) fn to_wire(&self) -> EpochStep {
        match self {
            Self::Meet(id) => EpochStep::Meet(id.map(name)),
            Self::Learn(config) => EpochStep::Learn(boxed(config)),
            Self::Testify(under) => EpochStep::Testify(name(*under)),
            Self::Prepare { under, ballot } => {
                EpochStep::Prepare { under: name(*under), ballot: ballot_to(*ballot) }
            }
            Self::Accept { under, ballot, successor } => EpochStep::Accept {
                under: name(*under),
                ballot: ballot_to(*ballot),
                successor: successor_to(successor),
            },
            Self::Absorb(Ending { config, into }) => {
                EpochStep::Absorb { ended: boxed(config), into: name(*into) }
            }
        }
    }

    /// None if it is of something that there cannot be.
    pub(in crate::core) fn from_wire(step: EpochStep) -> Option<Self> {
        Some(match step {
            EpochStep::Meet(id) => Self::Meet(id.map(id_of)),
            EpochStep::Learn(config) => Self::Learn(config_of(*config)?),
            EpochStep::Testify(under) => Self::Testify(id_of(under)),
            EpochStep::Prepare { under, ballot } => {
                Self::Prepare { under: id_of(under), ballot: ballot_of(ballot) }
            }
            EpochStep::Accept { under, ballot, successor } => Self::Accept {
                under: id_of(under),
                ballot: ballot_of(ballot),
                successor: successor_of(successor)?,
            },
            EpochStep::Absorb { ended, into } => {
                Self::Absorb(Ending { config: config_of(*ended)?, into: id_of(into) })
            }
        })
    }
}

impl Said {
    pub(in crate::core) fn to_wire(&self) -> EpochAnswer {
        match self {
            Self::Agrees => EpochAnswer::Agrees,
            Self::Knows(config) => EpochAnswer::Knows(config.as_ref().map(boxed)),
            Self::Testimony { under, testimony: Testimony { here, before }, floor } => {
                EpochAnswer::Testimony {
                    under: name(*under),
                    here: standing_to(*here),
                    before: before.map(|(source, standing)| (source, standing_to(standing))),
                    floor: *floor,
                }
            }
            Self::Promise(Promise { under, ballot, accepted }) => EpochAnswer::Promise {
                under: name(*under),
                ballot: ballot_to(*ballot),
                accepted: accepted.as_ref().map(|(ballot, successor)| {
                    Box::new((ballot_to(*ballot), successor_to(successor)))
                }),
            },
            Self::Accepted { under, ballot } => {
                EpochAnswer::Accepted { under: name(*under), ballot: ballot_to(*ballot) }
            }
            Self::Outbid(ballot) => EpochAnswer::Outbid(ballot_to(*ballot)),
            Self::Refused => EpochAnswer::Refused,
        }
    }

    /// None if it is of something that there cannot be.
    pub(in crate::core) fn from_wire(answer: EpochAnswer) -> Option<Self> {
        Some(match answer {
            EpochAnswer::Agrees => Self::Agrees,
            EpochAnswer::Knows(None) => Self::Knows(None),
            EpochAnswer::Knows(Some(config)) => Self::Knows(Some(config_of(*config)?)),
            EpochAnswer::Testimony { under, here, before, floor } => {
                let before = before.map(|(source, standing)| (source, standing_of(standing)));
                let testimony = Testimony { here: standing_of(here), before };
                Self::Testimony { under: id_of(under), testimony, floor }
            }
            EpochAnswer::Promise { under, ballot, accepted } => {
                let accepted = match accepted.map(|accepted| *accepted) {
                    None => None,
                    Some((ballot, successor)) => {
                        Some((ballot_of(ballot), successor_of(successor)?))
                    }
                };
                let (under, ballot) = (id_of(under), ballot_of(ballot));
                Self::Promise(Promise { under, ballot, accepted })
            }
            EpochAnswer::Accepted { under, ballot } => {
                Self::Accepted { under: id_of(under), ballot: ballot_of(ballot) }
            }
            EpochAnswer::Outbid(ballot) => Self::Outbid(ballot_of(ballot)),
            EpochAnswer::Refused => Self::Refused,
        })
    }
}

/// Puts what is alike together: what is said of slots in ascending order, as it goes over the wire, up to
/// about so many bytes of it. Returns how many slots of the front that includes.
pub(in crate::core) fn runs<T: PartialEq, W>(
    items: &[(Slot, T)],
    stride: u16,
    bytes_max: usize,
    wire: impl Fn(&T) -> (W, Vec<u8>),
) -> (Vec<(SlotSet, W)>, usize) {
    let mut places = std::collections::BTreeMap::new();
    let mut sets: Vec<(Vec<Slot>, W)> = Vec::new();
    let (mut bytes, mut taken, mut last) = (0, 0, None::<(usize, usize)>);
    for (at, (slot, item)) in items.iter().enumerate() {
        // Neighbours mostly have the same to say.
        let same = last.filter(|(before, _)| items[*before].1 == *item).map(|(_, place)| place);
        let place = match same {
            Some(place) => place,
            None => {
                let (message, key) = wire(item);
                let length = key.len();
                *places.entry(key).or_insert_with(|| {
                    bytes += length;
                    sets.push((Vec::new(), message));
                    sets.len() - 1
                })
            }
        };
        let set = &mut sets[place].0;
        let is_neighbour = set.last().is_some_and(|last| last.index() + stride == slot.index());
        bytes += if is_neighbour { 0 } else { RUN_BYTES };
        set.push(*slot);
        last = Some((at, place));
        taken = at + 1;
        if bytes >= bytes_max {
            break;
        }
    }
    let sets = sets.into_iter().map(|(slots, message)| (SlotSet::new(&slots, stride), message));
    (sets.collect(), taken)
}

/// What a run of slots takes at most in a set.
const RUN_BYTES: usize = 6;

pub(in crate::core) fn step_and_key(step: &Step) -> (EpochStep, Vec<u8>) {
    let wire = step.to_wire();
    let key = encode_value(&wire);
    (wire, key)
}

pub(in crate::core) fn said_and_key(said: &Said) -> (EpochAnswer, Vec<u8>) {
    let wire = said.to_wire();
    let key = encode_value(&wire);
    (wire, key)
}

pub(in crate::core) fn name(id: EpochId) -> EpochName {
    EpochName { lineage: id.lineage, number: id.number }
}

pub(in crate::core) fn id_of(name: EpochName) -> EpochId {
    EpochId { lineage: name.lineage, number: name.number }
}

fn ballot_to(ballot: Ballot) -> EpochBallot {
    EpochBallot { round: ballot.round, node: ballot.node }
}

fn ballot_of(ballot: EpochBallot) -> Ballot {
    Ballot { round: ballot.round, node: ballot.node }
}

fn standing_to(standing: Standing) -> EpochStanding {
    match standing {
        Standing::Outside => EpochStanding::Outside,
        Standing::Fresh => EpochStanding::Fresh,
        Standing::Ready => EpochStanding::Ready,
        Standing::Lost => EpochStanding::Lost,
        Standing::Blank => EpochStanding::Blank,
        Standing::HandedOver => EpochStanding::HandedOver,
    }
}

fn standing_of(standing: EpochStanding) -> Standing {
    match standing {
        EpochStanding::Outside => Standing::Outside,
        EpochStanding::Fresh => Standing::Fresh,
        EpochStanding::Ready => Standing::Ready,
        EpochStanding::Lost => Standing::Lost,
        EpochStanding::Blank => Standing::Blank,
        EpochStanding::HandedOver => Standing::HandedOver,
    }
}

fn config_to(config: &Config) -> EpochConfig {
    let source = |source: &Source| EpochSource {
        name: name(source.id),
        homes: source.homes.clone(),
        written_off: source.written_off.clone(),
    };
    EpochConfig {
        name: name(config.id),
        homes: config.homes.clone(),
        sources: config.sources.iter().map(source).collect(),
        absorbed: config.absorbed.iter().copied().map(name).collect(),
    }
}

fn boxed(config: &Arc<Config>) -> Box<EpochConfig> {
    Box::new(config_to(config))
}

/// None if no epoch can be like this.
fn config_of(config: EpochConfig) -> Option<Arc<Config>> {
    let source = |source: EpochSource| Source {
        id: id_of(source.name),
        homes: source.homes,
        written_off: source.written_off,
    };
    let config = Config {
        id: id_of(config.name),
        homes: config.homes,
        sources: config.sources.into_iter().map(source).collect(),
        absorbed: config.absorbed.into_iter().map(id_of).collect(),
    };
    config.is_well_formed().then(|| Arc::new(config))
}

/// How long an epoch is as it is encoded, in bytes.
pub(in crate::core) fn config_bytes(config: &Config) -> usize {
    encode_value(&config_to(config)).len()
}

fn successor_to(successor: &Successor) -> EpochSuccessor {
    match successor {
        Successor::Next(config) => EpochSuccessor::Next(boxed(config)),
        Successor::Ended { into } => EpochSuccessor::Ended(name(*into)),
    }
}

fn successor_of(successor: EpochSuccessor) -> Option<Successor> {
    Some(match successor {
        EpochSuccessor::Next(config) => Successor::Next(config_of(*config)?),
        EpochSuccessor::Ended(into) => Successor::Ended { into: id_of(into) },
    })
}

/// What is kept on disk: a version, the epoch, the standing in it and in one of its sources, what was
/// promised and accepted.
type KeptSeat = (
    u8,
    Option<EpochConfig>,
    EpochStanding,
    Option<(u8, EpochStanding)>,
    Option<EpochBallot>,
    Option<(EpochBallot, EpochSuccessor)>,
);

const KEPT_VERSION: u8 = 1;

/// A seat as it is on disk.
pub(in crate::core) fn record_to(record: &Record) -> Vec<u8> {
    let kept: KeptSeat = (
        KEPT_VERSION,
        record.config.as_deref().map(config_to),
        standing_to(record.standing),
        record.before.map(|(source, standing)| (source, standing_to(standing))),
        record.promised.map(ballot_to),
        record
            .accepted
            .as_ref()
            .map(|(ballot, successor)| (ballot_to(*ballot), successor_to(successor))),
    );
    encode_value(&kept)
}

/// A seat from what is on disk; None if it is nothing that was written there.
pub(in crate::core) fn record_of(bytes: &[u8]) -> Option<Record> {
    let (version, config, standing, before, promised, accepted) =
        decode_value::<KeptSeat>(bytes).ok()?;
    if version != KEPT_VERSION {
        return None;
    }
    let config = match config {
        Some(config) => Some(config_of(config)?),
        None => None,
    };
    let accepted = match accepted {
        Some((ballot, successor)) => Some((ballot_of(ballot), successor_of(successor)?)),
        None => None,
    };
    Some(Record {
        config,
        standing: standing_of(standing),
        before: before.map(|(source, standing)| (source, standing_of(standing))),
        promised: promised.map(ballot_of),
        accepted,
    })
}

#[cfg(test)]
mod tests {
    use annulus_proto::{Hlc, NodeId};

    use super::*;

    fn config() -> Config {
        let node = NodeId::from_bits;
        let founding = Config::founding(Version::new(Hlc::from_ms(7), node(1)));
        founding.next(vec![node(1), node(2), node(3)], &[])
    }

    #[test]
    fn a_seat_reads_back_from_disk_as_it_was_and_nothing_else_does() {
        let config = Arc::new(config());
        let ballot = Ballot { round: 9, node: NodeId::from_bits(2) };
        let next = Successor::Next(Arc::new(config.next(vec![NodeId::from_bits(4)], &[])));
        let record = Record {
            config: Some(config),
            standing: Standing::Ready,
            before: Some((0, Standing::Lost)),
            promised: Some(ballot),
            accepted: Some((ballot, next)),
        };
        let bytes = record_to(&record);
        assert_eq!(record_of(&bytes), Some(record));
        for length in 0..bytes.len() {
            assert_eq!(record_of(&bytes[..length]), None, "{length} bytes");
        }
        let later = [&[KEPT_VERSION + 1], &bytes[1..]].concat();
        assert_eq!(record_of(&later), None);
    }

    #[test]
    fn no_epoch_that_there_cannot_be_is_taken_in() {
        let twice = Config { homes: vec![NodeId::from_bits(1); 2], ..config() };
        let step = Step::Learn(Arc::new(twice.clone()));
        assert_eq!(Step::from_wire(step.to_wire()), None);
        let said = Said::Knows(Some(Arc::new(twice.clone())));
        assert_eq!(Said::from_wire(said.to_wire()), None);
        let successor = Successor::Next(Arc::new(twice));
        assert_eq!(successor_of(successor_to(&successor)), None);
        let good = Step::Learn(Arc::new(config()));
        assert_eq!(Step::from_wire(good.to_wire()), Some(good));
    }

    #[test]
    fn what_is_alike_goes_once_and_in_parts_that_fit() {
        let slot = |index: u16| Slot::new(index).unwrap();
        let id = |number| EpochId { lineage: Version::ZERO, number };
        let items: Vec<(Slot, Step)> = (0..3_000)
            .map(|index| (slot(2 * index), Step::Meet(Some(id(u64::from(index / 100 % 3))))))
            .collect();
        let (sets, taken) = runs(&items, 2, usize::MAX, step_and_key);
        assert_eq!((sets.len(), taken), (3, 3_000));
        let mut found: Vec<(Slot, EpochStep)> = sets
            .iter()
            .flat_map(|(set, step)| set.slots().map(|slot| (slot, step.clone())))
            .collect();
        found.sort_by_key(|(slot, _)| *slot);
        let expected = items.iter().map(|(slot, step)| (*slot, step.to_wire()));
        assert_eq!(found, expected.collect::<Vec<_>>());
        let (sets, taken) = runs(&items, 2, 40, step_and_key);
        let slots: usize = sets.iter().map(|(set, _)| set.slots().count()).sum();
        assert!(taken < 3_000 && taken == slots, "{taken} of {slots}");
    }
}
