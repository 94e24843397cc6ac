//! What COMMAND and the HELP of containers answer.

use super::{COMMANDS, Categories, KeySpec, Spec, all, find, named};
use crate::arguments::{Argument, Arguments};
use crate::command::{CommandQuery, ListFilter};
use crate::error::CommandError;
use crate::glob::{Case, matches};
use crate::reply::Writer;

/// Answers COMMAND in any of its forms. Its cost is that of the table (some 20 KiB for all), for each name that was asked
/// for at most that of one row; [`Command::parse`](crate::Command::parse) takes no more names than there are, so that the answer
/// is within 320 KiB. COMMAND GETKEYS is answered with what it was asked.
pub fn answer(query: CommandQuery<'_>, out: &mut Writer<'_>) {
    match query {
        CommandQuery::Count => out.integer(COMMANDS.len() as i64),
        CommandQuery::Info { names } if names.is_empty() => {
            out.array(COMMANDS.len());
            for spec in COMMANDS {
                info(spec, out);
            }
        }
        CommandQuery::Info { names } => {
            out.array(names.len());
            for name in names.iter() {
                match named(&name) {
                    Some(spec) => info(spec, out),
                    None => out.null(),
                }
            }
        }
        CommandQuery::Docs { names } if names.is_empty() => {
            out.map(COMMANDS.len());
            for spec in COMMANDS {
                out.bulk(spec.name.as_bytes());
                docs(spec, out);
            }
        }
        CommandQuery::Docs { names } => {
            let found = || names.iter().filter_map(|name| named(&name));
            out.map(found().count());
            for spec in found() {
                out.bulk(spec.name.as_bytes());
                docs(spec, out);
            }
        }
        CommandQuery::GetKeys { request } => keys(request, out),
        CommandQuery::List { filter } => {
            let listed: Vec<&Spec> =
                all().filter(|spec| filter.is_none_or(|filter| passes(filter, spec))).collect();
            out.array(listed.len());
            for spec in listed {
                out.bulk(spec.name.as_bytes());
            }
        }
        CommandQuery::Help => {
            if let Some(spec) = named(b"command") {
                help(spec, out);
            }
        }
    }
}

/// Answers the HELP of a container: its subcommands, and what they do.
pub fn help(container: &'static Spec, out: &mut Writer<'_>) {
    out.array(1 + 2 * container.subcommands.len());
    let name = container.name.to_ascii_uppercase();
    out.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for spec in container.subcommands {
        out.simple(&spec.own_name().to_ascii_uppercase());
        out.simple(&format!("    {}", spec.summary));
    }
}

fn passes(filter: ListFilter<'_>, spec: &Spec) -> bool {
    match filter {
        ListFilter::Module(_) => false,
        ListFilter::Category(name) => {
            Categories::named(&name).is_some_and(|category| spec.categories.contains(category))
        }
        ListFilter::Pattern(pattern) => matches(&pattern, spec.name.as_bytes(), Case::Insensitive),
    }
}

fn keys(request: Arguments<'_>, out: &mut Writer<'_>) {
    let invalid = b"Invalid command specified";
    let spec = match find(request) {
        Ok(spec) => spec,
        Err(CommandError::Arity(spec)) if !spec.has_keys() => return no_keys(out),
        Err(CommandError::Arity(_)) => {
            return out.error("ERR", b"Invalid number of arguments specified for command");
        }
        Err(_) => return out.error("ERR", invalid),
    };
    if !spec.has_keys() {
        return no_keys(out);
    }
    let keys: Vec<Argument<'_>> = spec.keys_of(request).collect();
    out.array(keys.len());
    for key in keys {
        out.bulk(&key);
    }
}

fn no_keys(out: &mut Writer<'_>) {
    out.error("ERR", b"The command has no key arguments");
}

fn info(spec: &'static Spec, out: &mut Writer<'_>) {
    let (first, last, step) = spec.key_range();
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(spec.arity.into());
    simple_set(spec.flags.names(), out);
    out.integer(first);
    out.integer(last);
    out.integer(step);
    let categories: Vec<String> =
        spec.categories.names().map(|category| format!("@{category}")).collect();
    simple_set(categories.iter().map(String::as_str), out);
    out.set(spec.tips.len());
    for tip in spec.tips {
        out.bulk(tip.as_bytes());
    }
    out.set(spec.keys.len());
    for keys in spec.keys {
        key_spec(keys, out);
    }
    if spec.subcommands.is_empty() {
        out.set(0);
    } else {
        out.array(spec.subcommands.len());
    }
    for sub in spec.subcommands {
        info(sub, out);
    }
}

fn simple_set<'a>(members: impl Iterator<Item = &'a str>, out: &mut Writer<'_>) {
    let members: Vec<&str> = members.collect();
    out.set(members.len());
    for member in members {
        out.simple(member);
    }
}

fn key_spec(keys: &KeySpec, out: &mut Writer<'_>) {
    out.map(3 + usize::from(keys.notes.is_some()));
    if let Some(notes) = keys.notes {
        out.bulk(b"notes");
        out.bulk(notes.as_bytes());
    }
    out.bulk(b"flags");
    simple_set(keys.flags.iter().copied(), out);
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.integer(keys.first.into());
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    if keys.counted {
        out.bulk(b"keynum");
        out.bulk(b"spec");
        out.map(3);
        for (name, index) in [(&b"keynumidx"[..], 0), (b"firstkey", 1), (b"keystep", keys.step)] {
            out.bulk(name);
            out.integer(index.into());
        }
        return;
    }
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    out.bulk(b"lastkey");
    out.integer(keys.last.into());
    out.bulk(b"keystep");
    out.integer(keys.step.into());
    out.bulk(b"limit");
    out.integer(0);
}

fn docs(spec: &'static Spec, out: &mut Writer<'_>) {
    out.map(3 + usize::from(!spec.subcommands.is_empty()));
    for (name, text) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
        out.bulk(name.as_bytes());
        out.bulk(text.as_bytes());
    }
    if !spec.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(spec.subcommands.len());
        for sub in spec.subcommands {
            out.bulk(sub.name.as_bytes());
            docs(sub, out);
        }
    }
}
