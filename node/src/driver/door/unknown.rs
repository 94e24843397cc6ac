//! What clients asked for that is no command here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often each such command was asked for, by its name in lower case; a bounded number of names.
#[derive(Default)]
pub(in super::super) struct UnknownCommands(Mutex<BTreeMap<String, u64>>);

/// How many are counted apart, and how long their names are.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 16;
/// The name of all others.
const OTHERS: &str = "(others)";

impl UnknownCommands {
    /// Counts one more. Only what looks like the name of a command is remembered: clients that are mistaken about the protocol
    /// may say anything.
    pub(super) fn add(&self, name: &[u8]) {
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_alphabetic);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let has_place = counts.len() < NAMES_MAX || counts.contains_key(&name);
        let name = if is_name && has_place { name } else { OTHERS.to_owned() };
        *counts.entry(name).or_default() += 1;
    }

    /// All of them, in the order of their names.
    pub(in super::super) fn list(&self) -> Vec<(String, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(name, count)| (name.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_and_of_what_is_none_that_it_was_said() {
        let unknown = UnknownCommands::default();
        for name in
            ["ZADD", "zadd", "", "correct horse", "GET/HTTP", "abcdefghijklmnopq", "\n", "é"]
        {
            unknown.add(name.as_bytes());
        }
        assert_eq!(unknown.list(), [(OTHERS.to_owned(), 6), ("zadd".to_owned(), 2)]);
        let name = |number: usize| {
            let letter = |of: usize| char::from(b'a' + (of % 26) as u8);
            [letter(number / 26), letter(number)].iter().collect::<String>()
        };
        for number in 0..200 {
            unknown.add(name(number).as_bytes());
        }
        let list = unknown.list();
        assert_eq!(list.len(), NAMES_MAX);
        assert_eq!(list.iter().map(|(_, count)| count).sum::<u64>(), 208);
        // Those that have a place go on.
        unknown.add(b"Zadd");
        assert!(unknown.list().contains(&("zadd".to_owned(), 3)));
    }
}
