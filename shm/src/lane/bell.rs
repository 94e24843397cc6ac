//! How a client wakes the node's thread: an event counter per lane, all of them in one epoll.
//!
//! One futex word for all clients would be cheaper by nothing that could be measured, and any client
//! could steal or move the wake-ups of the others. With a counter each, a client that rings without
//! end, drains its counter or fills it to the brim wakes the node too often or itself too late.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use crate::lane::Submissions;

/// What the node's thread sleeps in.
pub struct Sleeper {
    epoll: OwnedFd,
    alarm: Alarm,
}

/// Wakes a [`Sleeper`] from within the node. Cheap to clone.
#[derive(Clone)]
pub struct Alarm(Arc<OwnedFd>);

impl Sleeper {
    /// One that nobody rings yet but its [`Alarm`].
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let alarm = Arc::new(create()?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &alarm, EventData::new_u64(0), EDGE)?;
        Ok(Self { epoll, alarm: Alarm(alarm) })
    }

    /// What wakes it from within.
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Lets a lane's bell wake it.
    ///
    /// # Errors
    /// When the system has no memory for it, or no more watches.
    pub fn add(&self, lane: &Submissions) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, &lane.bell, EventData::new_u64(1), EDGE)?)
    }

    /// Takes a lane's bell out, which the client still holds.
    pub fn remove(&self, lane: &Submissions) {
        // It fails only for one that is not there.
        let _ = epoll::delete(&self.epoll, &lane.bell);
    }

    /// Sleeps until a bell rings or the alarm sounds. Returns at once if that happened since the last
    /// time. It takes no limit: a timer that is set and cancelled costs a tenth of a call.
    pub fn sleep(&self) {
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
        // Edges need no reading; an interrupted sleep is a short one.
        let _ = epoll::wait(&self.epoll, &mut events[..], None);
    }
}

impl Alarm {
    /// Wakes the sleeper, or keeps it from its next sleep.
    pub fn sound(&self) {
        ring(&*self.0);
    }
}

/// Each ring is an edge; the counts are never read.
const EDGE: EventFlags = EventFlags::IN.union(EventFlags::ET);

pub(super) fn create() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// One system call.
pub(super) fn ring(bell: impl AsFd) {
    // A counter that is full has rung often enough.
    let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
}
