use super::*;

/// Says what it is told to, and notes what it hears, with the times.
#[derive(Default)]
struct Parrot {
    wants: Vec<(SocketAddr, Vec<u8>)>,
    calls: Vec<Call<usize>>,
    heard: Vec<Duration>,
    answers: Vec<(Duration, u64, Option<usize>)>,
    due: Option<Duration>,
    woken: Vec<Duration>,
}

impl Subject for Parrot {
    const NAME: &str = "parrot";
    const KNOWS_BEFORE_IT_SAYS: bool = false;
    const ENVELOPE_BYTES: usize = 2;
    type Settings = ();
    type Said = usize;
    type Event = u8;

    fn settings(_: usize) {}

    fn start((): &(), _: Start<'_>, _: u64, _: Duration) -> Self {
        Self::default()
    }

    fn settle(&mut self, _: Duration, _: &[HostFacts]) {}

    fn receive(&mut self, now: Duration, _: SocketAddr, _: &[u8]) {
        self.heard.push(now);
    }

    fn wake(&mut self, now: Duration) {
        if self.due.take_if(|due| *due <= now).is_some() {
            self.woken.push(now);
        }
    }

    fn next(&self) -> Option<Duration> {
        self.due
    }

    fn drain(&mut self, _: Duration, wants: &mut Wants<Self>) {
        wants.packets.append(&mut self.wants);
        wants.calls.append(&mut self.calls);
    }

    fn hear(&mut self, now: Duration, _: SocketAddr, said: usize) -> Option<usize> {
        self.heard.push(now);
        Some(said + 1)
    }

    fn answered(&mut self, now: Duration, call: u64, answer: Option<usize>) {
        self.answers.push((now, call, answer));
    }

    fn said_bytes(said: &usize) -> usize {
        *said
    }

    fn leave(&mut self, _: Duration) {}

    fn sight(_: &u8) -> Option<Sight> {
        None
    }

    fn deaths(&self) -> u64 {
        0
    }

    fn digest(&self) -> u64 {
        0
    }

    fn up_count(&self) -> usize {
        0
    }

    fn holds(&self, _: NodeId) -> Held {
        Held::Unknown
    }

    fn peers(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

fn world() -> World<Parrot> {
    let mut world = World::booting(3, 1);
    world.net.latency = MS..MS + Duration::from_nanos(1);
    world
}

fn call(world: &mut World<Parrot>, number: u64, to: usize, within: Duration) {
    let to = world.hosts[to].addr;
    world.with(0, |node, now| {
        let deadline = now + within;
        node.calls.push(Call { number: Some(number), to, said: 100, deadline });
    });
}

fn send(world: &mut World<Parrot>, to: usize, count: usize) {
    let to = world.hosts[to].addr;
    world.with(0, |node, _| node.wants.extend(std::iter::repeat_n((to, vec![7; 10]), count)));
}

fn node(world: &World<Parrot>, index: usize) -> &Parrot {
    world.hosts[index].node.as_ref().expect("it runs")
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_first_call_opens_a_stream_and_the_next_one_uses_it() {
    let mut world = world();
    call(&mut world, 1, 1, secs(1));
    world.run(secs(1));
    // A round trip each to open, to greet and to ask.
    assert_eq!(node(&world, 0).answers, [(6 * MS, 1, Some(101))]);
    assert_eq!(world.tally.streams, 1);
    let handshake = 3 * 40;
    // Each message in one segment of 40 bytes of headers, each acknowledged by one.
    let messages = [GREETING_BYTES, GREETING_BYTES, 100, 101].map(|bytes| bytes as u64 + 80);
    assert_eq!(world.tally.bytes, handshake + messages.iter().sum::<u64>());
    assert_eq!(world.tally.bytes, world.tally.stream_bytes);
    call(&mut world, 2, 1, secs(1));
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers[1], (secs(1) + 2 * MS, 2, Some(101)));
    assert_eq!(world.tally.streams, 1);
    world.run(secs(61));
    call(&mut world, 3, 1, secs(1));
    world.run(secs(1));
    assert_eq!(world.tally.streams, 2, "an idle stream was closed");
}

#[test]
fn a_call_over_a_cut_is_made_in_time_or_never() {
    let mut world = world();
    call(&mut world, 1, 1, secs(1));
    world.run(secs(1));
    world.net.one_way.insert((1, 0));
    call(&mut world, 2, 1, Duration::from_millis(500));
    world.run(Duration::from_millis(450));
    assert_eq!(node(&world, 1).heard.len(), 2, "it hears");
    world.net.heal();
    world.run(secs(5));
    // Its answer was to be sent again after 200 and 600 ms, and by then nobody waited.
    assert_eq!(node(&world, 0).answers.len(), 1);
    world.net.one_way.insert((1, 0));
    call(&mut world, 3, 1, secs(1));
    world.run(Duration::from_millis(450));
    world.net.heal();
    world.run(secs(5));
    assert_eq!(node(&world, 0).answers.len(), 1, "opening is tried again after a second");
    call(&mut world, 4, 1, secs(1));
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers.len(), 2);
}

#[test]
fn a_stream_to_an_earlier_life_breaks_at_once_and_one_to_the_dead_says_nothing() {
    let mut world = world();
    call(&mut world, 1, 1, secs(1));
    world.run(secs(1));
    world.crash(1);
    call(&mut world, 2, 1, secs(1));
    world.run(secs(2));
    assert_eq!(node(&world, 0).answers.len(), 1);
    world.start(1);
    call(&mut world, 3, 1, secs(1));
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers[1].2, Some(101), "the silent stream was given up");
    world.crash(1);
    world.start(1);
    let asked = world.now;
    call(&mut world, 4, 1, secs(1));
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers[2], (asked + 2 * MS, 4, None));
    call(&mut world, 5, 1, secs(1));
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers[3].2, Some(101));
}

#[test]
fn a_paused_process_does_nothing_and_then_all_at_once() {
    let mut world = world();
    world.with(1, |node, now| node.due = Some(now + secs(1)));
    world.pause(1);
    send(&mut world, 1, 1_000);
    call(&mut world, 1, 1, secs(60));
    world.run(secs(10));
    assert!(node(&world, 1).heard.is_empty() && node(&world, 1).woken.is_empty());
    assert!(node(&world, 0).answers.is_empty());
    world.resume(1);
    assert_eq!(node(&world, 1).woken, [world.now]);
    assert_eq!(node(&world, 1).heard, [world.now; SOCKET_PACKETS], "a socket's buffer is bounded");
    world.run(secs(1));
    assert_eq!(node(&world, 0).answers.len(), 1, "a stream loses nothing");
}

#[test]
fn a_packet_is_counted_with_all_that_is_around_it_and_lost_as_often_as_told() {
    let mut world = world();
    world.net.loss = 0.25;
    send(&mut world, 1, 10_000);
    world.run(secs(1));
    assert_eq!(world.tally.bytes, 10_000 * (10 + 2 + 28));
    let heard = node(&world, 1).heard.len();
    assert!((7_300..7_700).contains(&heard), "{heard}");
    assert!(world.tally.handled == heard as u64);
}

#[test]
fn faults_of_the_network_are_those_that_were_asked_for() {
    let heard = |net: &dyn Fn(&mut Net)| {
        let mut world = world();
        net(&mut world.net);
        send(&mut world, 1, 1_000);
        world.run(secs(20));
        node(&world, 1).heard.clone()
    };
    assert_eq!(heard(&|_| {}), vec![MS; 1_000]);
    assert!(heard(&|net| net.cut = [1].into()).is_empty());
    assert!(heard(&|net| net.mute = [0].into()).is_empty());
    assert!(heard(&|net| net.deaf = [1].into()).is_empty());
    assert!(heard(&|net| net.group = [(1, 1)].into()).is_empty());
    assert!(heard(&|net| net.one_way = [(0, 1)].into()).is_empty());
    assert_eq!(heard(&|net| net.mute = [1].into()).len(), 1_000);
    assert_eq!(heard(&|net| net.deaf = [0].into()).len(), 1_000);
    assert_eq!(heard(&|net| net.one_way = [(1, 0)].into()).len(), 1_000);
    assert_eq!(heard(&|net| net.inbound = [(1, secs(12))].into()), vec![secs(12) + MS; 1_000]);
    let twice = heard(&|net| net.duplicates = 0.5).len();
    assert!((1_430..1_570).contains(&twice), "{twice}");
    let late = heard(&|net| net.late = 0.5);
    let later = late.iter().filter(|at| **at > MS).count();
    assert!((400..540).contains(&later), "{later}");
}
