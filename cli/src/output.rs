//! What is printed, and how: tables and text for people, JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use annulus_client::{Fields, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;

/// Prints one JSON document in a line.
pub(crate) fn json(document: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    write(&line)
}

/// Prints a line.
pub(crate) fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    write(format!("{}\n", text.as_ref()).as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Says something to people, on standard error.
pub(crate) fn message(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// A table for people: a line of headings, columns apart by spaces. On a terminal long cells wrap to
/// its width; elsewhere each row is one line.
pub(crate) struct Rows {
    table: Table,
}

impl Rows {
    /// A table with these headings. The columns whose heading begins with `>` are aligned right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if headings[index].starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.table.column_count(), "a cell for each heading");
        self.table.add_row(cells);
    }

    /// Prints the table.
    pub(crate) fn print(&mut self) -> anyhow::Result<()> {
        let terminal = io::stdout().is_terminal();
        line(self.render(terminal))
    }

    fn render(&mut self, wrap: bool) -> String {
        let arrangement =
            if wrap { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        self.table.set_content_arrangement(arrangement);
        self.table.trim_fmt()
    }
}

/// Bytes in JSON: a string if they are UTF-8, else `{"base64": "…"}`.
pub(crate) fn json_bytes(bytes: &[u8]) -> serde_json::Value {
    match str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// A value in JSON: `{"value": …}`, `{"fields": {…}}`, `{"members": […]}` of a set or `{"scores": {…}}` of a sorted one. Names
/// of fields, and members with scores, that are not UTF-8 are escaped.
pub(crate) fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bytes(bytes) => json!({ "value": json_bytes(bytes) }),
        Value::Map(fields) => json!({ "fields": json_fields(fields) }),
        Value::Set(fields) => {
            json!({ "members": fields.keys().map(|name| json_bytes(name)).collect::<Vec<_>>() })
        }
        Value::SortedSet(fields) => json!({ "scores": json_fields(fields) }),
    }
}

fn json_fields(fields: &Fields) -> serde_json::Map<String, serde_json::Value> {
    fields.iter().map(|(name, value)| (show_bytes(name), json_bytes(value))).collect()
}

/// Bytes for people: text as it is, but for control characters and what is no UTF-8.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || char == '\\' {
                shown.extend(char.escape_default());
            } else {
                shown.push(char);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// What is left until `at_ms`, since the Unix epoch: `never` for 0, `expired` for the past.
pub(crate) fn until(at_ms: u64, now_ms: u64) -> String {
    match at_ms.checked_sub(now_ms) {
        _ if at_ms == 0 => "never".to_owned(),
        None | Some(0) => "expired".to_owned(),
        Some(left) => span(Duration::from_millis(left)),
    }
}

/// How long ago `at_ms` was, since the Unix epoch.
pub(crate) fn since(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", span(Duration::from_millis(now_ms.saturating_sub(at_ms))))
}

/// A time for people: its two largest units.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, 0) => format!("{}ms", time.as_millis()),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

/// A size for people, in three digits or so.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut shown = format!("{count} B");
    for unit in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown =
            if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") };
    }
    shown
}

/// A share of a whole in percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let whole = whole.max(1);
    format!("{:.0}%", part as f64 * 100.0 / whole as f64)
}

/// The digest of a view.
pub(crate) fn digest(view: u64) -> String {
    format!("{view:016x}")
}

/// The wall clock, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_base64_in_json() {
        assert_eq!(json_bytes("é".as_bytes()), json!("é"));
        assert_eq!(json_bytes(b"\xff\xfe"), json!({ "base64": "//4=" }));
    }

    #[test]
    fn bytes_are_shown_without_harm_to_a_terminal() {
        assert_eq!(show_bytes("plain é".as_bytes()), "plain é");
        assert_eq!(show_bytes(b"a\x1b[2J\n\xff\\"), "a\\u{1b}[2J\\n\\xff\\\\");
    }

    #[test]
    fn times_are_shown_in_their_two_largest_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_000, "59s"),
            (61_000, "1m 1s"),
            (7_260_000, "2h 1m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        assert_eq!(until(0, 5), "never");
        assert_eq!(until(5, 5), "expired");
        assert_eq!(until(3_005, 5), "3s");
        assert_eq!(since(5, 3_005), "3s ago");
    }

    #[test]
    fn sizes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (8 << 20, "8.0 MiB"),
            (64 << 20, "64 MiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_table_has_a_row_per_line_and_no_ornaments() {
        let mut rows = Rows::new(&["NODE", ">SLOTS"]);
        rows.push(["app1".to_owned(), "5461".to_owned()]);
        rows.push(["a-longer-name".to_owned(), "1".to_owned()]);
        assert_eq!(
            rows.render(false),
            "NODE           SLOTS\napp1            5461\na-longer-name      1"
        );
    }
}
