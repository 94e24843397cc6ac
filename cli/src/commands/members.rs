//! `annulus members`.

use annulus_client::{Member, Status};
use serde_json::json;

use crate::cluster::Cluster;
use crate::output::{self, Rows};

/// Prints the members that the connected node knows.
pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let members = cluster.client.members().await?;
    if cluster.json {
        return output::json(&json!({
            "node": members.node,
            "view": output::digest(members.view),
            "members": members.members.iter().map(member_json).collect::<Vec<_>>(),
        }));
    }
    let headings = ["NAME", "ID", "ADDRESS", "STATUS", "ZONE", ">WEIGHT", ">SESSIONS"];
    let mut rows = Rows::new(&headings);
    for member in &members.members {
        rows.push([
            member.name.clone(),
            member.id.to_string(),
            member.addr.to_string(),
            status(member.status).to_owned(),
            if member.zone.is_empty() { "-".to_owned() } else { member.zone.clone() },
            member.weight.to_string(),
            member.load.sessions.to_string(),
        ]);
    }
    rows.print()
}

/// A status for people.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Joining => "joining",
        Status::Up => "up",
        Status::Draining => "draining",
        Status::Down => "down",
        Status::Left => "left",
    }
}

/// A member in JSON.
pub(crate) fn member_json(member: &Member) -> serde_json::Value {
    let rings: Vec<u8> = (0..8).filter(|ring| member.rings & 1 << ring != 0).collect();
    json!({
        "id": member.id,
        "incarnation": member.incarnation,
        "revision": member.revision,
        "status": member.status,
        "addr": member.addr,
        "name": member.name,
        "zone": member.zone,
        "weight": member.weight,
        "rings": rings,
        "load": member.load,
    })
}
