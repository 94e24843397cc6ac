//! What a reader of shared memory makes of a record, in whatever process it runs.

use super::View;
use crate::entry::{Entry, Value};
use crate::message::Session;

/// How a session stands whose record was found, of a slot that the node vouches for and before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It lives.
    Live,
    /// It lives, and is kept away from its users until then, in hybrid milliseconds.
    Slowed {
        /// Until when.
        until: u64,
    },
    /// It was ended.
    Ended,
    /// It is on a ring further out.
    Elsewhere,
}

impl View<'_> {
    /// How the session stands at `now_ms`, in hybrid milliseconds. Costs three branches where nothing was noted of it.
    #[inline]
    pub fn standing(&self, now_ms: u64) -> Standing {
        if self.ended {
            return Standing::Ended;
        }
        if self.is_marker() {
            return Standing::Elsewhere;
        }
        match self.slowed_until(now_ms) {
            None => Standing::Live,
            Some(until) => Standing::Slowed { until },
        }
    }

    /// The whole session, as a node would have sent it at `now_ms`; `None` if it was ended, or the record is malformed.
    /// `mark` and `deadline` stood beside the record.
    pub fn session(&self, mark: u64, deadline: u64, now_ms: u64) -> Option<Session> {
        let Entry { birth, version, body } = self.entry(mark).ok()?;
        let body = body?;
        let pin = body.pin();
        let field_deadlines = body.field_deadlines();
        let value = match body.has_fields() {
            true => body.value(now_ms),
            false => Value::Bytes(body.base.bytes),
        };
        let touched = body.touched;
        let (idle, expire_at) = (body.lease.idle, body.lease.expire_at);
        let attributes = body.attributes;
        Some(Session {
            birth,
            version,
            deadline,
            touched,
            idle,
            expire_at,
            attributes,
            pin,
            value,
            field_deadlines,
        })
    }
}
