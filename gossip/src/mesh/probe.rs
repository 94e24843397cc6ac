//! The probe under way: foca's ping, sent again while it is not answered, at last over a stream.

use super::*;

/// A ping of foca's and what came of it: neither one lost packet nor one lost route makes a suspect.
pub(super) struct Probe {
    pub(super) to: Peer,
    /// foca's number of it.
    number: u8,
    /// As foca made it.
    ping: Vec<u8>,
    /// When it was first sent, and how often it was sent again, under another number: an answer to the
    /// first is a measure of the round trip, however late it comes.
    sent_at: Duration,
    repeats: u8,
    /// How long until it is sent again.
    pause: Duration,
    over_stream: bool,
    /// Whether the stream was given time to answer.
    has_waited: bool,
}

/// What an answer is to the probe under way.
pub(super) enum Answer {
    /// It answers one of its pings; the round trip, if that was the first.
    InTime(Option<Duration>),
    /// Others reached it.
    Forwarded,
    /// The member lives, and what it answers is something earlier, or came over a stream.
    SignOfLife,
}

impl Probe {
    /// The number of all its pings but the first: foca's is its like again only long after.
    fn repeat_number(&self) -> u8 {
        self.number ^ 0x80
    }
}

impl Mesh {
    /// Takes note of what foca sends, if it belongs to a probe.
    pub(super) fn follow_probe(&mut self, to: Peer, data: &[u8]) {
        let mut rest = data;
        let Ok(header) = SwimCodec.decode_header(&mut rest) else { return };
        if header.src_incarnation > self.refutations {
            // foca refuted a suspicion about this node: others do not hear it in time.
            self.refutations = header.src_incarnation;
            self.health.worsen(1);
        }
        if let Message::Ping(number) = header.message {
            let pause = self.repeat_after(to.id);
            let (ping, sent_at, repeats) = (data.to_vec(), self.now, 0);
            let (over_stream, has_waited) = (false, false);
            let probe =
                Probe { to, number, ping, sent_at, repeats, pause, over_stream, has_waited };
            self.probe = Some(probe);
            self.timers.set(self.now + self.health.slowed(pause), Due::Repeat(number));
        }
    }

    /// How long an answer from this member may take before it is asked again.
    fn repeat_after(&self, id: NodeId) -> Duration {
        let Some(rtt) = self.rtts.get(id) else { return self.config.probe_rtt / 2 };
        rtt.timeout().clamp(self.config.probe_rtt / 4, self.config.probe_period / 2)
    }

    /// Sends an unanswered ping again.
    pub(super) fn on_repeat(&mut self, number: u8) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number) else {
            return;
        };
        if probe.repeats >= self.config.ping_repeats {
            return;
        }
        probe.repeats += 1;
        let to = probe.to.addr;
        let body = renumbered(&probe.ping, probe.repeat_number());
        probe.pause = (probe.pause * 2).min(self.config.probe_rtt / 2).max(probe.pause);
        let pause = probe.pause;
        self.transmit(to, wire::swim(self.view.digest(), &body));
        self.timers.set(self.now + self.health.slowed(pause), Due::Repeat(number));
    }

    /// foca is about to have others ping the member: so does this node, over a stream, and sees whether
    /// anybody hears it at all.
    pub(super) fn on_indirect_due(&mut self, timer: Timer<Peer>) {
        let lacks = self.lacks(Guard::Fallback);
        if let Timer::SendIndirectProbe { probed_id, .. } = &timer
            && let Some(probe) = self.probe.as_mut().filter(|probe| probe.to == *probed_id)
        {
            if !lacks {
                probe.over_stream = true;
                let (to, body) = (probe.to.addr, renumbered(&probe.ping, probe.repeat_number()));
                self.transmit_over(Channel::Stream, to, wire::swim(self.view.digest(), &body));
            }
            self.check_hearing(Some(*probed_id));
        }
        let _ = self.foca.handle_timer(timer, &mut self.effects);
    }

    /// The time of a probe is up. Unless it was answered, the stream has as long again.
    pub(super) fn on_probe_due(&mut self, timer: Timer<Peer>) {
        if let Some(probe) = &mut self.probe
            && probe.over_stream
            && self.failed_in_row < MANY
            && !std::mem::replace(&mut probe.has_waited, true)
        {
            let after = self.health.slowed(self.config.probe_period);
            self.timers.set(self.now + after, Due::Swim(timer));
            return;
        }
        if self.probe.take().is_some() {
            self.counters.probes_failed += 1;
            self.failed_in_row += 1;
            self.judge_hearing();
        }
        let _ = self.foca.handle_timer(timer, &mut self.effects);
    }

    /// What a packet from `src` is to the probe under way.
    pub(super) fn answer(
        &self,
        src: &Peer,
        message: &Message<Peer>,
        channel: Channel,
    ) -> Option<Answer> {
        let probe = self.probe.as_ref()?;
        match message {
            Message::ForwardedAck { origin, probe_number } => {
                let is_of_it = *origin == probe.to && *probe_number == probe.number;
                is_of_it.then_some(Answer::Forwarded)
            }
            _ if *src != probe.to => None,
            Message::Ack(number) if *number == probe.number => {
                Some(Answer::InTime(Some(self.now.saturating_sub(probe.sent_at))))
            }
            Message::Ack(number) if *number == probe.repeat_number() => Some(Answer::InTime(None)),
            Message::Ack(_) => Some(Answer::SignOfLife),
            // Only answers count: who is heard and hears nothing is of no use.
            Message::IndirectAck { .. } | Message::Feed => Some(Answer::SignOfLife),
            _ if channel == Channel::Stream && !self.lacks(Guard::Fallback) => {
                Some(Answer::SignOfLife)
            }
            _ => None,
        }
    }

    /// The probe under way has succeeded: foca is to know.
    pub(super) fn end_probe(&mut self, src_incarnation: u16, answer: &Answer) {
        let Some(probe) = self.probe.take() else { return };
        self.failed_in_row = 0;
        match answer {
            Answer::InTime(took) => {
                if let Some(took) = took {
                    self.rtts.measure(probe.to.id, *took, self.now);
                }
                self.health.improve();
            }
            // foca counts it by itself.
            Answer::Forwarded => return self.health.improve(),
            Answer::SignOfLife => {}
        }
        let (src, dst) = (probe.to, *self.foca.identity());
        let ack = Header { src, src_incarnation, dst, message: Message::Ack(probe.number) };
        let mut packet = Vec::with_capacity(80);
        SwimCodec.encode_header(&ack, &mut packet).expect("a vector takes every header");
        // An error says that foca is not connected, and waits for no answer.
        let _ = self.foca.handle_data(&packet, &mut self.effects);
    }
}

/// A ping under another number.
fn renumbered(ping: &[u8], number: u8) -> Vec<u8> {
    let mut rest = ping;
    let header = SwimCodec.decode_header(&mut rest).expect("foca wrote it with this codec");
    let mut packet = Vec::with_capacity(ping.len() + 1);
    let header = Header { message: Message::Ping(number), ..header };
    SwimCodec.encode_header(&header, &mut packet).expect("a vector takes every header");
    packet.extend_from_slice(rest);
    packet
}

/// After so many failed probes in a row there is no time to wait for streams: many have died at once,
/// and each suspicion is looked into before it becomes a death anyway.
const MANY: u32 = 2;
