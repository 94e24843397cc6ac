//! What other clients notice of those who mean no good.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::load::Load;
use super::{Bench, NODE, REDIS, Subject, TABLE, fill, must};
use crate::process::TableConfig;
use crate::report::{Report, Unit};
use crate::sample::Rounds;

/// Connections that say half of a request, and no more.
const HALF_OPEN: usize = 9_600;
/// Connections that announce a value that no server takes, or one that it takes and of which half arrives.
const BULKS: usize = 100;
/// Connections that ask and read no answer.
const NEVER_READ: usize = 50;
/// What is asked of a server in each round.
const LOAD: Load = Load { command: "GET", pipeline: 1 };
const KEYS: u64 = 50_000;
/// What a request may bring, half of it.
const HALF_A_VALUE: usize = 512 << 10;

/// The connections, which keep a server busy as long as they are there.
struct Strangers {
    #[expect(dead_code, reason = "they are open, and that is all")]
    open: Vec<TcpStream>,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let table = TableConfig::new(TABLE, "quorum", "64MiB".to_owned());
    let cluster = bench.cluster(1, table)?;
    let node = &cluster.nodes[0];
    let subjects = [Subject::redis(REDIS, bench.redis), Subject::nodes(NODE, &cluster)?];
    for subject in &subjects {
        fill(subject.addr, KEYS)?;
    }
    let rounds = if bench.quick { 1 } else { 5 };
    let mut p99s = [[Rounds::new(), Rounds::new()], [Rounds::new(), Rounds::new()]];
    let mut grown = Rounds::new();
    for round in 0..rounds {
        for (subject, p99s) in subjects.iter().zip(&mut p99s) {
            report.progress(&format!("round {}, strangers at {}", round + 1, subject.name));
            let before = node.private_bytes().context("the system says what a process takes")?;
            p99s[0].push(LOAD.p99(bench, subject)?);
            let strangers = Strangers::come(subject.addr)?;
            p99s[1].push(LOAD.p99(bench, subject)?);
            let after = node.private_bytes().context("the system says what a process takes")?;
            drop(strangers);
            settle(subject)?;
            if subject.name == NODE {
                let all = HALF_OPEN + 2 * BULKS + NEVER_READ;
                grown.push(after.saturating_sub(before) as f64 / all as f64);
            }
        }
    }
    for (subject, [alone, beside]) in subjects.iter().zip(&p99s) {
        let name = format!("GET, {}: p99 alone", subject.name);
        report.row(&name, Unit::Ms, alone);
        let against = format!("GET, {}: p99 beside strangers", subject.name);
        match subject.name {
            NODE => report.goal(&against, Unit::Ms, beside, Some(&name), must(2.0)),
            _ => report.row_against(&against, Unit::Ms, beside, &name),
        }
    }
    report.row(&format!("a stranger, {NODE}"), Unit::Bytes, &grown);
    report.note(format!(
        "strangers: {HALF_OPEN} connections with half a request, {BULKS} that announced 512 MiB and were told that this is too much, {BULKS} that sent half of 1 MiB, {NEVER_READ} that read no answer"
    ));
    Ok(())
}

/// Waits until a server has seen that connections have ended.
fn settle(subject: &Subject<'_>) -> anyhow::Result<()> {
    loop {
        let before = subject.processor_time()?;
        std::thread::sleep(Duration::from_millis(300));
        if subject.processor_time()? - before < Duration::from_millis(20) {
            return Ok(());
        }
    }
}

impl Strangers {
    fn come(addr: SocketAddr) -> anyhow::Result<Self> {
        let mut open = Vec::new();
        for _ in 0..HALF_OPEN {
            let mut stream = TcpStream::connect(addr)?;
            stream.write_all(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:")?;
            open.push(stream);
        }
        for _ in 0..BULKS {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // A byte more than Redis takes.
            stream.write_all(b"*3\r\n$3\r\nSET\r\n$8\r\nstranger\r\n$536870913\r\n")?;
            let mut said = [0; 64];
            let length = stream.read(&mut said)?;
            let said = String::from_utf8_lossy(&said[..length]);
            ensure!(said.starts_with("-ERR Protocol error: invalid bulk length"), "{said}");
        }
        for _ in 0..BULKS {
            let mut stream = TcpStream::connect(addr)?;
            let head = format!("*3\r\n$3\r\nSET\r\n$8\r\nstranger\r\n${}\r\n", 2 * HALF_A_VALUE);
            stream.write_all(head.as_bytes())?;
            stream.write_all(&vec![b'x'; HALF_A_VALUE])?;
            open.push(stream);
        }
        for _ in 0..NEVER_READ {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nonblocking(true)?;
            let asked = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000007\r\n".repeat(1_000);
            // Until the server reads no more of it.
            for _ in 0..200 {
                match stream.write(&asked) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            open.push(stream);
        }
        Ok(Self { open })
    }
}
