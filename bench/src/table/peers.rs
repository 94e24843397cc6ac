//! Maps that threads of one process share, and a database that processes do.

#![allow(unsafe_code, reason = "opening an LMDB environment is a promise about its files")]

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::path::Path;
use std::time::Instant;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithTls};
use papaya::{HashMapRef, LocalGuard};
use twox_hash::XxHash3_64;

use super::Bench;
use super::data::{Key, Requests, Sizes, VALUE_MAX};
use super::hits::{self, Subjects};
use super::subject::{Subject, per_request_ns};
use super::writer::VALUES;
use crate::entries::{VALUE_BYTES, key, value};
use crate::sample::Rounds;

type Value = [u8; VALUE_BYTES];

pub(super) const NAMES: &str = "papaya 0.2, dashmap 6 and std HashMap with their default hasher (SipHash 1-3), papaya with XXH3 too; LMDB through heed 0.22";

/// The same entries at each peer.
pub(super) struct Peers {
    papaya: papaya::HashMap<Key, Value>,
    /// With the hash that the table uses, so that the hash is not what is compared.
    papaya_xxh3: papaya::HashMap<Key, Value, BuildHasherDefault<Xxh3>>,
    dash: dashmap::DashMap<Key, Value>,
    lmdb: Lmdb,
}

impl Peers {
    pub(super) fn fill(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let papaya = papaya::HashMap::new();
        let papaya_xxh3 = papaya::HashMap::default();
        let dash = dashmap::DashMap::new();
        for number in 0..bench.entries {
            let (key, value) = (key(number), value(number));
            papaya.pin().insert(key, value);
            papaya_xxh3.pin().insert(key, value);
            dash.insert(key, value);
        }
        let lmdb = Lmdb::fill(&bench.site.segment("lmdb"), bench.entries)?;
        Ok(Self { papaya, papaya_xxh3, dash, lmdb })
    }

    pub(super) fn add_to<'a>(&'a self, subjects: &mut Subjects<'a>, requests: &'a Requests) {
        let value = [0; VALUE_BYTES];
        subjects.add(hits::PAPAYA, PapayaPinned { map: &self.papaya, value });
        subjects.add("papaya, pin held", PapayaHeld { map: self.papaya.pin(), value });
        let papaya_xxh3 = PapayaPinned { map: &self.papaya_xxh3, value };
        subjects.add("papaya, XXH3, pin per get", papaya_xxh3);
        subjects.add("dashmap", Dash { map: &self.dash, value });
        if requests.present {
            subjects.add(hits::LMDB, self.lmdb.reader());
        }
    }

    /// A round of puts of existing keys, one transaction for each.
    pub(super) fn put(
        &self,
        requests: &Requests,
        count: usize,
        rounds: &mut Rounds,
    ) -> anyhow::Result<()> {
        let values: Vec<Value> = (0..VALUES).map(value).collect();
        rounds.push(self.lmdb.put(&requests.keys[..count.min(requests.keys.len())], &values)?);
        Ok(())
    }
}

/// Values of different sizes in a map.
pub(super) struct Boxed(papaya::HashMap<Key, Box<[u8]>>);

impl Boxed {
    pub(super) fn fill(entries: u64) -> Self {
        let map = papaya::HashMap::new();
        let mut buffer = [0; VALUE_MAX];
        for number in 0..entries {
            let value = Box::from(Sizes::Mixed.value(number, &mut buffer));
            map.pin().insert(key(number), value);
        }
        Self(map)
    }

    pub(super) fn add_to<'a>(&'a self, subjects: &mut Subjects<'a>, _: &'a Requests) {
        let value = Vec::with_capacity(VALUE_MAX);
        subjects.add(hits::PAPAYA, PapayaBoxed { map: &self.0, value });
    }
}

/// The hash of one key at a time, without the buffer that hashing in pieces takes.
#[derive(Default)]
struct Xxh3(u64);

impl Hasher for Xxh3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// For the plot: papaya alone, of so many entries.
pub(super) fn papaya_alone(
    entries: u64,
    requests: &Requests,
    rounds: usize,
) -> anyhow::Result<Option<f64>> {
    let map = papaya::HashMap::new();
    for number in 0..entries {
        map.pin().insert(key(number), value(number));
    }
    let subject = PapayaPinned { map: &map, value: [0; VALUE_BYTES] };
    hits::lowest_dependent(requests, rounds, subject).map(Some)
}

/// A guard taken for each get, as code does that cannot hold one across a request.
struct PapayaPinned<'a, S> {
    map: &'a papaya::HashMap<Key, Value, S>,
    value: Value,
}

impl<S: BuildHasher> Subject for PapayaPinned<'_, S> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.copy_from_slice(self.map.pin().get(key)?);
        Some(&self.value)
    }
}

/// One guard for all gets, which keeps all garbage alive.
struct PapayaHeld<'a, S> {
    map: HashMapRef<'a, Key, Value, S, LocalGuard<'a>>,
    value: Value,
}

impl<S: BuildHasher> Subject for PapayaHeld<'_, S> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.copy_from_slice(self.map.get(key)?);
        Some(&self.value)
    }
}

/// Values of different sizes, each in memory of its own.
struct PapayaBoxed<'a> {
    map: &'a papaya::HashMap<Key, Box<[u8]>>,
    value: Vec<u8>,
}

impl Subject for PapayaBoxed<'_> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.clear();
        self.value.extend_from_slice(self.map.pin().get(key)?);
        Some(&self.value)
    }
}

struct Dash<'a> {
    map: &'a dashmap::DashMap<Key, Value>,
    value: Value,
}

impl Subject for Dash<'_> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.copy_from_slice(&*self.map.get(key)?);
        Some(&self.value)
    }
}

/// LMDB, in files of the same memory that segments are in.
struct Lmdb {
    env: Env<WithTls>,
    database: Database<Bytes, Bytes>,
}

impl Lmdb {
    /// Makes a database of so many entries in a new directory. Nothing is ever flushed.
    fn fill(directory: &Path, entries: u64) -> anyhow::Result<Self> {
        fs::create_dir(directory)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(usize::try_from(entries)?.max(1 << 16) << 11);
        // SAFETY: losing the newest writes at a crash of the machine is what is asked for, and nobody
        // else opens these files, let alone changes them.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP);
            options.open(directory)?
        };
        let mut txn = env.write_txn()?;
        let database = env.create_database(&mut txn, None)?;
        for number in 0..entries {
            database.put(&mut txn, &key(number)[..], &value(number)[..])?;
        }
        txn.commit()?;
        Ok(Self { env, database })
    }

    fn reader(&self) -> LmdbReader<'_> {
        LmdbReader { lmdb: self, value: Vec::with_capacity(VALUE_BYTES) }
    }

    /// Replaces values, and returns nanoseconds per put.
    fn put(&self, keys: &[Key], values: &[Value]) -> anyhow::Result<f64> {
        let began = Instant::now();
        for (key, value) in keys.iter().zip(values.iter().cycle()) {
            let mut txn = self.env.write_txn()?;
            self.database.put(&mut txn, &key[..], &value[..])?;
            txn.commit()?;
        }
        Ok(per_request_ns(began, keys.len()))
    }
}

struct LmdbReader<'a> {
    lmdb: &'a Lmdb,
    value: Vec<u8>,
}

impl Subject for LmdbReader<'_> {
    #[inline]
    fn get(&mut self, _: usize, key: &Key) -> Option<&[u8]> {
        self.value.clear();
        let txn = self.lmdb.env.read_txn().expect("one reader, and its slot is free");
        let found = self.lmdb.database.get(&txn, &key[..]).expect("nobody else touches the files");
        self.value.extend_from_slice(found?);
        Some(&self.value)
    }
}
