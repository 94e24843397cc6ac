//! Strategies that the tests of this crate share: entries out of a small universe, where everything
//! collides, and entries and messages as wide as their bounds.

use std::net::SocketAddr;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::limits::{FIELD_NAME_BYTES_MAX, NOTE_BYTES_MAX, NOTES_MAX, OWNER_BYTES_MAX};
use crate::message::*;
use crate::{
    Attributes, Base, Body, Entry, Field, Hlc, Key, Kind, Lease, Load, Member, NodeId, Note,
    Replaced, Rtt, Slot, SlotSet, Status, Value, Version,
};

/// Versions of a few instants and nodes.
pub(crate) fn few_versions() -> impl Strategy<Value = Version> + Clone {
    (1..7u64, 1..3u64).prop_map(|(ms, node)| version(ms, node))
}

pub(crate) fn version(ms: u64, node: u64) -> Version {
    Version::new(Hlc::from_ms(ms), NodeId::from_bits(node))
}

/// Well-formed entries of a few births, versions (one version with several contents included),
/// names, values and times.
pub(crate) fn few_entries() -> impl Strategy<Value = Entry> {
    let name = (0..3u8).prop_map(|name| vec![b'a' + name]);
    let bytes = (0..3u8).prop_map(|length| vec![b'x'; length.into()]);
    entries(
        few_versions()
            .prop_map(|version| Version { hlc: Hlc::from_ms(version.hlc.ms() % 2), ..version }),
        few_versions(),
        name,
        bytes,
        0..3u64,
        Just(vec![1u8, 2]).prop_shuffle().prop_map(|numbers| numbers[0]),
        (0..2u8, vec(Just(b'o'), 0..2)),
    )
}

/// Well-formed entries with anything in them that the bounds allow.
pub(crate) fn wide_entries() -> impl Strategy<Value = Entry> {
    entries(
        versions(),
        versions(),
        names(),
        vec(any::<u8>(), 0..200),
        prop_oneof![Just(0), Just(Hlc::MS_MAX), 0..=Hlc::MS_MAX],
        any::<u8>(),
        (any::<u8>(), vec(any::<u8>(), 0..=OWNER_BYTES_MAX)),
    )
}

fn entries(
    births: impl Strategy<Value = Version>,
    versions: impl Strategy<Value = Version> + Clone,
    names: impl Strategy<Value = Vec<u8>>,
    bytes: impl Strategy<Value = Vec<u8>> + Clone,
    times: impl Strategy<Value = u64> + Clone,
    numbers: impl Strategy<Value = u8>,
    attributes: impl Strategy<Value = (u8, Vec<u8>)>,
) -> impl Strategy<Value = Entry> {
    let kinds = prop_oneof![Just(Kind::Map), Just(Kind::Set), Just(Kind::SortedSet)];
    let base = (versions.clone(), option::of(bytes.clone()), kinds);
    let field = (versions.clone(), option::of(bytes), times.clone());
    let lease = (versions.clone(), times.clone(), times.clone());
    let note = (versions.clone(), vec(any::<u8>(), 0..=NOTE_BYTES_MAX));
    let body = (
        base,
        btree_map(names, field, 0..5),
        lease,
        times,
        attributes,
        btree_map(numbers, note, 0..=NOTES_MAX),
    )
        .prop_map(|((version, bytes, kind), fields, lease, touched, attributes, notes)| {
            let kind = if bytes.is_some() { Kind::Bytes } else { kind };
            let fields = fields
                .into_iter()
                .filter(|(_, (of_field, ..))| *of_field >= version)
                .map(|(name, (version, value, expire_at))| {
                    (name, Field { version, value, expire_at })
                })
                .collect();
            let note = |(number, (version, bytes))| (number, Note { version, bytes });
            Body {
                base: Base { version, kind, bytes: bytes.unwrap_or_default() },
                fields,
                lease: Lease { version: lease.0, idle: lease.1, expire_at: lease.2 },
                touched,
                attributes: Attributes { replicas: attributes.0, owner: attributes.1 },
                notes: notes.into_iter().map(note).collect(),
            }
        });
    (births, versions, option::weighted(0.8, body)).prop_map(|(birth, version, body)| {
        let version = body.as_ref().map_or(version, greatest);
        Entry { birth, version, body }
    })
}

/// The greatest version of any part.
pub(crate) fn greatest(body: &Body) -> Version {
    let parts = [body.base.version, body.lease.version].into_iter();
    let fields = body.fields.values().map(|field| field.version);
    let notes = body.notes.values().map(|note| note.version);
    parts.chain(fields).chain(notes).max().expect("a base and a lease are two parts")
}

pub(crate) fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20),
        vec(any::<u8>(), FIELD_NAME_BYTES_MAX - 1..=FIELD_NAME_BYTES_MAX),
    ]
}

fn hlcs() -> impl Strategy<Value = Hlc> + Clone {
    prop_oneof![
        Just(Hlc::ZERO),
        Just(Hlc::from_bits(u64::MAX)),
        any::<u64>().prop_map(Hlc::from_bits)
    ]
}

fn node_ids() -> impl Strategy<Value = NodeId> + Clone {
    prop_oneof![Just(u64::MAX), any::<u64>()].prop_map(NodeId::from_bits)
}

pub(crate) fn versions() -> impl Strategy<Value = Version> + Clone {
    (hlcs(), node_ids()).prop_map(|(hlc, node)| Version::new(hlc, node))
}

pub(crate) fn headers() -> impl Strategy<Value = crate::codec::Header> {
    (any::<u64>(), any::<u64>(), hlcs()).prop_map(|(id, view, hlc)| crate::codec::Header {
        id,
        view,
        hlc,
    })
}

/// Messages of every kind.
pub(crate) fn messages() -> impl Strategy<Value = Message> {
    // As many as they have kinds, about.
    prop_oneof![
        2 => start(),
        2 => sessions(),
        4 => status(),
        1 => suspects(),
        1 => owned(),
        1 => walk(),
        1 => published(),
        1 => gone(),
        1 => hottest(),
        1 => beats(),
        5 => between_nodes(),
    ]
}

fn start() -> impl Strategy<Value = Message> {
    let segment = (text(), text(), any::<u64>()).prop_map(|(table, path, instance)| Segment {
        table,
        path,
        instance,
    });
    let welcome = (node_ids(), any::<u64>(), text(), text(), vec(segment, 0..3), text(), text());
    prop_oneof![
        (text(), caller(), text()).prop_map(|(cluster, caller, software)| Hello {
            cluster,
            caller,
            software
        }
        .into()),
        welcome.prop_map(|(node, incarnation, name, host, segments, local_socket, software)| {
            Welcome { node, incarnation, name, host, segments, local_socket, software }.into()
        }),
        rejected().prop_map(Message::from),
        Just(Ping {}.into()),
        node_ids().prop_map(|node| Pong { node }.into()),
    ]
}

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        (any::<u64>(), roles()).prop_map(|(client, role)| Caller::Client { client, role }),
        (node_ids(), any::<u64>()).prop_map(|(id, incarnation)| Caller::Node { id, incarnation }),
    ]
}

fn roles() -> impl Strategy<Value = Role> {
    proptest::sample::select(&Role::ALL[..])
}

fn rejected() -> impl Strategy<Value = Rejected> {
    prop_oneof![
        text().prop_map(|asked| Rejected::WrongCluster { asked }),
        any::<(u8, u8)>().prop_map(|(ours, theirs)| Rejected::WrongVersion { ours, theirs }),
        any::<u32>().prop_map(|limit| Rejected::TooManyConnections { limit }),
        text().prop_map(|why| Rejected::Malformed { why }),
        (node_ids(), addrs()).prop_map(|(id, addr)| Rejected::NodeIdInUse { id, addr }),
        Just(Rejected::AskOverStream),
        text().prop_map(|why| Rejected::NoLane { why }),
        (roles(), roles()).prop_map(|(asked, granted)| Rejected::RoleNotGranted { asked, granted }),
        (text(), text()).prop_map(|(asked, key)| Rejected::NotWithThisKey { asked, key }),
    ]
}

fn sessions() -> impl Strategy<Value = Message> {
    let request = (text(), keys(), any::<(u64, u64)>(), any::<(u8, u32)>(), operation()).prop_map(
        |(table, key, (client, sequence), (hops, patience_ms), operation)| {
            let request = RequestId { client, sequence };
            SessionRequest { table, key, request, hops, patience_ms, operation }.into()
        },
    );
    let pin = option::of(node_ids());
    let times = any::<(u64, u64, u64, u64)>();
    let of_fields = btree_map(names(), any::<u64>(), 0..3);
    let session = (versions(), versions(), times, attributes(), pin, (values(), of_fields))
        .prop_map(
            |(
                birth,
                version,
                (deadline, touched, idle, expire_at),
                attributes,
                pin,
                (value, field_deadlines),
            )| Session {
                birth,
                version,
                deadline,
                touched,
                idle,
                expire_at,
                attributes,
                pin,
                value,
                field_deadlines,
            },
        );
    let acknowledged = (versions(), versions(), any::<(u8, u8)>()).prop_map(
        |(birth, version, (held_by, homes))| Acknowledged { birth, version, held_by, homes },
    );
    prop_oneof![
        request,
        session.prop_map(|session| SessionReply::Session(session).into()),
        acknowledged.prop_map(|it| SessionReply::Acknowledged(it).into()),
        failure().prop_map(|failure| SessionReply::Failed(failure).into()),
        (text(), keys(), any::<bool>()).prop_map(|(table, key, ask_homes)| ExplainRequest {
            table,
            key,
            ask_homes
        }
        .into()),
        explanation(),
        (text(), any::<(u64, u16)>()).prop_map(|(table, (cursor, limit))| ListRequest {
            table,
            cursor,
            limit
        }
        .into()),
        (vec(listed(), 0..4), any::<u64>())
            .prop_map(|(entries, next)| List { entries, next }.into()),
    ]
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let birth = || option::of(versions());
    let change = || {
        prop_oneof![
            values().prop_map(Change::Value),
            (btree_map(names(), vec(any::<u8>(), 0..20), 0..4), vec(names(), 0..3))
                .prop_map(|(set, delete)| Change::Fields { set, delete }),
            lifetimes().prop_map(Change::Lifetimes),
            option::of(node_ids()).prop_map(Change::Pin),
            (values(), lifetimes()).prop_map(|(value, lifetimes)| Change::Whole(value, lifetimes)),
        ]
    };
    prop_oneof![
        (values(), lifetimes(), attributes()).prop_map(|(value, lifetimes, attributes)| {
            Operation::Start { value, lifetimes, attributes }
        }),
        Just(Operation::Get),
        (birth(), change()).prop_map(|(birth, change)| Operation::Update { birth, change }),
        birth().prop_map(|birth| Operation::Touch { birth }),
        birth().prop_map(|birth| Operation::End { birth }),
        (versions(), change())
            .prop_map(|(version, change)| Operation::UpdateIf { version, change }),
        (values(), lifetimes(), attributes()).prop_map(|(value, lifetimes, attributes)| {
            Operation::StartIfAbsent { value, lifetimes, attributes }
        }),
        versions().prop_map(|version| Operation::EndIf { version }),
        (values(), lifetimes(), any::<(bool, bool)>()).prop_map(
            |(value, lifetimes, (keeps_lifetimes, after_end))| Operation::Put {
                value,
                lifetimes,
                keeps_lifetimes,
                after_end
            }
        ),
        (
            versions(),
            btree_map(names(), any::<Option<u64>>(), 0..4),
            btree_map(names(), vec(any::<u8>(), 0..20), 0..4),
            vec(names(), 0..3),
            btree_map(names(), any::<u64>(), 0..3),
            option::of(lifetimes()),
            any::<(bool, bool)>(),
        )
            .prop_map(
                |(birth, expected, set, delete, deadlines, lifetimes, (is_all, ends_empty))| {
                    Operation::UpdateFieldsIf {
                        birth,
                        expected,
                        is_all,
                        set,
                        delete,
                        deadlines,
                        lifetimes,
                        ends_empty,
                    }
                }
            ),
        (any::<(u64, u64, u64)>(), versions(), values(), attributes()).prop_map(
            |((word, idle, expire_at), birth, value, attributes)| Operation::StartInstead {
                replaced: Replaced { word, birth },
                value,
                idle,
                expire_at,
                attributes
            }
        ),
    ]
}

fn lifetimes() -> impl Strategy<Value = Lifetimes> {
    any::<(Option<u64>, Option<u64>)>()
        .prop_map(|(idle_ms, lifetime_ms)| Lifetimes { idle_ms, lifetime_ms })
}

pub(crate) fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Absent),
        Just(Failure::Ended),
        Just(Failure::Expired),
        any::<(u8, u8, u8)>().prop_map(|(answered, needed, homes)| Failure::Unavailable {
            answered,
            needed,
            homes
        }),
        any::<(u64, u64)>().prop_map(|(size, limit)| Failure::TooLarge { size, limit }),
        node_ids().prop_map(|node| Failure::TableFull { node }),
        text().prop_map(Failure::Refused),
        Just(Failure::TimedOut),
        versions().prop_map(|version| Failure::Conflict { version }),
        any::<u64>().prop_map(|retry_after_ms| Failure::SlowDown { retry_after_ms }),
    ]
}

fn explanation() -> impl Strategy<Value = Message> {
    let state = prop_oneof![
        Just(CopyState::NotAsked),
        Just(CopyState::Silent),
        any::<bool>().prop_map(|synced| CopyState::Absent { synced }),
        any::<u8>().prop_map(|ring| CopyState::Moved { ring }),
        (versions(), versions(), any::<(bool, bool)>(), any::<(u64, u64, u64)>()).prop_map(
            |(birth, version, (ended, expired), (touched, deadline, size))| CopyState::Held {
                birth,
                version,
                ended,
                expired,
                touched,
                deadline,
                size
            }
        ),
    ];
    let copy = (node_ids(), text(), addrs(), state).prop_map(|(node, name, addr, state)| Copy {
        node,
        name,
        addr,
        state,
    });
    let copies = vec(copy, 0..4).boxed();
    let served =
        prop_oneof![Just(Served::Memory), Just(Served::HomesWhileSyncing), Just(Served::Homes)];
    let pin = option::of(node_ids());
    (slots(), any::<u64>(), node_ids(), served, (copies.clone(), copies), pin).prop_map(
        |(slot, view, node, served_from, (homes, extra), pin)| {
            Explanation { slot, view, node, served_from, homes, extra, pin }.into()
        },
    )
}

fn listed() -> impl Strategy<Value = Listed> {
    (keys(), versions(), versions(), any::<(u64, u64, u64)>()).prop_map(
        |(key, birth, version, (touched, deadline, size))| Listed {
            key,
            birth,
            version,
            touched,
            deadline,
            size,
        },
    )
}

fn peer() -> impl Strategy<Value = Peer> {
    let states = proptest::sample::select(&PEER_STATES[..]);
    let rtt = any::<(u32, u32, u32)>().prop_map(|(smoothed_us, variation_us, samples)| Rtt {
        smoothed_us,
        variation_us,
        samples,
    });
    (node_ids(), states, any::<u64>(), option::of(rtt)).prop_map(|(node, state, view, rtt)| Peer {
        node,
        state,
        view,
        rtt,
    })
}

fn operator_messages() -> impl Strategy<Value = Message> {
    let order = prop_oneof![
        Just(Order::SyncNow),
        Just(Order::Drain),
        Just(Order::StopDraining),
        (node_ids(), any::<bool>())
            .prop_map(|(node, accept_loss)| Order::Remove { node, accept_loss }),
        any::<Option<u16>>().prop_map(Order::Weigh),
    ];
    let slots = || (text(), any::<u32>());
    let happened = prop_oneof![
        (node_ids(), text(), any::<u64>(), statuses()).prop_map(
            |(node, name, incarnation, status)| {
                Happened::Member { node, name, incarnation, status }
            }
        ),
        any::<(u64, u32)>().prop_map(|(digest, active)| Happened::View { digest, active }),
        slots().prop_map(|(table, slots)| Happened::SlotsTakenUp { table, slots }),
        slots().prop_map(|(table, slots)| Happened::Synced { table, slots }),
        slots().prop_map(|(table, slots)| Happened::SlotsLeaving { table, slots }),
        slots().prop_map(|(table, slots)| Happened::SlotsGivenUp { table, slots }),
        text().prop_map(|order| Happened::Ordered { order }),
        slots().prop_map(|(table, slots)| Happened::EpochsDecided { table, slots }),
    ];
    let event = (any::<(u64, u64)>(), happened).prop_map(|((number, at_ms), what)| Event {
        number,
        at_ms,
        what,
    });
    prop_oneof![
        order.prop_map(Message::from),
        Just(Ordered::Done.into()),
        text().prop_map(|why| Ordered::Refused(why).into()),
        Just(SafetyRequest {}.into()),
        vec(text(), 0..4).prop_map(|reasons| Safety { reasons }.into()),
        any::<u64>().prop_map(|after| EventsRequest { after }.into()),
        (node_ids(), any::<(u64, u64)>(), vec(event, 0..4)).prop_map(
            |(node, (incarnation, forgotten), events)| {
                Events { node, incarnation, events, forgotten }.into()
            }
        ),
    ]
}

pub(crate) const PEER_STATES: [PeerState; 6] = [
    PeerState::Alive,
    PeerState::Suspected,
    PeerState::Missing,
    PeerState::Presumed,
    PeerState::Down,
    PeerState::Left,
];

fn status() -> impl Strategy<Value = Message> {
    let node =
        (node_ids(), text(), addrs()).prop_map(|(id, name, addr)| RouteNode { id, name, addr });
    let routes = (any::<u64>(), vec(node, 0..4), any::<u8>(), vec(any::<u16>(), 0..20));
    let table = (text(), any::<[u64; 7]>(), any::<[u32; 5]>(), any::<(u8, u8, u8)>()).prop_map(
        |(name, numbers, slots, (replicas, write_homes, members_lacking))| {
            let [entries, capacity, bytes, segment_bytes, huge_bytes, reserve_used, hints] =
                numbers;
            TableStatus {
                name,
                entries,
                capacity,
                bytes,
                segment_bytes,
                huge_bytes,
                reserve_used,
                slots_home: slots[0],
                slots_unsynced: slots[1],
                slots_leaving: slots[2],
                slots_short: slots[3],
                slots_undecided: slots[4],
                hints,
                replicas,
                write_homes,
                members_lacking,
            }
        },
    );
    let counters = || vec((text(), any::<u64>()), 0..4);
    let node_keys = (node_ids(), text(), statuses(), key_ordered())
        .prop_map(|(node, name, status, keys)| NodeKeys { node, name, status, keys });
    let node_status = (
        text(),
        member(),
        text(),
        any::<(u64, u64, u32, u32)>(),
        vec(table, 0..3),
        counters(),
        counters(),
    );
    prop_oneof![
        Just(RoutesRequest {}.into()),
        Just(LaneRequest {}.into()),
        (any::<u64>(), vec(text(), 0..4))
            .prop_map(|(lane, tables)| LaneGranted { lane, tables }.into()),
        routes.prop_map(|(view, nodes, homes_per_slot, homes)| {
            Routes { view, nodes, homes_per_slot, homes }.into()
        }),
        Just(StatusRequest {}.into()),
        node_status.prop_map(
            |(cluster, member, software, numbers, tables, counters, unknown_commands)| {
                let (uptime_ms, view, active_members, agreeing_members) = numbers;
                NodeStatus {
                    cluster,
                    member,
                    software,
                    uptime_ms,
                    view,
                    active_members,
                    agreeing_members,
                    tables,
                    counters,
                    unknown_commands,
                }
                .into()
            }
        ),
        Just(PeersRequest {}.into()),
        operator_messages(),
        placement_messages(),
        (node_ids(), any::<u64>(), any::<u8>(), vec(peer(), 0..4)).prop_map(
            |(node, view, local_health, peers)| Peers { node, view, local_health, peers }.into()
        ),
        Just(MembersRequest {}.into()),
        (key_change(), any::<bool>())
            .prop_map(|(change, force)| KeysRequest { change, force }.into()),
        (text(), vec(node_keys, 0..4))
            .prop_map(|(refused, nodes)| KeysReport { refused, nodes }.into()),
        (node_ids(), any::<u64>(), vec(member(), 0..4)).prop_map(|(node, view, members)| Members {
            node,
            view,
            members
        }
        .into()),
    ]
}

fn placement_messages() -> impl Strategy<Value = Message> {
    let load = || {
        any::<(Option<u32>, Option<u64>, Option<u32>, Option<u64>)>().prop_map(
            |(cpu_permille, memory_free, io_permille, network_bytes)| HostLoad {
                cpu_permille,
                memory_free,
                io_permille,
                network_bytes,
            },
        )
    };
    let affinity = proptest::sample::select(&Affinity::ALL[..]);
    let places = || (any::<u16>(), option::of(keys()));
    prop_oneof![
        Just(LoadRequest {}.into()),
        load().prop_map(Message::from),
        affinity.prop_map(|affinity| RankRequest { affinity }.into()),
        vec((node_ids(), load()), 0..4).prop_map(|nodes| Ranked { nodes }.into()),
        (text(), node_ids(), places()).prop_map(|(table, to, (core, after))| PinnedRequest {
            table,
            to,
            core,
            after
        }
        .into()),
        (vec((keys(), versions(), any::<u64>()), 0..4), option::of(places()))
            .prop_map(|(sessions, next)| Pinned { sessions, next }.into()),
        (
            vec((node_ids(), any::<u16>()), 0..4),
            vec(node_ids(), 0..4),
            vec((node_ids(), text()), 0..4)
        )
            .prop_map(|(weights, without, zones)| {
                PlanRequest { weights, without, zones }.into()
            }),
    ]
}

fn suspects() -> impl Strategy<Value = Message> {
    let place = || any::<(u16, Option<u64>)>();
    let suspect = (any::<(u64, u64, u64, u32)>(), versions(), versions(), vec(any::<u8>(), 0..9))
        .prop_map(|((word, until, left_ms, heat), birth, judged, owner)| Suspect {
            word,
            birth,
            judged,
            until,
            left_ms,
            heat,
            owner,
        });
    let sentence = prop_oneof![
        any::<u64>().prop_map(|for_ms| Sentence::Release { for_ms }),
        Just(Sentence::End),
    ];
    prop_oneof![
        (text(), place())
            .prop_map(|(table, (core, after))| SuspectsRequest { table, core, after }.into()),
        (vec(suspect, 0..4), option::of(place())).prop_map(|(suspects, next)| Suspects {
            suspects,
            next
        }
        .into()),
        (text(), any::<(u64, u32)>(), versions(), sentence).prop_map(
            |(table, (word, patience_ms), birth, sentence)| Judge {
                table,
                word,
                birth,
                patience_ms,
                sentence
            }
            .into()
        ),
    ]
}

fn owned() -> impl Strategy<Value = Message> {
    let place = || {
        any::<(u16, u8, Option<u64>)>().prop_map(|(core, ring, after)| OwnedPlace {
            core,
            ring,
            after,
        })
    };
    let session = (listed(), any::<u8>()).prop_map(|(listed, ring)| OwnedSession { listed, ring });
    prop_oneof![
        (text(), vec(any::<u8>(), 0..9), place()).prop_map(|(table, owner, place)| OwnedRequest {
            table,
            owner,
            place
        }
        .into()),
        (vec(session, 0..4), option::of(place()), any::<u8>())
            .prop_map(|(sessions, next, write_homes)| Owned { sessions, next, write_homes }.into()),
    ]
}

fn walk() -> impl Strategy<Value = Message> {
    let key = (keys(), values(), any::<u8>()).prop_map(|(key, value, lacking)| WalkedKey {
        key,
        kind: value.kind(),
        lacking,
    });
    prop_oneof![
        (text(), any::<(u64, u16, bool)>()).prop_map(|(table, (from, limit, is_whole))| {
            WalkRequest { table, from, limit, is_whole }.into()
        }),
        (vec(key, 0..4), any::<(Option<u64>, u16, u8)>()).prop_map(
            |(keys, (next, silent, write_homes))| {
                Walked { keys, next, silent, write_homes }.into()
            }
        ),
    ]
}

fn published() -> impl Strategy<Value = Message> {
    let bytes = || vec(any::<u8>(), 0..40);
    (bytes(), bytes(), any::<bool>()).prop_map(|(channel, message, is_sharded)| {
        Published { channel, message, is_sharded }.into()
    })
}

fn gone() -> impl Strategy<Value = Message> {
    let how = prop_oneof![Just(HowGone::Ended), Just(HowGone::Expired), Just(HowGone::Evicted)];
    let session = (keys(), versions(), versions(), how)
        .prop_map(|(key, birth, version, how)| GoneSession { key, birth, version, how });
    prop_oneof![
        (text(), vec(session, 0..4)).prop_map(|(table, sessions)| Gone { table, sessions }.into()),
        Just(GoneNoted {}.into()),
    ]
}

fn hottest() -> impl Strategy<Value = Message> {
    let hot = (any::<(u64, u32, u64)>(), versions())
        .prop_map(|((word, heat, touched), birth)| HotSession { word, birth, heat, touched });
    prop_oneof![
        (text(), any::<(u16, u16)>()).prop_map(|(table, (core, count))| HottestRequest {
            table,
            core,
            count
        }
        .into()),
        (vec(hot, 0..4), option::of(any::<u16>())).prop_map(|(sessions, next)| Hottest {
            sessions,
            next
        }
        .into()),
    ]
}

fn beats() -> impl Strategy<Value = Message> {
    let places = || any::<(u64, u64)>().prop_map(|(run, number)| BeatPlace { run, number });
    let changed = vec(any::<(u64, u64)>(), 0..5);
    prop_oneof![
        (text(), option::of(places()), slot_sets(), vec(any::<(u64, u32)>(), 0..5)).prop_map(
            |(table, after, slots, uses)| BeatRequest { table, after, slots, uses }.into()
        ),
        ((any::<u16>(), places(), any::<bool>()), changed, slot_sets()).prop_map(
            |((cores, place, is_whole), changed, unsure)| {
                Beat { cores, place, is_whole, changed, unsure }.into()
            }
        ),
    ]
}

fn slot_sets() -> impl Strategy<Value = SlotSet> {
    (any::<(u16, u16)>(), vec(any::<(u16, u16)>(), 0..5))
        .prop_map(|((stride, offset), runs)| SlotSet { stride, offset, runs })
}

fn statuses() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Joining),
        Just(Status::Up),
        Just(Status::Draining),
        Just(Status::Down),
        Just(Status::Left),
    ]
}

fn member() -> impl Strategy<Value = Member> {
    let load = any::<(u16, u16, u64)>().prop_map(|(cpu_permille, memory_permille, sessions)| {
        Load { cpu_permille, memory_permille, sessions }
    });
    let at = (addrs(), option::of(addrs()));
    (node_ids(), any::<(u64, u32)>(), statuses(), at, text(), text(), any::<(u16, u8)>(), load)
        .prop_map(
            |(
                id,
                (incarnation, revision),
                status,
                (addr, door),
                name,
                zone,
                (weight, rings),
                load,
            )| {
                Member {
                    id,
                    incarnation,
                    revision,
                    status,
                    addr,
                    name,
                    zone,
                    weight,
                    rings,
                    door,
                    load,
                }
            },
        )
}

fn between_nodes() -> impl Strategy<Value = Message> {
    let batches = || vec((keys(), wide_entries()), 0..3);
    let difference = prop_oneof![
        Just(ComparedDifference::None),
        any::<[u8; 8]>().prop_map(|key| ComparedDifference::One { key }),
        vec(any::<u8>(), 0..400).prop_map(|sketch| ComparedDifference::More { sketch }),
    ];
    let replicated = prop_oneof![
        Just(Replicated::Stored),
        Just(Replicated::NoHome),
        Just(Replicated::OtherEpoch),
        wide_entries().prop_map(Replicated::Differs),
        Just(Replicated::Missing),
        failure().prop_map(Replicated::Failed),
        (versions(), any::<bool>())
            .prop_map(|(floor, stored)| Replicated::Promised { floor, stored }),
    ];
    let fresh = prop_oneof![Just(Fresh::No), Just(Fresh::Yes), versions().prop_map(Fresh::By),];
    prop_oneof![
        (text(), keys(), wide_entries(), fresh, option::of(epoch_names())).prop_map(
            |(table, key, entry, fresh, under)| {
                Replicate { table, key, entry, fresh, under }.into()
            }
        ),
        (text(), keys(), versions(), epoch_names()).prop_map(|(table, key, ballot, under)| {
            Prepare { table, key, ballot, under }.into()
        }),
        (versions(), any::<(bool, bool)>(), versions(), option::of(wide_entries())).prop_map(
            |(floor, (counts, other_epoch), others, entry)| {
                Promised { floor, counts, other_epoch, others, entry }.into()
            }
        ),
        ((text(), keys()), versions(), versions(), any::<u64>(), option::of(epoch_names()))
            .prop_map(|((table, key), birth, version, touched, under)| {
                TouchCopy { table, key, birth, version, touched, under }.into()
            }),
        (text(), keys(), wide_entries(), versions(), option::of(epoch_names())).prop_map(
            |(table, key, entry, same_as, under)| {
                let copy = Replicate { table, key, entry, fresh: Fresh::Yes, under };
                Rewrite { copy, same_as }.into()
            }
        ),
        (text(), vec((slot_sets(), epoch_steps()), 0..3)).prop_map(|(table, steps)| Epochs {
            table,
            steps
        }
        .into()),
        vec((slot_sets(), epoch_answers()), 0..3)
            .prop_map(|answers| EpochsAnswer { answers }.into()),
        (text(), slots(), any::<(u64, u64)>()).prop_map(|(table, slot, (incarnation, counter))| {
            Offer { table, slot, incarnation, counter }.into()
        }),
        any::<(bool, u64)>()
            .prop_map(|(given, incarnation)| OfferAnswer { given, incarnation }.into()),
        (text(), any::<(u16, u8)>(), any::<(u64, u64)>(), slot_sets()).prop_map(
            |(set, (slots, replicas), (incarnation, revision), failed)| {
                SetHello { set, slots, replicas, incarnation, revision, failed }.into()
            }
        ),
        any::<bool>().prop_map(|noted| SetNoted { noted }.into()),
        (text(), any::<u64>(), slot_sets()).prop_map(|(set, revision, slots)| HeldRequest {
            set,
            revision,
            slots
        }
        .into()),
        (slot_sets(), slot_sets()).prop_map(|(held, unsure)| Held { held, unsure }.into()),
        (text(), any::<(u16, u64, u64)>()).prop_map(|(set, (slot, incarnation, counter))| {
            SetOffer { set, slot, incarnation, counter }.into()
        }),
        replicated.prop_map(Message::from),
        (text(), batches()).prop_map(|(table, entries)| Copies { table, entries }.into()),
        (
            any::<(u16, u16)>(),
            vec((any::<u16>(), wide_entries()), 0..3),
            vec((any::<u16>(), option::of(failure())), 0..5)
        )
            .prop_map(|((cores, done), differing, refused)| {
                CopiesTaken { cores, done, differing, refused }.into()
            }),
        (text(), vec(keys(), 0..5)).prop_map(|(table, keys)| HeatRequest { table, keys }.into()),
        (any::<u16>(), vec(any::<i16>(), 0..5))
            .prop_map(|(cores, levels)| Heat { cores, levels }.into()),
        (text(), vec(keys(), 0..5)).prop_map(|(table, keys)| OverlapRequest { table, keys }.into()),
        (any::<u16>(), vec(keys(), 0..5)).prop_map(|(cores, held)| Overlap { cores, held }.into()),
        (text(), keys(), any::<u32>())
            .prop_map(|(table, key, heat)| Burning { table, key, heat }.into()),
        any::<u64>().prop_map(|left_ms| Burned { left_ms }.into()),
        (text(), keys(), any::<u64>()).prop_map(|(table, key, digest)| CheckCopy {
            table,
            key,
            digest
        }
        .into()),
        (text(), keys(), option::of(epoch_names())).prop_map(|(table, key, under)| Fetch {
            table,
            key,
            under
        }
        .into()),
        (option::of(wide_entries()), any::<(bool, bool)>()).prop_map(
            |(entry, (synced, other_epoch))| Fetched { entry, synced, other_epoch }.into()
        ),
        (text(), any::<u64>(), slot_sets(), any::<[u8; SYMBOL_BYTES]>()).prop_map(
            |(table, cut_ms, slots, symbol)| Compare { table, cut_ms, slots, symbol }.into()
        ),
        (any::<u16>(), difference)
            .prop_map(|(cores, difference)| Compared { cores, difference }.into()),
        (text(), any::<u64>(), slot_sets(), vec(any::<u16>(), 0..5), any::<u8>()).prop_map(
            |(table, cut_ms, slots, sizes, symbols)| {
                SketchRequest { table, cut_ms, slots, sizes, symbols }.into()
            }
        ),
        vec(any::<u8>(), 0..400).prop_map(|sketches| Sketches { sketches }.into()),
        (text(), vec(any::<[u8; 8]>(), 0..5), batches())
            .prop_map(|(table, wanted, entries)| Even { table, wanted, entries }.into()),
        (batches(), any::<u32>()).prop_map(|(entries, done)| Evened { entries, done }.into()),
        (text(), slots(), option::of(keys())).prop_map(|(table, slot, after)| SlotListRequest {
            table,
            slot,
            after
        }
        .into()),
        (vec((keys(), any::<u64>()), 0..5), any::<bool>()).prop_map(|(items, more)| SlotList {
            items,
            more
        }
        .into()),
        (vec(member(), 0..4), any::<bool>()).prop_map(|(members, reply)| Exchange {
            members,
            reply
        }
        .into()),
        vec(any::<u8>(), 0..200).prop_map(|packet| Gossip { packet }.into()),
        vec(any::<u8>(), 0..200).prop_map(|packet| StreamGossip { packet }.into()),
        key_change().prop_map(|change| KeyOrder { change }.into()),
        key_ordered().prop_map(Message::from),
    ]
}

fn epoch_names() -> impl Strategy<Value = EpochName> + Clone {
    (versions(), any::<u64>()).prop_map(|(lineage, number)| EpochName { lineage, number })
}

fn epoch_configs() -> impl Strategy<Value = EpochConfig> + Clone {
    let homes = || vec(node_ids(), 0..4);
    let source = (epoch_names(), homes(), option::of(homes()))
        .prop_map(|(name, homes, written_off)| EpochSource { name, homes, written_off });
    (epoch_names(), homes(), vec(source, 0..3), vec(epoch_names(), 0..3))
        .prop_map(|(name, homes, sources, absorbed)| EpochConfig { name, homes, sources, absorbed })
}

fn epoch_ballots() -> impl Strategy<Value = EpochBallot> + Clone {
    (any::<u64>(), node_ids()).prop_map(|(round, node)| EpochBallot { round, node })
}

fn epoch_successors() -> impl Strategy<Value = EpochSuccessor> + Clone {
    prop_oneof![
        epoch_configs().prop_map(|config| EpochSuccessor::Next(Box::new(config))),
        epoch_names().prop_map(EpochSuccessor::Ended),
    ]
}

fn epoch_steps() -> impl Strategy<Value = EpochStep> {
    prop_oneof![
        option::of(epoch_names()).prop_map(EpochStep::Meet),
        epoch_configs().prop_map(|config| EpochStep::Learn(Box::new(config))),
        epoch_names().prop_map(EpochStep::Testify),
        (epoch_names(), epoch_ballots())
            .prop_map(|(under, ballot)| EpochStep::Prepare { under, ballot }),
        (epoch_names(), epoch_ballots(), epoch_successors())
            .prop_map(|(under, ballot, successor)| EpochStep::Accept { under, ballot, successor }),
        (epoch_configs(), epoch_names())
            .prop_map(|(ended, into)| EpochStep::Absorb { ended: Box::new(ended), into }),
    ]
}

fn epoch_answers() -> impl Strategy<Value = EpochAnswer> {
    let standings = || {
        prop_oneof![
            Just(EpochStanding::Outside),
            Just(EpochStanding::Fresh),
            Just(EpochStanding::Ready),
            Just(EpochStanding::Lost),
            Just(EpochStanding::Blank),
            Just(EpochStanding::HandedOver),
        ]
    };
    let before = option::of((any::<u8>(), standings()));
    let accepted = option::of((epoch_ballots(), epoch_successors()).prop_map(Box::new));
    prop_oneof![
        Just(EpochAnswer::Agrees),
        option::of(epoch_configs().prop_map(Box::new)).prop_map(EpochAnswer::Knows),
        (epoch_names(), standings(), before, versions()).prop_map(
            |(under, here, before, floor)| EpochAnswer::Testimony { under, here, before, floor }
        ),
        (epoch_names(), epoch_ballots(), accepted).prop_map(|(under, ballot, accepted)| {
            EpochAnswer::Promise { under, ballot, accepted }
        }),
        (epoch_names(), epoch_ballots())
            .prop_map(|(under, ballot)| EpochAnswer::Accepted { under, ballot }),
        epoch_ballots().prop_map(EpochAnswer::Outbid),
        Just(EpochAnswer::Refused),
    ]
}

fn key_change() -> impl Strategy<Value = KeyChange> {
    prop_oneof![
        Just(KeyChange::List),
        text().prop_map(|text| KeyChange::Install(KeyText(text))),
        any::<u32>().prop_map(KeyChange::Use),
        any::<u32>().prop_map(KeyChange::Remove),
    ]
}

fn key_ordered() -> impl Strategy<Value = KeyOrdered> {
    let held = (any::<u32>(), option::of(roles())).prop_map(|(id, role)| HeldKey { id, role });
    prop_oneof![
        (vec(held, 0..4), any::<u32>())
            .prop_map(|(keys, in_use)| KeyOrdered::Done { keys, in_use }),
        text().prop_map(KeyOrdered::Refused),
        text().prop_map(KeyOrdered::Silent),
    ]
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

pub(crate) fn keys() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 1..=255).prop_map(|bytes| Key::new(bytes).expect("1 to 255 bytes are a key"))
}

fn slots() -> impl Strategy<Value = Slot> {
    (0..crate::SLOT_COUNT).prop_map(|index| Slot::new(index).expect("below 16384"))
}

fn addrs() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|addr| SocketAddr::new(addr.ip(), addr.port()))
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (any::<u8>(), vec(any::<u8>(), 0..=OWNER_BYTES_MAX))
        .prop_map(|(replicas, owner)| Attributes { replicas, owner })
}

fn values() -> impl Strategy<Value = Value> {
    let fields = || btree_map(names(), vec(any::<u8>(), 0..50), 0..4);
    prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
        fields().prop_map(Value::Map),
        fields().prop_map(Value::Set),
        fields().prop_map(Value::SortedSet),
    ]
}
