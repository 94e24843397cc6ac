//! FLUSHDB and FLUSHALL: all sessions of a table end.
//!
//! That is a walk over all keys, as SCAN does it, page by page, and an end for each key, some at a time. It takes as long as it
//! takes, and holds up nobody else: only its own connection waits. What begins meanwhile may stay, as it may have come after.

use std::ops::Range;

use annulus_net::Clock;
use annulus_proto::Key;
use annulus_proto::limits::PAGE_ENTRIES_MAX;
use annulus_proto::message::{Operation, Role};

use super::connection::Connection;
use super::keyspace::is_done;
use super::store::{ASKED_AT_ONCE_MAX, Outcome, Trouble};

impl<C: Clock> Connection<C> {
    /// Ends all sessions of these tables.
    pub(super) async fn flush<'a>(&mut self, tables: Range<usize>) -> Outcome<'a, ()> {
        let (client, first) = (self.client().address(), tables.start);
        let mut ended = 0;
        tracing::info!(%client, user = self.user(), tables = tables.len(), first, "a client of Redis ends all sessions");
        // Who runs the cluster may do nothing with single sessions; that all of them end is said to the door alone.
        let own_role = self.store.act_as(Role::Authority);
        let mut done = Ok(());
        for table in tables {
            done = self.flush_table(table, &mut ended).await;
            if done.is_err() {
                break;
            }
        }
        self.store.act_as(own_role);
        tracing::info!(%client, ended, is_done = done.is_ok(), "a client of Redis ended all sessions");
        done.map_err(|trouble| trouble.after(ended > 0))
    }

    async fn flush_table<'a>(&mut self, table: usize, ended: &mut u64) -> Outcome<'a, ()> {
        let mut from = Some(0);
        while let Some(place) = from {
            let (found, next) = self.listed(table, place, PAGE_ENTRIES_MAX).await?;
            let keys: Vec<Key> = found.into_iter().map(|found| found.key).collect();
            for keys in keys.chunks(ASKED_AT_ONCE_MAX) {
                self.end_all(table, keys, ended).await?;
            }
            from = next;
        }
        self.told.note_all(table);
        Ok(())
    }

    /// Ends what lives under these keys, whichever it is.
    async fn end_all<'a>(
        &mut self,
        table: usize,
        keys: &[Key],
        ended: &mut u64,
    ) -> Outcome<'a, ()> {
        if self.is_over() {
            return Err(Trouble::Error("ERR", "the connection was ended meanwhile".into()));
        }
        let name = &self.door.tables[table].name;
        let replies = self.store.ask_all(name, keys, &Operation::End { birth: None }).await?;
        let mut failed = None;
        for (key, reply) in keys.iter().zip(replies) {
            match is_done(reply) {
                Ok(true) => {
                    *ended += 1;
                    self.told.note(table, key.as_bytes());
                }
                // Somebody else was faster.
                Ok(false) => {}
                Err(trouble) => failed = failed.or(Some(trouble)),
            }
        }
        // Others have their turn between two.
        tokio::task::consume_budget().await;
        failed.map_or(Ok(()), Err)
    }
}
