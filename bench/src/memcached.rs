//! As much of memcached as it takes to be fair: a server on a core, and a blocking client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::process::{POLL, Process, START_MAX, Site};

/// A server. Killed when dropped.
pub(crate) struct MemcachedServer {
    process: Process,
    socket: PathBuf,
    pub(crate) version: String,
}

/// A connection over a Unix socket.
pub(crate) struct MemcachedClient {
    stream: BufReader<UnixStream>,
    request: Vec<u8>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl MemcachedServer {
    /// Starts one on this core; `None` if none is installed.
    pub(crate) fn start(site: &Site, core: usize) -> anyhow::Result<Option<Self>> {
        let Ok(version) = Command::new("memcached").arg("--version").output() else {
            return Ok(None);
        };
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let version = version.split_whitespace().nth(1).unwrap_or("of an unknown version");
        let socket = site.socket("memcached");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exec", "--core", &core.to_string(), "--", "memcached"]);
        command.args(["--threads=1", "--memory-limit=8192", "--unix-socket"]).arg(&socket);
        if rustix::process::getuid().is_root() {
            command.arg("--user=root");
        }
        let mut process = Process::start(command.stdout(Stdio::null()), site.log("memcached"))?;
        let deadline = Instant::now() + START_MAX;
        while UnixStream::connect(&socket).is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("memcached did not start: {}", process.last_words());
            }
            std::thread::sleep(POLL);
        }
        Ok(Some(Self { process, socket, version: version.to_owned() }))
    }

    pub(crate) fn client(&self) -> anyhow::Result<MemcachedClient> {
        let stream = BufReader::with_capacity(64 << 10, UnixStream::connect(&self.socket)?);
        let (request, line, value) = (Vec::new(), Vec::new(), Vec::new());
        Ok(MemcachedClient { stream, request, line, value })
    }

    /// The memory it has allocated and touched.
    pub(crate) fn private_bytes(&self) -> Option<u64> {
        crate::machine::private_bytes(self.process.id())
    }
}

impl MemcachedClient {
    /// Queues a set that is not answered.
    pub(crate) fn queue_set(&mut self, key: &[u8], value: &[u8]) {
        self.request.extend_from_slice(b"set ");
        self.request.extend_from_slice(key);
        self.request.extend_from_slice(format!(" 0 7200 {} noreply\r\n", value.len()).as_bytes());
        self.request.extend_from_slice(value);
        self.request.extend_from_slice(b"\r\n");
    }

    /// Sends what was queued.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(&self.request)?;
        self.request.clear();
        Ok(())
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> anyhow::Result<Option<&[u8]>> {
        self.request.extend_from_slice(b"get ");
        self.request.extend_from_slice(key);
        self.request.extend_from_slice(b"\r\n");
        self.send()?;
        let size = match self.line()? {
            "END" => return Ok(None),
            line => line.strip_prefix("VALUE ").and_then(|rest| rest.split(' ').nth(2)),
        };
        let size: usize = size.context("memcached answers a get with a value")?.parse()?;
        self.value.resize(size + 2, 0);
        self.stream.read_exact(&mut self.value)?;
        if self.line()? != "END" {
            bail!("memcached answered more than one value");
        }
        Ok(Some(&self.value[..size]))
    }

    fn line(&mut self) -> anyhow::Result<&str> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        let line = self.line.strip_suffix(b"\r\n").context("memcached hung up")?;
        Ok(std::str::from_utf8(line)?)
    }
}
