//! Commands about all keys.
//!
//! Keys have an order that is the same on every node ([`Key::place`]), and a cursor is a place in it: nothing is remembered of
//! a walk, and any node goes on with it. Each page is asked of all members, so that it has every key that was acknowledged.

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{Failure, Message, WalkRequest, Walked, WalkedKey};
use annulus_resp::{Argument, Case, Command, Scan, Writer, matches};
use rand::RngExt;

use super::connection::Connection;
use super::keyspace::{Found, type_of};
use super::store::{Outcome, Trouble};

/// How many keys SCAN looks at if it is not told, as in Redis.
const COUNT: usize = 10;
/// The most bytes of keys that KEYS answers, and the most keys that it looks at.
const KEYS_BYTES_MAX: usize = 4 << 20;
const KEYS_LOOKED_MAX: usize = 100_000;
/// How many keys DBSIZE counts one by one, about; of more it estimates the rest.
const COUNTED_MAX: usize = 20_000;
/// Places are below this.
const PLACE_END: u64 = 1 << 53;
/// The most keys of a page.
const PAGE: usize = PAGE_ENTRIES_MAX;

impl<C: Clock> Connection<C> {
    /// Does a command about all keys.
    pub(super) async fn all_keys<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::Scan(scan) => {
                let (keys, next) = self.scan(scan).await?;
                out.array(2);
                out.bulk(next.unwrap_or(0).to_string().as_bytes());
                out.array(keys.len());
                keys.iter().for_each(|key| out.bulk(key.as_bytes()));
            }
            Command::Keys { pattern } => {
                let keys = self.keys(pattern).await?;
                out.array(keys.len());
                keys.iter().for_each(|key| out.bulk(key.as_bytes()));
            }
            Command::DbSize => {
                let count = self.count_keys().await?;
                out.integer(count);
            }
            _ => match self.random_key().await? {
                None => out.null(),
                Some(key) => out.bulk(key.as_bytes()),
            },
        }
        Ok(())
    }

    async fn scan<'a>(&mut self, scan: Scan<'a>) -> Outcome<'a, (Vec<Key>, Option<u64>)> {
        let count = scan.count.map_or(COUNT, |count| usize::try_from(count).unwrap_or(PAGE));
        if scan.cursor >= PLACE_END {
            // No node has said so.
            return Ok((Vec::new(), None));
        }
        let (found, next) = self.page(scan.cursor, count.min(PAGE)).await?;
        let mut keys = Vec::with_capacity(found.len());
        for WalkedKey { key, kind, .. } in found {
            let is_meant = scan.holds.is_none_or(|wanted| wanted.is(type_of(kind)))
                && scan.pattern.is_none_or(|pattern| is_like(key.as_bytes(), pattern));
            keys.extend(is_meant.then_some(key));
        }
        Ok((keys, next))
    }

    async fn keys<'a>(&mut self, pattern: Argument<'a>) -> Outcome<'a, Vec<Key>> {
        let (mut keys, mut bytes, mut looked) = (Vec::new(), 0, 0);
        let mut from = Some(0);
        while let Some(place) = from {
            if looked >= KEYS_LOOKED_MAX || bytes > KEYS_BYTES_MAX {
                let text = format!(
                    "KEYS looks at {KEYS_LOOKED_MAX} keys and answers {KEYS_BYTES_MAX} bytes of them at \
                     most, and there are more; use SCAN"
                );
                return Err(Trouble::Error("ERR", text.into()));
            }
            let (found, next) = self.page(place, PAGE).await?;
            looked += found.len();
            let found =
                found.into_iter().map(|it| it.key).filter(|key| is_like(key.as_bytes(), pattern));
            for key in found {
                bytes += key.as_bytes().len();
                keys.push(key);
            }
            from = next;
        }
        Ok(keys)
    }

    async fn count_keys<'a>(&mut self) -> Outcome<'a, i64> {
        let (mut count, mut from) = (0, 0);
        loop {
            let (found, next) = self.page(from, PAGE).await?;
            count += found.len();
            match next {
                None => return Ok(i64::try_from(count).unwrap_or(i64::MAX)),
                Some(next) if count >= COUNTED_MAX => return Ok(estimate(count, next)),
                Some(next) => from = next,
            }
        }
    }

    /// One of the next keys from a random place on.
    async fn random_key<'a>(&mut self) -> Outcome<'a, Option<Key>> {
        let begin = self.draw(PLACE_END);
        let mut from = begin;
        let mut is_second_round = false;
        loop {
            let (mut found, next) = self.page(from, COUNT).await?;
            if !found.is_empty() {
                let one = self.draw(found.len() as u64);
                return Ok(Some(found.swap_remove(one as usize).key));
            }
            match next {
                Some(next) if is_second_round && next > begin => return Ok(None),
                Some(next) => from = next,
                None if is_second_round => return Ok(None),
                None => (from, is_second_round) = (0, true),
            }
        }
    }

    /// A random number.
    pub(super) fn draw(&self, below: u64) -> u64 {
        let mut random = self.door.random();
        random.random_range(0..below.max(1))
    }

    /// The keys from a place on, so many at most, and where the next ones begin. Those of which it is not certain from the
    /// listing that they are alive are looked at one by one.
    async fn page<'a>(
        &mut self,
        from: u64,
        limit: usize,
    ) -> Outcome<'a, (Vec<WalkedKey>, Option<u64>)> {
        let (keys, next) = self.listed(self.table, from, limit).await?;
        let (mut alive, mut asks) = (Vec::with_capacity(keys.len()), true);
        // In a transaction, as it was before.
        let staged = self.staged.take();
        for found in keys {
            if found.lacking > 0 && asks {
                // What cannot be read may be there, and is said to be.
                match self.look(&found.key).await {
                    Ok(Found::Alive(_)) => {}
                    Ok(Found::Absent | Found::Ended) => continue,
                    // If the node stops it is said by what comes next.
                    Err(_) => asks = false,
                }
            }
            alive.push(found);
        }
        self.staged = staged;
        Ok((alive, next))
    }

    /// The keys from a place on that members list, so many at most, and where the next ones begin.
    pub(super) async fn listed<'a>(
        &mut self,
        table: usize,
        from: u64,
        limit: usize,
    ) -> Outcome<'a, (Vec<WalkedKey>, Option<u64>)> {
        let table = self.door.tables[table].name.clone();
        let limit = u16::try_from(limit).unwrap_or(u16::MAX);
        let request = WalkRequest { table, from, limit, is_whole: true };
        let Walked { keys, next, silent, write_homes } = match self.store.exchange(request).await? {
            Some(Message::Walked(walked)) => walked,
            Some(Message::Rejected(why)) => {
                return Err(Failure::Refused(why.to_string()).into());
            }
            Some(_) => {
                let text = "the node answered something else than was asked";
                return Err(Trouble::Error("ERR", text.into()));
            }
            None => return Err(Failure::TimedOut.into()),
        };
        if silent >= write_homes.into() {
            let text = format!(
                "unavailable: {silent} members did not answer, and keys that only they hold would be \
                 missing; try again later"
            );
            return Err(Trouble::Error("CLUSTERDOWN", text.into()));
        }
        Ok((keys, next))
    }
}

pub(super) fn is_like(name: &[u8], pattern: Argument<'_>) -> bool {
    matches(&pattern, name, Case::Sensitive)
}

/// How many keys there are, if there are so many before a place.
fn estimate(count: usize, before: u64) -> i64 {
    let all = count as u128 * u128::from(PLACE_END) / u128::from(before.max(1));
    i64::try_from(all).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_keys_as_many_are_taken_to_be_in_the_rest() {
        assert_eq!(estimate(20_000, PLACE_END / 4), 80_000);
        assert_eq!(estimate(20_000, PLACE_END), 20_000);
        assert_eq!(estimate(3, 0), 3 << 53);
    }
}
