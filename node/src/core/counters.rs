//! Counters, for `annulus status` and metrics.

/// Counts of what happened since the node started, by name.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// In the order of their names.
    counts: Vec<(&'static str, u64)>,
    /// Where the name that a literal stands for was found last: a guess, compared before it is used.
    guesses: [u8; GUESSES],
}

/// More than there are literals on the short ways of requests.
const GUESSES: usize = 32;

impl Counters {
    /// Counts one more. Costs a few instructions for a name that is counted often.
    pub fn add(&mut self, name: &'static str) {
        self.add_many(name, 1);
    }

    /// Counts `count` more.
    pub fn add_many(&mut self, name: &'static str, count: u64) {
        // Literals lie one after the other, of some ten to thirty bytes.
        let guess = (name.as_ptr().addr() / 8) % GUESSES;
        match self.counts.get_mut(usize::from(self.guesses[guess])) {
            Some((known, total)) if std::ptr::eq(*known, name) => *total += count,
            _ => {
                let at = self.find_or_insert(name);
                self.counts[at].1 += count;
                self.guesses[guess] = u8::try_from(at).unwrap_or(0);
            }
        }
    }

    /// The count under a name.
    pub fn count(&self, name: &str) -> u64 {
        self.find(name).map_or(0, |at| self.counts[at].1)
    }

    /// All counts, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().copied()
    }

    fn find_or_insert(&mut self, name: &'static str) -> usize {
        self.find(name).unwrap_or_else(|at| {
            self.counts.insert(at, (name, 0));
            at
        })
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.counts.binary_search_by_key(&name, |(known, _)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_name_wherever_the_name_is_written_and_in_the_order_of_names() {
        let mut counters = Counters::default();
        let names: Vec<&'static str> =
            (0..300).map(|number| &*format!("n{:03}", number * 7 % 300).leak()).collect();
        for round in 0..3 {
            for (at, name) in names.iter().enumerate() {
                counters.add(name);
                // The same name, elsewhere, and the same place, with another name.
                counters.add_many((*name).to_owned().leak(), 2 * at as u64);
                counters.add(&name[..2]);
                assert_eq!(counters.count(name), (round + 1) * (1 + 2 * at as u64));
            }
        }
        assert_eq!(counters.count("n0"), 300);
        assert_eq!(counters.count("nobody"), 0);
        let listed: Vec<_> = counters.iter().map(|(name, _)| name).collect();
        assert!(listed.is_sorted() && listed.len() == 303, "{} names", listed.len());
    }
}
