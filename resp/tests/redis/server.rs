//! A Redis server of the test's own.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A server on a socket in a directory of its own; both go with it.
pub(crate) struct Server {
    process: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts one that keeps nothing and listens to nobody else.
    pub(crate) fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("redis");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(&socket)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = match process {
            Ok(process) => process,
            Err(error) => panic!(
                "redis-server (7.0, of the package of that name) has to be installed for this test: {error}"
            ),
        };
        let mut server = Self { process, socket, _directory: directory };
        while UnixStream::connect(&server.socket).is_err() {
            let ended = server.process.try_wait().expect("it is our child");
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            thread::sleep(Duration::from_millis(5));
        }
        let version = String::from_utf8_lossy(&server.ask_little(b"INFO server\r\n")).into_owned();
        let refused = version.starts_with("-NOAUTH");
        assert!(refused || version.contains("\nredis_version:7.0."), "not a 7.0: {version}");
        server
    }

    /// All that it says to these bytes on a connection of their own. They have to end with a whole request, and
    /// those before have to be answered.
    pub(crate) fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        let last = b"*2\r\n$4\r\nECHO\r\n$14\r\n#that was all#\r\n";
        let mut said = self.said_to(&[bytes, last].concat(), false);
        if said.ends_with(LAST_ANSWER) {
            said.truncate(said.len() - LAST_ANSWER.len());
        }
        said
    }

    /// All that it says to these bytes, at which it ends the connection.
    pub(crate) fn last_words(&self, bytes: &[u8]) -> Vec<u8> {
        self.said_to(bytes, false)
    }

    /// All that it says to these bytes, and the end of them. It forgets what it cannot send at once.
    pub(crate) fn ask_little(&self, bytes: &[u8]) -> Vec<u8> {
        self.said_to(bytes, true)
    }

    fn said_to(&self, bytes: &[u8], end: bool) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let mut writer = stream.try_clone().expect("a second handle");
        thread::scope(|scope| {
            scope.spawn(move || {
                // It may have ended the connection already.
                let _ = writer.write_all(bytes);
                if end {
                    let _ = writer.shutdown(Shutdown::Write);
                }
            });
            let (mut said, mut piece) = (Vec::new(), [0; 1 << 16]);
            while !said.ends_with(LAST_ANSWER) {
                match stream.read(&mut piece) {
                    Ok(0) => break,
                    Ok(size) => said.extend_from_slice(&piece[..size]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => {
                        panic!("{}: {error}", bytes[..bytes.len().min(200)].escape_ascii())
                    }
                }
            }
            // For the writer, if there was an error before all was written.
            let _ = stream.shutdown(Shutdown::Both);
            said
        })
    }
}

const LAST_ANSWER: &[u8] = b"$14\r\n#that was all#\r\n";

// Nobody waits so long for an answer that comes.
const PATIENCE: Duration = Duration::from_secs(20);

impl Drop for Server {
    fn drop(&mut self) {
        // The test is over either way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
