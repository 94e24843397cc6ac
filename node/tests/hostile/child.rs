//! Nodes in processes of their own: this test binary runs itself again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

use annulus_client::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{client, settings, until};

/// A node in another process, with its files under `dir`.
pub(crate) struct Child {
    dir: PathBuf,
    process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) cluster: String,
}

impl Child {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_beside(dir, &[]).await
    }

    /// As [`Child::start`], one that joins others and is held for dead by none of them for an hour.
    pub(crate) async fn start_beside(dir: &Path, others: &[&Self]) -> Self {
        let ready = dir.join("ready");
        let _ = fs::remove_file(&ready);
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let cluster = format!("hostile-child-{}", std::process::id());
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::a_child_process_runs_a_node", "--nocapture"])
            .env(DIR, dir)
            .env(CLUSTER, &cluster)
            .env(SEEDS, others.iter().map(|it| it.addr.to_string()).collect::<Vec<_>>().join(","))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let addr = until("the child serves", async || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!(
                    "the child ended: {status}; {}",
                    fs::read_to_string(dir.join("log")).unwrap()
                );
            }
            fs::read_to_string(&ready).ok()?.parse().ok()
        })
        .await;
        Self { dir: dir.to_owned(), process, addr, cluster }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    pub(crate) async fn client(&self) -> Client {
        client(self.addr, &self.cluster).await
    }

    /// Its memory that is in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(status).expect("the child runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The share of its segments that is counted among [`Child::resident_kib`], in KiB: it is
    /// bounded by their size, and grows as they are used.
    pub(crate) fn private_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(status).expect("the child runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let process = &mut self.process;
        until("the child ends", async || process.try_wait().unwrap()).await
    }

    pub(crate) async fn kill(mut self) {
        self.process.kill().unwrap();
        self.wait().await;
    }

    /// What it has written to its standard output and error.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap()).into_owned()
    }

    #[track_caller]
    pub(crate) fn assert_no_panics(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const DIR: &str = "ANNULUS_HOSTILE_DIR";
const CLUSTER: &str = "ANNULUS_HOSTILE_CLUSTER";
const SEEDS: &str = "ANNULUS_HOSTILE_SEEDS";

/// No test, but what children do; without its variables it does nothing.
#[test]
fn a_child_process_runs_a_node() {
    let (Ok(dir), Ok(cluster)) = (std::env::var(DIR), std::env::var(CLUSTER)) else { return };
    let dir = PathBuf::from(dir);
    let mut settings = settings(&dir);
    settings.cluster = cluster;
    let seeds = std::env::var(SEEDS).unwrap_or_default();
    settings.seeds = seeds.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
    settings.mesh.down_after = Duration::from_secs(3_600);
    settings.mesh.isolated_after = 3 * settings.mesh.down_after;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(annulus_node::run(settings, |ready| {
        let fresh = dir.join("ready.new");
        fs::write(&fresh, ready.addr.to_string()).unwrap();
        fs::rename(fresh, dir.join("ready")).unwrap();
    }));
    // What this process holds besides must not delay its end.
    std::process::exit(match ended {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    });
}
