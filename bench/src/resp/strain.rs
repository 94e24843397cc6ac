//! What other clients notice of those who mean no good.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::load::Load;
use super::{Bench, NODE, REDIS, Subject, TABLE, fill, must};
use crate::process::TableConfig;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// Connections that say half of a request, and no more.
const HALF_OPEN: usize = 9_600;
/// Connections of which half of a large value arrives, and no more.
const HALF_VALUES: usize = 100;
const HALF_A_VALUE: usize = 512 << 10;
/// Connections that ask and read no answer.
const NEVER_READ: usize = 50;
/// How often somebody comes who says something else than requests, while others are served.
const BETWEEN_NOISES: Duration = Duration::from_millis(2);
/// What is no request, or announces more than any server takes; what it is answered, if that is waited for: Redis waits for more
/// of what has a NUL in it.
const NOISES: [(&[u8], Option<&str>); 4] = [
    (
        b"*3\r\n$3\r\nSET\r\n$8\r\nstranger\r\n$536870913\r\n",
        Some("-ERR Protocol error: invalid bulk length"),
    ),
    (b"*2147483648\r\n", Some("-ERR Protocol error: invalid multibulk length")),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Some("-ERR ")),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", None),
];
/// What is asked of a server in each round.
const LOAD: Load = Load { command: "GET", pipeline: 1 };
const KEYS: u64 = 50_000;

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let table = TableConfig::new(TABLE, "quorum", "64MiB".to_owned());
    let cluster = bench.cluster(1, table)?;
    let node = &cluster.nodes[0];
    let subjects = [Subject::redis(REDIS, bench.redis), Subject::nodes(NODE, &cluster)?];
    for subject in &subjects {
        fill(subject.addr, KEYS)?;
    }
    report.progress("half a request");
    let unknown = "the system does not say what a process takes";
    let before = node.private_bytes().context(unknown)?;
    let open = halves(subjects[1].addr)?;
    settle(&subjects[1])?;
    let after = node.private_bytes().context(unknown)?;
    let each = after.saturating_sub(before) as f64 / open.len() as f64;
    drop(open);
    let rounds = if bench.quick { 1 } else { 6 };
    let mut p99s = [[Rounds::new(), Rounds::new()], [Rounds::new(), Rounds::new()]];
    for round in 0..rounds {
        for (subject, [alone, beside]) in subjects.iter().zip(&mut p99s) {
            report.progress(&format!("round {}, strangers at {}", round + 1, subject.name));
            let mut quietly = || {
                settle(subject)?;
                alone.push(LOAD.p99(bench, subject)?);
                anyhow::Ok(())
            };
            // Either comes first as often as the other.
            if round % 2 == 0 {
                quietly()?;
            }
            beside.push(among_strangers(subject, || LOAD.p99(bench, subject))?);
            if round % 2 == 1 {
                quietly()?;
            }
        }
    }
    for (subject, [alone, beside]) in subjects.iter().zip(&p99s) {
        let name = format!("GET, {}: p99 alone", subject.name);
        report.row(&name, Unit::Ms, alone);
        let among = format!("GET, {}: p99 among strangers", subject.name);
        match subject.name {
            NODE => report.goal(&among, Unit::Ms, beside, Some(&name), must(2.0)),
            _ => report.row_against(&among, Unit::Ms, beside, &name),
        }
    }
    report.row(&format!("half a request, {NODE}"), Unit::Bytes, &Rounds::from([each]));
    report.note(format!(
        "strangers: {HALF_OPEN} connections with half a request, {HALF_VALUES} with half of 1 MiB, {NEVER_READ} that take no answer, and every 2 ms somebody who announces 512 MiB or 2^31 arguments, or speaks HTTP or TLS"
    ));
    Ok(())
}

/// Measures while strangers are there, and others come and go.
fn among_strangers(
    subject: &Subject<'_>,
    measure: impl FnOnce() -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let mut open = halves(subject.addr)?;
    open.extend(half_values(subject.addr)?);
    settle(subject)?;
    // What they ask is work like that of others, until nothing of it is answered any more. They are sent away some seconds
    // later.
    let who_never_read = never_read(subject.addr)?;
    settle(subject)?;
    let is_over = AtomicBool::new(false);
    let (found, noises) = thread::scope(|scope| {
        let noises = scope.spawn(|| make_noise(subject.addr, &is_over));
        let found = measure();
        is_over.store(true, Ordering::Relaxed);
        (found, noises.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let noises = noises.with_context(|| format!("who makes a noise at {}", subject.name))?;
    ensure!(noises > 0, "nobody made a noise");
    for stream in &who_never_read {
        ensure!(is_open(stream), "{} sent somebody away too early", subject.name);
    }
    found
}

/// Waits until a server has done what it has to do with connections that came or ended.
fn settle(subject: &Subject<'_>) -> anyhow::Result<()> {
    loop {
        let before = subject.processor_time()?;
        thread::sleep(Duration::from_millis(300));
        if subject.processor_time()?.saturating_sub(before) < Duration::from_millis(20) {
            return Ok(());
        }
    }
}

fn halves(addr: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let half = |_| {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:")?;
        Ok(stream)
    };
    (0..HALF_OPEN).map(half).collect()
}

fn half_values(addr: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let half = |_| {
        let mut stream = TcpStream::connect(addr)?;
        let head = format!("*3\r\n$3\r\nSET\r\n$8\r\nstranger\r\n${}\r\n", 2 * HALF_A_VALUE);
        stream.write_all(head.as_bytes())?;
        stream.write_all(&vec![b'x'; HALF_A_VALUE])?;
        Ok(stream)
    };
    (0..HALF_VALUES).map(half).collect()
}

/// Asks on connections until the server reads no more, or has been asked enough.
fn never_read(addr: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    const ASKED_MAX: usize = 1 << 20;
    let asked = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000007\r\n".repeat(1_000);
    let ask = |_| {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nonblocking(true)?;
        let (mut sent, mut refused) = (0, 0);
        while sent < ASKED_MAX && refused < 5 {
            match stream.write(&asked[sent % asked.len()..]) {
                Ok(bytes) => (sent, refused) = (sent + bytes, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    refused += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(stream)
    };
    (0..NEVER_READ).map(ask).collect()
}

/// Whether the other side has not ended it. What there is to read is left there.
fn is_open(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Comes with one of [`NOISES`] after the other, and sees that it is told so and sent away. Returns how often.
fn make_noise(addr: SocketAddr, is_over: &AtomicBool) -> anyhow::Result<usize> {
    let mut count = 0;
    for (noise, complaint) in NOISES.into_iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(noise)?;
        count += 1;
        thread::sleep(BETWEEN_NOISES);
        let Some(complaint) = complaint else { continue };
        let mut said = [0; 256];
        let length = match stream.read(&mut said) {
            Ok(length) => length,
            // Who is sent away with something unread hears no more than that.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        let said = String::from_utf8_lossy(&said[..length]);
        if length > 0 && !said.starts_with(complaint) {
            bail!("{said:?} where {complaint:?} should be");
        }
    }
    Ok(count)
}
