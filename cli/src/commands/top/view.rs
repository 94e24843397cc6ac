//! Drawing it. What is not a name that somebody gave is ASCII, so that it is readable on any terminal.
//!
//! From top to bottom: a line about the cluster, the members, the rings with what flows between them, rates with what
//! becomes of near copies, and the hottest sessions beside the suspects, or above them where it is narrow. Each part
//! begins with a line of headings. Where there is little room columns and rows are left out, the least important ones
//! first.

use std::time::Duration;

use annulus_client::{Suspect, SuspectName};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow, Table, Widget};

use super::board::{Board, Hot, Moment, NoSuspects, Rate, Rates, Ring, Row, percent_full};
use crate::output;

const HEADINGS: Style = Style::new().add_modifier(Modifier::REVERSED);
const PLAIN: Style = Style::new();
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red);
/// What is no more than what it was.
const STALE: Style = Style::new().fg(Color::Red).add_modifier(Modifier::DIM);
const WARM: Style = Style::new().fg(Color::Yellow);

/// From this width on the hottest sessions and the suspects stand side by side.
const WIDE: u16 = 72;
/// With fewer lines near copies have none.
const NEAR_MIN: u16 = 16;
/// How wide the bar is that shows how full something is.
const BAR_WIDTH: usize = 10;
/// The rings get one in so many of the lines and so many in any case, and more where others leave some.
const RINGS_PART: u16 = 4;
const RINGS_MIN: u16 = 2;
/// One in so many of the lines below the rings belongs to sessions in any case, and so many if there are twice as many.
const SESSIONS_PART: u16 = 3;
const SESSIONS_MIN: u16 = 2;
/// With fewer lines suspects are not shown below the hottest sessions, but as the red ones among these.
const STACKED_MIN: u16 = 4;

/// A column, shown from some width on. The first of a part takes the room that the others leave.
struct Column {
    heading: &'static str,
    width: u16,
    is_right: bool,
    from_width: u16,
}

const fn left(heading: &'static str, width: u16, from_width: u16) -> Column {
    Column { heading, width, is_right: false, from_width }
}

const fn right(heading: &'static str, width: u16, from_width: u16) -> Column {
    Column { heading, width, is_right: true, from_width }
}

const MEMBERS: [Column; 11] = [
    left("MEMBER", 0, 0),
    left("ZONE", 8, 72),
    left("STATUS", 8, 0),
    left("RINGS", 5, 96),
    right("UNSYNCED", 8, 104),
    right("SESSIONS", 8, 0),
    right("NEAR", 6, 88),
    right("SHARED/s", 8, 76),
    right("GETS/s", 7, 36),
    right("WRITES/s", 8, 52),
    right("ANSWER", 11, 64),
];
const RINGS: [Column; 8] = [
    left("RING", 0, 0),
    left("FILL", BAR_WIDTH as u16 + 2, 48),
    right("FULL", 4, 0),
    right("MOST", 4, 88),
    right("ENTRIES", 9, 0),
    right("CAPACITY", 9, 88),
    right("BYTES", 8, 56),
    right("MEMORY", 8, 64),
];
/// What is shown of the rates, and how it is told from them.
type OfRates = fn(&Rates) -> f64;

const RATES: [(Column, OfRates); 10] = [
    (left("RATES/s", 0, 0), |_| 0.0),
    (right("SHARED", 7, 36), |it| it.of(Rate::Shared)),
    (right("GETS", 7, 0), |it| it.of(Rate::Gets)),
    (right("STARTS", 7, 0), |it| it.of(Rate::Starts)),
    (right("UPDATES", 7, 56), |it| it.of(Rate::Updates)),
    (right("TOUCHES", 7, 64), |it| it.of(Rate::Touches)),
    (right("ENDS", 5, 48), |it| it.of(Rate::Ends)),
    (right("MISSED", 7, 72), |it| it.of(Rate::Missed)),
    (right("SLOWED", 7, 78), |it| it.of(Rate::Slowed)),
    (right("FAILED", 7, 0), |it| it.of(Rate::Failed)),
];
const HOTTEST: [Column; 4] =
    [left("HOTTEST", 0, 0), left("TABLE", 10, 52), right("HEAT", 6, 0), right("WRITTEN", 8, 36)];
const SUSPECTS: [Column; 5] = [
    left("SUSPECT", 0, 0),
    left("TABLE", 10, 64),
    left("OWNER", 10, 52),
    right("HEAT", 6, 0),
    right("LEFT", 8, 30),
];

/// Draws all of it into an area, of whatever size.
pub(super) fn draw(board: &Board, at: Moment, area: Rect, buffer: &mut Buffer) {
    let rings = rings(board);
    let [members, rings_height, rates, sessions] = heights(board, rings.len(), area.height);
    let mut below = area;
    let mut take = |height: u16| {
        let height = height.min(below.height);
        let part = Rect { height, ..below };
        below = Rect { y: below.y + height, height: below.height - height, ..below };
        part
    };
    about_the_cluster(board, at).render(take(1), buffer);
    draw_members(board, at, take(members), buffer);
    draw_part(&RINGS, rings, take(rings_height), buffer);
    draw_part(&RATES.map(|(column, _)| column), rate_rows(board), take(rates), buffer);
    let sessions = take(sessions);
    let (hottest, suspects) = match area.width >= WIDE {
        true => {
            let width = sessions.width / 2;
            let beside =
                Rect { x: sessions.x + width + 1, width: sessions.width - width - 1, ..sessions };
            (Rect { width, ..sessions }, beside)
        }
        false => {
            let height = match sessions.height {
                ..STACKED_MIN => sessions.height,
                height => height.div_ceil(2),
            };
            let under =
                Rect { y: sessions.y + height, height: sessions.height - height, ..sessions };
            (Rect { height, ..sessions }, under)
        }
    };
    draw_part(&HOTTEST, hottest_cells(board, at), hottest, buffer);
    draw_part(&SUSPECTS, suspect_cells(board), suspects, buffer);
}

/// How many lines all of it takes.
pub(super) fn height(board: &Board) -> u16 {
    let parts = wanted(board, rings(board).len());
    parts.into_iter().fold(1, u16::saturating_add)
}

/// What was drawn, as text without colours.
pub(super) fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    };
    let lines: Vec<String> = buffer.content.chunks(width).map(line).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The lines that the members, the rings, the rates and the sessions would take, with their headings.
fn wanted(board: &Board, rings: usize) -> [u16; 4] {
    let sessions = board.hottest().len().max(board.suspected().count()).max(1);
    let with_headings = |rows: usize| u16::try_from(1 + rows).unwrap_or(u16::MAX);
    [board.rows.len(), rings, rate_rows(board).len(), sessions].map(with_headings)
}

/// The lines that they get.
fn heights(board: &Board, rings: usize, height: u16) -> [u16; 4] {
    let [members_wanted, rings_wanted, rates_wanted, sessions_wanted] = wanted(board, rings);
    let left = height.saturating_sub(1);
    let rates_wanted = if height < NEAR_MIN { rates_wanted.min(2) } else { rates_wanted };
    let rates = left.min(rates_wanted);
    let left = left - rates;
    let spare = left.saturating_sub(members_wanted.saturating_add(sessions_wanted));
    let rings = rings_wanted.min((left / RINGS_PART).max(RINGS_MIN).max(spare)).min(left);
    let left = left - rings;
    let sessions = (left / SESSIONS_PART).max(SESSIONS_MIN.min(left / 2)).min(sessions_wanted);
    let members = members_wanted.min(left - sessions);
    [members, rings, rates, left - members]
}

fn about_the_cluster(board: &Board, at: Moment) -> Line<'static> {
    if let Some((why, since)) = &board.unreached {
        let span = output::span(at.now.saturating_duration_since(*since));
        return Line::styled(format!("no member answers for {span}: {}", printable(why)), BAD);
    }
    let Some((cluster, agreeing, active)) = board.agreement() else {
        return Line::styled("asking the members", FAINT);
    };
    let cluster = format!("cluster {}", printable(cluster));
    let agrees = format!(", {agreeing} of {active} members agree");
    let style = if agreeing == active { PLAIN } else { WARM };
    Line::from(vec![
        Span::raw(cluster),
        Span::styled(agrees, style),
        Span::styled("  q quits", FAINT),
    ])
}

fn draw_members(board: &Board, at: Moment, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.height.saturating_sub(1));
    let first = board.scrolled.min(board.rows.len().saturating_sub(room));
    let mut rows: Vec<_> =
        board.rows.iter().skip(first).take(room).map(|row| member_cells(row, at)).collect();
    let more = board.rows.len() - first - rows.len();
    if more > 0
        && let Some((cells, style)) = rows.last_mut()
    {
        *cells = vec![format!("{} more, see with down", more + 1)];
        *style = FAINT;
    }
    draw_part(&MEMBERS, rows, area, buffer);
}

fn member_cells(row: &Row, at: Moment) -> (Vec<String>, Style) {
    let told = row.told.as_ref();
    let rate =
        |rate: fn(&Rates) -> f64| row.rates.as_ref().map(rate).map_or_else(blank, per_second);
    let unsynced = told.map(|told| {
        let unsynced = |table: &annulus_client::TableStatus| u64::from(table.slots_unsynced);
        told.status.tables.iter().map(unsynced).sum::<u64>()
    });
    let age = row.told_at.map(|told_at| at.now.saturating_duration_since(told_at));
    let answer = match (row.is_heard(), told, age) {
        (true, Some(told), _) => round_trip(told.took),
        (_, _, Some(age)) => format!("{} ago", output::span(Duration::from_secs(age.as_secs()))),
        _ => blank(),
    };
    let (status, style) = match row.is_silent && row.member.status.is_active() {
        true => ("silent", STALE),
        false if !row.member.status.is_active() => (row.status(), FAINT),
        false => (row.status(), PLAIN),
    };
    let cells = vec![
        printable(&row.member.name),
        if row.member.zone.is_empty() { blank() } else { printable(&row.member.zone) },
        status.to_owned(),
        runs(row.member.rings),
        unsynced.map_or_else(blank, |unsynced| unsynced.to_string()),
        row.entries().map_or_else(blank, count),
        row.near_copies().map_or_else(blank, count),
        rate(|rates| rates.of(Rate::Shared)),
        rate(|rates| rates.of(Rate::Gets)),
        rate(Rates::writes),
        answer,
    ];
    (cells, style)
}

/// The rings of a member, such as 0-2,4.
fn runs(rings: u8) -> String {
    let is_served = |ring: &u8| rings & 1 << ring != 0;
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for ring in (0..8).filter(is_served) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == ring => *last = ring,
            _ => runs.push((ring, ring)),
        }
    }
    let run = |(first, last): &(u8, u8)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

/// The rings, and after those of one table what flows between them. Nodes count that for all tables together, so
/// that with several that have rings it comes last.
fn rings(board: &Board) -> Vec<(Vec<String>, Style)> {
    let rings = board.rings();
    let has_outer = |ring: &Ring| {
        rings.iter().any(|it| it.name.split_once('@').is_some_and(|(name, _)| name == ring.name))
    };
    let with_outer = rings.iter().filter(|ring| has_outer(ring)).count();
    let mut rows = Vec::new();
    for ring in &rings {
        rows.push(ring_cells(ring));
        if with_outer == 1 && has_outer(ring) {
            rows.push(flow(board, "  "));
        }
    }
    if with_outer > 1 {
        rows.push(flow(board, "all rings: "));
    }
    rows
}

fn ring_cells(ring: &Ring) -> (Vec<String>, Style) {
    let full = percent_full(ring.entries, ring.capacity);
    let filled = (full as usize * BAR_WIDTH).div_ceil(100).min(BAR_WIDTH);
    let cells = vec![
        printable(&ring.name),
        format!("[{:BAR_WIDTH$}]", "#".repeat(filled)),
        output::percent(ring.entries, ring.capacity),
        format!("{}%", ring.fullest),
        count(ring.entries),
        count(ring.capacity),
        output::bytes(ring.bytes),
        output::bytes(ring.segment_bytes),
    ];
    let style = match ring.fullest {
        0..80 => PLAIN,
        80..95 => WARM,
        _ => BAD,
    };
    (cells, style)
}

fn flow(board: &Board, what: &str) -> (Vec<String>, Style) {
    let rates = board.rates();
    let rate = |rate| rates.map(|rates| rates.of(rate)).map_or_else(blank, per_second);
    let (outward, inward) = (rate(Rate::Outward), rate(Rate::Inward));
    (vec![format!("{what}{outward}/s outward, {inward}/s inward")], PLAIN)
}

fn rate_cells(board: &Board) -> (Vec<String>, Style) {
    let rates = board.rates();
    let cell = |rate: fn(&Rates) -> f64| rates.as_ref().map(rate).map_or_else(blank, per_second);
    let mut cells: Vec<String> = RATES.iter().map(|(_, rate)| cell(*rate)).collect();
    cells[0] = "together".to_owned();
    let fails = rates.is_some_and(|rates| rates.of(Rate::Failed) > 0.0);
    (cells, if fails { BAD } else { PLAIN })
}

/// The rates, and what becomes of near copies if there are any.
fn rate_rows(board: &Board) -> Vec<(Vec<String>, Style)> {
    let mut rows = vec![rate_cells(board)];
    let rates = board.rates();
    let (copies, hosts) = board.near_copies();
    let near = [Rate::NearRead, Rate::NearMissed, Rate::NearGone];
    let is_busy = rates.is_some_and(|rates| near.iter().any(|rate| rates.of(*rate) > 0.0));
    if hosts > 0 || is_busy {
        let [read, missed, gone] =
            near.map(|rate| rates.map(|rates| rates.of(rate)).map_or_else(blank, per_second));
        let hosts = format!("{hosts} {}", if hosts == 1 { "host" } else { "hosts" });
        let copies = count(copies);
        let text = format!(
            "near copies: {copies} on {hosts}, {read}/s read, {missed}/s missed, {gone}/s gone"
        );
        rows.push((vec![text], PLAIN));
    }
    rows
}

fn hottest_cells(board: &Board, at: Moment) -> Vec<(Vec<String>, Style)> {
    let hot = |hot: Hot| {
        let cells = vec![
            SuspectName::of_word(hot.session.word).to_string(),
            printable(&hot.table),
            count(hot.session.heat.into()),
            ago(hot.session.touched, at.now_ms),
        ];
        (cells, if hot.is_suspect { BAD } else { PLAIN })
    };
    let rows: Vec<_> = board.hottest().into_iter().map(hot).collect();
    or_a_word(rows, "none noticed")
}

fn suspect_cells(board: &Board) -> Vec<(Vec<String>, Style)> {
    if let Some(why) = board.no_suspects() {
        let why = match why {
            NoSuspects::NotAMonitor => "not known: takes the role monitor".to_owned(),
            NoSuspects::Silent(why) => format!("not known: {}", printable(why)),
        };
        return vec![(vec![why], FAINT)];
    }
    let suspect = |(table, suspect): (&str, &Suspect)| {
        let owner = output::show_bytes(&suspect.owner);
        let cells = vec![
            SuspectName::of_word(suspect.word).to_string(),
            printable(table),
            if owner.is_empty() { blank() } else { printable(&owner) },
            count(suspect.heat.into()),
            output::span(Duration::from_millis(suspect.left_ms)),
        ];
        (cells, BAD)
    };
    let rows: Vec<_> = board.suspected().map(suspect).collect();
    match board.silent_about_suspects() {
        0 => or_a_word(rows, "none"),
        silent => or_a_word(rows, &format!("none, but {silent} do not answer")),
    }
}

fn or_a_word(rows: Vec<(Vec<String>, Style)>, word: &str) -> Vec<(Vec<String>, Style)> {
    match rows.is_empty() {
        true => vec![(vec![word.to_owned()], FAINT)],
        false => rows,
    }
}

/// Draws a part: a line of headings, and its rows. One that has a single cell takes all of its line.
fn draw_part(columns: &[Column], rows: Vec<(Vec<String>, Style)>, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let is_shown = |column: &&Column| column.from_width <= area.width;
    let others: u16 = columns.iter().skip(1).filter(is_shown).map(|column| column.width + 1).sum();
    let first = area.width.saturating_sub(others);
    let shown: Vec<(usize, &Column, u16)> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| is_shown(column))
        .map(|(at, column)| (at, column, if at == 0 { first } else { column.width }))
        .collect();
    let cell = |text: &str, column: &Column, width: u16| {
        let line = Line::raw(fit(text, width.into()));
        Cell::from(if column.is_right { line.right_aligned() } else { line })
    };
    let headings = shown.iter().map(|(_, column, width)| cell(column.heading, column, *width));
    let widths = shown.iter().map(|(.., width)| Constraint::Length(*width));
    let lines = rows.iter().map(|(cells, style)| {
        let texts = shown.iter().map(|(at, column, width)| {
            let text = cells.get(*at).filter(|_| cells.len() > 1);
            cell(text.map_or("", String::as_str), column, *width)
        });
        TableRow::new(texts.collect::<Vec<_>>()).style(*style)
    });
    let headings = TableRow::new(headings.collect::<Vec<_>>()).style(HEADINGS);
    let table = Table::new(lines, widths).header(headings).column_spacing(1);
    Widget::render(table, area, buffer);
    for (at, (cells, style)) in rows.iter().enumerate() {
        let y = area.y.saturating_add(1).saturating_add(at as u16);
        if y >= area.bottom() {
            break;
        }
        if let [text] = &cells[..] {
            let line = Line::styled(fit(text, area.width.into()), *style);
            line.render(Rect { y, height: 1, ..area }, buffer);
        }
    }
}

/// A text that is no wider than that, with a mark where some of it is left out.
fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut fitting = String::new();
    for char in text.chars() {
        fitting.push(char);
        // The mark takes one.
        if Span::raw(&fitting).width() >= width {
            fitting.pop();
            fitting.push('~');
            return fitting;
        }
    }
    fitting
}

/// A text of others, as far as it does nothing to a terminal but to appear there.
fn printable(text: &str) -> String {
    // The latter turn the direction of what follows.
    let does_more = |char: char| {
        char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if does_more(char) { '?' } else { char }).collect()
}

fn blank() -> String {
    "-".to_owned()
}

/// A count, in six characters at most.
fn count(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        _ => short(count as f64),
    }
}

/// How often something happens in a second.
fn per_second(rate: f64) -> String {
    match rate {
        // Less than is shown.
        ..0.05 => "0".to_owned(),
        ..9.95 => format!("{rate:.1}"),
        ..99_999.5 => format!("{rate:.0}"),
        _ => short(rate),
    }
}

/// A large number, in three or four digits.
fn short(number: f64) -> String {
    let mut value = number;
    for unit in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            return match value < 9.95 {
                true => format!("{value:.1}{unit}"),
                false => format!("{value:.0}{unit}"),
            };
        }
        value /= 1_000.0;
    }
    format!("{value:.0}P")
}

fn round_trip(took: Duration) -> String {
    match took.as_secs_f64() * 1_000.0 {
        ms @ ..99.95 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// How long ago that was, in its largest unit.
fn ago(at_ms: u64, now_ms: u64) -> String {
    let span = output::span(Duration::from_secs(now_ms.saturating_sub(at_ms) / 1_000));
    match span.split_once(' ') {
        Some((largest, _)) => largest.to_owned(),
        None if span == "0ms" => "now".to_owned(),
        None => span,
    }
}

#[cfg(test)]
mod tests;
