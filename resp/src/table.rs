//! The table of commands: the one source of their arity, flags, categories and keys, for requests and for what COMMAND says.

mod answers;
mod rows;

use crate::arguments::{Argument, Arguments};
use crate::error::CommandError;
use crate::number::integer;

pub use answers::{answer, help};
pub use rows::{COMMANDS, Id};

/// What is known of a command, or of a subcommand.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spec {
    /// Which one it is.
    pub id: Id,
    /// Its name, in lower case; a subcommand's is that of its container too: `client|id`.
    pub name: &'static str,
    /// How many arguments it takes, its name (and that of its container) among them; if negative, at least so many.
    pub arity: i8,
    /// What it may do, and when.
    pub flags: Flags,
    /// The categories by which roles allow commands.
    pub categories: Categories,
    /// What a client that asks several servers has to know (`COMMAND INFO` calls it tips).
    pub tips: &'static [&'static str],
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// Its subcommands; none for most. CLIENT, CONFIG and OBJECT are nothing without one of them, where COMMAND is a
    /// command of its own too.
    pub subcommands: &'static [Spec],
    /// The version of Redis that first had it.
    pub since: &'static str,
    /// What it belongs to, in Redis' documentation.
    pub group: &'static str,
    /// What it does.
    pub summary: &'static str,
}

/// Where some of a command's keys are.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeySpec {
    /// What is done with them, in Redis' words: first `RO`, `RW`, `OW` (overwritten) or `RM`, then whether values are given
    /// to the client or changed; `not_key` of what is none but in a slot as one.
    pub flags: &'static [&'static str],
    /// Why, where it surprises.
    pub notes: Option<&'static str>,
    /// The index of the first key among the arguments; that of the command's name is 0.
    pub first: u8,
    /// Up to which index there are keys. From 0 on, as a distance from `first`: 0 if there is one key alone. Negative, counted
    /// from the end of the arguments: -1 is the last one, which for MSET is the value of the last key.
    pub last: i8,
    /// The distance from one key to the next: 1, or 2 if values stand between them.
    pub step: u8,
    /// Whether at `first` stands how many keys follow, and not a key.
    pub counted: bool,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Spec {}

impl Spec {
    /// Whether a request may have so many arguments.
    pub fn takes(&self, arguments: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { arguments >= arity } else { arguments == arity }
    }

    /// Whether it is about keys, and not about what is in slots as these are.
    pub fn has_keys(&self) -> bool {
        self.keys.iter().any(|keys| !keys.flags.contains(&"not_key"))
    }

    /// The keys of a request, in order; names of sharded channels among them, which are in slots as keys are.
    pub fn keys_of<'a>(
        &'static self,
        arguments: Arguments<'a>,
    ) -> impl Iterator<Item = Argument<'a>> {
        let counted = self.keys.iter().filter(|keys| keys.counted).flat_map(move |keys| {
            let first = usize::from(keys.first);
            let count = arguments.get(first).and_then(|count| integer(&count)).unwrap_or(0);
            let rest = arguments.skip(first + 1);
            rest.first(usize::try_from(count).unwrap_or(0)).iter()
        });
        let others = self.key_indexes(arguments.len());
        others.filter_map(move |index| arguments.get(index)).chain(counted)
    }

    /// The indexes of the keys among so many arguments, but for those that are counted.
    pub fn key_indexes(&'static self, arguments: usize) -> impl Iterator<Item = usize> {
        self.keys.iter().filter(|keys| !keys.counted).flat_map(move |keys| {
            let first = usize::from(keys.first);
            let last = match usize::try_from(keys.last) {
                Ok(behind) => (first + behind).min(arguments.saturating_sub(1)),
                Err(_) => arguments.saturating_sub(usize::from(keys.last.unsigned_abs())),
            };
            (first..=last).step_by(keys.step.into())
        })
    }

    /// First, last and step of the keys, as `COMMAND INFO` has them: an absolute last index, or one from the end; zeros,
    /// if there are none.
    pub fn key_range(&self) -> (i64, i64, i64) {
        if self.keys.iter().any(|keys| keys.counted) {
            return (0, 0, 0);
        }
        let [first, .., last] = self.keys else {
            return self.keys.first().map_or((0, 0, 0), |keys| {
                let first = i64::from(keys.first);
                let last = i64::from(keys.last);
                (first, if last < 0 { last } else { first + last }, keys.step.into())
            });
        };
        // Several that follow each other.
        (first.first.into(), i64::from(last.first) + i64::from(last.last), 1)
    }

    /// The name without that of its container.
    pub fn own_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, own)| own)
    }
}

/// The command of a request, by its first argument, or by its first two if that is a container of subcommands. The name is
/// looked for by bisection, with one comparison of numbers a step; nothing is allocated.
///
/// It comes first. If the client has not authenticated and the command is not among those with [`Flags::NO_AUTH`], the answer is
/// [`NO_AUTH`](crate::texts::NO_AUTH) then, and only what remains is for [`Command::parse`](crate::Command::parse): so Redis
/// does, and strangers learn nothing of arguments.
///
/// # Errors
/// [`CommandError::UnknownCommand`], [`UnknownSubcommand`](CommandError::UnknownSubcommand),
/// [`Arity`](CommandError::Arity).
pub fn find<'a>(arguments: Arguments<'a>) -> Result<&'static Spec, CommandError<'a>> {
    let unknown = CommandError::UnknownCommand(arguments);
    let spec = arguments.get(0).and_then(|name| by_name(&name)).ok_or(unknown)?;
    let spec = match arguments.get(1) {
        Some(name) if !spec.subcommands.is_empty() => {
            subcommand(spec, &name).ok_or(CommandError::UnknownSubcommand(spec, name))?
        }
        _ => spec,
    };
    if spec.takes(arguments.len()) { Ok(spec) } else { Err(CommandError::Arity(spec)) }
}

/// The command with a name in any case: `get`, `client`, `client|id`.
pub fn named(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|&byte| byte == b'|') {
        None => by_name(name),
        Some(at) => {
            let spec = by_name(&name[..at])?;
            subcommand(spec, &name[at + 1..])
        }
    }
}

/// All commands, each before its subcommands.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
}

/// As many names as there are commands and subcommands: the most that COMMAND INFO and COMMAND DOCS are asked for at once.
pub const NAMES_MAX: usize = {
    let (mut count, mut index) = (COMMANDS.len(), 0);
    while index < COMMANDS.len() {
        count += COMMANDS[index].subcommands.len();
        index += 1;
    }
    count
};

fn by_name(name: &[u8]) -> Option<&'static Spec> {
    let mut folded = [0; NAME_BYTES_MAX];
    let bytes = folded.get_mut(..name.len())?;
    bytes.copy_from_slice(name);
    bytes.make_ascii_lowercase();
    let index = NAMES.binary_search(&u128::from_be_bytes(folded)).ok()?;
    let spec = &COMMANDS[index];
    // NULs behind a name are another name.
    (spec.name.len() == name.len()).then_some(spec)
}

fn subcommand(spec: &'static Spec, name: &[u8]) -> Option<&'static Spec> {
    spec.subcommands.iter().find(|sub| name.eq_ignore_ascii_case(sub.own_name().as_bytes()))
}

/// The longest name of a command, without that of a subcommand: one number, and so one comparison.
const NAME_BYTES_MAX: usize = 16;

/// The names of the commands with zeros behind them, as numbers; in the order of the names, which is that of the numbers.
static NAMES: [u128; COMMANDS.len()] = {
    let (mut names, mut index) = ([0; COMMANDS.len()], 0);
    while index < names.len() {
        let name = COMMANDS[index].name.as_bytes();
        let (mut folded, mut at) = ([0; NAME_BYTES_MAX], 0);
        while at < name.len() {
            folded[at] = name[at];
            at += 1;
        }
        names[index] = u128::from_be_bytes(folded);
        assert!(
            index == 0 || names[index - 1] < names[index],
            "commands stand in the order of names"
        );
        index += 1;
    }
    names
};

/// A set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

/// A set of categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Categories(u32);

/// Declares the members of a set, each a bit, in the order in which Redis lists them.
macro_rules! members {
    ($set:ident($bits:ty): $($name:ident $text:literal $doc:literal,)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the members")]
        enum Bit {
            $($name,)*
        }

        impl $set {
            /// None of them.
            pub const NONE: Self = Self(0);
            $(#[doc = $doc] pub const $name: Self = Self(1 << (Bit::$name as u32));)*

            /// Whether it has all of these.
            pub const fn contains(self, members: Self) -> bool {
                self.0 & members.0 == members.0
            }

            /// Those of both.
            pub const fn with(self, members: Self) -> Self {
                Self(self.0 | members.0)
            }

            /// Their names, in the order in which Redis lists them.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::ALL.iter().filter(move |(member, _)| self.contains(*member)).map(|&(_, name)| name)
            }

            /// The one with a name in any case.
            pub fn named(name: &[u8]) -> Option<Self> {
                let found = Self::ALL.iter().find(|(_, text)| name.eq_ignore_ascii_case(text.as_bytes()));
                found.map(|&(member, _)| member)
            }

            const ALL: &[(Self, &str)] = &[$((Self::$name, $text),)*];
        }

        const _: () = {
            assert!($set::ALL.len() <= <$bits>::BITS as usize);
        };
    };
}

mod flags {
    use super::Flags;

    members! { Flags(u32):
        WRITE "write" "It may change data.",
        READONLY "readonly" "It reads data and changes none.",
        DENYOOM "denyoom" "It may need memory, and is refused where there is none.",
        ADMIN "admin" "It is for operators.",
        PUBSUB "pubsub" "It is about channels.",
        NOSCRIPT "noscript" "Scripts don't have it.",
        BLOCKING "blocking" "It may wait.",
        LOADING "loading" "It is answered while data are loaded.",
        STALE "stale" "It is answered by a replica that has lost its primary.",
        SKIP_MONITOR "skip_monitor" "It is not shown to those who watch all commands.",
        SKIP_SLOWLOG "skip_slowlog" "It is not among the commands that took long.",
        FAST "fast" "Its cost is that of a look-up.",
        NO_AUTH "no_auth" "It is answered before AUTH.",
        NO_MANDATORY_KEYS "no_mandatory_keys" "It may have no keys.",
        NO_MULTI "no_multi" "Transactions don't have it.",
        MOVABLE_KEYS "movablekeys" "Where its keys are depends on its arguments.",
        ALLOW_BUSY "allow_busy" "It is answered while a script runs.",
    }
}

mod categories {
    use super::Categories;

    members! { Categories(u32):
        KEYSPACE "keyspace" "Keys, whatever they hold.",
        READ "read" "It reads values.",
        WRITE "write" "It writes values.",
        SET "set" "Sets.",
        SORTEDSET "sortedset" "Sorted sets.",
        LIST "list" "Lists.",
        HASH "hash" "Hashes.",
        STRING "string" "Strings.",
        PUBSUB "pubsub" "Channels.",
        ADMIN "admin" "For operators.",
        FAST "fast" "At the cost of a look-up.",
        SLOW "slow" "At any other cost.",
        BLOCKING "blocking" "It may wait.",
        DANGEROUS "dangerous" "Not for everybody.",
        CONNECTION "connection" "The connection itself.",
        TRANSACTION "transaction" "Transactions.",
        SCRIPTING "scripting" "Scripts.",
    }
}

#[cfg(test)]
mod tests;
