//! What foca wants done: collected while it runs, carried out by the mesh right after.

use std::collections::VecDeque;
use std::time::Duration;

use foca::{Notification, OwnedNotification, Timer};

use super::peer::Peer;

/// The one implementation of foca's `Runtime`.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) sends: VecDeque<(Peer, Vec<u8>)>,
    pub(super) timers: VecDeque<(Duration, Timer<Peer>)>,
    pub(super) notifications: VecDeque<OwnedNotification<Peer>>,
}

impl foca::Runtime<Peer> for Effects {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        self.notifications.push_back(notification.to_owned());
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.sends.push_back((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: Duration) {
        self.timers.push_back((after, event));
    }
}
