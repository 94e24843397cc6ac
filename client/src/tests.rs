//! The client against nodes that are played by the tests, over real sockets.

mod fake;
mod handshake;
mod owned;
mod requests;
mod rotate;
mod routing;
mod shared_memory;
mod suspects;
