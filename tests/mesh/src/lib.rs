//! Membership of thousands of nodes, simulated: one thread, one queue of events, one seed.
//!
//! A [`World`] is a number of hosts in a network ([`Net`]) that delays, loses, repeats and cuts off.
//! Each host runs a [`Subject`]: [`Ours`], which is the real [`Mesh`](annulus_gossip::Mesh) in what
//! stands for a hub, or [`Plain`], which is foca as it comes. [`scenarios`] are what is done to them
//! and what is measured, [`report`] puts it beside the targets.
//!
//! # What is real, and what is a model
//! The mesh, its packets and the encoded sizes of exchanges are real. Datagrams take a latency, or get
//! lost; streams are TCP as far as it is felt (`tcp.rs`): opening takes a round trip and a greeting,
//! loss makes what is said late, a partition makes it fail when its caller gives up. Bandwidth and
//! queues are not modelled: no link here is ever full.
//!
//! # Determinism
//! The same calls with the same seed give the same [`World::trace`], in any process. Nothing reads a
//! clock (but to measure what nodes cost, which decides nothing), draws entropy, or depends on the order of
//! a hash map.

pub mod figures;
mod net;
mod ours;
mod plain;
mod queue;
pub mod report;
pub mod scenarios;
mod subject;
mod tcp;
mod world;

pub use net::Net;
pub use ours::{Ours, OursSettings};
pub use plain::Plain;
pub use subject::{Call, Held, HostFacts, Sight, Start, Subject, Wants};
pub use world::{Host, Tally, World, secs};
