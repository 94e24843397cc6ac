//! The counter in real processes: slots move while it counts, a process leaves, another one is killed, and every
//! number is there once.

#[path = "shared/addr.rs"]
mod addr;
#[path = "shared/until.rs"]
mod until;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use addr::free_addr;
use until::until;

const CLIENTS: usize = 3;
const KEYS: usize = 40;

struct Process {
    child: Child,
    counters: SocketAddr,
}

impl Process {
    fn start(dir: &Path, number: usize, node: SocketAddr, seeds: &[SocketAddr]) -> Self {
        let counters = free_addr();
        let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
        let child = Command::new(env!("CARGO_BIN_EXE_annulus-counter"))
            .args(["--counters", &counters.to_string(), "--listen", &node.to_string()])
            .args(["--cluster", &format!("counters-{}", std::process::id())])
            .args(["--seeds", &seeds.join(","), "--down-after", "1s", "--data-dir"])
            .arg(dir.join(number.to_string()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, counters }
    }

    fn held(&self) -> Option<u64> {
        ask(self.counters, "held")?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of an answer; `None` if there is none.
fn ask(addr: SocketAddr, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{question}\n").as_bytes()).ok()?;
    BufReader::new(stream).lines().next()?.ok()
}

#[test]
fn no_count_is_lost_or_doubled_while_processes_join_leave_and_are_killed() {
    let dir = TempDir::new().unwrap();
    let nodes: Vec<SocketAddr> = (0..4).map(|_| free_addr()).collect();
    let processes: Vec<Process> =
        (0..3).map(|n| Process::start(dir.path(), n, nodes[n], &nodes[..3])).collect();
    let addrs = Mutex::new(processes.iter().map(|process| process.counters).collect::<Vec<_>>());
    let (is_over, counted) = (AtomicBool::new(false), AtomicU64::new(0));
    let [mut leaving, mut killed, staying] = processes.try_into().ok().unwrap();

    let last: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let client = |client: usize| {
            let (addrs, is_over, counted) = (&addrs, &is_over, &counted);
            scope.spawn(move || {
                let mut last = vec![0_u64; KEYS];
                let mut turn = client;
                while !is_over.load(Ordering::Relaxed) {
                    let key = turn % KEYS;
                    last[key] += 1;
                    // Whatever becomes of it, it is said until it is answered: then it counts once.
                    until("a count is taken", || {
                        turn += 1;
                        let known = addrs.lock().unwrap().clone();
                        let addr = known[turn % known.len()];
                        let question = format!("add key{key} client{client} {}", last[key]);
                        ask(addr, &question).filter(|answer| answer == "ok")
                    });
                    counted.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                }
                last
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let go_on = |times: u64| {
            let from = counted.load(Ordering::Relaxed);
            until("clients count", || {
                (counted.load(Ordering::Relaxed) >= from + times).then_some(())
            });
        };
        go_on(200);

        // One joins, and gets its share.
        let joined = Process::start(dir.path(), 3, nodes[3], &nodes[..3]);
        until("it holds slots", || joined.held().filter(|held| *held > 16));
        addrs.lock().unwrap().push(joined.counters);
        go_on(200);

        // One leaves, and gives everything away before it ends.
        addrs.lock().unwrap().retain(|addr| *addr != leaving.counters);
        let pid = leaving.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = until("it ends", || leaving.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        go_on(200);

        // One is killed, with all that it holds.
        until("slots are where they belong", || {
            let held = [joined.held()?, killed.held()?, staying.held()?];
            (held.iter().sum::<u64>() == 128).then_some(())
        });
        killed.child.kill().unwrap();
        killed.child.wait().unwrap();
        addrs.lock().unwrap().retain(|addr| *addr != killed.counters);
        go_on(200);

        is_over.store(true, Ordering::Relaxed);
        let last: Vec<Vec<u64>> =
            clients.into_iter().map(|client| client.join().unwrap()).collect();
        for key in 0..KEYS {
            let expected: u64 = last.iter().map(|of_client| of_client[key]).sum();
            for process in [&joined, &staying] {
                let count = until("it is read", || {
                    let answer = ask(process.counters, &format!("get key{key}"));
                    answer.filter(|answer| answer != "again")
                });
                assert_eq!(count, expected.to_string(), "key{key}");
            }
        }
        last
    });
    let all: u64 = last.iter().flatten().sum();
    assert_eq!(all, counted.load(Ordering::Relaxed));
}
