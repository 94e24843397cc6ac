//! `annulus suspects`: sessions that are used too much.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use annulus_client::{Key, NodeId, SUSPECTS_PERIOD, Suspect, SuspectChange, SuspectName};
use serde_json::json;

use crate::args::{ReleaseArgs, SuspectArgs, SuspectsCommand, WatchArgs};
use crate::cluster::Cluster;
use crate::exit::{ABSENT, Failed};
use crate::output::{self, Rows};

/// Lists, watches and judges suspects.
pub(crate) async fn run(cluster: &Cluster, command: &SuspectsCommand) -> anyhow::Result<()> {
    match command {
        SuspectsCommand::List => list(cluster).await,
        SuspectsCommand::Watch(args) => watch(cluster, args).await,
        SuspectsCommand::Release(args) => release(cluster, args).await,
        SuspectsCommand::End(args) => end(cluster, args).await,
    }
}

async fn list(cluster: &Cluster) -> anyhow::Result<()> {
    let suspects = known(cluster).await?;
    if cluster.json {
        return suspects.iter().try_for_each(|suspect| output::json(&document(suspect)));
    }
    let names = names(cluster).await;
    let mut rows = Rows::new(&["NAME", "OWNER", ">LEFT", ">HEAT", "JUDGED BY"]);
    for suspect in &suspects {
        let judge = suspect.judged.node;
        rows.push([
            name_of(suspect).to_string(),
            owner(suspect),
            left(suspect),
            suspect.heat.to_string(),
            names.get(&judge).cloned().unwrap_or_else(|| judge.to_string()),
        ]);
    }
    rows.print()
}

async fn watch(cluster: &Cluster, args: &WatchArgs) -> anyhow::Result<()> {
    let mut watch = cluster.table.watch_suspects(SUSPECTS_PERIOD);
    let mut told = 0;
    while args.count.is_none_or(|count| told < count) {
        let change = watch.next().await?;
        let what = kind(&change);
        if cluster.json {
            let mut document = document(change.suspect());
            document["change"] = json!(what);
            output::json(&document)?;
        } else {
            output::line(text(what, change.suspect()))?;
        }
        told += 1;
    }
    Ok(())
}

async fn release(cluster: &Cluster, args: &ReleaseArgs) -> anyhow::Result<()> {
    let suspect = find(cluster, &args.suspect).await?;
    let name = name_of(&suspect).to_string();
    cluster.table.release(suspect.word, suspect.birth, args.time).await?;
    if cluster.json {
        let for_ms = u64::try_from(args.time.as_millis()).unwrap_or(u64::MAX);
        return output::json(&json!({ "released": name, "for_ms": for_ms }));
    }
    output::line(format!("{name} is released for {}", output::span(args.time)))
}

async fn end(cluster: &Cluster, args: &SuspectArgs) -> anyhow::Result<()> {
    let suspect = find(cluster, args).await?;
    let name = name_of(&suspect).to_string();
    cluster.table.end_suspect(suspect.word, suspect.birth).await?;
    if cluster.json {
        return output::json(&json!({ "ended": name }));
    }
    output::line(format!("{name} is ended"))
}

/// The suspects that members know of. Says so if some did not answer.
async fn known(cluster: &Cluster) -> anyhow::Result<Vec<Suspect>> {
    let list = cluster.table.suspects().await?;
    if !list.silent.is_empty() {
        output::message(format!(
            "annulus: warning: {} active members did not answer; suspects that only they know of are missing",
            list.silent.len()
        ));
    }
    Ok(list.suspects)
}

/// The suspect that is meant.
async fn find(cluster: &Cluster, args: &SuspectArgs) -> anyhow::Result<Suspect> {
    let name = match (&args.key, args.name) {
        (Some(key), _) => SuspectName::of_key(&Key::new(key.as_bytes())?),
        (None, Some(name)) => name,
        (None, None) => return Err(Failed::usage("give a NAME or --key")),
    };
    let named = known(cluster).await?.into_iter().filter(|it| it.word == name.word());
    // Another session may have begun under the key: the one that was judged last is the one that lives.
    named.max_by_key(|suspect| suspect.judged).ok_or_else(|| {
        let why = format!("no suspect is called {name}; see `annulus suspects list`");
        Failed { code: ABSENT, why }.into()
    })
}

/// What the members are called.
async fn names(cluster: &Cluster) -> BTreeMap<NodeId, String> {
    let members = cluster.client.members().await;
    let members = members.map(|members| members.members).unwrap_or_default();
    members.into_iter().map(|member| (member.id, member.name)).collect()
}

fn name_of(suspect: &Suspect) -> SuspectName {
    SuspectName::of_word(suspect.word)
}

fn owner(suspect: &Suspect) -> String {
    match &suspect.owner[..] {
        [] => "-".to_owned(),
        owner => output::show_bytes(owner),
    }
}

fn left(suspect: &Suspect) -> String {
    output::span(Duration::from_millis(suspect.left_ms))
}

/// A suspect in JSON.
pub(crate) fn document(suspect: &Suspect) -> serde_json::Value {
    json!({
        "name": name_of(suspect).to_string(),
        "birth": suspect.birth,
        "judged": suspect.judged,
        "until_ms": suspect.until,
        "left_ms": suspect.left_ms,
        "heat": suspect.heat,
        "owner": output::json_bytes(&suspect.owner),
    })
}

fn kind(change: &SuspectChange) -> &'static str {
    match change {
        SuspectChange::Appeared(_) => "appeared",
        SuspectChange::Extended(_) => "extended",
        SuspectChange::Gone(_) => "gone",
        _ => "changed",
    }
}

/// A change for people. Of one that is gone, what was known of it last says nothing.
fn text(what: &str, suspect: &Suspect) -> String {
    let (name, owner) = (name_of(suspect), owner(suspect));
    match what {
        "gone" => format!("{what}  {name}  owner {owner}"),
        _ => {
            let (left, heat) = (left(suspect), suspect.heat);
            format!("{what}  {name}  owner {owner}, left {left}, heat {heat}")
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus_client::Version;

    use super::*;

    fn suspect(owner: &[u8]) -> Suspect {
        Suspect {
            word: 7_629 << 47 | 0x00a1_b2c3_d4e5,
            birth: Version::parse("1790000000000.0@0000000000a1").expect("a version"),
            judged: Version::parse("1790000000009.1@0000000000a2").expect("a version"),
            until: 1_790_000_060_009,
            left_ms: 61_500,
            heat: 512,
            owner: owner.to_vec(),
        }
    }

    #[test]
    fn changes_are_a_line_each() {
        let (ada, nobody) = (suspect(b"ada"), suspect(b""));
        let shown = |change: SuspectChange| text(kind(&change), change.suspect());
        assert_eq!(
            shown(SuspectChange::Appeared(ada.clone())),
            "appeared  7629-00a1b2c3d4e5  owner ada, left 1m 1s, heat 512"
        );
        assert_eq!(
            shown(SuspectChange::Extended(nobody)),
            "extended  7629-00a1b2c3d4e5  owner -, left 1m 1s, heat 512"
        );
        assert_eq!(shown(SuspectChange::Gone(ada)), "gone  7629-00a1b2c3d4e5  owner ada");
        assert_eq!(owner(&suspect(b"\x1b[2J\xff")), "\\u{1b}[2J\\xff");
    }

    #[test]
    fn programs_get_all_fields() {
        let expected = json!({
            "name": "7629-00a1b2c3d4e5",
            "birth": "1790000000000.0@0000000000a1",
            "judged": "1790000000009.1@0000000000a2",
            "until_ms": 1_790_000_060_009_u64,
            "left_ms": 61_500,
            "heat": 512,
            "owner": "ada",
        });
        assert_eq!(document(&suspect(b"ada")), expected);
    }
}
