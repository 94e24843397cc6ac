//! The configuration file: TOML, every key known, every value with its line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::setting::{RingSetting, Setting, TableSetting};

/// What the file says, not yet understood.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) settings: BTreeMap<Setting, Given>,
    pub(super) tables: Vec<GivenTable>,
}

/// One `[[table]]`.
#[derive(Debug)]
pub(super) struct GivenTable {
    pub(super) origin: Origin,
    pub(super) settings: BTreeMap<TableSetting, Given>,
    /// Its rings further out, from the inside.
    pub(super) rings: Vec<GivenRing>,
}

/// One `[[table.ring]]`.
#[derive(Debug)]
pub(super) struct GivenRing {
    pub(super) origin: Origin,
    pub(super) settings: BTreeMap<RingSetting, Given>,
}

/// A value somebody gave.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) origin: Origin,
    pub(super) raw: Raw,
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// Text: a string in the file, or anything in the environment and in flags.
    Text(String),
    /// A whole number in the file.
    Integer(i128),
    /// A list in the file.
    List(Vec<Raw>),
    /// Keys and values in the file, in their order.
    Map(Vec<(String, Raw)>),
    /// Something else that no setting takes: its type.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key} = {value}", if index == 0 { " " } else { ", " })?;
                }
                f.write_str(" }")
            }
            Self::Other(kind) => write!(f, "({kind})"),
        }
    }
}

/// The longest file we read, in bytes: some thousand times what a configuration needs.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file of at most 1 MiB.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let unreadable = |why: String| Problem::Unreadable { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable("it is larger than 1 MiB; is this the right file?".to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))
}

/// Sorts a file's keys into settings. All problems are found, not only the first.
pub(super) fn parse(text: &str, path: &Path, problems: &mut Vec<Problem>) -> Document {
    let at = |offset: usize| {
        let line =
            text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count();
        Origin::File { path: path.to_owned(), line: line + 1 }
    };
    let mut document = Document::default();
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let origin = at(error.span().map_or(0, |span| span.start));
            let why = error.message().lines().collect::<Vec<_>>().join("; ");
            problems.push(Problem::Syntax { origin, why });
            return document;
        }
    };
    for (key, value) in in_order(root.get_ref()) {
        let (name, origin) = (key.get_ref(), at(key.span().start));
        if name == "table" {
            collect_tables(value, origin, &at, &mut document.tables, problems);
        } else if name == REDIS {
            collect_redis(value, origin, &at, &mut document.settings, problems);
        } else if let Some(setting) = Setting::of_key(name) {
            document.settings.insert(setting, Given { origin, raw: raw(value.get_ref()) });
        } else {
            problems.push(unknown(origin, name, Place::Top));
        }
    }
    document
}

/// The section that is for clients of Redis; its keys stand in [`Setting`] with a dot behind its name.
const REDIS: &str = "redis";

fn collect_redis(
    value: &Spanned<DeValue<'_>>,
    origin: Origin,
    at: &impl Fn(usize) -> Origin,
    settings: &mut BTreeMap<Setting, Given>,
    problems: &mut Vec<Problem>,
) {
    let DeValue::Table(section) = value.get_ref() else {
        let why = "it is a section, written as [redis], with its keys below".to_owned();
        let value = raw(value.get_ref()).to_string();
        problems.push(Problem::Value { origin, key: REDIS.to_owned(), value, why });
        return;
    };
    for (key, value) in in_order(section) {
        let (name, origin) = (key.get_ref(), at(key.span().start));
        match Setting::of_key(&format!("{REDIS}.{name}")) {
            Some(setting) => {
                settings.insert(setting, Given { origin, raw: raw(value.get_ref()) });
            }
            None => problems.push(unknown(origin, name, Place::Redis)),
        }
    }
}

/// The keys of that section, without its name.
fn redis_keys() -> impl Iterator<Item = &'static str> + Clone {
    Setting::ALL.iter().filter_map(|setting| setting.key().strip_prefix("redis."))
}

fn collect_tables(
    value: &Spanned<DeValue<'_>>,
    origin: Origin,
    at: &impl Fn(usize) -> Origin,
    tables: &mut Vec<GivenTable>,
    problems: &mut Vec<Problem>,
) {
    let Some(items) = tables_in(value) else {
        let why = "tables are written as [[table]], with two brackets, once per table".to_owned();
        let value = raw(value.get_ref()).to_string();
        problems.push(Problem::Value { origin, key: "table".to_owned(), value, why });
        return;
    };
    for (start, table) in items {
        let (mut settings, mut rings) = (BTreeMap::new(), Vec::new());
        for (key, value) in in_order(table) {
            let (name, origin) = (key.get_ref(), at(key.span().start));
            match TableSetting::of_key(name) {
                Some(setting) => {
                    settings.insert(setting, Given { origin, raw: raw(value.get_ref()) });
                }
                None if name == "ring" => collect_rings(value, origin, at, &mut rings, problems),
                None => problems.push(unknown(origin, name, Place::Table)),
            }
        }
        tables.push(GivenTable { origin: at(start), settings, rings });
    }
}

fn collect_rings(
    value: &Spanned<DeValue<'_>>,
    origin: Origin,
    at: &impl Fn(usize) -> Origin,
    rings: &mut Vec<GivenRing>,
    problems: &mut Vec<Problem>,
) {
    let Some(items) = tables_in(value) else {
        let why = "rings are written as [[table.ring]], with two brackets, once per ring, below their [[table]]";
        let (key, value) = ("table.ring".to_owned(), raw(value.get_ref()).to_string());
        problems.push(Problem::Value { origin, key, value, why: why.to_owned() });
        return;
    };
    for (start, ring) in items {
        let mut settings = BTreeMap::new();
        for (key, value) in in_order(ring) {
            let (name, origin) = (key.get_ref(), at(key.span().start));
            match RingSetting::of_key(name) {
                Some(setting) => {
                    settings.insert(setting, Given { origin, raw: raw(value.get_ref()) });
                }
                None => problems.push(unknown(origin, name, Place::Ring)),
            }
        }
        rings.push(GivenRing { origin: at(start), settings });
    }
}

/// The tables of an array of tables, each with where it begins; `None` of anything else.
fn tables_in<'t, 'i>(value: &'t Spanned<DeValue<'i>>) -> Option<Vec<(usize, &'t DeTable<'i>)>> {
    let DeValue::Array(items) = value.get_ref() else { return None };
    let table = |item: &'t Spanned<DeValue<'i>>| match item.get_ref() {
        DeValue::Table(table) => Some((item.span().start, table)),
        _ => None,
    };
    items.iter().map(table).collect()
}

/// A table's keys by their place in the file: the parser's own order is that of their names.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other("a number beyond all bounds"),
        },
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(_) => Raw::Other("true or false"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(table) => {
            let entries = in_order(table).into_iter();
            let entry = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), raw(value.get_ref()))
            };
            Raw::Map(entries.map(entry).collect())
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Table,
    Ring,
    Redis,
}

fn unknown(origin: Origin, key: &str, place: Place) -> Problem {
    let top = Setting::ALL.iter().map(|setting| setting.key()).filter(|key| !key.contains('.'));
    let table = TableSetting::ALL.iter().map(|setting| setting.key());
    let ring = RingSetting::ALL.iter().map(|setting| setting.key());
    let hint = match place {
        Place::Top if TableSetting::of_key(key).is_some() => {
            format!("`{key}` belongs under [[table]]")
        }
        Place::Ring if TableSetting::of_key(key).is_some() => {
            format!(
                "`{key}` is the table's, on all of its rings: move it above the first [[table.ring]]"
            )
        }
        Place::Table | Place::Ring if Setting::of_key(key).is_some() => {
            format!("`{key}` is a key of the node: move it above the first [[table]]")
        }
        Place::Redis if Setting::of_key(key).is_some() => {
            format!("`{key}` is a key of the node: move it above [redis]")
        }
        Place::Redis => suggest(key, redis_keys()),
        Place::Top => suggest(key, top.chain([REDIS, "table"])),
        Place::Table => suggest(key, table.chain(["ring"])),
        Place::Ring => suggest(key, ring),
    };
    Problem::UnknownKey { origin, key: key.to_owned(), hint }
}

/// The known name that is most like this one, or all of them.
pub(super) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().map(|candidate| (edits(name, candidate), candidate)).min();
    match nearest {
        Some((count, candidate)) if count <= (name.len() / 3).max(1) => {
            format!("did you mean `{candidate}`?")
        }
        _ => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The Levenshtein distance, for names: quadratic, and long ones are not compared at all.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
