use annulus_proto::message::Published;

use super::*;

const KINDS: [ChannelKind; 3] = [ChannelKind::Plain, ChannelKind::Pattern, ChannelKind::Sharded];

struct World {
    channels: Arc<Channels>,
    tally: Arc<Tally>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let tally = Arc::new(Tally::default());
        Self { channels: Arc::new(Channels::new(tally.clone())), tally, next: 0 }
    }

    fn connection(&mut self, protocol: Protocol) -> Subscriptions {
        self.next += 1;
        Subscriptions::new(self.channels.clone(), Client::alone(self.next), protocol)
    }

    fn publish(&self, channel: &str, message: &[u8]) -> usize {
        self.channels.tell(&published(channel, message, false))
    }
}

fn published(channel: &str, message: &[u8], is_sharded: bool) -> Published {
    Published { channel: channel.into(), message: message.to_vec(), is_sharded }
}

fn name(text: &str) -> Name {
    Name::from(text.as_bytes())
}

fn add(connection: &mut Subscriptions, kind: ChannelKind, names: &[&str]) -> Result<(), String> {
    let names: Vec<Name> = names.iter().map(|text| name(text)).collect();
    connection.add(kind, &names, |_, _| {}).map_err(|Full(why)| why)
}

fn heard(connection: &Subscriptions) -> String {
    let mut out = Vec::new();
    connection.take(&mut out, usize::MAX);
    String::from_utf8(out).expect("it is text").replace("\r\n", " ")
}

#[test]
fn a_message_reaches_who_listens_in_the_version_that_he_speaks() {
    let mut world = World::new();
    let mut old = world.connection(Protocol::Resp2);
    let mut new = world.connection(Protocol::Resp3);
    add(&mut old, ChannelKind::Plain, &["news", "other"]).expect("there is room");
    add(&mut new, ChannelKind::Pattern, &["n*", "*s", "x*"]).expect("there is room");
    add(&mut new, ChannelKind::Sharded, &["news"]).expect("there is room");
    assert_eq!(world.publish("news", b"hi"), 3);
    assert_eq!(heard(&old), "*3 $7 message $4 news $2 hi ");
    let [first, second] = ["*s", "n*"].map(|it| format!(">4 $8 pmessage $2 {it} $4 news $2 hi "));
    assert_eq!(heard(&new), first + &second);
    assert_eq!(world.channels.tell(&published("news", b"hi", true)), 1);
    assert_eq!((heard(&old), heard(&new)), (String::new(), ">3 $8 smessage $4 news $2 hi ".into()));
    assert_eq!(world.publish("nobody's", b""), 2, "the patterns alone");
    assert_eq!(world.publish("Other", b""), 0);
    assert_eq!(world.channels.counts(), [2, 3, 1]);
    drop(new);
    assert_eq!(world.channels.counts(), [2, 0, 0]);
    assert_eq!(world.tally.take().count("redis_messages_delivered"), 3 + 1 + 2);
}

#[test]
fn who_reads_too_slowly_is_given_up_and_the_others_go_on() {
    let mut world = World::new();
    let mut slow = world.connection(Protocol::Resp2);
    let mut quick = world.connection(Protocol::Resp2);
    for connection in [&mut slow, &mut quick] {
        add(connection, ChannelKind::Plain, &["c"]).expect("there is room");
    }
    let message = vec![b'x'; 1 << 20];
    let mut told = 0;
    while !slow.is_given_up() {
        told += world.publish("c", &message);
        assert!(heard(&quick).len() > message.len());
        assert!(told < 2 * QUEUE_BYTES_MAX / message.len(), "there is a bound");
    }
    assert_eq!(told, 2 * 7 + 1, "seven and what stands around them fit");
    assert_eq!((world.publish("c", b"on"), heard(&slow)), (1, String::new()));
    assert!(heard(&quick).ends_with(" on "));
    assert_eq!(world.tally.take().count("redis_subscribers_too_slow"), 1);
    assert_eq!(world.channels.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn if_too_much_waits_for_all_those_are_given_up_for_whom_something_waits() {
    let mut world = World::new();
    let mut slow: Vec<Subscriptions> = (0..20).map(|_| world.connection(Protocol::Resp2)).collect();
    for connection in &mut slow {
        add(connection, ChannelKind::Plain, &["c"]).expect("there is room");
    }
    let message = vec![b'x'; 1 << 20];
    (0..6).for_each(|_| assert_eq!(world.publish("c", &message), 20));
    let mut fresh = world.connection(Protocol::Resp2);
    add(&mut fresh, ChannelKind::Plain, &["c"]).expect("there is room");
    world.publish("c", &message);
    assert!(!fresh.is_given_up() && !heard(&fresh).is_empty());
    let given_up = slow.iter().filter(|it| it.is_given_up()).count();
    assert!((1..20).contains(&given_up), "{given_up}: there is room again behind the first ones");
    assert!(world.channels.waiting.load(Ordering::Relaxed) <= WAITING_BYTES_MAX);
    drop(slow);
    assert_eq!(world.channels.waiting.load(Ordering::Relaxed), 0, "nothing waits for nobody");
}

#[test]
fn subscriptions_have_bounds_and_give_room_back() {
    let mut world = World::new();
    let many: Vec<String> = (0..OF_CONNECTION_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut full: Vec<Subscriptions> = Vec::new();
    for _ in 0..OF_NODE_MAX / OF_CONNECTION_MAX {
        let mut connection = world.connection(Protocol::Resp2);
        add(&mut connection, ChannelKind::Plain, &many).expect("so many may be");
        add(&mut connection, ChannelKind::Plain, &many[..2]).expect("they are there already");
        let refused = add(&mut connection, ChannelKind::Sharded, &["one more"]);
        assert_eq!(refused, Err("a connection has 16384 channels and patterns at most".into()));
        full.push(connection);
    }
    let mut late = world.connection(Protocol::Resp2);
    let refused = "this node's clients subscribe 131072 times at most";
    assert_eq!(add(&mut late, ChannelKind::Plain, &["0"]), Err(refused.into()));
    assert!(late.is_empty() && world.channels.count(ChannelKind::Plain, b"0") == full.len());
    full.pop();
    assert_eq!(add(&mut late, ChannelKind::Plain, &["0"]), Ok(()));
}

#[test]
fn patterns_have_bounds_of_their_own_as_far_as_they_differ() {
    let mut world = World::new();
    let mut first = world.connection(Protocol::Resp2);
    let many: Vec<String> = (0..PATTERNS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    add(&mut first, ChannelKind::Pattern, &many).expect("so many may be");
    let mut second = world.connection(Protocol::Resp2);
    let refused = "this node's clients have 1024 patterns of 8192 bytes at most";
    assert_eq!(add(&mut second, ChannelKind::Pattern, &["new"]), Err(refused.into()));
    assert_eq!(add(&mut second, ChannelKind::Pattern, &many[..5]), Ok(()));
    drop(first);
    let long: Vec<String> = (0..16).map(|number| format!("{number:0>512}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    assert_eq!(add(&mut second, ChannelKind::Pattern, &long), Err(refused.into()));
    assert_eq!(add(&mut second, ChannelKind::Pattern, &long[..15]), Ok(()));
}

/// Whatever they do, all hear what a list of who listens to what says.
#[test]
fn who_hears_what_is_as_a_simple_list_says() {
    let mut world = World::new();
    let names = ["a", "b", "ab", "a*", "*", "[ab]"];
    let mut model = vec![[const { BTreeSet::<&str>::new() }; 3]; 4];
    let mut connections: Vec<_> = (0..4).map(|_| world.connection(Protocol::Resp3)).collect();
    // A small generator (Marsaglia's xorshift64).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    for step in 0..5_000 {
        let (who, kind) = (below(4), KINDS[below(3)]);
        let chosen = names[below(6)];
        match below(5) {
            0 | 1 => {
                let mut count = 0;
                let listens = &mut connections[who];
                let added = listens.add(kind, &[name(chosen)], |_, told| count = told);
                assert!(added.is_ok());
                model[who][kind as usize].insert(chosen);
                let [plain, patterns, sharded] = model[who].each_ref().map(BTreeSet::len);
                let expected =
                    if kind == ChannelKind::Sharded { sharded } else { plain + patterns };
                assert_eq!(count, expected, "step {step}");
            }
            2 => {
                connections[who].remove(kind, &[name(chosen)], |_, _| {});
                model[who][kind as usize].remove(chosen);
            }
            3 if step % 50 == 0 => {
                connections[who] = world.connection(Protocol::Resp3);
                model[who] = [const { BTreeSet::new() }; 3];
            }
            _ => {
                let is_sharded = kind == ChannelKind::Sharded;
                let told = world.channels.tell(&published(chosen, b"m", is_sharded));
                let mut expected = 0;
                for ([plain, patterns, sharded], connection) in model.iter().zip(&connections) {
                    let matching = patterns.iter().filter(|pattern| {
                        matches(pattern.as_bytes(), chosen.as_bytes(), Case::Sensitive)
                    });
                    let hears = match is_sharded {
                        true => usize::from(sharded.contains(chosen)),
                        false => usize::from(plain.contains(chosen)) + matching.count(),
                    };
                    assert_eq!(heard(connection).matches('>').count(), hears, "step {step}");
                    expected += hears;
                }
                assert_eq!(told, expected, "step {step}");
            }
        }
        let listened =
            |kind: usize| model.iter().flat_map(|of| &of[kind]).collect::<BTreeSet<_>>().len();
        assert_eq!(world.channels.counts(), [0, 1, 2].map(listened), "step {step}");
    }
    drop(connections);
    let lists = world.channels.lists();
    assert_eq!((lists.count, lists.pattern_bytes), (0, 0));
}

#[test]
fn a_message_of_another_member_with_too_long_a_channel_is_refused() {
    let mut world = World::new();
    let mut connection = world.connection(Protocol::Resp2);
    add(&mut connection, ChannelKind::Pattern, &["*"]).expect("there is room");
    for (length, hears) in [(CHANNEL_BYTES_MAX, true), (CHANNEL_BYTES_MAX + 1, false)] {
        world.channels.tell_from_afar(&published(&"c".repeat(length), b"m", false));
        assert_eq!(!heard(&connection).is_empty(), hears);
    }
    let counts = world.tally.take();
    assert_eq!(counts.count("redis_messages_from_nodes"), 1);
    assert_eq!(counts.count("redis_messages_refused"), 1);
}
