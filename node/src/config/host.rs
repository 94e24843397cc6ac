//! Defaults that depend on the host: directories, its name.

use std::path::{Path, PathBuf};

use annulus_proto::limits::NAME_BYTES_MAX;
use rustix::fs::{Access, access};

/// The directory of the standard configuration file, state and socket. Tests put another root under it.
#[derive(Clone, Debug)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    /// The host this program runs on.
    pub(super) fn system() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A directory that looks like a host's root. The paths that follow from it are without it.
    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The standard configuration file, if there is one.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        let path = self.under_root(CONFIG_FILE);
        path.exists().then_some(path)
    }

    /// Where state goes: the system's place if this user may write there, else the user's own.
    pub(super) fn data_dir(&self, env: &[(String, String)]) -> PathBuf {
        if self.is_writable_dir(DATA_DIR) {
            return PathBuf::from(DATA_DIR);
        }
        let variable = |name| {
            let value = env.iter().rev().find(|(variable, _)| variable == name);
            value.map(|(_, value)| PathBuf::from(value)).filter(|path| path.is_absolute())
        };
        let state = variable("XDG_STATE_HOME");
        let state = state.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        state.unwrap_or_else(std::env::temp_dir).join("annulus")
    }

    /// Where the Unix socket goes: the system's place if this user may write there, else beside the
    /// state; nowhere if that path is longer than a socket's may be.
    pub(super) fn socket(&self, data_dir: &Path) -> Option<PathBuf> {
        let system = Path::new(SOCKET);
        let dir = system.parent().and_then(Path::to_str).expect("the socket lies in a directory");
        let path =
            if self.is_writable_dir(dir) { system.to_owned() } else { data_dir.join("node.sock") };
        fits_socket(&path).then_some(path)
    }

    /// The host's name, cut to what a member's name may be.
    pub(super) fn name(&self) -> String {
        let read = std::fs::read_to_string(self.under_root("/proc/sys/kernel/hostname"));
        let name = read.unwrap_or_default();
        let name: String = name.trim().chars().filter(|char| !char.is_control()).collect();
        let end = name.floor_char_boundary(NAME_BYTES_MAX);
        if end == 0 { "node".to_owned() } else { name[..end].to_owned() }
    }

    /// The number of the user of this name, as /etc/passwd has it.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn user(&self, name: &str) -> Result<u32, String> {
        let bytes = std::fs::read(self.under_root(PASSWD)).map_err(|error| {
            format!("cannot look up user {name:?} in {PASSWD}: {error}; write the user's number")
        })?;
        let number = bytes.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let number = (fields.next()? == name.as_bytes()).then(|| fields.nth(1))??;
            std::str::from_utf8(number).ok()?.parse().ok()
        });
        number.ok_or_else(|| {
            format!(
                "no user {name:?} in {PASSWD}; of users who are known elsewhere write the number"
            )
        })
    }

    fn is_writable_dir(&self, path: &str) -> bool {
        let path = self.under_root(path);
        path.is_dir() && access(&path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }

    fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Whether a Unix socket can have this path.
pub(super) fn fits_socket(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

/// Where the configuration is looked for when nobody says where.
pub const CONFIG_FILE: &str = "/etc/annulus/annulus.toml";

/// Where the socket of a node that runs as a service is.
pub const SOCKET: &str = "/run/annulus/node.sock";

/// The users of this host: name, password, number, and more, between colons.
const PASSWD: &str = "/etc/passwd";

const DATA_DIR: &str = "/var/lib/annulus";

/// `sun_path` has 108 bytes on Linux, the last of which is zero.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;
