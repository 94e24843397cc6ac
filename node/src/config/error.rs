//! Where values come from, and what can be wrong with them.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command.
    Flag {
        /// Its name, with dashes.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// Everything that is wrong with a configuration; there is at least one problem. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "an error without a problem");
        Self { problems }
    }

    /// The problems, in the order in which they were found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file that was named, or is in the standard place, cannot be read.
    #[error("{}: cannot read the configuration: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {why}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser said.
        why: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// What was probably meant.
        hint: String,
    },
    /// A key that must be given is not.
    #[error("{origin}: `{key}` is missing; {hint}")]
    Missing {
        /// Where it belongs.
        origin: Origin,
        /// The key.
        key: String,
        /// What to write.
        hint: String,
    },
    /// A value cannot be what its key asks for, or does not go with another one.
    #[error("{origin}: {key} = {value}: {why}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// The key; those of tables with the table's name.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
}
