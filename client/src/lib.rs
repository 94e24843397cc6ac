//! What an application links: sessions out of shared memory, the rest from the node.
//!
//! ```no_run
//! use annulus_client::{Client, StartOptions, Value};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["127.0.0.1:7946"]).await?;
//! client.start("key", Value::Bytes(b"value".to_vec()), StartOptions::default()).await?;
//! let read = client.get("key").await?;
//! assert_eq!(read.session.value, Value::Bytes(b"value".to_vec()));
//! client.end("key", Some(read.session.birth)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A client finds its host's node and attaches the shared memory that the node tells of. Reads then
//! cost no system call as long as shared memory knows the answer; what it does not know, a node is
//! asked. Writes go through the host's node when there is one, so that a client reads what it wrote;
//! without one, requests go to the homes of the key's slot, which the client learns from any node.
//!
//! Keys are bearer secrets: they appear in no error, log line or `Debug` output of this crate.

mod builder;
mod client;
mod connection;
mod contact;
mod counters;
mod datagram;
mod error;
mod everybody;
mod lane;
mod local;
mod node;
mod owned;
mod pins;
mod pool;
mod recent;
mod request;
mod rotate;
mod seal;
mod suspects;
mod table;
mod watch;

#[cfg(test)]
mod tests;

pub use annulus_proto::message::{
    Acknowledged, Affinity, Change, Copy as HomeCopy, CopyState, Event, Events, Explanation,
    Happened, HeldKey, HostLoad, HotSession, KeyChange, KeyOrdered, KeyText, KeysReport, Lifetimes,
    List, Listed, Members, NodeKeys, NodeStatus, Order, Owned, OwnedPlace, OwnedSession, Peer,
    PeerState, Peers, Pinned, PlanRequest, Rejected, Role, RouteNode, Routes, Safety, Segment,
    Sentence, Served, Session, Suspect, Suspects, TableStatus,
};
pub use annulus_proto::{
    Attributes, Fields, Key, KeyError, Member, NodeId, RouteTable, Rtt, Slot, SlotRange, Status,
    Value, Version,
};
pub use annulus_seal::{Key as ClusterKey, KeyId, KeyIdError, KeyKind, KeyTextError};
pub use annulus_shm::{AttachError, Shards};
pub use builder::{Builder, Via};
pub use client::Client;
pub use contact::Contact;
pub use counters::Counters;
pub use error::{ConnectError, Error, Tried};
pub use lane::{Lane, LaneCaller, LaneError, LaneTable, NotHandedOver};
pub use local::{AskReason, LocalGet, LocalPage, LocalReader, LocalSession, LocalValue};
pub use node::NodeHandle;
pub use owned::OwnedSessions;
pub use rotate::Rotated;
pub use suspects::{
    SUSPECTS_PERIOD, SuspectChange, SuspectList, SuspectName, SuspectNameError, SuspectWatch,
};
pub use table::{Location, Read, Source, StartOptions, Table};
pub use watch::RouteWatch;
