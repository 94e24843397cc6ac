//! As much of a Redis client as it takes to be fair: blocking, nothing allocated but what is read.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};

use crate::process::RedisServer;

/// A connection, over a Unix socket or TCP.
pub(crate) struct RedisClient {
    stream: BufReader<Stream>,
    requests: Vec<u8>,
    value: Vec<u8>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// How long a session lives unused, as the nodes' tables say by default.
const IDLE_SECONDS: &[u8] = b"7200";

impl RedisClient {
    pub(crate) fn over_unix(server: &RedisServer) -> anyhow::Result<Self> {
        Ok(Self::new(Stream::Unix(UnixStream::connect(&server.socket)?)))
    }

    pub(crate) fn over_tcp(server: &RedisServer) -> anyhow::Result<Self> {
        Self::at(server.addr)
    }

    /// To whatever listens there.
    pub(crate) fn at(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Self::new(Stream::Tcp(stream)))
    }

    fn new(stream: Stream) -> Self {
        let stream = BufReader::with_capacity(64 << 10, stream);
        Self { stream, requests: Vec::new(), value: Vec::new() }
    }

    /// Queues a GET.
    pub(crate) fn queue_get(&mut self, key: &[u8]) {
        self.queue(&[b"GET", key]);
    }

    /// Queues a SET with a lifetime, as session stores send it.
    pub(crate) fn queue_set(&mut self, key: &[u8], value: &[u8]) {
        self.queue(&[b"SET", key, value, b"EX", IDLE_SECONDS]);
    }

    /// Queues the question how many replicas have what was written before, one of which is waited for.
    pub(crate) fn queue_wait(&mut self) {
        self.queue(&[b"WAIT", b"1", b"1000"]);
    }

    /// Sends what was queued.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        self.stream.get_mut().write_all(&self.requests)?;
        self.requests.clear();
        Ok(())
    }

    /// Reads one answer: a string, empty if it says "OK", or nothing.
    pub(crate) fn answer(&mut self) -> anyhow::Result<Option<&[u8]>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\r\n").context("Redis hung up")?;
        let text = std::str::from_utf8(line)?;
        match (text.as_bytes().first(), text.get(1..)) {
            (Some(b'+' | b':'), _) => Ok(Some(&[])),
            (Some(b'$'), Some("-1")) => Ok(None),
            (Some(b'$'), Some(length)) => {
                self.value.resize(length.parse::<usize>()? + 2, 0);
                self.stream.read_exact(&mut self.value)?;
                Ok(Some(&self.value[..self.value.len() - 2]))
            }
            _ => bail!("Redis answered {text}"),
        }
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> anyhow::Result<Option<&[u8]>> {
        self.queue_get(key);
        self.send()?;
        self.answer()
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.queue_set(key, value);
        self.send()?;
        self.answer().map(drop)
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        self.queue(&[b"FLUSHALL"]);
        self.send()?;
        self.answer().map(drop)
    }

    /// The bytes it has allocated.
    pub(crate) fn used_memory(&mut self) -> anyhow::Result<u64> {
        self.queue(&[b"INFO", b"memory"]);
        self.send()?;
        let text = self.answer()?.context("INFO says something")?;
        let text = std::str::from_utf8(text)?;
        let used = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(used.context("INFO says used_memory")?.trim().parse()?)
    }

    fn queue(&mut self, words: &[&[u8]]) {
        let requests = &mut self.requests;
        let written = (|| {
            write!(requests, "*{}\r\n", words.len())?;
            for word in words {
                write!(requests, "${}\r\n", word.len())?;
                requests.extend_from_slice(word);
                requests.extend_from_slice(b"\r\n");
            }
            io::Result::Ok(())
        })();
        written.expect("a vector takes everything");
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
