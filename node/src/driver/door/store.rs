//! Sessions, as one connection asks the node for them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use annulus_net::Clock;
use annulus_proto::codec::Header;
use annulus_proto::message::{
    Failure, Lifetimes, Message, Operation, RequestId, Role, SessionReply, SessionRequest,
};
use annulus_proto::{Hlc, Key};
use annulus_resp::{CommandError, Writer, texts};
use tokio::sync::mpsc;

use super::super::accept::Reception;
use super::super::inboxes::Stopping;
use super::super::post::Sink;
use super::super::present;
use super::super::shared::Shared;
use crate::core::route::{Party, core_of, is_bulk, party_of_request};
use crate::core::{Asker, Caller, Core, Request};

/// The way to the cores, for a few requests at a time.
pub(super) struct Store<C> {
    reception: Arc<Reception>,
    cores: Arc<[Arc<Shared>]>,
    clock: C,
    /// The connection's number among all streams.
    number: u64,
    /// As whom it asks.
    role: Role,
    /// Under which it asks; nobody else has it.
    client: u64,
    sequence: u64,
    /// What comes from the cores; `None` = nothing was asked yet. Most connections wait, and read shared memory alone.
    answers: Option<mpsc::Receiver<(u64, Box<Message>)>>,
}

/// How long the cores may take: they answer on their own within it.
const PATIENCE: Duration = Duration::from_secs(5);
/// After which no answer is waited for any more.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(7);
/// How many keys are asked for at once.
pub(super) const ASKED_AT_ONCE_MAX: usize = 16;
/// Answers that may lie here: as many, and late ones to what was given up.
const ANSWERS_MAX: usize = 2 * ASKED_AT_ONCE_MAX;

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Trouble<'a> {
    /// The node stops; the connection ends.
    Stopping,
    /// The command itself is at fault.
    Command(CommandError<'a>),
    /// Something else: a prefix and a text.
    Error(&'static str, Cow<'static, str>),
}

/// How far a question has come.
pub(super) enum Asked {
    Answered(Box<Message>),
    /// The answer will have this number.
    HandedOver(u64),
    /// Nobody has it yet.
    Left(Box<Request>),
}

/// What became of a command.
pub(super) type Outcome<'a, T> = Result<T, Trouble<'a>>;

impl<C: Clock> Store<C> {
    /// For a connection with a number that no other stream has, of somebody who may do nothing with sessions yet.
    pub(super) fn new(
        (reception, cores): (Arc<Reception>, Arc<[Arc<Shared>]>),
        clock: C,
        number: u64,
        client: u64,
    ) -> Self {
        let role = Role::Monitor;
        Self { reception, cores, clock, number, role, client, sequence: 0, answers: None }
    }

    /// From now on it asks as somebody of this role. Returns as whom before.
    pub(super) fn act_as(&mut self, role: Role) -> Role {
        std::mem::replace(&mut self.role, role)
    }

    /// Whether the client may read sessions.
    pub(super) fn may_read(&self) -> bool {
        self.caller().may_read()
    }

    /// Whether the client may end sessions.
    pub(super) fn may_end(&self) -> bool {
        self.caller().may_end()
    }

    fn caller(&self) -> Caller {
        Caller::Client(self.role)
    }

    /// Where its answers go.
    pub(super) fn asker(&self) -> Asker {
        Asker::Stream(self.number)
    }

    /// Has answers find it from now on.
    fn open(&mut self) {
        self.answers.get_or_insert_with(|| {
            let (sender, answers) = mpsc::channel(ANSWERS_MAX);
            self.reception.streams.open(self.number, Sink::Messages(sender));
            answers
        });
    }

    /// The next answer, and to what.
    async fn next_answer(&mut self) -> Result<(u64, Box<Message>), Stopping> {
        let answers = self.answers.as_mut().ok_or(Stopping)?;
        answers.recv().await.ok_or(Stopping)
    }

    /// Asks, and waits for the answer: as somebody on another host, since what homes say is never two beats old, as what lies
    /// near may be.
    pub(super) async fn ask(
        &mut self,
        table: &str,
        key: &Key,
        operation: Operation,
    ) -> Result<SessionReply, Stopping> {
        self.ask_as(self.asker(), table, key, operation).await
    }

    /// Reads as this host's processes do: what is no home's here is kept near from then on.
    pub(super) async fn get_for_host(
        &mut self,
        table: &str,
        key: &Key,
    ) -> Result<SessionReply, Stopping> {
        self.ask_as(Asker::Local(self.number), table, key, Operation::Get).await
    }

    async fn ask_as(
        &mut self,
        asker: Asker,
        table: &str,
        key: &Key,
        operation: Operation,
    ) -> Result<SessionReply, Stopping> {
        let request = self.next_request(table, key, operation);
        let answer = self.send(asker, request.into()).await?;
        Ok(answer.map_or(SessionReply::Failed(Failure::TimedOut), reply_of))
    }

    /// Asks for the same of up to [`ASKED_AT_ONCE_MAX`] keys, all at once, and waits for all answers; they are in the order of
    /// the keys.
    pub(super) async fn ask_all(
        &mut self,
        table: &str,
        keys: &[Key],
        operation: &Operation,
    ) -> Result<Vec<SessionReply>, Stopping> {
        let asked = keys.iter().map(|key| self.begin(table, key, operation.clone())).collect();
        self.finish(asked).await.into_iter().collect()
    }

    /// Asks, and does not wait.
    pub(super) fn begin(&mut self, table: &str, key: &Key, operation: Operation) -> Asked {
        let request = self.next_request(table, key, operation);
        self.hand_over(self.asker(), request.into())
    }

    /// Waits for the answers to up to [`ASKED_AT_ONCE_MAX`] questions; they are in their order. If the node stops meanwhile, some
    /// of them may have come.
    pub(super) async fn finish(
        &mut self,
        asked: Vec<Asked>,
    ) -> Vec<Result<SessionReply, Stopping>> {
        debug_assert!(asked.len() <= ASKED_AT_ONCE_MAX, "there is room for the answers");
        let (mut ids, mut replies, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for asked in asked {
            let (id, reply) = match asked {
                Asked::Answered(message) => (None, Some(reply_of(*message))),
                Asked::HandedOver(id) => (Some(id), None),
                Asked::Left(request) => {
                    let id = request.header.id;
                    requests.push(*request);
                    (Some(id), None)
                }
            };
            ids.push(id);
            replies.push(reply);
        }
        let mut waiting = ids.iter().flatten().count();
        let all = async {
            if !requests.is_empty() {
                Box::pin(self.reception.inboxes.request(requests)).await?;
            }
            while waiting > 0 {
                let (id, message) = self.next_answer().await?;
                // What comes late is an answer to something before.
                let index = ids.iter().position(|asked| *asked == Some(id));
                if let Some(reply @ None) = index.and_then(|index| replies.get_mut(index)) {
                    *reply = Some(reply_of(*message));
                    waiting -= 1;
                }
            }
            Ok(())
        };
        // Whoever has not answered by then does not any more.
        let stops = matches!(tokio::time::timeout(GIVEN_UP_AFTER, all).await, Ok(Err(Stopping)));
        let missing = || match stops {
            true => Err(Stopping),
            false => Ok(SessionReply::Failed(Failure::TimedOut)),
        };
        replies.into_iter().map(|reply| reply.map_or_else(missing, Ok)).collect()
    }

    fn next_request(&mut self, table: &str, key: &Key, operation: Operation) -> SessionRequest {
        self.sequence += 1;
        SessionRequest {
            table: table.to_owned(),
            key: key.clone(),
            request: RequestId { client: self.client, sequence: self.sequence },
            hops: 0,
            patience_ms: u32::try_from(PATIENCE.as_millis()).expect("some seconds"),
            operation,
        }
    }

    /// The last one, for a core.
    fn request(&self, asker: Asker, message: Message) -> Request {
        let header = Header { id: self.sequence, view: 0, hlc: Hlc::ZERO };
        Request { asker, caller: self.caller(), header, message }
    }

    /// Asks for something else, and waits for the answer; `None`: there was none in time.
    pub(super) async fn exchange(
        &mut self,
        message: impl Into<Message>,
    ) -> Result<Option<Message>, Stopping> {
        self.sequence += 1;
        self.send(self.asker(), message.into()).await
    }

    /// Has these bytes take the place of a session's value at once, if that concerns this node alone, and a core is free. The
    /// table by its place in the settings. Whether it was done.
    pub(super) fn put_at_once(
        &self,
        table: usize,
        key: &Key,
        value: &[u8],
        lifetimes: Option<&Lifetimes>,
    ) -> bool {
        let (slot, by) = (key.slot(), (self.asker(), self.role));
        let core = &self.cores[core_of(slot, self.cores.len())];
        let place = (table, key.as_bytes(), slot);
        let put =
            |core: &mut Core| core.put_alone(present(&self.clock), by, place, value, lifetimes);
        core.do_at_once(put).is_some()
    }

    /// Sends a request, the last one that was numbered, and waits for its answer; `None`: there was none in time.
    fn send(
        &mut self,
        asker: Asker,
        message: Message,
    ) -> impl Future<Output = Result<Option<Message>, Stopping>> + Send {
        // What is waited for is small, which the request is not.
        let asked = self.hand_over(asker, message);
        async move {
            let (id, request) = match asked {
                Asked::Answered(message) => return Ok(Some(*message)),
                Asked::HandedOver(id) => (id, None),
                Asked::Left(request) => (request.header.id, Some(request)),
            };
            let answer = async {
                if let Some(request) = request {
                    Box::pin(self.reception.inboxes.request(vec![*request])).await?;
                }
                loop {
                    let (of, message) = self.next_answer().await?;
                    if of == id {
                        return Ok(message);
                    }
                }
            };
            match tokio::time::timeout(GIVEN_UP_AFTER, answer).await {
                Ok(answer) => Ok(Some(*answer?)),
                Err(_) => Ok(None),
            }
        }
    }

    /// Has the core that a request is for take it, if it is free.
    fn hand_over(&mut self, asker: Asker, message: Message) -> Asked {
        self.open();
        match self.ask_at_once(self.request(asker, message)) {
            Ok(Some(answer)) => Asked::Answered(Box::new(answer)),
            Ok(None) => Asked::HandedOver(self.sequence),
            Err(request) => Asked::Left(Box::new(request)),
        }
    }

    /// Has the core that a request is for do it here and now. Returns the answer, if it need not wait for other nodes; gives
    /// back what is not for a core, or for one that has other things to do.
    #[expect(clippy::result_large_err, reason = "it is no error, and is not passed on")]
    fn ask_at_once(&self, request: Request) -> Result<Option<Message>, Request> {
        let number = match party_of_request(&request.message, self.cores.len()) {
            Party::Core(number) if !is_bulk(&request.message) => number,
            _ => return Err(request),
        };
        let (answer, leaves_work) = self.cores[number].ask(present(&self.clock), request)?;
        if leaves_work {
            self.reception.inboxes.nudge(number);
        }
        Ok(answer)
    }
}

/// What an answer says of a session.
fn reply_of(answer: Message) -> SessionReply {
    match answer {
        Message::SessionReply(reply) => reply,
        Message::Rejected(why) => SessionReply::Failed(Failure::Refused(why.to_string())),
        other => {
            let why = format!("{} came where the answer should", other.name());
            SessionReply::Failed(Failure::Refused(why))
        }
    }
}

impl<C> Drop for Store<C> {
    fn drop(&mut self) {
        self.reception.streams.close(self.number);
    }
}

impl Trouble<'_> {
    /// An error of Redis' own.
    pub(super) fn text(prefix: &'static str, text: &'static [u8]) -> Self {
        Self::Error(prefix, String::from_utf8_lossy(text))
    }

    /// A command for strings, of something else.
    pub(super) fn wrong_type() -> Self {
        Self::text("WRONGTYPE", texts::WRONG_TYPE)
    }

    /// The same, where some of the command was done: whoever does it again does that twice.
    pub(super) fn after(self, some: bool) -> Self {
        match self {
            Self::Error(_, text) if some => {
                Self::Error("ERR", format!("some of it was done, and then: {text}").into())
            }
            other => other,
        }
    }

    /// Says it to the client.
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        match self {
            Self::Stopping => out.error("ERR", b"the node stops; connect to another one"),
            Self::Command(error) => out.refuse(error),
            Self::Error(prefix, text) => out.error(prefix, text.as_bytes()),
        }
    }
}

impl From<Stopping> for Trouble<'_> {
    fn from(Stopping: Stopping) -> Self {
        Self::Stopping
    }
}

impl<'a> From<CommandError<'a>> for Trouble<'a> {
    fn from(error: CommandError<'a>) -> Self {
        Self::Command(error)
    }
}

impl From<Failure> for Trouble<'_> {
    /// By the prefix clients decide what to do: those of clusters ask again at once upon TRYAGAIN, so only what was certainly
    /// not done has it, and after a while upon CLUSTERDOWN.
    fn from(failure: Failure) -> Self {
        let text = match &failure {
            Failure::TooLarge { limit, .. } => {
                let text = format!("string exceeds maximum allowed size ({limit} bytes)");
                return Self::Error("ERR", text.into());
            }
            Failure::TableFull { .. } => {
                let text = "command not allowed when used memory > 'maxmemory'.";
                return Self::Error("OOM", text.into());
            }
            Failure::SlowDown { retry_after_ms } => {
                let text = format!("slow down, retry after {retry_after_ms} ms");
                return Self::Error("TRYAGAIN", text.into());
            }
            Failure::Unavailable { .. } => {
                return Self::Error("CLUSTERDOWN", failure.to_string().into());
            }
            Failure::Conflict { .. } => return contended(),
            // Of what timed out nobody knows whether it was done: nothing asks again by itself.
            _ => failure.to_string(),
        };
        Self::Error("ERR", text.into())
    }
}

/// Others changed the key each time between the look at it and the change.
pub(super) fn contended<'a>() -> Trouble<'a> {
    let text = "others change this key all the time, and nothing was done; try again";
    Trouble::Error("TRYAGAIN", text.into())
}

#[cfg(test)]
mod tests {
    use annulus_resp::Protocol;

    use super::*;

    fn said(trouble: &Trouble<'_>) -> String {
        let mut answer = Vec::new();
        trouble.write(&mut Writer::new(&mut answer, Protocol::Resp2));
        String::from_utf8(answer).expect("it is text")
    }

    /// Clients do again by themselves what TRYAGAIN and CLUSTERDOWN answer.
    #[test]
    fn what_may_be_done_again_was_not_done_in_part() {
        let none = Failure::Unavailable { answered: 1, needed: 2, homes: 3 };
        let slow = Failure::SlowDown { retry_after_ms: 7 };
        for (failure, prefix) in [
            (slow, "-TRYAGAIN slow down, retry after 7 ms"),
            (none, "-CLUSTERDOWN unavailable: "),
            (Failure::TimedOut, "-ERR timed out"),
        ] {
            let nothing_done = said(&Trouble::from(failure.clone()).after(false));
            assert!(nothing_done.starts_with(prefix), "{nothing_done}");
            let some_done = said(&Trouble::from(failure).after(true));
            assert!(some_done.starts_with("-ERR some of it was done, and then: "), "{some_done}");
        }
        assert!(said(&contended().after(true)).starts_with("-ERR some of it was done"));
        assert!(said(&Trouble::Stopping.after(true)).starts_with("-ERR the node stops"));
    }
}
