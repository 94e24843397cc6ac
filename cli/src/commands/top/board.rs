//! What is known of the cluster, and how fast it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use annulus_client::{
    Error, HotSession, Member, NodeId, NodeStatus, Rejected, Suspect, SuspectList, SuspectName,
    TableStatus,
};
use serde_json::{Value, json};

use super::ask::{Answer, Asks, TABLES_MAX, Told};
use crate::commands::members::{member_json, status};
use crate::commands::suspects;
use crate::output;

/// All that is shown.
#[derive(Default)]
pub(super) struct Board {
    /// The members in the order of their rows: those that take part first, by their names.
    pub(super) rows: Vec<Row>,
    /// How many of them are scrolled past.
    pub(super) scrolled: usize,
    /// What is known of suspects, by table.
    pub(super) suspects: BTreeMap<String, Result<SuspectList, NoSuspects>>,
    /// Why nobody told of the members when they were asked for last, and since when.
    pub(super) unreached: Option<(String, Instant)>,
    /// Whether something is to be drawn.
    pub(super) has_changed: bool,
}

/// A member, and what it told of itself.
pub(super) struct Row {
    pub(super) member: Member,
    pub(super) told: Option<Box<Told>>,
    /// When it told that.
    pub(super) told_at: Option<Instant>,
    /// Whether it did not answer when it was asked last.
    pub(super) is_silent: bool,
    /// What happened there in each second between its last two answers; `None` before there are two of one run.
    pub(super) rates: Option<Rates>,
}

/// Why there is no list of suspects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoSuspects {
    /// Whoever asks has another role.
    NotAMonitor,
    /// Nobody answered.
    Silent(String),
}

/// How often things happen in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates([f64; RATES.len()]);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Reads out of shared memory, as clients with a lane say.
    Shared,
    /// Reads through nodes.
    Gets,
    Starts,
    Updates,
    Touches,
    Ends,
    /// Requests whose session was not there, or not as they supposed.
    Missed,
    /// Requests that failed.
    Failed,
    /// Requests that were told to slow down, and writes that had to wait for room.
    Slowed,
    /// Sessions that went one ring outward.
    Outward,
    /// Sessions that were brought in.
    Inward,
    /// Reads out of near copies, as clients with a lane say.
    NearRead,
    /// Reads of homes for want of a near copy.
    NearMissed,
    /// Near copies that went, since they changed or nobody vouched for them any more.
    NearGone,
}

/// The counters of each.
const RATES: [(Rate, &[&str]); 14] = [
    (Rate::Shared, &["uses_noted"]),
    (Rate::Gets, &["requests_get"]),
    (
        Rate::Starts,
        &["requests_start", "requests_start_if_absent", "requests_start_instead", "requests_put"],
    ),
    (Rate::Updates, &["requests_update", "requests_update_if", "requests_update_fields_if"]),
    (Rate::Touches, &["requests_touch"]),
    (Rate::Ends, &["requests_end", "requests_end_if"]),
    (Rate::Missed, &["failures_absent", "failures_ended", "failures_expired", "failures_conflict"]),
    (
        Rate::Failed,
        &[
            "failures_unavailable",
            "failures_timed_out",
            "failures_table_full",
            "failures_too_large",
            "failures_refused",
        ],
    ),
    (Rate::Slowed, &["failures_slow_down", "writes_slowed"]),
    (Rate::Outward, &["sessions_cooled", "sessions_displaced"]),
    (Rate::Inward, &["sessions_brought_in"]),
    (Rate::NearRead, &["near_uses_noted"]),
    (Rate::NearMissed, &["near_reads"]),
    (Rate::NearGone, &["near_copies_invalidated", "near_copies_renewed", "near_copies_dropped"]),
];

/// When something is drawn, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) now_ms: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { now: Instant::now(), now_ms: output::now_ms() }
    }
}

/// A table, or a ring of it, on all members that answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) name: String,
    pub(super) entries: u64,
    pub(super) capacity: u64,
    pub(super) bytes: u64,
    pub(super) segment_bytes: u64,
    /// The fill of the member where it is fullest, in percent.
    pub(super) fullest: u64,
}

/// A session that is used much, by the word of the member that saw it hottest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hot {
    pub(super) table: String,
    pub(super) session: HotSession,
    pub(super) is_suspect: bool,
}

impl Board {
    /// Takes in an answer, and asks whoever is to be asked next.
    pub(super) fn take(&mut self, answer: Answer, asks: &mut Asks, now: Instant) {
        self.has_changed = true;
        match answer {
            Answer::Members(Ok(known)) => {
                self.take_members(known.members);
                let active = self.rows.iter().map(|row| &row.member);
                for member in active.filter(|member| member.status.is_active()) {
                    asks.ask_member(member, known.node);
                }
                self.tables().iter().for_each(|table| asks.ask_for_suspects(table));
            }
            Answer::Members(Err(error)) => {
                let since = self.unreached.take().map_or(now, |(_, since)| since);
                self.unreached = Some((error.to_string(), since));
            }
            Answer::Member(id, told) => self.take_told(id, told.ok(), now),
            Answer::Suspects(table, listed) => {
                let listed = listed.map_err(|error| match error {
                    // There is such a table: some member told of it.
                    Error::Rejected { reason: Rejected::Malformed { .. }, .. } => {
                        NoSuspects::NotAMonitor
                    }
                    other => NoSuspects::Silent(other.to_string()),
                });
                self.suspects.insert(table, listed);
            }
        }
    }

    /// The members that a node knows now.
    pub(super) fn take_members(&mut self, members: Vec<Member>) {
        self.unreached = None;
        let mut before: BTreeMap<NodeId, Row> =
            self.rows.drain(..).map(|row| (row.member.id, row)).collect();
        for member in members {
            let row = match before.remove(&member.id) {
                Some(row) => Row { member, ..row },
                None => Row { member, told: None, told_at: None, is_silent: false, rates: None },
            };
            self.rows.push(row);
        }
        self.rows.sort_by_cached_key(|Row { member, .. }| {
            (!member.status.is_active(), member.name.clone(), member.id)
        });
        self.scroll(0);
    }

    /// What a member told; `None` = it did not answer.
    pub(super) fn take_told(&mut self, id: NodeId, told: Option<Box<Told>>, now: Instant) {
        let Some(row) = self.rows.iter_mut().find(|row| row.member.id == id) else { return };
        row.is_silent = told.is_none();
        let Some(told) = told else {
            row.rates = None;
            return;
        };
        row.rates = row.told.as_ref().and_then(|before| Rates::between(before, &told));
        (row.told, row.told_at) = (Some(told), Some(now));
    }

    /// Shows members further down, or further up.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        self.scrolled = self.scrolled.saturating_add_signed(by).min(last);
        self.has_changed = true;
    }

    /// Why there is nothing to show.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.unreached.as_ref().map(|(why, _)| why.as_str())
    }

    /// Those that answer.
    fn told(&self) -> impl Iterator<Item = &Told> {
        self.rows.iter().filter(|row| row.is_heard()).filter_map(|row| row.told.as_deref())
    }

    /// The name of the cluster, and how many members see the same members as some other one does.
    pub(super) fn agreement(&self) -> Option<(&str, u32, u32)> {
        let least = self.told().min_by_key(|told| told.status.agreeing_members)?;
        let NodeStatus { cluster, agreeing_members, active_members, .. } = &least.status;
        Some((cluster, *agreeing_members, *active_members))
    }

    /// The tables whose sessions are asked about.
    pub(super) fn tables(&self) -> Vec<String> {
        let tables = self.told().flat_map(|told| innermost(&told.status.tables));
        let names: BTreeSet<&str> = tables.map(|table| table.name.as_str()).collect();
        names.into_iter().take(TABLES_MAX).map(str::to_owned).collect()
    }

    /// All tables with their rings, the innermost first.
    pub(super) fn rings(&self) -> Vec<Ring> {
        let mut rings: Vec<Ring> = Vec::new();
        for table in self.told().flat_map(|told| &told.status.tables) {
            let at = rings.iter().position(|ring| ring.name == table.name).unwrap_or_else(|| {
                rings.push(Ring { name: table.name.clone(), ..Ring::default() });
                rings.len() - 1
            });
            let ring = &mut rings[at];
            // A node may say anything.
            ring.entries = ring.entries.saturating_add(table.entries);
            ring.capacity = ring.capacity.saturating_add(table.capacity);
            ring.bytes = ring.bytes.saturating_add(table.bytes);
            ring.segment_bytes = ring.segment_bytes.saturating_add(table.segment_bytes);
            ring.fullest = ring.fullest.max(percent_full(table.entries, table.capacity));
        }
        rings
    }

    /// How many near copies there are on all members together, and on how many of them.
    pub(super) fn near_copies(&self) -> (u64, usize) {
        let heard = self.rows.iter().filter(|row| row.is_heard());
        let copies = heard.filter_map(Row::near_copies).filter(|copies| *copies > 0);
        copies.fold((0, 0), |(sum, hosts), copies| (copies.saturating_add(sum), hosts + 1))
    }

    /// What happens on all members together; `None` as long as no rate is known.
    pub(super) fn rates(&self) -> Option<Rates> {
        let known = self.rows.iter().filter_map(|row| row.rates);
        known.reduce(|mut sum, rates| {
            sum.0.iter_mut().zip(rates.0).for_each(|(sum, rate)| *sum += rate);
            sum
        })
    }

    /// The sessions that are used most, the hottest first. What has cooled to less than one use is none of them.
    pub(super) fn hottest(&self) -> Vec<Hot> {
        let mut found: BTreeMap<(&str, u64, _), HotSession> = BTreeMap::new();
        for (table, sessions) in self.told().flat_map(|told| &told.hottest) {
            for session in sessions.iter().filter(|session| session.heat > 0) {
                let known = found.entry((table, session.word, session.birth));
                let known = known.or_insert_with(|| session.clone());
                known.heat = known.heat.max(session.heat);
                known.touched = known.touched.max(session.touched);
            }
        }
        let suspected: BTreeSet<(&str, u64)> =
            self.suspected().map(|(table, suspect)| (table, suspect.word)).collect();
        let hot = |((table, word, _), session)| {
            let is_suspect = suspected.contains(&(table, word));
            Hot { table: table.to_owned(), session, is_suspect }
        };
        let mut hottest: Vec<Hot> = found.into_iter().map(hot).collect();
        hottest.sort_by_key(|hot| std::cmp::Reverse(hot.session.heat));
        hottest
    }

    /// The suspects of all tables.
    pub(super) fn suspected(&self) -> impl Iterator<Item = (&str, &Suspect)> {
        let lists =
            self.suspects.iter().filter_map(|(table, list)| Some((table, list.as_ref().ok()?)));
        lists
            .flat_map(|(table, list)| list.suspects.iter().map(|suspect| (table.as_str(), suspect)))
    }

    /// How many members did not tell of suspects.
    pub(super) fn silent_about_suspects(&self) -> usize {
        let lists = self.suspects.values().filter_map(|list| list.as_ref().ok());
        lists.map(|list| list.silent.len()).max().unwrap_or(0)
    }

    /// Why there is no list of suspects, if there is none at all.
    pub(super) fn no_suspects(&self) -> Option<&NoSuspects> {
        let mut lists = self.suspects.values();
        let first = lists.next()?.as_ref().err()?;
        lists.all(Result::is_err).then_some(first)
    }

    /// All of it for programs.
    pub(super) fn document(&self) -> Value {
        let member = |row: &Row| {
            let mut json = member_json(&row.member);
            json["silent"] = json!(row.is_silent);
            json["round_trip_us"] =
                json!(row.told.as_ref().map(|told| told.took.as_micros() as u64));
            json["entries"] = json!(row.entries());
            json["near_copies"] = json!(row.near_copies());
            json["per_second"] = json!(row.rates.map(Rates::document));
            json
        };
        let ring = |ring: Ring| {
            json!({
                "name": ring.name,
                "entries": ring.entries,
                "capacity": ring.capacity,
                "bytes": ring.bytes,
                "segment_bytes": ring.segment_bytes,
                "fullest_percent": ring.fullest,
            })
        };
        let hot = |hot: Hot| {
            json!({
                "table": hot.table,
                "name": SuspectName::of_word(hot.session.word).to_string(),
                "birth": hot.session.birth,
                "heat": hot.session.heat,
                "touched_ms": hot.session.touched,
            })
        };
        let suspect = |(table, suspect): (&str, &Suspect)| {
            let mut json = suspects::document(suspect);
            json["table"] = json!(table);
            json
        };
        // A list that nobody gave is none, and not an empty one.
        let suspects = self.no_suspects().is_none().then(|| self.suspected());
        json!({
            "members": self.rows.iter().map(member).collect::<Vec<_>>(),
            "rings": self.rings().into_iter().map(ring).collect::<Vec<_>>(),
            "per_second": self.rates().map(Rates::document),
            "hottest": self.hottest().into_iter().map(hot).collect::<Vec<_>>(),
            "suspects": suspects.map(|all| all.map(suspect).collect::<Vec<_>>()),
            "silent_about_suspects": self.silent_about_suspects(),
        })
    }
}

impl Row {
    /// Whether what it told is worth anything.
    pub(super) fn is_heard(&self) -> bool {
        !self.is_silent && self.member.status.is_active()
    }

    /// How many sessions it holds, copies of others' included.
    pub(super) fn entries(&self) -> Option<u64> {
        let told = self.told.as_ref()?;
        let entries = told.status.tables.iter().map(|table| table.entries);
        Some(entries.fold(0, u64::saturating_add))
    }

    /// How many near copies it has.
    pub(super) fn near_copies(&self) -> Option<u64> {
        let counters = &self.told.as_ref()?.status.counters;
        let near = counters.iter().find(|(name, _)| name == "near_copies");
        near.map(|(_, count)| *count)
    }

    /// What it does, in a word.
    pub(super) fn status(&self) -> &'static str {
        status(self.member.status)
    }
}

impl Rate {
    /// For programs.
    fn name(self) -> String {
        let mut name = String::new();
        for char in format!("{self:?}").chars() {
            if char.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(char.to_ascii_lowercase());
        }
        name
    }
}

impl Rates {
    /// What happened between two answers of one run of a node, by its own clock; `None` if there is nothing to tell by.
    fn between(before: &Told, after: &Told) -> Option<Self> {
        let passed_ms = after.status.uptime_ms.checked_sub(before.status.uptime_ms);
        let passed = passed_ms.filter(|ms| *ms > 0).map(Duration::from_millis)?;
        let sum = |told: &Told, names: &[&str]| {
            let counted = |(name, _): &&(String, u64)| names.contains(&name.as_str());
            let counts = told.status.counters.iter().filter(counted).map(|(_, count)| *count);
            counts.fold(0, u64::saturating_add)
        };
        let rate = |(_, names): (Rate, &[&str])| {
            // A run that lasts longer than the one before it did began with nothing counted.
            let counted = sum(after, names).saturating_sub(sum(before, names));
            counted as f64 / passed.as_secs_f64()
        };
        Some(Self(RATES.map(rate)))
    }

    pub(super) fn of(&self, rate: Rate) -> f64 {
        self.0[rate as usize]
    }

    /// All writes.
    pub(super) fn writes(&self) -> f64 {
        [Rate::Starts, Rate::Updates, Rate::Touches, Rate::Ends]
            .map(|rate| self.of(rate))
            .iter()
            .sum()
    }

    fn document(self) -> Value {
        let rates = RATES
            .iter()
            .map(|(rate, _)| (rate.name(), json!((self.of(*rate) * 1_000.0).round() / 1_000.0)));
        Value::Object(rates.collect())
    }
}

/// How full something is, rounded down; more than full is 100.
pub(super) fn percent_full(entries: u64, capacity: u64) -> u64 {
    let full = u128::from(entries) * 100 / u128::from(capacity.max(1));
    u64::try_from(full.min(100)).expect("a hundred at most")
}

/// The tables that sessions are born in, without the rings further out.
pub(super) fn innermost(tables: &[TableStatus]) -> impl Iterator<Item = &TableStatus> {
    tables.iter().filter(|table| !table.name.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_fuller_than_full_whatever_a_node_says() {
        let figures = [(0, 0), (0, 9), (1, 3), (5, 5), (9, 3), (u64::MAX, 0), (u64::MAX, u64::MAX)];
        let full = figures.map(|(entries, capacity)| percent_full(entries, capacity));
        assert_eq!(full, [0, 0, 33, 100, 100, 100, 100]);
    }

    #[test]
    fn each_rate_stands_at_its_number() {
        let numbers: Vec<usize> = RATES.iter().map(|(rate, _)| *rate as usize).collect();
        assert_eq!(numbers, (0..RATES.len()).collect::<Vec<_>>());
        assert_eq!([Rate::Gets, Rate::NearRead].map(Rate::name), ["gets", "near_read"]);
    }
}
