//! Membership over foca, facts about members, the view and the rings; no I/O, no clock.
//!
//! [`Mesh`] is one node's part in the membership protocol. It is handed datagrams, the time and a
//! seed, and returns datagrams, deadlines and events. What it knows is a [`View`], and a [`Ring`] is
//! a pure function of a view.
//!
//! Nothing here does I/O, reads a clock, draws entropy or depends on the order of a hash map: equal
//! inputs give equal outputs, bit for bit.

pub mod mesh;
pub mod ring;
pub mod view;

#[doc(hidden)]
pub use mesh::Guard;
pub use mesh::{Channel, Counters, Event, Mesh, MeshConfig, NotRemoved, Rtt, Transmit, view_of};
pub use ring::Ring;
pub use view::View;
