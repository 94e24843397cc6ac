//! The process that writes the segment: this binary again, asked line by line.

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annulus_shm::{Writer, open_or_create};
use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::data::{Key, Requests, Sizes, VALUE_MAX, partition};
use super::subject::per_request_ns;
use crate::entries::{VALUE_BYTES, key, mixed, value};
use crate::process::{Process, Site, settle};

/// What a writing process is told at its start.
#[derive(Args)]
pub(crate) struct WriterArgs {
    #[arg(long)]
    core: usize,
    #[arg(long)]
    segment: PathBuf,
    #[arg(long)]
    entries: u64,
    #[arg(long, value_enum)]
    sizes: Sizes,
}

/// What it is asked.
#[derive(Serialize, Deserialize)]
enum Ask {
    /// Put all entries.
    Fill,
    /// Give so many entries new values, as fast as it goes.
    Put(usize),
    /// Give entries new values until told to halt.
    WriteTable,
    /// Write as many bytes as often into private memory until told to halt.
    WritePrivate {
        per_second: f64,
    },
    Halt,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    Opened { took_ms: f64, entries: u64, set_aside: Option<String>, clock_domain: u64 },
    Filled(Filled),
    PutNs(f64),
    Started,
    PerSecond(f64),
}

/// A full table, and all the memory that it takes.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Filled {
    pub(super) load: f64,
    pub(super) segment_bytes: u64,
    /// What the process has allocated for it beside the segment.
    pub(super) private_bytes: u64,
}

/// A writing process, as the measuring one sees it. Killed when dropped.
pub(super) struct WriterProcess {
    process: Process,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(super) opened: Opened,
}

/// What opening gave.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) took_ms: f64,
    pub(super) entries: u64,
    pub(super) clock_domain: u64,
}

/// What is written beside a reader.
#[derive(Clone, Copy)]
pub(super) enum Written {
    Table,
    Private { per_second: f64 },
}

impl WriterProcess {
    /// Starts one on a core; returns when it has opened the segment or made it.
    pub(super) fn start(
        site: &Site,
        core: usize,
        segment: &Path,
        entries: u64,
        sizes: Sizes,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let sizes = if sizes == Sizes::Fixed { "fixed" } else { "mixed" };
        command.args(["table-writer", "--core", &core.to_string(), "--sizes", sizes]);
        command.args(["--entries", &entries.to_string(), "--segment"]).arg(segment);
        let mut process = Process::start_with_input(&mut command, site.log("writer"))?;
        let (asks, answers) = process.pipes().context("a process is asked by one")?;
        let opened = Opened { took_ms: 0.0, entries: 0, clock_domain: 0 };
        let mut writer = Self { process, asks, answers: BufReader::new(answers), opened };
        match writer.answer()? {
            Answer::Opened { took_ms, entries, clock_domain, set_aside: None } => {
                writer.opened = Opened { took_ms, entries, clock_domain };
                Ok(writer)
            }
            Answer::Opened { set_aside: Some(why), .. } => bail!("a segment was set aside: {why}"),
            _ => bail!("a writer opens first"),
        }
    }

    pub(super) fn fill(&mut self) -> anyhow::Result<Filled> {
        match self.ask(&Ask::Fill)? {
            Answer::Filled(filled) => Ok(filled),
            _ => bail!("a writer answers what it is asked"),
        }
    }

    /// Nanoseconds per put of a new value for an existing key.
    pub(super) fn put(&mut self, count: usize) -> anyhow::Result<f64> {
        match self.ask(&Ask::Put(count))? {
            Answer::PutNs(ns) => Ok(ns),
            _ => bail!("a writer answers what it is asked"),
        }
    }

    /// Writes as long as `meanwhile` takes; returns what that gave, and the writes per second.
    pub(super) fn write_while<T>(
        &mut self,
        what: Written,
        meanwhile: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, f64)> {
        let started = self.ask(&match what {
            Written::Table => Ask::WriteTable,
            Written::Private { per_second } => Ask::WritePrivate { per_second },
        })?;
        let result = meanwhile()?;
        match (started, self.ask(&Ask::Halt)?) {
            (Answer::Started, Answer::PerSecond(rate)) => Ok((result, rate)),
            _ => bail!("a writer answers what it is asked"),
        }
    }

    /// `kill -9` while it writes; waits until it is gone.
    pub(super) fn kill_writing(&mut self) -> anyhow::Result<()> {
        match self.ask(&Ask::WriteTable)? {
            Answer::Started => Ok(self.process.kill()?),
            _ => bail!("a writer answers what it is asked"),
        }
    }

    fn ask(&mut self, ask: &Ask) -> anyhow::Result<Answer> {
        writeln!(self.asks, "{}", serde_json::to_string(ask)?)?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line)
            .with_context(|| format!("a writer failed: {}", self.process.last_words()))
    }
}

/// Opens the segment, and does what standard input says until it ends.
pub(crate) fn be_writer(args: &WriterArgs) -> anyhow::Result<()> {
    settle(&[args.core])?;
    let options = args.sizes.table(args.entries);
    let private_before = private_bytes();
    let began = Instant::now();
    let mut opened = open_or_create(&args.segment, &options)?;
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut writer = opened.writers.remove(0);
    for partition in 0..annulus_shm::PARTITIONS as u16 {
        writer.set_freshness(partition, u64::MAX);
    }
    answer(&Answer::Opened {
        took_ms,
        entries: opened.recovery.map_or(0, |recovery| recovery.entries as u64),
        set_aside: opened.set_aside.map(|(_, why)| why),
        clock_domain: writer.region().clock_domain(),
    })?;
    let mut asks = io::stdin().lines();
    let mut puts = None;
    while let Some(line) = asks.next() {
        match serde_json::from_str(&line?)? {
            Ask::Fill => {
                fill(&mut writer, args)?;
                let stats = writer.stats();
                answer(&Answer::Filled(Filled {
                    load: stats.load,
                    segment_bytes: stats.segment_bytes,
                    private_bytes: private_bytes().saturating_sub(private_before),
                }))?;
            }
            Ask::Put(count) => {
                let puts = puts.get_or_insert_with(|| Puts::prepare(args.entries));
                let ns = puts.put(&mut writer, count)?;
                answer(&Answer::PutNs(ns))?;
            }
            ask @ (Ask::WriteTable | Ask::WritePrivate { .. }) => {
                let puts = puts.get_or_insert_with(|| Puts::prepare(args.entries));
                let halt = AtomicBool::new(false);
                let rate = std::thread::scope(|scope| {
                    let writing = scope.spawn(|| match ask {
                        Ask::WritePrivate { per_second } => Ok(write_private(per_second, &halt)),
                        _ => puts.write(&mut writer, &halt),
                    });
                    let told = answer(&Answer::Started)
                        .and_then(|()| asks.next().context("the measuring process is gone"));
                    halt.store(true, Ordering::Relaxed);
                    told?.context("standard input")?;
                    writing.join().expect("a writing thread does not panic")
                })?;
                answer(&Answer::PerSecond(rate))?;
            }
            Ask::Halt => bail!("nothing is under way"),
        }
    }
    Ok(())
}

fn answer(answer: &Answer) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(answer)?)?;
    Ok(())
}

fn fill(writer: &mut Writer, args: &WriterArgs) -> anyhow::Result<()> {
    let mut buffer = [0; VALUE_MAX];
    for number in 0..args.entries {
        let value = args.sizes.value(number, &mut buffer);
        writer.put(&key(number), partition(number), value, 0, 0)?;
    }
    Ok(())
}

/// Keys in an order of their own, and values of which every put takes another one.
struct Puts {
    keys: Vec<Key>,
    partitions: Vec<u16>,
    values: Vec<[u8; VALUE_BYTES]>,
    at: usize,
}

/// Few enough to be at hand, as a value is that has just come from a client.
pub(super) const VALUES: u64 = 64;

impl Puts {
    fn prepare(entries: u64) -> Self {
        let Requests { numbers, keys, .. } = Requests::uniform(entries);
        let partitions = numbers.into_iter().map(partition).collect();
        // Still the value of a number, but not of the key's.
        let values = (0..VALUES).map(value).collect();
        Self { keys, partitions, values, at: 0 }
    }

    fn put_one(&mut self, writer: &mut Writer) -> anyhow::Result<()> {
        let at = self.at % self.keys.len();
        let value = &self.values[self.at % self.values.len()];
        writer.put(&self.keys[at], self.partitions[at], value, 0, 0)?;
        self.at += 1;
        Ok(())
    }

    fn put(&mut self, writer: &mut Writer, count: usize) -> anyhow::Result<f64> {
        let began = Instant::now();
        for _ in 0..count {
            self.put_one(writer)?;
        }
        Ok(per_request_ns(began, count))
    }

    /// Puts per second until told to halt.
    fn write(&mut self, writer: &mut Writer, halt: &AtomicBool) -> anyhow::Result<f64> {
        let (began, first) = (Instant::now(), self.at);
        while !halt.load(Ordering::Relaxed) {
            for _ in 0..STRETCH {
                self.put_one(writer)?;
            }
        }
        Ok((self.at - first) as f64 / began.elapsed().as_secs_f64())
    }
}

/// Writes between two looks at the clock or at the halt.
const STRETCH: u32 = 64;
/// What one put stores: a record, and a word of its line.
const PUT_BYTES: usize = 320;
/// As much memory as 10⁶ records take.
const PRIVATE_BYTES: usize = 320 << 20;

/// Does to private memory what a put at this rate does to the table; returns writes per second.
fn write_private(per_second: f64, halt: &AtomicBool) -> f64 {
    let mut memory = vec![1_u8; PRIVATE_BYTES];
    let places = (PRIVATE_BYTES / PUT_BYTES) as u64;
    let stretch = Duration::from_secs_f64(f64::from(STRETCH) / per_second);
    let began = Instant::now();
    let mut written = 0_u64;
    let mut until = began;
    while !halt.load(Ordering::Relaxed) {
        for _ in 0..STRETCH {
            let place = (mixed(written) % places) as usize * PUT_BYTES;
            memory[place..place + PUT_BYTES].fill(written as u8);
            written += 1;
        }
        black_box(&mut memory);
        until += stretch;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    written as f64 / began.elapsed().as_secs_f64()
}

/// The memory of this process that is neither a file's nor shared.
fn private_bytes() -> u64 {
    crate::machine::private_bytes(std::process::id()).unwrap_or(0)
}
