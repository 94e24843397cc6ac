use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::{Clock, SystemClock, TokioNet};
use annulus_proto::message::Segment;
use annulus_proto::{Attributes, Entry, Key, NodeId, Slot, Value, Verdict, record};
use annulus_shm::{HeapRegion, Shards, TableOptions, Writer, create_shards, open_or_create};

use super::fake::{FakeNode, Script, birth, builder, echo, routes, version};
use crate::{AskReason, Builder, Client, Error, LocalGet, LocalReader, LocalValue, Source};

/// A node's segment for the default table, in heap memory, with three shards.
struct Table {
    region: HeapRegion,
    writers: Vec<Writer>,
    instance: u64,
}

impl Table {
    fn new(instance: u64) -> Self {
        let options = TableOptions::new(instance, 5);
        let options = TableOptions { segment_bytes: 3 << 20, shards: 3, ..options };
        let region = HeapRegion::new(options.segment_bytes as usize);
        let writers = create_shards(&region.handle(), &options).unwrap();
        let mut table = Self { region, writers, instance };
        Slot::all().for_each(|slot| table.writer(slot).set_freshness(slot.index(), u64::MAX));
        table
    }

    fn writer(&mut self, slot: Slot) -> &mut Writer {
        &mut self.writers[usize::from(slot.index()) % 3]
    }

    fn segment(&self) -> Segment {
        let (table, path) = ("sessions".to_owned(), "heap".to_owned());
        Segment { table, path, instance: self.instance }
    }

    fn script(&self) -> Script {
        Script { segments: vec![self.segment()], ..Script::default() }
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        let mut bytes = Vec::new();
        record::write(entry, &mut bytes);
        let mark = entry.body.as_ref().map_or(0, |body| record::mark(body.touched));
        let slot = Slot::of(key.as_bytes());
        let writer = self.writer(slot);
        writer.put(key.as_bytes(), slot.index(), &bytes, entry.deadline(), mark).unwrap();
    }

    fn builder(&self, node: &FakeNode) -> Builder<TokioNet, SystemClock> {
        let region = self.region.clone();
        builder([node.seed()]).attach(move |_| Ok(attach(&region)))
    }

    async fn client(&self, node: &FakeNode) -> Client {
        self.builder(node).connect().await.unwrap()
    }
}

fn attach(region: &HeapRegion) -> Shards {
    Shards::attach(region.handle(), |key| Slot::of(key).index()).unwrap()
}

fn entry(value: Value) -> Entry {
    let attributes = Attributes { replicas: 2, owner: b"me".to_vec() };
    Entry::start(birth(), value, (0, 0), attributes, 5)
}

fn bytes(value: &[u8]) -> Entry {
    entry(Value::Bytes(value.to_vec()))
}

/// A session that is kept away from its users until then.
fn slowed(value: &[u8], until: u64) -> Entry {
    let mut entry = bytes(value);
    entry.judge(version(2), Verdict::Suspect { until });
    entry
}

#[tokio::test]
async fn a_hit_asks_nobody() {
    let mut table = Table::new(1);
    table.put("k", &bytes(b"value"));
    let fields = BTreeMap::from([(b"a".to_vec(), b"1".to_vec())]);
    table.put("map", &entry(Value::Map(fields.clone())));
    let mut node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let read = client.get("k").await.unwrap();
    assert_eq!(read.source, Source::SharedMemory);
    assert_eq!(read.session.value, Value::Bytes(b"value".to_vec()));
    assert_eq!((read.session.birth, read.session.version), (birth(), birth()));
    assert_eq!((read.session.touched, read.session.deadline), (5, 0));
    assert_eq!(read.session.attributes.owner, b"me");
    assert_eq!(client.get("map").await.unwrap().session.value, Value::Map(fields));
    assert!(client.locate("k").await.unwrap().in_shared_memory);
    assert!(node.arrived.try_recv().is_err());
    assert_eq!(client.counters().local_hits, 3);
}

#[tokio::test]
async fn an_ended_session_is_ended_without_asking() {
    let mut table = Table::new(1);
    table.put("k", &Entry::ended(birth(), version(2)));
    let mut node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    assert_eq!(client.get("k").await.unwrap_err(), Error::Ended);
    assert!(node.arrived.try_recv().is_err());
}

#[tokio::test]
async fn a_suspect_is_told_of_without_asking_until_its_time_is_over_or_it_is_released() {
    let mut table = Table::new(1);
    table.writers.iter_mut().for_each(|writer| writer.set_clock_offset(0));
    let now_ms = SystemClock.monotonic_coarse_ms();
    let minute = Duration::from_secs(60);
    let until = now_ms + minute.as_millis() as u64;
    table.put("hot", &slowed(b"hot", until));
    table.put("cooled", &slowed(b"cooled", now_ms));
    let mut released = slowed(b"released", until);
    released.judge(version(3), Verdict::Released { until });
    table.put("released", &released);
    let mut moved = slowed(b"moved", until);
    moved.move_to(1, version(3), |_| 0);
    table.put("moved", &moved.marker());

    let mut node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let error = client.get("hot").await.unwrap_err();
    let Error::SlowDown { retry_after } = error else { panic!("{error}") };
    assert!(retry_after > minute / 2 && retry_after <= minute, "{retry_after:?}");
    for key in ["cooled", "released"] {
        let read = client.get(key).await.unwrap();
        assert_eq!(read.session.value, Value::Bytes(key.as_bytes().to_vec()));
    }
    assert_eq!(client.counters().local_hits, 3);
    assert!(node.arrived.try_recv().is_err());

    let reader = client.local_reader("sessions").unwrap();
    let mut buffer = Vec::new();
    assert!(matches!(reader.get("hot", &mut buffer), LocalGet::SlowDown { .. }));
    assert!(matches!(reader.get("moved", &mut buffer), LocalGet::Ask(AskReason::Miss)));
    // It lives, and listings show no values.
    let listed = reader.scan(0, 100).unwrap().entries;
    let mut keys: Vec<&[u8]> = listed.iter().map(|listed| listed.key.as_bytes()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [&b"cooled"[..], b"hot", b"released"]);
}

#[tokio::test]
async fn what_shared_memory_cannot_tell_a_node_is_asked() {
    let mut table = Table::new(1);
    table.writers.iter_mut().for_each(|writer| writer.set_clock_offset(0));
    let now_ms = SystemClock.monotonic_coarse_ms();
    let mut expired = bytes(b"expired");
    expired.write_lease(version(2), 0, now_ms.saturating_sub(1).max(1));
    table.put("expired", &expired);
    table.put("stale", &bytes(b"stale"));
    let stale = Slot::of(b"stale");
    table.writer(stale).set_freshness(stale.index(), 0);
    let slot = Slot::of(b"malformed");
    table.writer(slot).put(b"malformed", slot.index(), b"no record", 0, 0).unwrap();

    let mut moved = bytes(b"moved");
    moved.move_to(1, version(2), |_| 0);
    table.put("moved", &moved.marker());

    let mut node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let reader = client.local_reader("sessions").unwrap();
    let cases = [
        ("missing", AskReason::Miss),
        ("moved", AskReason::Miss),
        ("expired", AskReason::Expired),
        ("stale", AskReason::Stale),
        ("malformed", AskReason::Damaged),
    ];
    for (key, expected) in cases {
        let mut buffer = Vec::new();
        let LocalGet::Ask(reason) = reader.get(key, &mut buffer) else { panic!("{key}") };
        assert_eq!(reason, expected);
        let (read, ()) = tokio::join!(client.get(key), async { echo(&node.next().await) });
        assert_eq!(read.unwrap().source, Source::Node(node.id), "{key}");
    }
    let counters = client.counters();
    assert_eq!(counters.local_misses, 3);
    assert_eq!((counters.local_stale, counters.local_unreadable), (1, 1));
    assert!(client.local_reader("other").is_none());
}

#[tokio::test]
async fn writes_go_through_the_node_whose_memory_is_attached() {
    let table = Table::new(1);
    let mut host = FakeNode::with(1, table.script()).await;
    let mut primary = FakeNode::start(2).await;
    host.set_routes(routes(1, &[&primary, &host]));
    let client = table.client(&host).await;
    client.locate("k").await.unwrap();
    let (touched, ()) = tokio::join!(client.touch("k", None), async {
        host.next().await.acknowledge(version(2));
    });
    touched.unwrap();
    assert!(primary.arrived.try_recv().is_err());
}

#[tokio::test]
async fn a_client_reads_its_own_write_even_when_another_node_took_it() {
    let mut table = Table::new(1);
    table.put("k", &bytes(b"old"));
    let mut host = FakeNode::with(1, table.script()).await;
    let mut other = FakeNode::start(2).await;
    host.set_routes(routes(1, &[&host, &other]));
    let client = table.client(&host).await;
    client.locate("k").await.unwrap();
    let change = crate::Change::Value(Value::Bytes(b"new".to_vec()));
    let (updated, ()) = tokio::join!(client.update("k", None, change), async {
        host.next().await.hang_up();
        other.next().await.acknowledge(version(9));
    });
    updated.unwrap();

    // Shared memory still has the old value.
    let (read, ()) = tokio::join!(client.get("k"), async {
        let arrived = tokio::select! { at = host.next() => at, at = other.next() => at };
        echo(&arrived);
    });
    assert!(matches!(read.unwrap().source, Source::Node(_)));
    assert_eq!(client.counters().local_stale, 1);

    // Until it has caught up.
    let mut new = bytes(b"old");
    new.write_value(version(9), Value::Bytes(b"new".to_vec()));
    table.put("k", &new);
    let read = client.get("k").await.unwrap();
    assert_eq!(read.source, Source::SharedMemory);
    assert_eq!(read.session.value, Value::Bytes(b"new".to_vec()));
}

#[tokio::test]
async fn an_end_at_another_node_hides_the_copy_that_lives_on() {
    let mut table = Table::new(1);
    table.put("k", &bytes(b"alive"));
    let mut host = FakeNode::with(1, table.script()).await;
    let mut other = FakeNode::start(2).await;
    host.set_routes(routes(1, &[&host, &other]));
    let client = table.client(&host).await;
    client.locate("k").await.unwrap();
    let (ended, ()) = tokio::join!(client.end("k", Some(birth())), async {
        host.next().await.hang_up();
        other.next().await.acknowledge(version(9));
    });
    ended.unwrap();
    let mut late = bytes(b"alive");
    late.write_value(version(99), Value::Bytes(b"late".to_vec()));
    table.put("k", &late);
    let mut buffer = Vec::new();
    let reader = client.local_reader("sessions").unwrap();
    let got = reader.get("k", &mut buffer);
    assert!(matches!(got, LocalGet::Ask(AskReason::BehindOwnWrite)), "{got:?}");
    table.put("k", &Entry::ended(birth(), version(9)));
    assert!(matches!(reader.get("k", &mut buffer), LocalGet::Ended));
}

#[tokio::test]
async fn a_segment_of_another_instance_is_not_attached() {
    let table = Table::new(1);
    let script =
        Script { segments: vec![Segment { instance: 2, ..table.segment() }], ..Script::default() };
    let node = FakeNode::with(1, script).await;
    let client = table.client(&node).await;
    assert!(client.local_reader("sessions").is_none());
    assert_eq!(client.list_local(0, 10).unwrap_err(), Error::NotAttached);
}

#[tokio::test]
async fn a_segment_that_is_not_on_this_host_is_not_attached() {
    let table = Table::new(1);
    let mut node = FakeNode::with(1, table.script()).await;
    // As in production: the path that the node tells leads nowhere here.
    let client = Client::connect([node.seed()]).await.unwrap();
    assert!(client.local_reader("sessions").is_none());
    let (read, ()) = tokio::join!(client.get("k"), async { echo(&node.next().await) });
    read.unwrap();
}

#[tokio::test]
async fn readers_keep_the_old_segment_until_the_restarted_node_tells_of_a_new_one() {
    let mut old = Table::new(1);
    old.put("k", &bytes(b"old"));
    let mut new = Table::new(2);
    new.put("k", &bytes(b"new"));
    let regions = [old.region.clone(), new.region.clone()];
    let node = FakeNode::with(1, old.script()).await;
    let client = builder([node.seed()])
        .attach(move |segment| {
            let index = usize::from(segment.instance == 2);
            Ok(attach(&regions[index]))
        })
        .connect()
        .await
        .unwrap();
    let reader = client.local_reader("sessions").unwrap();
    let addr = node.stop().await;
    let value = |reader: &LocalReader| {
        let mut buffer = Vec::new();
        let LocalGet::Live(session) = reader.get("k", &mut buffer) else { panic!("it lives") };
        let LocalValue::Bytes(value) = session.value else { panic!("bytes") };
        value.to_vec()
    };
    assert_eq!(value(&reader), b"old");
    let _node = FakeNode::start_at(addr, 1, new.script()).await;
    while client.counters().attached < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(value(&reader), b"new");
}

#[tokio::test]
async fn many_keys_are_read_at_once_as_each_would_be_alone() {
    let mut table = Table::new(1);
    for number in 0..20u8 {
        table.put(&format!("k{number}"), &bytes(&[number; 300]));
    }
    table.put("ended", &Entry::ended(birth(), version(9)));
    table.put("slowed", &slowed(b"hot", u64::MAX >> 16));
    let node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let reader = client.local_reader("sessions").unwrap();
    let names: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    let mut keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    keys.extend([&b"ended"[..], b"slowed", b"nobody's"]);
    let mut seen = Vec::new();
    reader.get_many(&keys, &mut Vec::new(), |at, got| {
        assert_eq!(at, seen.len());
        seen.push(match got {
            LocalGet::Live(session) => match session.value {
                LocalValue::Bytes(value) => Some(value.to_vec()),
                _ => panic!("bytes were stored"),
            },
            LocalGet::Ended => {
                assert_eq!(keys[at], b"ended");
                None
            }
            LocalGet::SlowDown { .. } => {
                assert_eq!(keys[at], b"slowed");
                None
            }
            LocalGet::Ask(reason) => {
                assert_eq!((keys[at], reason), (&b"nobody's"[..], AskReason::Miss));
                None
            }
        });
    });
    let stored = (0..20u8).map(|number| Some(vec![number; 300]));
    assert_eq!(seen, stored.chain([None, None, None]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_reuses_its_buffer_and_gives_bytes_in_place() {
    let mut table = Table::new(1);
    table.put("k", &bytes(&[7; 3000]));
    table.put("small", &bytes(b"small"));
    let node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let reader = client.local_reader("sessions").unwrap();
    let mut buffer = Vec::new();
    assert!(matches!(reader.get("k", &mut buffer), LocalGet::Live(_)));
    let (at, capacity) = (buffer.as_ptr_range().start, buffer.capacity());
    for key in ["small", "k", "missing"].into_iter().cycle().take(30) {
        if let LocalGet::Live(session) = reader.get(key, &mut buffer) {
            let LocalValue::Bytes(value) = session.value else { panic!("bytes") };
            assert_eq!(value.len(), if key == "k" { 3000 } else { 5 });
        }
    }
    assert_eq!((buffer.as_ptr_range().start, buffer.capacity()), (at, capacity));
    // It may be used from any thread.
    let reader = Arc::new(reader);
    let there = reader.clone();
    std::thread::spawn(move || {
        let mut buffer = Vec::new();
        assert!(matches!(there.get("small", &mut buffer), LocalGet::Live(_)));
    })
    .join()
    .unwrap();
}

#[tokio::test]
async fn listings_give_each_live_session_once() {
    let mut table = Table::new(1);
    for n in 0..100 {
        table.put(&format!("key-{n:02}"), &bytes(&vec![0; n]));
    }
    table.put("ended", &Entry::ended(birth(), version(2)));
    table.put("stale", &bytes(b"stale"));
    let stale = Slot::of(b"stale");
    table.writer(stale).set_freshness(stale.index(), 0);
    let node = FakeNode::with(1, table.script()).await;
    let client = table.client(&node).await;
    let mut listed = BTreeMap::new();
    let mut cursor = 0;
    loop {
        let page = client.list_local(cursor, 10).unwrap();
        for entry in page.entries {
            assert!(listed.insert(entry.key.clone(), entry.size).is_none(), "listed twice");
        }
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(listed.len(), 100);
    assert_eq!(listed[&Key::new("key-42").unwrap()], 42);
}

#[test]
fn a_reader_stands_alone_without_tokio() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sessions");
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for shards in [1, 4] {
        let options = TableOptions { segment_bytes: 4 << 20, shards, ..TableOptions::new(7, 5) };
        let mut opened = open_or_create(&path, &options).unwrap();
        for key in &keys {
            let slot = Slot::of(key.as_bytes()).index();
            let writer = &mut opened.writers[usize::from(slot % shards)];
            writer.set_freshness(slot, u64::MAX);
            let mut record = Vec::new();
            record::write(&bytes(key.as_bytes()), &mut record);
            writer.put(key.as_bytes(), slot, &record, 0, 0).unwrap();
        }

        assert!(LocalReader::attach(&path, 8).unwrap().is_none(), "another instance");
        assert!(LocalReader::attach(directory.path().join("none"), 7).is_err());
        let reader = LocalReader::attach(&path, 7).unwrap().unwrap();
        let mut buffer = Vec::new();
        for key in &keys {
            let LocalGet::Live(session) = reader.get(key, &mut buffer) else { panic!("it lives") };
            assert_eq!(session.value, LocalValue::Bytes(key.as_bytes()));
            assert_eq!(NodeId::from_bits(9), session.birth.node);
        }
        let asked: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let mut live = 0;
        reader.get_many(&asked, &mut buffer, |at, found| {
            let LocalGet::Live(session) = found else { panic!("it lives") };
            assert_eq!(session.value, LocalValue::Bytes(asked[at]));
            live += 1;
        });
        assert_eq!((live, reader.stats().unwrap().entries), (40, 40));
        let (mut listed, mut cursor) = (0, 0);
        loop {
            let page = reader.scan(cursor, 7).unwrap();
            (listed, cursor) = (listed + page.entries.len(), page.next);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(listed, 40);
    }
}
