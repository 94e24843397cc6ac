//! The largest message of each kind that honest peers send, and collections of all sizes up to that:
//! what may be encoded must decode, under every rung of the memory limit's ladder.

use super::*;

const LATE: Version = Version::new(Hlc::from_bits(u64::MAX), NodeId::from_bits(u64::MAX));
const PLACE: OwnedPlace = OwnedPlace { core: u16::MAX, ring: u8::MAX, after: Some(u64::MAX) };
const SIZES: [usize; 14] = [0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 300, 511, 1024, 4096];

#[track_caller]
fn passes(message: impl Into<Message>) {
    let message = message.into();
    let mut frame = Vec::new();
    encode_frame(HEADER, &message, &mut frame).unwrap();
    let (_, decoded) = decode_frame(&frame).unwrap_or_else(|error| panic!("{error}"));
    assert!(decoded == message, "{} changed on its way", message.name());
}

fn name(length: usize) -> String {
    "n".repeat(length)
}

fn table() -> String {
    name(NAME_BYTES_MAX)
}

fn key() -> Key {
    Key::new([0xff; KEY_BYTES_MAX]).unwrap()
}

fn addr() -> std::net::SocketAddr {
    (std::net::Ipv6Addr::from([0xff; 16]), u16::MAX).into()
}

fn epoch() -> EpochName {
    EpochName { lineage: LATE, number: u64::MAX }
}

/// Slots that all have epochs of their own, as many as fit, and one with as much history as may be.
#[test]
fn the_largest_epochs_pass() {
    let homes = || vec![LATE.node; REPLICAS_MAX];
    let source = EpochSource { name: epoch(), homes: homes(), written_off: Some(homes()) };
    let config = |sources: usize, absorbed: usize| {
        let (sources, absorbed) = (vec![source.clone(); sources], vec![epoch(); absorbed]);
        Box::new(EpochConfig { name: epoch(), homes: homes(), sources, absorbed })
    };
    let slots = || SlotSet { stride: u16::MAX, offset: u16::MAX, runs: vec![(u16::MAX, 1); 2] };
    let ballot = EpochBallot { round: u64::MAX, node: LATE.node };
    for (count, sources, absorbed) in [(0, 0, 0), (1, 64, 300), (16, 64, 300), (1_000, 1, 1)] {
        let successor = EpochSuccessor::Next(config(sources, absorbed));
        let accepted = Some(Box::new((ballot, successor.clone())));
        let step = EpochStep::Accept { under: epoch(), ballot, successor };
        passes(Epochs { table: table(), steps: vec![(slots(), step); count] });
        let answer = EpochAnswer::Promise { under: epoch(), ballot, accepted };
        passes(EpochsAnswer { answers: vec![(slots(), answer); count] });
    }
    passes(Epochs { table: table(), steps: vec![(slots(), EpochStep::Meet(None)); 16_384] });
    passes(EpochsAnswer { answers: vec![(slots(), EpochAnswer::Agrees); 16_384] });
}

fn attributes() -> Attributes {
    Attributes { replicas: u8::MAX, owner: vec![0xff; OWNER_BYTES_MAX] }
}

fn member() -> Member {
    Member {
        id: LATE.node,
        incarnation: u64::MAX,
        revision: u32::MAX,
        status: Status::Left,
        addr: addr(),
        name: name(NAME_BYTES_MAX),
        zone: name(NAME_BYTES_MAX),
        weight: u16::MAX,
        rings: u8::MAX,
        door: Some(addr()),
        load: Load { cpu_permille: u16::MAX, memory_permille: u16::MAX, sessions: u64::MAX },
    }
}

/// Values of exactly `size`: bytes, a map of many small fields, one of a few large ones.
fn values(size: usize) -> Vec<Value> {
    let map = |length: usize| {
        let mut fields = BTreeMap::new();
        loop {
            let name = fields.len().to_string().into_bytes();
            let field = Value::Map([(name.clone(), vec![0xff; length])].into());
            if Value::Map(fields.clone()).size() + field.size() > size {
                return Value::Map(fields);
            }
            fields.insert(name, vec![0xff; length]);
            // Counting anew each time is slow: jump as far as is safe.
            let rest = size - Value::Map(fields.clone()).size();
            for _ in 0..rest / (field.size() + 8) {
                fields.insert(fields.len().to_string().into_bytes(), vec![0xff; length]);
            }
        }
    };
    vec![Value::Bytes(vec![0xff; size]), map(0), map(1), map(size / 3)]
}

/// Entries whose parts have late versions and deadlines of their own, and whose size is at most
/// `size`, deleted fields included.
fn entries(size: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (value, deleted) in
        values(size).into_iter().flat_map(|value| [(value.clone(), false), (value, true)])
    {
        let lease = (u64::MAX, u64::MAX);
        let mut entry = Entry::start(LATE, value, lease, attributes(), u64::MAX);
        let body = entry.body.as_mut().unwrap();
        for field in body.fields.values_mut() {
            field.expire_at = Hlc::MS_MAX;
            if deleted {
                field.value = None;
            }
        }
        let note = Note { version: LATE, bytes: vec![0xff; NOTE_BYTES_MAX] };
        body.notes = (0..NOTES_MAX).map(|number| (255 - number as u8, note.clone())).collect();
        assert!(body.size() <= size);
        entries.push(entry);
    }
    entries
}

#[test]
fn the_largest_values_pass() {
    let request = RequestId { client: u64::MAX, sequence: u64::MAX };
    let session = |operation| SessionRequest {
        table: table(),
        key: key(),
        request,
        hops: u8::MAX,
        patience_ms: u32::MAX,
        operation,
    };
    let lifetimes = Lifetimes { idle_ms: Some(u64::MAX), lifetime_ms: Some(u64::MAX) };
    for size in [100, 1_000, 10_000, 64 << 10, 100_000, 400_000, 600_000, VALUE_BYTES_MAX] {
        for value in values(size) {
            let attributes = attributes();
            passes(session(Operation::Start { value: value.clone(), lifetimes, attributes }));
            passes(session(Operation::StartInstead {
                replaced: crate::Replaced { word: u64::MAX, birth: LATE },
                value: value.clone(),
                idle: u64::MAX,
                expire_at: u64::MAX,
                attributes: self::attributes(),
            }));
            passes(session(Operation::Put {
                value: value.clone(),
                lifetimes,
                keeps_lifetimes: true,
                after_end: true,
            }));
            let change = Change::Whole(value.clone(), lifetimes);
            passes(session(Operation::UpdateIf { version: LATE, change }));
            let change = Change::Value(value.clone());
            passes(session(Operation::Update { birth: Some(LATE), change: change.clone() }));
            passes(session(Operation::UpdateIf { version: LATE, change }));
            if let Value::Map(set) = &value {
                let delete = set.keys().cloned().collect();
                let change = Change::Fields { set: set.clone(), delete };
                passes(session(Operation::Update { birth: Some(LATE), change }));
                passes(session(Operation::UpdateFieldsIf {
                    birth: LATE,
                    expected: set.keys().map(|name| (name.clone(), Some(u64::MAX))).collect(),
                    is_all: true,
                    set: set.clone(),
                    delete: Vec::new(),
                    deadlines: set.keys().map(|name| (name.clone(), u64::MAX)).collect(),
                    lifetimes: Some(lifetimes),
                    ends_empty: true,
                }));
            }
            passes(SessionReply::Session(Session {
                birth: LATE,
                version: LATE,
                deadline: u64::MAX,
                touched: u64::MAX,
                idle: u64::MAX,
                expire_at: u64::MAX,
                attributes: self::attributes(),
                pin: Some(LATE.node),
                field_deadlines: match &value {
                    Value::Map(fields) => {
                        fields.keys().map(|name| (name.clone(), u64::MAX)).collect()
                    }
                    _ => Default::default(),
                },
                value,
            }));
        }
        for entry in entries(size) {
            let fresh = Fresh::By(LATE);
            let under = Some(epoch());
            passes(Replicate { table: table(), key: key(), entry: entry.clone(), fresh, under });
            let promised = Some(entry.clone());
            let (counts, other_epoch) = (true, true);
            passes(Promised { floor: LATE, counts, other_epoch, others: LATE, entry: promised });
            passes(Replicated::Differs(entry.clone()));
            passes(Fetched { entry: Some(entry.clone()), synced: true, other_epoch: true });
            let entries = vec![(key(), entry)];
            passes(Even { table: table(), wanted: vec![[0xff; 8]; 512], entries: entries.clone() });
            passes(Evened { entries: entries.clone(), done: u32::MAX });
            let differing = entries.iter().map(|(_, entry)| (u16::MAX, entry.clone())).collect();
            let refused = vec![(u16::MAX, None); Copies::ENTRIES_MAX];
            passes(CopiesTaken { cores: u16::MAX, done: u16::MAX, differing, refused });
            passes(Copies { table: table(), entries });
        }
    }
}

#[test]
fn the_longest_message_to_a_channel_passes() {
    let (channel, message) = (vec![0xff; CHANNEL_BYTES_MAX], vec![0xff; PUBLISHED_BYTES_MAX]);
    passes(Published { channel, message, is_sharded: true });
}

#[test]
fn the_most_sessions_that_are_gone_pass() {
    let session = GoneSession { key: key(), birth: LATE, version: LATE, how: HowGone::Evicted };
    passes(Gone { table: table(), sessions: vec![session; Gone::SESSIONS_MAX] });
}

#[test]
fn the_largest_fields_pass() {
    let names = (0..1_000u32).map(|at| {
        let mut name = vec![0xff; FIELD_NAME_BYTES_MAX - 80];
        name[..4].copy_from_slice(&at.to_be_bytes());
        (name, Vec::new())
    });
    let value = Value::Map(names.collect());
    assert!(value.size() <= VALUE_BYTES_MAX);
    let entry = Entry::start(LATE, value, (0, 0), attributes(), 0);
    let (fresh, under) = (Fresh::By(LATE), Some(epoch()));
    passes(Replicate { table: table(), key: key(), entry, fresh, under });
}

#[test]
fn the_largest_answers_to_operators_pass() {
    for count in SIZES.into_iter().filter(|&count| count <= Events::PAGE_MAX) {
        let (node, incarnation, status) = (LATE.node, u64::MAX, Status::Left);
        let what = Happened::Member { node, name: name(NAME_BYTES_MAX), incarnation, status };
        let event = Event { number: u64::MAX, at_ms: u64::MAX, what };
        let events = vec![event; count];
        passes(Events { node, incarnation, events, forgotten: u64::MAX });
    }
    passes(Safety { reasons: vec![name(512); Safety::REASONS_MAX] });
}

#[test]
fn the_largest_views_pass() {
    for count in SIZES.into_iter().filter(|&count| count <= MEMBERS_MAX) {
        let members = vec![member(); count];
        passes(Exchange { members: members.clone(), reply: true });
        passes(Members { node: LATE.node, view: u64::MAX, members });
        let rtt = Rtt { smoothed_us: u32::MAX, variation_us: u32::MAX, samples: u32::MAX };
        let (view, state) = (u64::MAX, PeerState::Left);
        let peers = vec![Peer { node: LATE.node, state, view, rtt: Some(rtt) }; count];
        passes(Peers { node: LATE.node, view, local_health: u8::MAX, peers });
        let node = RouteNode { id: LATE.node, name: name(NAME_BYTES_MAX), addr: addr() };
        let index = count.saturating_sub(1) as u16;
        passes(Routes {
            view: u64::MAX,
            nodes: vec![node; count],
            homes_per_slot: REPLICAS_MAX as u8,
            homes: vec![index; usize::from(SLOT_COUNT) * REPLICAS_MAX],
        });
    }
    for count in SIZES.into_iter().filter(|&count| count <= MEMBERS_MAX) {
        let load = HostLoad {
            cpu_permille: Some(u32::MAX),
            memory_free: Some(u64::MAX),
            io_permille: Some(u32::MAX),
            network_bytes: Some(u64::MAX),
        };
        passes(Ranked { nodes: vec![(LATE.node, load); count] });
        passes(PlanRequest {
            weights: vec![(LATE.node, u16::MAX); count],
            without: vec![LATE.node; count],
            zones: vec![(LATE.node, name(NAME_BYTES_MAX)); count],
        });
    }
    let small = Member { name: String::new(), zone: String::new(), ..member() };
    passes(Exchange { members: vec![small; MEMBERS_MAX], reply: false });
}

#[test]
fn the_largest_listings_pass() {
    for count in SIZES.into_iter().filter(|&count| count <= PAGE_ENTRIES_MAX) {
        for key in [key(), Key::new([0]).unwrap()] {
            let listed = |key| Listed {
                key,
                birth: LATE,
                version: LATE,
                touched: u64::MAX,
                deadline: u64::MAX,
                size: u64::MAX,
            };
            passes(List { entries: vec![listed(key.clone()); count], next: u64::MAX });
            passes(Pinned {
                sessions: vec![(key.clone(), LATE, u64::MAX); count],
                next: Some((u16::MAX, Some(key.clone()))),
            });
            let suspect = Suspect {
                word: u64::MAX,
                birth: LATE,
                judged: LATE,
                until: u64::MAX,
                left_ms: u64::MAX,
                heat: u32::MAX,
                owner: vec![0xff; OWNER_BYTES_MAX],
            };
            let owned = OwnedSession { listed: listed(key.clone()), ring: u8::MAX };
            let sessions = vec![owned; count];
            passes(Owned { sessions, next: Some(PLACE), write_homes: u8::MAX });
            let walked = WalkedKey { key: key.clone(), kind: Kind::SortedSet, lacking: u8::MAX };
            let (keys, next, silent) = (vec![walked; count], Some(u64::MAX), u16::MAX);
            passes(Walked { keys, next, silent, write_homes: u8::MAX });
            let hot = HotSession { word: u64::MAX, birth: LATE, heat: u32::MAX, touched: u64::MAX };
            let sessions = vec![hot; count.min(Hottest::SESSIONS_MAX)];
            passes(Hottest { sessions, next: Some(u16::MAX) });
            let next = Some((u16::MAX, Some(u64::MAX)));
            passes(Suspects { suspects: vec![suspect; count], next });
            passes(SlotList { items: vec![(key, 0); count], more: true });
        }
    }
    passes(SlotList { items: vec![(key(), u64::MAX); PAGE_ENTRIES_MAX], more: true });
}

#[test]
fn the_largest_comparisons_pass() {
    // Every other slot, however the remainders go.
    for (gap, count) in [(1, 8_192), (300, 400), (1, 100), (1, 0)] {
        let slots = SlotSet { stride: u16::MAX, offset: u16::MAX, runs: vec![(gap, 1); count] };
        let (table, cut_ms) = (table(), u64::MAX);
        let symbol = [0xff; SYMBOL_BYTES];
        passes(Compare { table: table.clone(), cut_ms, slots: slots.clone(), symbol });
        let sizes = vec![u16::MAX; count.min(1_024)];
        passes(SketchRequest { table, cut_ms, slots, sizes, symbols: u8::MAX });
    }
    for count in SIZES.into_iter().filter(|&count| count <= PAGE_ENTRIES_MAX) {
        passes(Sketches { sketches: vec![0xff; count * 416] });
        let wanted = vec![[0xff; 8]; count];
        let small = (Key::new([0]).unwrap(), Entry::ended(LATE, LATE));
        let entries = vec![small; count];
        passes(Even { table: table(), wanted, entries: entries.clone() });
        passes(Evened { entries, done: u32::MAX });
    }
    for difference in [
        ComparedDifference::One { key: [0xff; 8] },
        ComparedDifference::More { sketch: vec![1; 64 * SYMBOL_BYTES] },
    ] {
        passes(Compared { cores: u16::MAX, difference });
    }
}

#[test]
fn the_largest_answers_about_a_node_pass() {
    let homes = vec![
        Copy {
            node: LATE.node,
            name: name(NAME_BYTES_MAX),
            addr: addr(),
            state: CopyState::Held {
                birth: LATE,
                version: LATE,
                ended: true,
                expired: true,
                touched: u64::MAX,
                deadline: u64::MAX,
                size: u64::MAX,
            },
        };
        REPLICAS_MAX
    ];
    let slot = Slot::new(0).unwrap();
    let served_from = Served::Homes;
    let (view, node, pin) = (u64::MAX, LATE.node, Some(LATE.node));
    let extra = homes.clone();
    passes(Explanation { slot, view, node, served_from, homes, extra, pin });
    for count in [0, 1, 10, 100, 250] {
        let status = TableStatus {
            name: table(),
            entries: u64::MAX,
            capacity: u64::MAX,
            bytes: u64::MAX,
            segment_bytes: u64::MAX,
            huge_bytes: u64::MAX,
            reserve_used: u64::MAX,
            slots_home: u32::MAX,
            slots_unsynced: u32::MAX,
            slots_leaving: u32::MAX,
            slots_short: u32::MAX,
            slots_undecided: u32::MAX,
            hints: u64::MAX,
            replicas: u8::MAX,
            write_homes: u8::MAX,
            members_lacking: u8::MAX,
        };
        passes(NodeStatus {
            cluster: name(NAME_BYTES_MAX),
            member: member(),
            software: name(100),
            uptime_ms: u64::MAX,
            view: u64::MAX,
            active_members: u32::MAX,
            agreeing_members: u32::MAX,
            tables: vec![status; count],
            counters: vec![(name(60), u64::MAX); 2 * count],
            unknown_commands: vec![(name(16), u64::MAX); count.min(65)],
        });
        let segment = Segment { table: table(), path: name(120), instance: u64::MAX };
        passes(LaneGranted { lane: u64::MAX, tables: vec![table(); count.min(64)] });
        passes(Welcome {
            node: LATE.node,
            incarnation: u64::MAX,
            name: name(NAME_BYTES_MAX),
            host: name(NAME_BYTES_MAX),
            segments: vec![segment; count],
            local_socket: name(107),
            software: name(100),
        });
    }
}

#[test]
fn the_largest_small_messages_pass_and_fit_a_datagram() {
    let refused = Failure::Refused(name(REASON_BYTES_MAX));
    let reason = name(REASON_BYTES_MAX);
    let messages: [Message; 23] = [
        Rejected::Malformed { why: reason.clone() }.into(),
        Rejected::WrongCluster { asked: reason }.into(),
        Rejected::NodeIdInUse { id: LATE.node, addr: addr() }.into(),
        Pong { node: LATE.node }.into(),
        SessionReply::Failed(refused.clone()).into(),
        Replicated::Failed(refused).into(),
        ExplainRequest { table: table(), key: key(), ask_homes: true }.into(),
        ListRequest { table: table(), cursor: u64::MAX, limit: u16::MAX }.into(),
        TouchCopy {
            table: table(),
            key: key(),
            birth: LATE,
            version: LATE,
            touched: u64::MAX,
            under: Some(epoch()),
        }
        .into(),
        Fetch { table: table(), key: key(), under: Some(epoch()) }.into(),
        CheckCopy { table: table(), key: key(), digest: u64::MAX }.into(),
        PinnedRequest { table: table(), to: LATE.node, core: u16::MAX, after: Some(key()) }.into(),
        SuspectsRequest { table: table(), core: u16::MAX, after: Some(u64::MAX) }.into(),
        OwnedRequest { table: table(), owner: vec![0xff; OWNER_BYTES_MAX], place: PLACE }.into(),
        WalkRequest { table: table(), from: u64::MAX, limit: u16::MAX, is_whole: true }.into(),
        HottestRequest { table: table(), core: u16::MAX, count: u16::MAX }.into(),
        Judge {
            table: table(),
            word: u64::MAX,
            birth: LATE,
            patience_ms: u32::MAX,
            sentence: Sentence::Release { for_ms: u64::MAX },
        }
        .into(),
        Burning { table: table(), key: key(), heat: u32::MAX }.into(),
        Burned { left_ms: u64::MAX }.into(),
        SlotListRequest { table: table(), slot: Slot::new(0).unwrap(), after: Some(key()) }.into(),
        Gossip { packet: vec![0xff; datagram_payload_max(&table()) - 3] }.into(),
        StreamGossip { packet: vec![0xff; datagram_payload_max(&table()) - 3] }.into(),
        Exchange { members: vec![member()], reply: true }.into(),
    ];
    for message in messages {
        let mut datagram = Vec::new();
        encode_datagram(HEADER, &table(), &message, &mut datagram).unwrap();
        assert_eq!(decode_datagram(&datagram, &table()), Ok((HEADER, message.clone())));
        passes(message);
    }
    let caller = Caller::Node { id: LATE.node, incarnation: u64::MAX };
    passes(Hello { cluster: table(), caller, software: name(100) });
}

#[test]
fn the_keys_of_as_many_nodes_as_a_view_holds_pass() {
    let held = HeldKey { id: u32::MAX, role: Some(Role::Operator) };
    let reason = KeyOrdered::Silent(name(REASON_BYTES_MAX / 2));
    let done = KeyOrdered::Done { keys: vec![held; 16], in_use: u32::MAX };
    for (keys, count) in SIZES.into_iter().flat_map(|count| [(&done, count), (&reason, count)]) {
        let node = NodeKeys {
            node: LATE.node,
            name: name(NAME_BYTES_MAX),
            status: Status::Left,
            keys: keys.clone(),
        };
        passes(KeysReport { refused: name(REASON_BYTES_MAX), nodes: vec![node; count] });
        passes(keys.clone());
    }
    let text = KeyText(name(100));
    passes(KeysRequest { change: KeyChange::Install(text), force: true });
}

#[test]
fn what_is_sealed_fits_the_room_that_it_is_given() {
    let packet = vec![0xff; DATAGRAM_BYTES_MAX - HEADER_BYTES - 3];
    let largest = Gossip { packet }.into();
    let mut inside = Vec::new();
    encode_inside(HEADER, &largest, DATAGRAM_BYTES_MAX, &mut inside).unwrap();
    assert_eq!(inside.len(), DATAGRAM_BYTES_MAX);
    assert_eq!(decode_inside(&inside), Ok((HEADER, largest.clone())));
    let refused = encode_inside(HEADER, &largest, DATAGRAM_BYTES_MAX - 1, &mut inside);
    assert_eq!(refused.unwrap_err().limit, DATAGRAM_BYTES_MAX - 1 - HEADER_BYTES);
    assert_eq!(inside.len(), DATAGRAM_BYTES_MAX, "nothing was added");
    for length in 0..inside.len() {
        assert!(decode_inside(&inside[..length]).is_err(), "{length} bytes");
    }
    inside.push(0);
    assert_eq!(decode_inside(&inside), Err(DecodeError::Trailing(1)));
}

#[test]
fn a_member_fits_its_bound() {
    assert!(encode_value(&member()).len() <= MEMBER_BYTES_MAX);
    assert!(encode_value(&member()).len() * MEMBERS_MAX < Message::limit(57).unwrap());
}

/// However little there is of each: what is decoded takes more memory than it has bytes.
#[test]
fn bundles_of_what_is_small_pass() {
    let small = Entry::ended(LATE, LATE);
    let full = Failure::TableFull { node: LATE.node };
    for count in 0..=Copies::ENTRIES_MAX {
        let key = Key::new([0]).unwrap();
        passes(Copies { table: String::new(), entries: vec![(key, small.clone()); count] });
        let done = count as u16;
        for refused in [vec![(0, None); count], vec![(0, Some(full.clone())); count]] {
            passes(CopiesTaken { cores: 1, done, differing: Vec::new(), refused });
        }
        let differing = vec![(0, small.clone()); count];
        passes(CopiesTaken { cores: 1, done, differing, refused: Vec::new() });
        passes(HeatRequest { table: String::new(), keys: vec![Key::new([0]).unwrap(); count] });
        passes(Heat { cores: 1, levels: vec![0; count] });
    }
}

#[test]
fn the_largest_questions_about_heat_pass() {
    passes(HeatRequest { table: table(), keys: vec![key(); HeatRequest::KEYS_MAX] });
    passes(Heat { cores: u16::MAX, levels: vec![i16::MIN; HeatRequest::KEYS_MAX] });
}

#[test]
fn the_largest_comparisons_between_rings_pass() {
    let keys = vec![key(); OverlapRequest::KEYS_MAX];
    passes(OverlapRequest { table: table(), keys: keys.clone() });
    passes(Overlap { cores: u16::MAX, held: keys });
}

/// Every second slot, and as many changes as are told of at a time.
#[test]
fn the_largest_beats_pass() {
    let slots = SlotSet { stride: 1, offset: 0, runs: vec![(1, 1); 8_192] };
    let place = BeatPlace { run: u64::MAX, number: u64::MAX };
    let (after, uses) = (Some(place), vec![(u64::MAX, u32::MAX); BeatRequest::USES_MAX]);
    passes(BeatRequest { table: table(), after, slots: slots.clone(), uses });
    for size in SIZES.into_iter().chain([Beat::CHANGES_MAX]) {
        let changed = vec![(u64::MAX, u64::MAX); size];
        let unsure = slots.clone();
        passes(Beat { cores: u16::MAX, place, is_whole: true, changed, unsure });
    }
}
