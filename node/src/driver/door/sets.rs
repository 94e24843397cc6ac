//! Sets, as sessions of a user are listed in one: values whose members are names of fields.
//!
//! Members are added by plain writes, which merge, whoever does it where. They are removed by a write that a majority of the
//! homes decides, and that takes away what it has seen: an addition that it has not seen comes after it, and stays.

use annulus_net::Clock;
use annulus_proto::entry::{Fields, Kind};
use annulus_resp::{Command, Writer};

use super::connection::Connection;
use super::fields::{all_of, count_new, field_name, scan_fields};
use super::store::{Outcome, Trouble};

impl<C: Clock> Connection<C> {
    /// Does a command about sets.
    pub(super) async fn set_of_members<'a>(
        &mut self,
        command: Command<'a>,
        out: &mut Writer<'_>,
    ) -> Outcome<'a, ()> {
        match command {
            Command::SAdd { key, members } => {
                let mut added = Fields::new();
                for member in members.iter() {
                    added.insert(field_name(member, Kind::Set)?, Vec::new());
                }
                let before = self.set_fields(key, Kind::Set, &added).await?;
                out.integer(count_new(&added, &before));
            }
            Command::SRem { key, members } => {
                let members = all_of(members);
                let removed =
                    self.delete_fields(key, Kind::Set, |name, _| members.contains(name)).await?;
                out.integer(removed as i64);
            }
            Command::SMembers { key } => {
                let members = self.fields(key, Kind::Set).await?;
                out.set(members.len());
                for member in members.keys() {
                    out.bulk(member);
                }
            }
            Command::SIsMember { key, member } => {
                let members = self.fields(key, Kind::Set).await?;
                out.integer(members.contains_key(&*member).into());
            }
            Command::SMIsMember { key, members: asked } => {
                let members = self.fields(key, Kind::Set).await?;
                out.array(asked.len());
                for member in asked.iter() {
                    out.integer(members.contains_key(&*member).into());
                }
            }
            Command::SCard { key } => {
                out.integer(self.fields(key, Kind::Set).await?.len() as i64);
            }
            Command::SScan { key, scan } => {
                let members = self.fields(key, Kind::Set).await?;
                scan_fields(&members, &scan, 1, out, |member, _, out| out.bulk(member));
            }
            // All others are done elsewhere.
            _ => return Err(Trouble::Error("ERR", "not here".into())),
        }
        Ok(())
    }
}
