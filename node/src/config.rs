//! One place parses file, environment and flags into the node's settings.
//!
//! Layers, each over the one before: defaults, the file, environment variables (`ANNULUS_` and the
//! key in capitals), flags (the key with dashes). Each value remembers where it came from. A
//! configuration with a problem starts nothing; all problems are reported at once.
//!
//! Nothing here reads the environment but [`Sources::from_process`].

mod error;
mod file;
mod host;
mod resolve;
mod setting;
mod units;

use std::path::PathBuf;

pub use error::{ConfigError, Origin, Problem};
pub use host::{CONFIG_FILE, SOCKET};
pub use setting::{RingSetting, Setting, TableSetting};
pub use units::{parse_duration, parse_size, show_duration, show_size};

use crate::driver::NodeSettings;

/// What a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file somebody named; it must exist. `None`: `ANNULUS_CONFIG`, else
    /// [`CONFIG_FILE`] if there is one.
    pub file: Option<PathBuf>,
    /// The environment: variables and their values. Besides `ANNULUS_…` only `HOME` and
    /// `XDG_STATE_HOME` matter.
    pub env: Vec<(String, String)>,
    /// What was said on the command line.
    pub flags: Flags,
}

impl Sources {
    /// The environment of this process, and nothing else yet.
    pub fn from_process() -> Self {
        let env = std::env::vars_os().map(|(variable, value)| {
            (variable.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        });
        Self { env: env.collect(), ..Self::default() }
    }
}

/// Settings from the command line, as text.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    given: Vec<(Setting, String)>,
}

impl Flags {
    /// Sets one; the last word counts. Lists are separated by commas.
    pub fn set(&mut self, setting: Setting, value: impl Into<String>) {
        self.given.push((setting, value.into()));
    }
}

/// A configuration that was understood and checked.
#[derive(Clone, Debug)]
pub struct Config {
    settings: NodeSettings,
    log: String,
    file: Option<PathBuf>,
    explained: Vec<(String, String, Origin)>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads and checks a configuration. With no sources at all it is that of a single node for
    /// development, on loopback.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong. Nothing was written or started.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        resolve::load(&sources, &host::Host::system())
    }

    /// What the node is told.
    pub fn settings(&self) -> NodeSettings {
        self.settings.clone()
    }

    /// What to log, as `tracing`'s filters are written.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The file that was read.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// Every key, its value, and where that came from, in the order of the file. Keys of tables are
    /// written `table.NAME.key`.
    pub fn explain(&self) -> Vec<(String, String, Origin)> {
        self.explained.clone()
    }

    /// What is allowed and probably not meant, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A file with every key, each explained, all of them commented out: `etc/annulus.toml`.
    pub fn annotated() -> String {
        include_str!("../../etc/annulus.toml").to_owned()
    }
}

#[cfg(test)]
mod tests;
