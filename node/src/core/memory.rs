//! Memory for a table that this node may never need: it is asked for when somebody would use it.
//!
//! A node that does not serve the innermost ring is home of nothing there, and starts without memory for it
//! ([`Writer::is_reserved`](annulus_shm::Writer::is_reserved)). The first process of its host that reads there has the
//! core ask the driver for it ([`Output::Reserve`]); until that is done, requests are answered by the homes, and whatever
//! else would be stored here is refused as by a full table. Once it is there it stays.

use std::time::Duration;

use super::Core;
use super::io::{Now, Output};

/// What a core knows of the memory of one of its tables.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether it was asked for, and nothing came of that yet.
    is_asked: bool,
    /// Whether it was refused when it was asked for last.
    pub(super) is_refused: bool,
    /// When it may be asked for again.
    next: Duration,
}

/// How long a core waits before it asks again for what it did not get.
const RETRY: Duration = Duration::from_secs(30);

impl Core {
    /// Asks for the memory that somebody wanted to use.
    pub(super) fn ask_for_memory(&mut self, now: Now) {
        for (number, table) in self.tables.iter_mut().enumerate() {
            let memory = &mut table.memory;
            if memory.is_asked || memory.next > now.monotonic || !table.store.is_memory_wanted() {
                continue;
            }
            memory.is_asked = true;
            self.outputs.push_back(Output::Reserve { table: number });
        }
    }

    /// Memory was reserved for a table, or there was none; all cores are told, whichever asked.
    pub(super) fn on_reserved(&mut self, now: Now, table: usize, is_there: bool) {
        let Some(table) = self.tables.get_mut(table) else { return };
        let memory = &mut table.memory;
        (memory.is_asked, memory.is_refused) = (false, !is_there);
        match is_there {
            true => table.store.use_memory(),
            false => {
                table.store.forget_wish_for_memory();
                memory.next = now.monotonic + RETRY;
            }
        }
    }
}
