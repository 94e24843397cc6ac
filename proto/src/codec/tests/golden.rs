//! One payload of every kind, and of every variant that a kind can carry, as bytes. Peers of other
//! builds read and write the same: never change a line, only add.

use crate::arbitrary::version;
use crate::message::*;
use crate::{
    Attributes, Entry, Hlc, Key, Load, Member, NodeId, Note, Replaced, Rtt, Slot, SlotSet, Status,
    Value, Version,
};

pub(super) fn golden() -> Vec<(Message, &'static str)> {
    vec![
        (
            Hello {
                cluster: "shop".into(),
                caller: Caller::Client { client: 7, role: Role::Worker },
                software: "app 1".into(),
            }
            .into(),
            "0473686f70000702056170702031",
        ),
        (
            Hello {
                cluster: "shop".into(),
                caller: Caller::Node { id: node(0xa1), incarnation: 300 },
                software: String::new(),
            }
            .into(),
            "0473686f7001a1fb2c0100",
        ),
        (
            Welcome {
                node: node(0xa1),
                incarnation: 300,
                name: "n1".into(),
                host: "h".into(),
                segments: vec![Segment {
                    table: "sessions".into(),
                    path: "/dev/shm/a".into(),
                    instance: 70_000,
                }],
                local_socket: "/run/a".into(),
                software: "annulus 0".into(),
            }
            .into(),
            "a1fb2c01026e310168010873657373696f6e730a2f6465762f73686d2f61fc70110100062f72756e2f6109616e6e756c75732030",
        ),
        (Rejected::WrongCluster { asked: "shop".into() }.into(), "000473686f70"),
        (Rejected::WrongVersion { ours: 1, theirs: 255 }.into(), "0101ff"),
        (Rejected::TooManyConnections { limit: 1_000 }.into(), "02fbe803"),
        (Rejected::Malformed { why: "no".into() }.into(), "03026e6f"),
        (Rejected::NodeIdInUse { id: node(0xa1), addr: v4() }.into(), "04a1007f000001fbe81c"),
        (Rejected::AskOverStream.into(), "05"),
        (Rejected::NoLane { why: "no".into() }.into(), "06026e6f"),
        (
            Rejected::RoleNotGranted { asked: Role::Authority, granted: Role::Worker }.into(),
            "070102",
        ),
        (
            Rejected::NotWithThisKey { asked: "node".into(), key: "worker".into() }.into(),
            "08046e6f646506776f726b6572",
        ),
        (Ping {}.into(), ""),
        (Pong { node: node(0xa1a2_a3a4_a5a6) }.into(), "fda6a5a4a3a2a10000"),
        (
            request(Operation::Start {
                value: Value::Bytes(b"ada".to_vec()),
                lifetimes: Lifetimes { idle_ms: Some(1_800_000), lifetime_ms: None },
                attributes: Attributes { replicas: 0, owner: b"u1".to_vec() },
            }),
            "0873657373696f6e7306733363726574070100fbd00700000361646101fc40771b000000027531",
        ),
        (
            request(Operation::Start {
                value: map(),
                lifetimes: Lifetimes::default(),
                attributes: Attributes::default(),
            }),
            "0873657373696f6e7306733363726574070100fbd0070001020463617274013304757365720361646100000000",
        ),
        (request(Operation::Get), "0873657373696f6e7306733363726574070100fbd00701"),
        (
            request(Operation::Update {
                birth: Some(birth()),
                change: Change::Value(Value::Bytes(Vec::new())),
            }),
            "0873657373696f6e7306733363726574070100fbd0070201fd0000006c50c4a001a1000000",
        ),
        (
            request(Operation::Update {
                birth: None,
                change: Change::Fields {
                    set: [(b"a".to_vec(), b"1".to_vec())].into(),
                    delete: vec![b"b".to_vec()],
                },
            }),
            "0873657373696f6e7306733363726574070100fbd0070200010101610131010162",
        ),
        (
            request(Operation::Update {
                birth: None,
                change: Change::Lifetimes(Lifetimes { idle_ms: Some(0), lifetime_ms: Some(1) }),
            }),
            "0873657373696f6e7306733363726574070100fbd00702000201000101",
        ),
        (
            request(Operation::Update { birth: None, change: Change::Pin(Some(node(0xa1))) }),
            "0873657373696f6e7306733363726574070100fbd00702000301a1",
        ),
        (
            request(Operation::Update { birth: None, change: Change::Pin(None) }),
            "0873657373696f6e7306733363726574070100fbd00702000300",
        ),
        (
            request(Operation::Touch { birth: Some(birth()) }),
            "0873657373696f6e7306733363726574070100fbd0070301fd0000006c50c4a001a1",
        ),
        (
            request(Operation::End { birth: None }),
            "0873657373696f6e7306733363726574070100fbd0070400",
        ),
        (
            request(Operation::UpdateIf {
                version: later(),
                change: Change::Value(Value::Bytes(b"ada".to_vec())),
            }),
            "0873657373696f6e7306733363726574070100fbd00705fd0100056c50c4a001fda6a5a4a3a2a10000000003616461",
        ),
        (
            request(Operation::StartIfAbsent {
                value: Value::Bytes(b"ada".to_vec()),
                lifetimes: Lifetimes::default(),
                attributes: Attributes::default(),
            }),
            "0873657373696f6e7306733363726574070100fbd00706000361646100000000",
        ),
        (
            request(Operation::EndIf { version: later() }),
            "0873657373696f6e7306733363726574070100fbd00707fd0100056c50c4a001fda6a5a4a3a2a10000",
        ),
        (
            request(Operation::StartInstead {
                replaced: Replaced { word: 300, birth: birth() },
                value: Value::Bytes(b"v".to_vec()),
                idle: 60_000,
                expire_at: 0,
                attributes: Attributes::default(),
            }),
            "0873657373696f6e7306733363726574070100fbd00708fb2c01fd0000006c50c4a001a1000176fb60ea000000",
        ),
        (
            request(Operation::Put {
                value: Value::Bytes(b"v".to_vec()),
                lifetimes: Lifetimes { idle_ms: Some(0), lifetime_ms: Some(60_000) },
                keeps_lifetimes: false,
                after_end: true,
            }),
            "0873657373696f6e7306733363726574070100fbd00709000176010001fb60ea0001",
        ),
        (
            request(Operation::UpdateFieldsIf {
                birth: birth(),
                expected: [(b"a".to_vec(), Some(300)), (b"b".to_vec(), None)].into(),
                is_all: false,
                set: [(b"a".to_vec(), b"1".to_vec())].into(),
                delete: vec![b"c".to_vec()],
                deadlines: [(b"a".to_vec(), 300)].into(),
                lifetimes: None,
                ends_empty: true,
            }),
            "0873657373696f6e7306733363726574070100fbd0070afd0000006c50c4a001a102016101fb2c01016200000101610131010163010161fb2c010001",
        ),
        (
            request(Operation::UpdateIf {
                version: later(),
                change: Change::Whole(Value::Bytes(b"v".to_vec()), Lifetimes::default()),
            }),
            "0873657373696f6e7306733363726574070100fbd00705fd0100056c50c4a001fda6a5a4a3a2a10000040001760000",
        ),
        (
            SessionReply::Session(Session {
                birth: birth(),
                version: later(),
                deadline: 1_790_000_001_000,
                touched: 1_790_000_000_000,
                idle: 60_000,
                expire_at: 0,
                attributes: Attributes::default(),
                pin: Some(node(0xa2)),
                value: map(),
                field_deadlines: [(b"a".to_vec(), 300)].into(),
            })
            .into(),
            "00fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000fde86f50c4a0010000fd006c50c4a0010000fb60ea00000001a2010204636172740133047573657203616461010161fb2c01",
        ),
        (
            SessionReply::Acknowledged(Acknowledged {
                birth: birth(),
                version: later(),
                held_by: 2,
                homes: 3,
            })
            .into(),
            "01fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a100000203",
        ),
        (SessionReply::Failed(Failure::Absent).into(), "0200"),
        (SessionReply::Failed(Failure::Ended).into(), "0201"),
        (SessionReply::Failed(Failure::Expired).into(), "0202"),
        (
            SessionReply::Failed(Failure::Unavailable { answered: 1, needed: 2, homes: 3 }).into(),
            "0203010203",
        ),
        (
            SessionReply::Failed(Failure::TooLarge { size: 70_000, limit: 65_536 }).into(),
            "0204fc70110100fc00000100",
        ),
        (SessionReply::Failed(Failure::TableFull { node: node(0xa1) }).into(), "0205a1"),
        (SessionReply::Failed(Failure::Refused("no".into())).into(), "0206026e6f"),
        (SessionReply::Failed(Failure::TimedOut).into(), "0207"),
        (
            SessionReply::Failed(Failure::Conflict { version: later() }).into(),
            "0208fd0100056c50c4a001fda6a5a4a3a2a10000",
        ),
        (SessionReply::Failed(Failure::SlowDown { retry_after_ms: 300 }).into(), "0209fb2c01"),
        (
            ExplainRequest { table: "t".into(), key: key(), ask_homes: true }.into(),
            "01740673336372657401",
        ),
        (
            Explanation {
                slot: slot(),
                view: 9,
                node: node(0xa1),
                served_from: Served::HomesWhileSyncing,
                homes: vec![
                    copy(CopyState::NotAsked),
                    copy(CopyState::Silent),
                    copy(CopyState::Absent { synced: true }),
                    copy(CopyState::Held {
                        birth: birth(),
                        version: later(),
                        ended: false,
                        expired: true,
                        touched: 5,
                        deadline: 6,
                        size: 7,
                    }),
                ],
                extra: vec![copy(CopyState::Silent)],
                pin: Some(node(0xa1)),
            }
            .into(),
            "fbea1709a10104a1026e31007f000001fbe81c00a1026e31007f000001fbe81c01a1026e31007f000001fbe81c0201a1026e31007f000001fbe81c03fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000000105060701a1026e31007f000001fbe81c0101a1",
        ),
        (
            Explanation {
                slot: slot(),
                view: 9,
                node: node(0xa1),
                served_from: Served::Memory,
                homes: vec![copy(CopyState::Moved { ring: 1 })],
                extra: Vec::new(),
                pin: None,
            }
            .into(),
            "fbea1709a10001a1026e31007f000001fbe81c04010000",
        ),
        (ListRequest { table: "t".into(), cursor: 251, limit: 100 }.into(), "0174fbfb0064"),
        (
            List {
                entries: vec![Listed {
                    key: key(),
                    birth: birth(),
                    version: later(),
                    touched: 5,
                    deadline: 0,
                    size: 3,
                }],
                next: 65_536,
            }
            .into(),
            "0106733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000050003fc00000100",
        ),
        (RoutesRequest {}.into(), ""),
        (
            Routes {
                view: 9,
                nodes: vec![
                    RouteNode { id: node(0xa1), name: "n1".into(), addr: v4() },
                    RouteNode { id: node(0xa2), name: "n2".into(), addr: v6() },
                ],
                homes_per_slot: 2,
                homes: vec![0, 1, 1, 0],
            }
            .into(),
            "0902a1026e31007f000001fbe81ca2026e320100000000000000000000000000000001fbe81c020400010100",
        ),
        (StatusRequest {}.into(), ""),
        (
            NodeStatus {
                cluster: "shop".into(),
                member: member(),
                software: "annulus 0".into(),
                uptime_ms: 1_000,
                view: 9,
                active_members: 3,
                agreeing_members: 2,
                tables: vec![TableStatus {
                    name: "t".into(),
                    entries: 1,
                    capacity: 2,
                    bytes: 3,
                    segment_bytes: 4,
                    huge_bytes: 5,
                    reserve_used: 6,
                    slots_home: 7,
                    slots_unsynced: 8,
                    slots_leaving: 12,
                    slots_short: 13,
                    slots_undecided: 14,
                    hints: 9,
                    replicas: 10,
                    write_homes: 11,
                    members_lacking: 15,
                }],
                counters: vec![("reads".into(), 12)],
                unknown_commands: vec![("zadd".into(), 16)],
            }
            .into(),
            "0473686f70a1fc803bb16a0202007f000001fbe81c026e31017a640101007f000001fbe81cfafbfb00fbe80309616e6e756c75732030fbe80309030201017401020304050607080c0d0e090a0b0f010572656164730c01047a61646410",
        ),
        (MembersRequest {}.into(), ""),
        (
            Members { node: node(0xa1), view: 9, members: vec![member()] }.into(),
            "a10901a1fc803bb16a0202007f000001fbe81c026e31017a640101007f000001fbe81cfafbfb00fbe803",
        ),
        (LaneRequest {}.into(), ""),
        (
            LaneGranted { lane: 300, tables: vec!["sessions".into()] }.into(),
            "fb2c01010873657373696f6e73",
        ),
        (KeysRequest { change: KeyChange::List, force: false }.into(), "0000"),
        (
            KeysRequest { change: KeyChange::Install(KeyText("k".into())), force: true }.into(),
            "01016b01",
        ),
        (
            KeysReport {
                refused: "no".into(),
                nodes: vec![NodeKeys {
                    node: node(0xa1),
                    name: "n1".into(),
                    status: Status::Up,
                    keys: KeyOrdered::Silent("late".into()),
                }],
            }
            .into(),
            "026e6f01a1026e310102046c617465",
        ),
        (PeersRequest {}.into(), ""),
        (
            Peers {
                node: node(0xa1),
                view: 9,
                local_health: 1,
                peers: vec![
                    Peer {
                        node: node(0xa2),
                        state: PeerState::Suspected,
                        view: 9,
                        rtt: Some(Rtt { smoothed_us: 700, variation_us: 90, samples: 8 }),
                    },
                    Peer { node: node(0xa3), state: PeerState::Left, view: 0, rtt: None },
                ],
            }
            .into(),
            "a1090102a2010901fbbc025a08a3050000",
        ),
        (Order::SyncNow.into(), "00"),
        (Order::Drain.into(), "01"),
        (Order::StopDraining.into(), "02"),
        (Order::Remove { node: node(0xa1), accept_loss: true }.into(), "03a101"),
        (Order::Weigh(Some(300)).into(), "0401fb2c01"),
        (Order::Weigh(None).into(), "0400"),
        (Ordered::Done.into(), "00"),
        (Ordered::Refused("no".into()).into(), "01026e6f"),
        (SafetyRequest {}.into(), ""),
        (Safety { reasons: vec!["n1".into()] }.into(), "01026e31"),
        (EventsRequest { after: 7 }.into(), "07"),
        (
            events().into(),
            "a1fb2c010801fb2c0100a1026e31fb2c010102fb2c0101090303fb2c010201741004fb2c010301741005fb2c010401741006fb2c010501741007fb2c010605647261696e08fb2c010701741001",
        ),
        (
            Replicate {
                table: "t".into(),
                key: key(),
                entry: entry(),
                fresh: Fresh::No,
                under: None,
            }
            .into(),
            "017406733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a1000001fd0000006c50c4a001a10100020463617274fd0100056c50c4a001fda6a5a4a3a2a1000000000475736572fd0000006c50c4a001a1010361646100fd0000006c50c4a001a1fc40771b00fda0275ec4a0010000fd006c50c4a0010000020275310101fd0000006c50c4a001a101090000",
        ),
        (
            Replicate {
                table: "t".into(),
                key: key(),
                entry: Entry::ended(birth(), later()),
                fresh: Fresh::Yes,
                under: Some(epoch()),
            }
            .into(),
            "017406733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000000101fd0000006c50c4a001a102",
        ),
        (
            Replicate {
                table: "t".into(),
                key: key(),
                entry: Entry::ended(birth(), later()),
                fresh: Fresh::By(later()),
                under: None,
            }
            .into(),
            "017406733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a100000002fd0100056c50c4a001fda6a5a4a3a2a1000000",
        ),
        (
            TouchCopy {
                table: "t".into(),
                key: key(),
                birth: birth(),
                version: later(),
                touched: 1_790_000_000_000,
                under: Some(epoch()),
            }
            .into(),
            "017406733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000fd006c50c4a001000001fd0000006c50c4a001a102",
        ),
        (Replicated::Stored.into(), "00"),
        (
            Replicated::Differs(entry()).into(),
            "01fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a1000001fd0000006c50c4a001a10100020463617274fd0100056c50c4a001fda6a5a4a3a2a1000000000475736572fd0000006c50c4a001a1010361646100fd0000006c50c4a001a1fc40771b00fda0275ec4a0010000fd006c50c4a0010000020275310101fd0000006c50c4a001a10109",
        ),
        (Replicated::Missing.into(), "02"),
        (Replicated::NoHome.into(), "05"),
        (Replicated::OtherEpoch.into(), "06"),
        (Replicated::Failed(Failure::Absent).into(), "0300"),
        (
            Replicated::Promised { floor: later(), stored: true }.into(),
            "04fd0100056c50c4a001fda6a5a4a3a2a1000001",
        ),
        (Fetch { table: "t".into(), key: key(), under: None }.into(), "01740673336372657400"),
        (
            Fetch { table: "t".into(), key: key(), under: Some(epoch()) }.into(),
            "01740673336372657401fd0000006c50c4a001a102",
        ),
        (Fetched { entry: None, synced: true, other_epoch: false }.into(), "000100"),
        (
            Fetched { entry: Some(entry()), synced: false, other_epoch: true }.into(),
            "01fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a1000001fd0000006c50c4a001a10100020463617274fd0100056c50c4a001fda6a5a4a3a2a1000000000475736572fd0000006c50c4a001a1010361646100fd0000006c50c4a001a1fc40771b00fda0275ec4a0010000fd006c50c4a0010000020275310101fd0000006c50c4a001a101090001",
        ),
        (
            SlotListRequest { table: "t".into(), slot: slot(), after: Some(key()) }.into(),
            "0174fbea170106733363726574",
        ),
        (SlotListRequest { table: "t".into(), slot: slot(), after: None }.into(), "0174fbea1700"),
        (SlotList { items: vec![(key(), 258)], more: true }.into(), "0106733363726574fb020101"),
        (
            Exchange { members: vec![member()], reply: true }.into(),
            "01a1fc803bb16a0202007f000001fbe81c026e31017a640101007f000001fbe81cfafbfb00fbe80301",
        ),
        (KeyOrder { change: KeyChange::Use(258) }.into(), "02fb0201"),
        (KeyOrder { change: KeyChange::Remove(258) }.into(), "03fb0201"),
        (
            KeyOrdered::Done {
                keys: vec![
                    HeldKey { id: 258, role: None },
                    HeldKey { id: 7, role: Some(Role::Operator) },
                ],
                in_use: 258,
            }
            .into(),
            "0002fb020100070104fb0201",
        ),
        (KeyOrdered::Refused("no".into()).into(), "01026e6f"),
        (Gossip { packet: vec![1, 2, 3] }.into(), "03010203"),
        (StreamGossip { packet: vec![1, 2, 3] }.into(), "03010203"),
        (
            Compare {
                table: "t".into(),
                cut_ms: 258,
                slots: SlotSet { stride: 3, offset: 1, runs: vec![(0, 16), (32, 258)] },
                symbol: [7; SYMBOL_BYTES],
            }
            .into(),
            "0174fb0201030102001020fb02010707070707070707070707070707070707070707070707070707",
        ),
        (Compared { cores: 2, difference: ComparedDifference::None }.into(), "0200"),
        (
            Compared { cores: 2, difference: ComparedDifference::One { key: [9; 8] } }.into(),
            "02010909090909090909",
        ),
        (
            Compared { cores: 1, difference: ComparedDifference::More { sketch: vec![1, 2, 3] } }
                .into(),
            "010203010203",
        ),
        (
            SketchRequest {
                table: "t".into(),
                cut_ms: 0,
                slots: SlotSet { stride: 1, offset: 0, runs: vec![(258, 3)] },
                sizes: vec![1, 2],
                symbols: 16,
            }
            .into(),
            "017400010001fb02010302010210",
        ),
        (Sketches { sketches: vec![1, 2] }.into(), "020102"),
        (
            Even {
                table: "t".into(),
                wanted: vec![[1, 2, 3, 4, 5, 6, 7, 8]],
                entries: vec![(key(), Entry::ended(Version::ZERO, Version::ZERO))],
            }
            .into(),
            "017401010203040506070801067333637265740000000000",
        ),
        (Evened { entries: Vec::new(), done: 3 }.into(), "0003"),
        (
            Prepare { table: "t".into(), key: key(), ballot: later(), under: epoch() }.into(),
            "017406733363726574fd0100056c50c4a001fda6a5a4a3a2a10000fd0000006c50c4a001a102",
        ),
        (
            Promised {
                floor: later(),
                counts: true,
                other_epoch: false,
                others: birth(),
                entry: Some(Entry::ended(birth(), later())),
            }
            .into(),
            "fd0100056c50c4a001fda6a5a4a3a2a100000100fd0000006c50c4a001a101fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a1000000",
        ),
        (
            Offer { table: "t".into(), slot: slot(), incarnation: 300, counter: 7 }.into(),
            "0174fbea17fb2c0107",
        ),
        (OfferAnswer { given: true, incarnation: 300 }.into(), "01fb2c01"),
        (step(EpochStep::Meet(None)), "01740103000100020000"),
        (step(EpochStep::Meet(Some(epoch()))), "01740103000100020001fd0000006c50c4a001a102"),
        (
            step(EpochStep::Learn(config())),
            "017401030001000201fd0000006c50c4a001a10202a1fda6a5a4a3a2a1000001fd0000006c50c4a001a10101a10101a101fd0100056c50c4a001fda6a5a4a3a2a1000003",
        ),
        (step(EpochStep::Testify(epoch())), "017401030001000202fd0000006c50c4a001a102"),
        (
            step(EpochStep::Prepare { under: epoch(), ballot: ballot() }),
            "017401030001000203fd0000006c50c4a001a10207a1",
        ),
        (
            step(EpochStep::Accept {
                under: epoch(),
                ballot: ballot(),
                successor: EpochSuccessor::Next(config()),
            }),
            "017401030001000204fd0000006c50c4a001a10207a100fd0000006c50c4a001a10202a1fda6a5a4a3a2a1000001fd0000006c50c4a001a10101a10101a101fd0100056c50c4a001fda6a5a4a3a2a1000003",
        ),
        (
            step(EpochStep::Accept {
                under: epoch(),
                ballot: ballot(),
                successor: EpochSuccessor::Ended(epoch()),
            }),
            "017401030001000204fd0000006c50c4a001a10207a101fd0000006c50c4a001a102",
        ),
        (
            step(EpochStep::Absorb { ended: config(), into: epoch() }),
            "017401030001000205fd0000006c50c4a001a10202a1fda6a5a4a3a2a1000001fd0000006c50c4a001a10101a10101a101fd0100056c50c4a001fda6a5a4a3a2a1000003fd0000006c50c4a001a102",
        ),
        (answer(EpochAnswer::Agrees), "01030001000200"),
        (answer(EpochAnswer::Knows(None)), "0103000100020100"),
        (
            answer(EpochAnswer::Knows(Some(config()))),
            "0103000100020101fd0000006c50c4a001a10202a1fda6a5a4a3a2a1000001fd0000006c50c4a001a10101a10101a101fd0100056c50c4a001fda6a5a4a3a2a1000003",
        ),
        (
            answer(EpochAnswer::Testimony {
                under: epoch(),
                here: EpochStanding::Fresh,
                before: Some((1, EpochStanding::Ready)),
                floor: birth(),
            }),
            "01030001000202fd0000006c50c4a001a10201010102fd0000006c50c4a001a1",
        ),
        (
            answer(EpochAnswer::Promise { under: epoch(), ballot: ballot(), accepted: None }),
            "01030001000203fd0000006c50c4a001a10207a100",
        ),
        (
            answer(EpochAnswer::Promise {
                under: epoch(),
                ballot: ballot(),
                accepted: Some(Box::new((ballot(), EpochSuccessor::Ended(epoch())))),
            }),
            "01030001000203fd0000006c50c4a001a10207a10107a101fd0000006c50c4a001a102",
        ),
        (
            answer(EpochAnswer::Accepted { under: epoch(), ballot: ballot() }),
            "01030001000204fd0000006c50c4a001a10207a1",
        ),
        (answer(EpochAnswer::Outbid(ballot())), "0103000100020507a1"),
        (answer(EpochAnswer::Refused), "01030001000206"),
        (
            CheckCopy { table: "t".into(), key: key(), digest: 258 }.into(),
            "017406733363726574fb0201",
        ),
        (LoadRequest {}.into(), ""),
        (load().into(), "01fa01fd0000000002000000000101"),
        (RankRequest { affinity: Affinity::Cpu }.into(), "00"),
        (RankRequest { affinity: Affinity::Memory }.into(), "01"),
        (RankRequest { affinity: Affinity::Io }.into(), "02"),
        (RankRequest { affinity: Affinity::Network }.into(), "03"),
        (Ranked { nodes: vec![(node(0xa1), load())] }.into(), "01a101fa01fd0000000002000000000101"),
        (
            PinnedRequest { table: "t".into(), to: node(0xa1), core: 1, after: Some(key()) }.into(),
            "0174a1010106733363726574",
        ),
        (
            Pinned { sessions: vec![(key(), birth(), 3)], next: Some((1, None)) }.into(),
            "0106733363726574fd0000006c50c4a001a103010100",
        ),
        (
            PlanRequest {
                weights: vec![(node(0xa1), 300)],
                without: vec![node(0xa2)],
                zones: vec![(node(0xa3), "z".into())],
            }
            .into(),
            "01a1fb2c0101a201a3017a",
        ),
        (HeatRequest { table: "t".into(), keys: vec![key()] }.into(), "01740106733363726574"),
        (Heat { cores: 2, levels: vec![-300, 1] }.into(), "0202fb570202"),
        (
            SetHello {
                set: "t".into(),
                slots: 64,
                replicas: 2,
                incarnation: 300,
                revision: 7,
                failed: numbers(&[3, 4]),
            }
            .into(),
            "01744002fb2c01070100010302",
        ),
        (SetNoted { noted: true }.into(), "01"),
        (
            HeldRequest { set: "t".into(), revision: 7, slots: numbers(&[0, 1, 5]) }.into(),
            "01740701000200020301",
        ),
        (Held { held: numbers(&[0]), unsure: numbers(&[]) }.into(), "0100010001010000"),
        (
            SetOffer { set: "t".into(), slot: 5, incarnation: 300, counter: 7 }.into(),
            "017405fb2c0107",
        ),
        (Burning { table: "t".into(), key: key(), heat: 300 }.into(), "017406733363726574fb2c01"),
        (Burned { left_ms: 300 }.into(), "fb2c01"),
        (SuspectsRequest { table: "t".into(), core: 1, after: Some(300) }.into(), "01740101fb2c01"),
        (
            Suspects {
                suspects: vec![Suspect {
                    word: 300,
                    birth: birth(),
                    judged: later(),
                    until: 70_000,
                    left_ms: 9,
                    heat: 5,
                    owner: b"u1".to_vec(),
                }],
                next: Some((1, None)),
            }
            .into(),
            "01fb2c01fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000fc701101000905027531010100",
        ),
        (judge(Sentence::Release { for_ms: 300 }), "0174fb2c01fd0000006c50c4a001a10900fb2c01"),
        (judge(Sentence::End), "0174fb2c01fd0000006c50c4a001a10901"),
        (
            OwnedRequest { table: "t".into(), owner: b"u1".to_vec(), place: place() }.into(),
            "0174027531010201fb2c01",
        ),
        (
            Owned {
                sessions: vec![OwnedSession {
                    listed: Listed {
                        key: key(),
                        birth: birth(),
                        version: later(),
                        touched: 70_000,
                        deadline: 0,
                        size: 9,
                    },
                    ring: 1,
                }],
                next: Some(OwnedPlace::default()),
                write_homes: 2,
            }
            .into(),
            "0106733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000fc701101000009010100000002",
        ),
        (
            Copies {
                table: "t".into(),
                entries: vec![(key(), Entry::ended(Version::ZERO, Version::ZERO))],
            }
            .into(),
            "017401067333637265740000000000",
        ),
        (
            CopiesTaken {
                cores: 2,
                done: 3,
                differing: vec![(1, Entry::ended(Version::ZERO, Version::ZERO))],
                refused: vec![(2, None)],
            }
            .into(),
            "020301010000000000010200",
        ),
        (
            WalkRequest { table: "t".into(), from: 300, limit: 10, is_whole: true }.into(),
            "0174fb2c010a01",
        ),
        (
            Walked {
                keys: vec![WalkedKey { key: key(), kind: crate::Kind::Bytes, lacking: 1 }],
                next: Some(70_000),
                silent: 1,
                write_homes: 2,
            }
            .into(),
            "0106733363726574000101fc701101000102",
        ),
        (
            Published { channel: b"c".into(), message: b"hi".into(), is_sharded: true }.into(),
            "016302686901",
        ),
        (
            Gone {
                table: "t".into(),
                sessions: vec![GoneSession {
                    key: key(),
                    birth: birth(),
                    version: birth(),
                    how: HowGone::Expired,
                }],
            }
            .into(),
            "01740106733363726574fd0000006c50c4a001a1fd0000006c50c4a001a101",
        ),
        (GoneNoted {}.into(), ""),
        (
            Rewrite {
                copy: Replicate {
                    table: "t".into(),
                    key: key(),
                    entry: Entry::ended(birth(), later()),
                    fresh: Fresh::Yes,
                    under: None,
                },
                same_as: birth(),
            }
            .into(),
            "017406733363726574fd0000006c50c4a001a1fd0100056c50c4a001fda6a5a4a3a2a10000000100fd0000006c50c4a001a1",
        ),
        (HottestRequest { table: "t".into(), core: 1, count: 10 }.into(), "0174010a"),
        (
            Hottest {
                sessions: vec![HotSession {
                    word: 300,
                    birth: birth(),
                    heat: 512,
                    touched: 70_000,
                }],
                next: Some(2),
            }
            .into(),
            "01fb2c01fd0000006c50c4a001a1fb0002fc701101000102",
        ),
        (
            BeatRequest {
                table: "t".into(),
                after: Some(BeatPlace { run: 300, number: 7 }),
                slots: numbers(&[0, 1, 5]),
                uses: vec![(8, 2)],
            }
            .into(),
            "017401fb2c010701000200020301010802",
        ),
        (
            Beat {
                cores: 2,
                place: BeatPlace { run: 300, number: 9 },
                is_whole: true,
                changed: vec![(300, 5), (6, 0)],
                unsure: numbers(&[3]),
            }
            .into(),
            "02fb2c01090102fb2c010506000100010301",
        ),
        (OverlapRequest { table: "t".into(), keys: vec![key()] }.into(), "01740106733363726574"),
        (Overlap { cores: 2, held: vec![key()] }.into(), "020106733363726574"),
    ]
}

fn place() -> OwnedPlace {
    OwnedPlace { core: 1, ring: 2, after: Some(300) }
}

fn judge(sentence: Sentence) -> Message {
    Judge { table: "t".into(), word: 300, birth: birth(), patience_ms: 9, sentence }.into()
}

pub(super) fn request(operation: Operation) -> Message {
    let request = RequestId { client: 7, sequence: 1 };
    let (table, key) = ("sessions".into(), key());
    SessionRequest { table, key, request, hops: 0, patience_ms: 2_000, operation }.into()
}

fn epoch() -> EpochName {
    EpochName { lineage: birth(), number: 2 }
}

fn ballot() -> EpochBallot {
    EpochBallot { round: 7, node: node(0xa1) }
}

fn config() -> Box<EpochConfig> {
    let name = EpochName { lineage: birth(), number: 1 };
    let (homes, written_off) = (vec![node(0xa1)], Some(vec![node(0xa1)]));
    let source = EpochSource { name, homes, written_off };
    let absorbed = vec![EpochName { lineage: later(), number: 3 }];
    let homes = vec![node(0xa1), node(0xa1a2_a3a4_a5a6)];
    Box::new(EpochConfig { name: epoch(), homes, sources: vec![source], absorbed })
}

fn some_slots() -> SlotSet {
    SlotSet { stride: 3, offset: 0, runs: vec![(0, 2)] }
}

fn step(step: EpochStep) -> Message {
    Epochs { table: "t".into(), steps: vec![(some_slots(), step)] }.into()
}

fn answer(answer: EpochAnswer) -> Message {
    EpochsAnswer { answers: vec![(some_slots(), answer)] }.into()
}

fn key() -> Key {
    Key::new("s3cret").expect("six bytes are a key")
}

fn numbers(numbers: &[u16]) -> SlotSet {
    let slots: Vec<Slot> = numbers.iter().filter_map(|number| Slot::new(*number)).collect();
    SlotSet::new(&slots, 1)
}

fn slot() -> Slot {
    key().slot()
}

fn node(bits: u64) -> NodeId {
    NodeId::from_bits(bits)
}

fn birth() -> Version {
    version(1_790_000_000_000, 0xa1)
}

fn later() -> Version {
    Version::new(Hlc::from_ms(1_790_000_000_005).next(), node(0xa1a2_a3a4_a5a6))
}

fn v4() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 7400).into()
}

fn v6() -> std::net::SocketAddr {
    (std::net::Ipv6Addr::LOCALHOST, 7400).into()
}

fn map() -> Value {
    Value::Map([(b"cart".to_vec(), b"3".to_vec()), (b"user".to_vec(), b"ada".to_vec())].into())
}

fn entry() -> Entry {
    let attributes = Attributes { replicas: 2, owner: b"u1".to_vec() };
    let lease = (1_800_000, 1_790_000_900_000);
    let mut entry = Entry::start(birth(), map(), lease, attributes, 1_790_000_000_000);
    entry.write_field(later(), b"cart".to_vec(), None);
    let body = entry.body.as_mut().expect("it has not ended");
    body.notes.insert(1, Note { version: birth(), bytes: vec![9] });
    entry
}

fn load() -> HostLoad {
    HostLoad {
        cpu_permille: Some(250),
        memory_free: Some(8 << 30),
        io_permille: None,
        network_bytes: Some(1),
    }
}

fn events() -> Events {
    let table = || "t".to_owned();
    let happened = [
        Happened::Member {
            node: node(0xa1),
            name: "n1".into(),
            incarnation: 300,
            status: Status::Up,
        },
        Happened::View { digest: 9, active: 3 },
        Happened::SlotsTakenUp { table: table(), slots: 16 },
        Happened::Synced { table: table(), slots: 16 },
        Happened::SlotsLeaving { table: table(), slots: 16 },
        Happened::SlotsGivenUp { table: table(), slots: 16 },
        Happened::Ordered { order: "drain".into() },
        Happened::EpochsDecided { table: table(), slots: 16 },
    ];
    let event = |(number, what)| Event { number, at_ms: 300, what };
    let events = (1..).zip(happened).map(event).collect();
    Events { node: node(0xa1), incarnation: 300, events, forgotten: 1 }
}

fn member() -> Member {
    Member {
        id: node(0xa1),
        incarnation: 1_790_000_000,
        revision: 2,
        status: Status::Draining,
        addr: v4(),
        name: "n1".into(),
        zone: "z".into(),
        weight: 100,
        rings: 1,
        door: Some(v4()),
        load: Load { cpu_permille: 250, memory_permille: 251, sessions: 1_000 },
    }
}

fn copy(state: CopyState) -> Copy {
    Copy { node: node(0xa1), name: "n1".into(), addr: v4(), state }
}
