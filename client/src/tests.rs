//! The client against nodes that are played by the tests, over real sockets.

mod fake;
mod handshake;
mod requests;
mod routing;
mod shared_memory;
mod suspects;
