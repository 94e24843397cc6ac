//! Answers to writes, remembered so that a repeated request is answered and not done again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use annulus_proto::message::{RequestId, SessionReply};

/// The latest answers, bounded in number and age.
#[derive(Debug)]
pub(super) struct Replies {
    count_max: usize,
    answers: BTreeMap<RequestId, SessionReply>,
    order: VecDeque<(Duration, RequestId)>,
}

/// How long an answer is remembered: longer than any client repeats a request.
const KEPT: Duration = Duration::from_secs(60);

impl Replies {
    /// Room for `count_max` answers.
    pub(super) fn new(count_max: usize) -> Self {
        Self { count_max, answers: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The answer that this request was given.
    pub(super) fn get(&self, request: RequestId) -> Option<&SessionReply> {
        self.answers.get(&request)
    }

    /// Remembers an answer, and forgets the oldest beyond the bounds.
    pub(super) fn insert(&mut self, now: Duration, request: RequestId, reply: SessionReply) {
        if self.answers.insert(request, reply).is_none() {
            self.order.push_back((now, request));
        }
        while let Some(&(at, oldest)) = self.order.front() {
            if self.order.len() <= self.count_max && at + KEPT > now {
                break;
            }
            self.order.pop_front();
            self.answers.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use annulus_proto::message::Failure;

    use super::*;

    fn id(sequence: u64) -> RequestId {
        RequestId { client: 1, sequence }
    }

    #[test]
    fn the_oldest_answers_go_when_there_are_too_many_or_they_are_too_old() {
        let absent = SessionReply::Failed(Failure::Absent);
        let mut replies = Replies::new(2);
        for sequence in 0..3 {
            replies.insert(Duration::from_secs(sequence), id(sequence), absent.clone());
        }
        assert!(replies.get(id(0)).is_none());
        assert!(replies.get(id(1)).is_some());
        replies.insert(Duration::from_secs(200), id(9), absent);
        assert!(replies.get(id(1)).is_none());
        assert!(replies.get(id(9)).is_some());
    }
}
