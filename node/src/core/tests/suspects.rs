//! Sessions that are used too much, and what their users are told.

use std::num::NonZeroU32;

use annulus_proto::Verdict;
use annulus_proto::message::{
    HotSession, Hottest, HottestRequest, Judge, Sentence, Suspect, SuspectsRequest,
};

use super::*;
use burning::BEAT;

const KEY: &str = "hot";
const BURN: u32 = 100;
/// As long as the heat of a suspect takes to halve.
const LIFE: Duration = Duration::from_secs(10);

fn policy(suspects: SuspectPolicy) -> TablePolicy {
    TablePolicy { suspects: Some(suspects), ..TablePolicy::default() }
}

fn burns() -> SuspectPolicy {
    SuspectPolicy::new(NonZeroU32::new(BURN).unwrap())
}

fn rate(rate: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(rate)
}

impl World {
    /// Nodes with such a table, and a session that was used twice at most.
    fn with_suspects(count: usize, seed: u64, suspects: SuspectPolicy) -> (Self, String) {
        let mut world = Self::sparse_with_policy(count, seed, policy(suspects));
        world.settle();
        let key = sparse(KEY);
        world.acknowledged(0, &key, start(bytes("one")));
        (world, key)
    }

    /// The same with all slots, which is what listings go through.
    fn with_all_slots(count: usize, seed: u64, suspects: SuspectPolicy) -> (Self, String) {
        let mut world = Self::with_policy(count, seed, policy(suspects));
        world.settle();
        world.acknowledged(0, KEY, start(bytes("one")));
        (world, KEY.to_owned())
    }

    /// What a client of this number is told that reads a session.
    #[track_caller]
    fn read_as(&mut self, client: u64, node: usize, key: &str) -> SessionReply {
        self.asker = Asker::Stream(client);
        let reply = self.ask(node, key, Operation::Get);
        self.asker = Asker::Stream(0);
        reply
    }

    /// So many reads, each by another one of so many clients. Returns how many were answered.
    fn hammer(&mut self, nodes: &[usize], clients: u64, reads: u64, key: &str) -> u64 {
        let mut answered = 0;
        for read in 0..reads {
            let node = nodes[read as usize % nodes.len()];
            let reply = self.read_as(1 + read % clients, node, key);
            answered += u64::from(matches!(reply, SessionReply::Session(_)));
        }
        answered
    }

    /// How much longer a session is kept away from who asks at this node.
    #[track_caller]
    fn slowed_for(&mut self, node: usize, key: &str) -> Option<Duration> {
        match self.ask(node, key, Operation::Get) {
            SessionReply::Session(_) => None,
            SessionReply::Failed(Failure::SlowDown { retry_after_ms }) => {
                Some(Duration::from_millis(retry_after_ms))
            }
            other => panic!("neither a session nor told to slow down: {other:?}"),
        }
    }

    fn is_slowed(&mut self, key: &str) -> Vec<bool> {
        (0..self.nodes.len()).map(|node| self.slowed_for(node, key).is_some()).collect()
    }

    #[track_caller]
    fn ask_monitored(&mut self, node: usize, role: Role, message: Message) -> Message {
        self.next_request += 1;
        let id = self.next_request;
        let header = Header { id, view: 0, hlc: annulus_proto::Hlc::ZERO };
        let (asker, caller) = (Asker::Stream(0), Caller::Client(role));
        self.input(node, Arrived::Request(Request { asker, caller, header, message }));
        self.run_until("an answer", Duration::from_secs(5), |w| w.replies.contains_key(&id));
        self.replies.remove(&id).unwrap()
    }

    fn suspects_of(&mut self, node: usize) -> Vec<Suspect> {
        let (mut all, mut next) = (Vec::new(), Some((0, None)));
        while let Some((core, after)) = next {
            let request = SuspectsRequest { table: "sessions".to_owned(), core, after };
            match self.ask_monitored(node, Role::Monitor, request.into()) {
                Message::Suspects(page) => {
                    all.extend(page.suspects);
                    next = page.next;
                }
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn judged(&mut self, node: usize, suspect: &Suspect, sentence: Sentence) -> Message {
        let Suspect { word, birth, .. } = *suspect;
        let table = "sessions".to_owned();
        let judge = Judge { table, word, birth, patience_ms: 2_000, sentence };
        self.ask_monitored(node, Role::Monitor, judge.into())
    }

    /// A node that is a home of the key.
    fn home(&mut self, key: &str) -> usize {
        let home = self.core(0, key).homes(0, Key::new(key).unwrap().slot())[0];
        let is_it = |node: &usize| NodeId::from_bits(self.nodes[*node].state.id) == home;
        (0..self.nodes.len()).find(is_it).unwrap()
    }
}

#[test]
fn who_is_used_too_much_is_kept_away_from_all_and_comes_back_by_itself() {
    for seed in 0..3 {
        let (mut world, key) = World::with_suspects(5, seed, burns());
        assert_eq!(world.hammer(&[0, 1, 2, 3, 4], 20, 80, &key), 80, "not too much yet");
        world.run_for(2 * BEAT);
        assert_eq!(world.is_slowed(&key), [false; 5]);
        world.hammer(&[0, 1, 2, 3, 4], 20, 40, &key);
        world.run_for(2 * BEAT);
        assert_eq!(world.is_slowed(&key), [true; 5], "on all nodes within two beats");
        // Whatever is asked for but to end.
        for operation in [write(None, bytes("two")), Operation::Touch { birth: None }] {
            assert!(matches!(world.fails(1, &key, operation), Failure::SlowDown { .. }));
        }
        let version = world.copy(0, &key).or_else(|| world.copy(1, &key)).map(|it| it.version);
        let change = Change::Value(bytes("two"));
        let update_if = Operation::UpdateIf { version: version.unwrap_or(Version::ZERO), change };
        assert!(matches!(world.fails(2, &key, update_if), Failure::SlowDown { .. }));
        let left = world.slowed_for(3, &key).unwrap();
        assert!((LIFE / 2..=3 * LIFE).contains(&left), "{left:?}");
        world.run_for(left);
        assert_eq!(world.is_slowed(&key), [false; 5]);
        assert_eq!(world.value(4, &key), bytes("one"));
    }
}

#[test]
fn who_is_asked_for_on_and_on_stays_away() {
    let (mut world, key) = World::with_suspects(3, 1, burns());
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    for _ in 0..30 {
        assert_eq!(world.hammer(&[0, 1, 2], 30, 20, &key), 0);
        world.run_for(Duration::from_secs(1));
    }
    let until = world.slowed_for(0, &key).unwrap();
    world.run_for(until);
    assert_eq!(world.is_slowed(&key), [false; 3]);
}

#[test]
fn no_client_alone_makes_a_suspect_of_a_session() {
    let (mut world, key) = World::with_suspects(3, 2, burns());
    let home = world.home(&key);
    assert_eq!(world.hammer(&[home], 1, 500, &key), 500);
    world.run_for(2 * BEAT);
    assert_eq!(world.hammer(&[home], 1, 10, &key), 10);
    // Nor what one says that it reads out of shared memory.
    let now = world.present(home);
    let used = world.core(home, &key).tables[0].store.place_of(&Key::new(key.as_str()).unwrap());
    let lane =
        |lane| MemoryUse { by: Asker::Lane { lane, call: 0 }, table: 0, used, count: 1_000_000 };
    world.core(home, &key).note_uses(now, &[lane(7)]);
    world.run_for(2 * BEAT);
    assert!(world.slowed_for(home, &key).is_some(), "two clients do");
    let other = sparse("other");
    world.acknowledged(0, &other, start(bytes("one")));
    let home = world.home(&other);
    let used =
        world.core(home, &other).tables[0].store.place_of(&Key::new(other.as_str()).unwrap());
    let now = world.present(home);
    let lane =
        |lane| MemoryUse { by: Asker::Lane { lane, call: 0 }, table: 0, used, count: 1_000_000 };
    world.core(home, &other).note_uses(now, &[lane(7), lane(7)]);
    world.run_for(2 * BEAT);
    assert_eq!(world.is_slowed(&other), [false; 3]);
    let now = world.present(home);
    world.core(home, &other).note_uses(now, &[lane(8)]);
    world.run_for(2 * BEAT);
    assert_eq!(world.is_slowed(&other), [true; 3]);
}

/// But who uses a key as much as before makes a suspect of it again.
#[test]
fn a_suspect_can_be_ended_and_another_session_is_none() {
    let (mut world, key) = World::with_suspects(3, 3, burns());
    let hammer = |world: &mut World| {
        world.hammer(&[0, 1, 2], 30, 150, &key);
        world.run_for(2 * BEAT);
        assert_eq!(world.is_slowed(&key), [true; 3]);
    };
    hammer(&mut world);
    world.acknowledged(1, &key, end());
    for node in 0..3 {
        assert_eq!(world.fails(node, &key, Operation::Get), Failure::Ended);
    }
    world.run_for(10 * LIFE);
    world.acknowledged(2, &key, start(bytes("two")));
    assert_eq!(world.value(0, &key), bytes("two"));
    hammer(&mut world);
    world.acknowledged(2, &key, start(bytes("three")));
    assert_eq!(world.value(0, &key), bytes("three"));
    world.run_for(10 * LIFE);
    assert_eq!(world.is_slowed(&key), [false; 3]);
}

#[test]
fn suspects_are_the_same_after_restarts_and_wherever_their_slots_go() {
    let (mut world, key) = World::with_all_slots(4, 4, burns());
    world.hammer(&[0, 1, 2, 3], 30, 150, &key);
    world.run_for(2 * BEAT);
    for node in 0..4 {
        world.kill(node);
        world.run_for(Duration::from_millis(500));
        world.start(node);
        world.run_for(Duration::from_millis(500));
    }
    world.settle();
    assert_eq!(world.is_slowed(&key), [true; 4]);
    let added = world.add(5);
    world.settle();
    assert!(world.slowed_for(added, &key).is_some());
    let listed: Vec<Vec<u64>> = (0..5)
        .map(|node| world.suspects_of(node).iter().map(|suspect| suspect.word).collect())
        .collect();
    let word = Key::new(key.as_str()).unwrap().word();
    assert_eq!(listed.iter().filter(|words| **words == [word]).count(), 3, "{listed:?}");
}

#[test]
fn a_verdict_is_no_write() {
    let (mut world, key) = World::with_suspects(3, 5, burns());
    let seen = world.acknowledged(0, &key, write(None, bytes("seen"))).version;
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    let left = world.slowed_for(0, &key).unwrap();
    world.run_for(left);
    let change = Change::Value(bytes("two"));
    world.acknowledged(1, &key, Operation::UpdateIf { version: seen, change });
    assert_eq!(world.value(2, &key), bytes("two"));
}

#[test]
fn monitors_see_release_and_end_suspects() {
    let (mut world, key) = World::with_all_slots(3, 6, burns());
    let attributes = Attributes { owner: b"ada".to_vec(), ..Attributes::default() };
    let (value, lifetimes) = (bytes("one"), Lifetimes::default());
    let begun = Operation::Start { value, lifetimes, attributes };
    let begun = world.acknowledged(0, &key, begun);
    assert_eq!(world.suspects_of(0), []);
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    let lists: Vec<Vec<Suspect>> = (0..3).map(|node| world.suspects_of(node)).collect();
    assert!(lists.iter().all(|list| list.len() == 1), "{lists:?}");
    let suspect = lists.concat().into_iter().max_by_key(|suspect| suspect.heat).unwrap();
    assert_eq!(suspect.word, Key::new(key.as_str()).unwrap().word());
    assert_eq!((suspect.birth, &suspect.owner[..]), (begun.birth, &b"ada"[..]));
    assert!(suspect.heat >= BURN, "{suspect:?}");
    // Of another birth, or of no slot, there is none.
    let other = Suspect { birth: suspect.judged, ..suspect.clone() };
    let absent = Message::SessionReply(SessionReply::Failed(Failure::Absent));
    let release = Sentence::Release { for_ms: 60_000 };
    assert_eq!(world.judged(0, &other, release), absent);
    assert_eq!(world.judged(0, &Suspect { word: u64::MAX, ..suspect.clone() }, release), absent);
    // It is released for a minute, however much it is used.
    let answer = world.judged(1, &suspect, release);
    assert!(matches!(answer, Message::SessionReply(SessionReply::Acknowledged(_))), "{answer:?}");
    world.run_for(2 * BEAT);
    assert_eq!(world.hammer(&[0, 1, 2], 30, 300, &key), 300);
    world.run_for(Duration::from_secs(61));
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    assert_eq!(world.is_slowed(&key), [true; 3]);
    let suspect = world.suspects_of(2).remove(0);
    let answer = world.judged(2, &suspect, Sentence::End);
    assert!(matches!(answer, Message::SessionReply(SessionReply::Acknowledged(_))), "{answer:?}");
    assert_eq!(world.fails(0, &key, Operation::Get), Failure::Ended);
    assert_eq!(world.suspects_of(1), []);
}

#[test]
fn nobody_else_sees_or_judges_suspects() {
    let (mut world, key) = World::with_all_slots(3, 7, burns());
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    let suspect = world.suspects_of(0).remove(0);
    for role in [Role::Authority, Role::Worker, Role::Operator] {
        let request = SuspectsRequest { table: "sessions".to_owned(), core: 0, after: None };
        let answer = world.ask_monitored(0, role, request.into());
        assert!(matches!(answer, Message::Rejected(_)), "{role}: {answer:?}");
        let Suspect { word, birth, .. } = suspect;
        let (table, sentence) = ("sessions".to_owned(), Sentence::End);
        let judge = Judge { table, word, birth, patience_ms: 2_000, sentence };
        let answer = world.ask_monitored(0, role, judge.into());
        assert!(matches!(answer, Message::Rejected(_)), "{role}: {answer:?}");
    }
    assert_eq!(world.is_slowed(&key), [true; 3]);
    let request = SuspectsRequest { table: "nosuch".to_owned(), core: 0, after: None };
    let answer = world.ask_monitored(0, Role::Monitor, request.into());
    assert!(matches!(answer, Message::Rejected(_)), "{answer:?}");
}

#[test]
fn every_home_tells_which_sessions_it_saw_used_most_whether_or_not_that_is_too_much() {
    let mut world = World::new(3, 9);
    world.settle();
    for number in 0..30 {
        world.acknowledged(0, &format!("k{number}"), start(bytes("v")));
    }
    for _ in 0..200 {
        assert!(matches!(world.ask(1, "k7", Operation::Get), SessionReply::Session(_)));
        world.acknowledged(2, "k8", Operation::Touch { birth: None });
    }
    let hottest = |world: &mut World, node: usize, role| {
        let (mut found, mut next): (Vec<HotSession>, _) = (Vec::new(), Some(0));
        while let Some(core) = next {
            let request = HottestRequest { table: "sessions".to_owned(), core, count: 10 };
            let Message::Hottest(Hottest { sessions, next: then }) =
                world.ask_monitored(node, role, request.into())
            else {
                panic!("no list");
            };
            assert!(sessions.is_sorted_by(|one, other| one.heat >= other.heat));
            found.extend(sessions);
            next = then;
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.heat));
        found
    };
    let [k7, k8] = ["k7", "k8"].map(|key| Key::new(key).unwrap().word());
    for (node, role) in [Role::Operator, Role::Monitor, Role::Worker].into_iter().enumerate() {
        let found = hottest(&mut world, node, role);
        // Reads are counted where they are answered, touches by all homes.
        assert_eq!(found.iter().position(|it| it.word == k8), Some(usize::from(node == 1)));
        assert_eq!(found[0].word == k7, node == 1, "{found:?}");
        assert!((150..250).contains(&found[0].heat), "{found:?}");
    }
    for (table, count) in [("sessions", 0), ("nosuch", 10)] {
        let request = HottestRequest { table: table.to_owned(), core: u16::MAX, count };
        match world.ask_monitored(0, Role::Operator, request.into()) {
            Message::Hottest(it) => assert_eq!((it.sessions.len(), it.next, count), (0, None, 0)),
            Message::Rejected(_) => assert_eq!(table, "nosuch"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn requests_are_held_until_the_session_is_released_or_for_so_long() {
    let hold = Duration::from_secs(1);
    let suspects = SuspectPolicy { hold, held_max: 24, ..burns() };
    let (mut world, key) = World::with_all_slots(3, 8, suspects);
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    let asked = world.now;
    assert!(world.slowed_for(0, &key).is_some());
    let waited = world.now - asked;
    assert!((hold..hold + 2 * BEAT).contains(&waited), "{waited:?}");
    // As many as may wait do, and others are told at once.
    let waiting: Vec<u64> = (0..9).map(|_| world.request(0, &key, Operation::Get)).collect();
    world.run_for(Duration::from_millis(20));
    let told: Vec<bool> = waiting.iter().map(|id| world.replies.contains_key(id)).collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
    let suspect = world.suspects_of(0).remove(0);
    world.judged(0, &suspect, Sentence::Release { for_ms: 60_000 });
    for id in &waiting[..8] {
        assert!(matches!(world.wait(*id), SessionReply::Session(_)));
    }
    assert!(world.now - asked < waited + hold, "they did not wait for longer than that");
    assert_eq!(world.core(0, &key).held, 0);
    assert_eq!(world.core(0, &key).pending_bytes, 0);
}

/// It would have the node that asks take this one for dead.
#[test]
fn what_another_node_waits_for_is_not_held() {
    let suspects = SuspectPolicy { hold: Duration::from_secs(5), ..burns() };
    let (mut world, key) = World::with_suspects(5, 12, suspects);
    let (home, outsider) = (world.home(&key), world.outsider(&key));
    world.hammer(&[home], 30, 150, &key);
    world.run_for(4 * BEAT);
    let asked = world.now;
    for operation in [Operation::Get, Operation::Touch { birth: None }] {
        let failure = world.fails(outsider, &key, operation);
        assert!(matches!(failure, Failure::SlowDown { .. }), "{failure:?}");
    }
    assert!(world.now - asked < Duration::from_secs(1));
    // Nor is what has a value.
    let failure = world.fails(home, &key, write(None, bytes("two")));
    assert!(matches!(failure, Failure::SlowDown { .. }), "{failure:?}");
    assert!(world.now - asked < Duration::from_secs(1));
}

/// A home that has another session under the key by then is not asked for that one's value.
#[test]
fn a_release_that_comes_too_late_reads_nothing() {
    let (mut world, key) = World::with_all_slots(3, 13, burns());
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    let suspect = world.suspects_of(0).remove(0);
    world.isolate(0);
    world.asker = Asker::Stream(0);
    world.acknowledged(1, &key, start(bytes("another")));
    world.cut.clear();
    let answer = world.judged(0, &suspect, Sentence::Release { for_ms: 60_000 });
    let failed = |answer: &Message| {
        matches!(
            answer,
            Message::SessionReply(SessionReply::Failed(Failure::TimedOut | Failure::Absent))
        )
    };
    assert!(failed(&answer), "{answer:?}");
}

/// Those that sort first do not keep the others from being reported.
#[test]
fn each_hot_session_has_its_turn() {
    let suspects = burns();
    let mut burning = Burning::new(Some(&suspects), 1);
    let now = Now { monotonic: Duration::from_secs(1), wall_ms: START_WALL_MS };
    let name = |number: u32| Key::new(format!("{number:04}")).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        for number in 0..300 {
            let use_of = (ClientId::Stream(1), Uses::Requests(5));
            burning.count(now, (&suspects, 1, 512), &name(number), use_of);
        }
        seen.extend(burning.next_news());
    }
    assert_eq!(seen.len(), 300);
}

#[test]
fn who_has_no_patience_left_is_told_while_held() {
    let suspects = SuspectPolicy { hold: Duration::from_secs(30), ..burns() };
    let (mut world, key) = World::with_suspects(3, 9, suspects);
    world.hammer(&[0, 1, 2], 30, 150, &key);
    world.run_for(2 * BEAT);
    assert!(world.slowed_for(0, &key).is_some(), "after two seconds of patience");
    assert!((0..3).all(|node| world.core(node, &key).held == 0));
}

#[test]
fn a_session_or_a_table_may_be_used_at_a_rate() {
    let suspects = SuspectPolicy { session_rate: rate(20), ..SuspectPolicy::new(NonZeroU32::MAX) };
    let (mut world, key) = World::with_suspects(3, 10, suspects);
    let home = world.home(&key);
    for _ in 0..10 {
        assert_eq!(world.hammer(&[home], 3, 10, &key), 10);
        world.run_for(Duration::from_millis(500));
    }
    world.hammer(&[home], 3, 60, &key);
    world.run_for(2 * BEAT);
    assert_eq!(world.is_slowed(&key), [true; 3]);

    let suspects = SuspectPolicy { table_rate: rate(30), ..SuspectPolicy::new(NonZeroU32::MAX) };
    let mut world = World::of_single_cores(3, 10, policy(suspects));
    world.settle();
    world.run_for(Duration::from_secs(1));
    for key in 0..20 {
        world.acknowledged(0, &format!("{key}"), start(bytes("one")));
    }
    let slowed = (0..20).map(|key| world.slowed_for(0, &format!("{key}")));
    let slowed: Vec<Duration> = slowed.flatten().collect();
    assert!((1..=10).contains(&slowed.len()), "{slowed:?}");
    assert!(slowed.iter().all(|wait| *wait <= Duration::from_millis(34)), "{slowed:?}");
    // Others at other nodes, and ends, do not wait for that.
    assert_eq!(world.slowed_for(1, "1"), None);
    (0..20).for_each(|key| _ = world.acknowledged(0, &format!("{key}"), end()));
    world.run_for(Duration::from_secs(1));
    world.acknowledged(0, "again", start(bytes("one")));
}

#[test]
fn what_is_followed_and_reported_is_bounded_and_no_hot_one_is_missed() {
    let suspects = SuspectPolicy::new(NonZeroU32::new(1_000).unwrap());
    let policy = policy(suspects);
    let mut burning = Burning::new(policy.suspects.as_ref(), 1);
    let mut now = Now { monotonic: Duration::from_secs(1), wall_ms: START_WALL_MS };
    let (max, mut not_followed) = (512, 0);
    let name = |number: u32| Key::new(number.to_string()).unwrap();
    for round in 0..40 {
        for number in 0..1_000 {
            let (key, client) = (name(round * 1_000 + number), ClientId::Stream(1));
            not_followed += u32::from(!burning.count(
                now,
                (&suspects, 100, max),
                &key,
                (client, Uses::Requests(1)),
            ));
        }
        for use_of in 0..50 {
            let client = ClientId::Stream(use_of % 8);
            burning.count(now, (&suspects, 100, max), &name(u32::MAX), (client, Uses::Requests(1)));
        }
        now.monotonic += Duration::from_millis(250);
        burning.sweep(now, &suspects, max);
        assert!(burning.followed_len() <= max);
    }
    assert!(burning.is_news(&name(u32::MAX)));
    assert!(not_followed < 20_000, "{not_followed} of 40,000: the rarer ones are not begun with");
}

/// Levels go round after 65,536 times 62 ms here, and what was used shortly less than that ago would look hot.
#[test]
fn a_client_that_was_away_for_long_counts_as_any_other() {
    let suspects = SuspectPolicy { half_life: Duration::from_secs(1), ..burns() };
    let mut burning = Burning::new(Some(&suspects), 1);
    let mut now = Now { monotonic: Duration::from_secs(1), wall_ms: START_WALL_MS };
    let (key, (one, other)) = (Key::new(KEY).unwrap(), (ClientId::Stream(1), ClientId::Stream(2)));
    let share = 40;
    burning.count(now, (&suspects, share, 512), &key, (one, Uses::Requests(1)));
    while now.monotonic < Duration::from_secs(4_041) {
        now.monotonic += Duration::from_millis(500);
        burning.count(now, (&suspects, share, 512), &key, (other, Uses::Requests(1)));
        burning.sweep(now, &suspects, 512);
    }
    assert!(!burning.is_news(&key));
    burning.count(now, (&suspects, share, 512), &key, (one, Uses::Reads(45)));
    assert!(burning.is_news(&key));
}

#[test]
fn reports_of_many_sessions_are_bounded() {
    let mut world = World::with_record_size(1, 14, policy(burns()), 128, 1);
    world.settle();
    let me = NodeId::from_bits(world.nodes[0].state.id);
    let report = |world: &mut World, number: u32| {
        let (table, key) = ("sessions".to_owned(), Key::new(format!("{number}")).unwrap());
        let report = annulus_proto::message::Burning { table, key, heat: 2 * BURN };
        let now = world.present(0);
        world.core(0, "any").on_burning(now, me, &report)
    };
    for number in 0..8_200 {
        world.acknowledged(0, &format!("{number}"), start(bytes("")));
        let answer = report(&mut world, number);
        let Message::Burned(burned) = answer else { panic!("{answer:?}") };
        assert_eq!(burned.left_ms > 0, number < 8_192, "{number}");
    }
    assert_eq!(world.counter(0, "reports_forgotten"), 8);
    // Once those have cooled there is room again.
    world.run_for(10 * LIFE);
    let answer = report(&mut world, 8_199);
    assert!(matches!(answer, Message::Burned(burned) if burned.left_ms > 0));
}

#[test]
fn what_there_is_not_takes_no_room_among_reports_and_strangers_are_not_believed() {
    let (mut world, key) = World::with_suspects(3, 11, burns());
    let home = world.home(&key);
    let now = world.present(home);
    let report = |key: &str, heat| annulus_proto::message::Burning {
        table: "sessions".to_owned(),
        key: Key::new(key).unwrap(),
        heat,
    };
    let stranger = NodeId::from_bits(77);
    world.core(home, &key).on_burning(now, stranger, &report(&key, u32::MAX));
    assert_eq!(world.is_slowed(&key), [false; 3]);
    let node = NodeId::from_bits(world.nodes[(home + 1) % 3].state.id);
    let slot = Key::new(key.as_str()).unwrap().slot();
    for number in 0..10_000 {
        let key = format!("{{{key}}}{number}");
        assert_eq!(Key::new(key.as_str()).unwrap().slot(), slot);
        world.core(home, &key).on_burning(now, node, &report(&key, u32::MAX));
    }
    assert_eq!(world.counter(home, "reports_forgotten"), 0);
    let now = world.present(home);
    world.core(home, &key).on_burning(now, node, &report(&key, u32::MAX));
    world.run_for(2 * BEAT);
    assert_eq!(world.is_slowed(&key), [true; 3]);
    let until = world.copy(home, &key).unwrap().verdict();
    assert!(matches!(until, Some((_, Verdict::Suspect { .. }))), "{until:?}");
}
