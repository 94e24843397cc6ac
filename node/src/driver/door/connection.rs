//! One connection: what it said of itself, and its commands.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Duration;

use annulus_net::{Clock, Peer};
use annulus_proto::message::Role;
use annulus_resp::table::{self, Flags, Id, Spec};
use annulus_resp::{
    Argument, Arguments, Command, CommandError, Credentials, Protocol, ReplyMode, Writer, texts,
};
use atomic_waker::AtomicWaker;

use super::ahead::Ahead;
use super::channels::{OfKinds, Subscriptions};
use super::cluster::Sent;
use super::listening::is_for_listeners;
use super::near::TOGETHER;
use super::store::{Outcome, Store, Trouble};
use super::strings::is_plain;
use super::told::Told;
use super::transaction::{Queue, Staged, Watched};
use super::users::{DEFAULT, User};
use super::{Done, Door};
use crate::core::MemoryUse;

/// A client, as others see it: CLIENT LIST and CLIENT KILL.
pub(super) struct Client {
    pub(super) number: u64,
    /// Where it comes from.
    pub(super) peer: Peer,
    /// Where it came to.
    pub(super) at: Arc<str>,
    pub(super) since: Duration,
    is_killed: AtomicBool,
    /// Wakes its connection, which looks then what there is: it was killed, or given up, or messages wait.
    bell: AtomicWaker,
    facts: Mutex<Facts>,
}

/// What changes of a client.
#[derive(Clone)]
pub(super) struct Facts {
    /// Who it is.
    pub(super) user: &'static str,
    /// Printable, as what its library says of itself.
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) library_version: Vec<u8>,
    pub(super) table: usize,
    pub(super) protocol: Protocol,
    /// How many channels, patterns and sharded channels it listens to.
    pub(super) subscriptions: OfKinds<usize>,
    /// Its last command.
    pub(super) command: &'static str,
    /// When that began.
    pub(super) used: Duration,
}

/// How much of a batch was done without a request to a core, or without waiting for one.
#[derive(Default)]
pub(super) struct AtOnce {
    /// Reads that were answered out of shared memory.
    pub(super) reads: u32,
    /// Writes over what concerns this node alone.
    pub(super) writes: u32,
    /// SETs that went to their homes before those before them were acknowledged.
    pub(super) ahead: u32,
}

/// How far a command has come.
pub(super) enum Progress<'a> {
    Over(Done),
    /// It is done when this is.
    Waits(Pin<Box<dyn Future<Output = Done> + Send + 'a>>),
}

/// Where a command's answer stands, and what becomes of it.
#[derive(Clone, Copy)]
pub(super) struct Answering {
    /// Where it begins among the answers.
    pub(super) begin: usize,
    /// The client does not want it.
    pub(super) is_skipped: bool,
    pub(super) is_exec: bool,
}

/// What became of a command that waits for nothing.
pub(super) enum Begun {
    /// Its answer is there.
    Answered,
    /// It is under way, and others may follow.
    Ahead,
}

enum Attempt<'a> {
    Begun(Begun),
    /// It has to wait for something, and is yet to be done.
    Waits(&'static Spec, Command<'a>),
}

/// One connection.
pub(super) struct Connection<C: Clock> {
    pub(super) door: Arc<Door<C>>,
    pub(super) store: Store<C>,
    pub(super) told: Told,
    /// The commands after a MULTI.
    pub(super) queue: Option<Box<Queue>>,
    pub(super) watched: Watched,
    /// What the commands of a transaction have done so far, while they are done.
    pub(super) staged: Option<Box<Staged>>,
    /// The table's number.
    pub(super) table: usize,
    /// What it read out of shared memory since the cores were told, some of it.
    pub(super) uses: Vec<MemoryUse>,
    /// What was done so since that was counted.
    pub(super) done_at_once: AtOnce,
    /// Commands whose answers are to come.
    pub(super) ahead: Option<Box<Ahead>>,
    /// For which slots it was sent elsewhere.
    pub(super) sent: Option<Box<Sent>>,
    /// What it listens to; `None` = nothing.
    pub(super) subscriptions: Option<Box<Subscriptions>>,
    /// Messages that stand before the answer of the command under way.
    pub(super) messages: Vec<u8>,
    /// How many GETs are looked up together next: as many as it was of use to.
    pub(super) together: u8,
    /// Whether the answer is told also to who wants none.
    pub(super) is_push: bool,
    client: Arc<Client>,
    protocol: Protocol,
    /// Who everybody is here while nobody has to say a password.
    open: User,
    /// What may be done at this end of it.
    may: Role,
    /// What its user may do here.
    role: Role,
    authenticated: bool,
    /// It wants no answers.
    is_muted: bool,
    /// It wants none to the next command.
    skips_next: bool,
    is_over: bool,
}

impl Client {
    pub(super) fn new(number: u64, peer: Peer, at: Arc<str>, now: Duration) -> Self {
        let facts = Facts {
            user: DEFAULT,
            name: Vec::new(),
            library: Vec::new(),
            library_version: Vec::new(),
            table: 0,
            protocol: Protocol::default(),
            subscriptions: OfKinds::default(),
            command: "NULL",
            used: now,
        };
        let (is_killed, bell) = (AtomicBool::new(false), AtomicWaker::new());
        let facts = Mutex::new(facts);
        Self { number, peer, at, since: now, is_killed, bell, facts }
    }

    /// One without a connection.
    #[cfg(test)]
    pub(super) fn alone(number: u64) -> Arc<Self> {
        Arc::new(Self::new(number, Peer::Local, "".into(), Duration::ZERO))
    }

    /// Where it comes from, as CLIENT LIST writes it.
    pub(super) fn address(&self) -> String {
        match self.peer {
            Peer::Tcp(addr) => addr.to_string(),
            // As Redis has it: who calls has no address of its own.
            Peer::Local => format!("{}:0", self.at),
        }
    }

    /// Has its connection's task woken from now on, whenever there is something to look at. One that looks after this misses
    /// nothing.
    pub(super) fn hear_bell(&self, task: &Context<'_>) {
        self.bell.register(task.waker());
    }

    /// Wakes its connection.
    pub(super) fn wake(&self) {
        self.bell.wake();
    }

    /// Ends its connection, after the command that is under way.
    pub(super) fn kill(&self) {
        self.is_killed.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock> Connection<C> {
    /// Of somebody who may do so much at most, and is `open` where nobody has to say a password.
    pub(super) fn new(
        door: Arc<Door<C>>,
        client: Arc<Client>,
        store: Store<C>,
        (open, may): (User, Role),
        seed: u64,
    ) -> Self {
        let mut connection = Self {
            door,
            store,
            told: Told::new(seed),
            queue: None,
            watched: Watched::default(),
            staged: None,
            table: 0,
            uses: Vec::new(),
            done_at_once: AtOnce::default(),
            ahead: None,
            sent: None,
            subscriptions: None,
            messages: Vec::new(),
            together: TOGETHER as u8,
            is_push: false,
            client,
            protocol: Protocol::default(),
            open,
            may,
            role: may,
            authenticated: false,
            is_muted: false,
            skips_next: false,
            is_over: false,
        };
        connection.begin_anew();
        connection
    }

    /// It is whoever one is that has said nothing of oneself.
    fn begin_anew(&mut self) {
        self.authenticated = self.door.users.are_without_passwords();
        let user = if self.authenticated { self.open } else { User::AUTHORITY };
        // What the default user may do, everybody may who may as much.
        let _ = self.become_user(user);
    }

    /// # Errors
    /// If that user's role is not given here; it stays who it was.
    fn become_user<'a>(&mut self, user: User) -> Outcome<'a, ()> {
        self.role = user.role_within(self.may)?;
        self.store.act_as(self.role);
        self.client.facts().user = user.name;
        Ok(())
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Its user's name.
    pub(super) fn user(&self) -> &'static str {
        self.client.facts().user
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether it wants to end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.client.is_killed()
    }

    /// Notes that a command begins.
    pub(super) fn note(&self, command: &'static str) {
        let mut facts = self.client.facts();
        (facts.command, facts.used) = (command, self.door.clock.monotonic());
    }

    /// Whether it wants the answer to the next command.
    pub(super) fn wants_next(&self) -> bool {
        !self.is_muted && !self.skips_next
    }

    /// Whether it wants no answers.
    pub(super) fn is_muted(&self) -> bool {
        self.is_muted
    }

    /// It ends after this command.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Does a command, and appends its answer. What has to wait for something waits for the answers that are to come, too.
    ///
    /// # Errors
    /// [`Done`]: if the node stops; the answer says so.
    pub(super) fn run<'a>(
        &'a mut self,
        arguments: Arguments<'a>,
        answers: &'a mut Vec<u8>,
    ) -> Progress<'a> {
        // What waits takes much room, which connections that are silent need not keep.
        if !self.may_go_ahead(arguments) {
            return Progress::Waits(Box::pin(async move {
                self.settle(answers).await?;
                match self.run(arguments, answers) {
                    Progress::Over(done) => done,
                    Progress::Waits(done) => done.await,
                }
            }));
        }
        let (begin, is_behind) = (answers.len(), self.is_ahead());
        let is_skipped = std::mem::take(&mut self.skips_next);
        let answering = Answering { begin, is_skipped, is_exec: self.is_exec(arguments) };
        if answering.is_exec {
            return Progress::Waits(Box::pin(async move {
                let done = self.exec(answers).await;
                self.conclude(answering, done, answers)
            }));
        }
        let done = match self.attempt(arguments, answers) {
            Ok(Attempt::Waits(spec, command)) => {
                return Progress::Waits(Box::pin(async move {
                    self.settle(answers).await?;
                    let answering = Answering { begin: answers.len(), ..answering };
                    let done = self.carry_out(spec, command, answers).await;
                    self.conclude(answering, done, answers)
                }));
            }
            Ok(Attempt::Begun(Begun::Ahead)) => {
                if is_skipped {
                    self.skip_last();
                }
                return Progress::Over(Ok(()));
            }
            Ok(Attempt::Begun(Begun::Answered)) => Ok(()),
            Err(trouble) => Err(trouble),
        };
        let over = self.conclude(answering, done, answers);
        if is_behind {
            self.stand_behind(begin, answers);
        }
        Progress::Over(over)
    }

    /// Leaves of what a command has answered what its client is to read.
    pub(super) fn conclude(
        &mut self,
        answering: Answering,
        done: Outcome<'_, ()>,
        answers: &mut Vec<u8>,
    ) -> Done {
        let Answering { begin, is_skipped, is_exec } = answering;
        let mut over = Ok(());
        if let Err(trouble) = done {
            // Whatever stands there of an answer that was not finished.
            answers.truncate(begin);
            trouble.write(&mut Writer::new(answers, self.protocol));
            if let Trouble::Stopping = trouble {
                over = Err(super::Stopping);
            }
        }
        let is_push = std::mem::take(&mut self.is_push) && !is_exec;
        if (self.is_muted || is_skipped || self.skips_next) && !is_push {
            answers.truncate(begin);
        }
        let messages = std::mem::take(&mut self.messages);
        if !messages.is_empty() {
            // Not within the answer of a transaction, where nobody looks for them.
            let at = if is_exec { answers.len() } else { begin };
            answers.splice(at..at, messages);
        }
        over
    }

    /// Does a command, or queues it.
    pub(super) async fn answer<'a>(
        &mut self,
        arguments: Arguments<'a>,
        answers: &mut Vec<u8>,
    ) -> Outcome<'a, ()> {
        match self.attempt(arguments, answers)? {
            Attempt::Begun(_) => Ok(()),
            Attempt::Waits(spec, command) => Box::pin(self.carry_out(spec, command, answers)).await,
        }
    }

    /// Does a command, if that can be done at once, or queues it.
    fn attempt<'a>(
        &mut self,
        arguments: Arguments<'a>,
        answers: &mut Vec<u8>,
    ) -> Outcome<'a, Attempt<'a>> {
        let found = self.find(arguments);
        match &found {
            Err(Trouble::Command(CommandError::Arity(spec))) if spec.id == Id::Exec => {
                (self.queue, self.watched) = (None, Watched::default());
            }
            Err(_) => self.refuse_queue(),
            Ok(_) => {}
        }
        let spec = found?;
        if self.queue.is_some() && !is_done_at_once(spec.id) {
            self.enqueue(arguments)?;
            Writer::new(answers, self.protocol).simple("QUEUED");
            return Ok(Attempt::Begun(Begun::Answered));
        }
        self.note(spec.name);
        let command = Command::parse(spec, arguments)?;
        let begun = self.begin_at_once(spec, &command, answers)?;
        Ok(begun.map_or(Attempt::Waits(spec, command), Attempt::Begun))
    }

    /// The command that a request is, if this client may ask for it.
    fn find<'a>(&mut self, arguments: Arguments<'a>) -> Outcome<'a, &'static Spec> {
        let spec = match table::find(arguments) {
            Ok(spec) => spec,
            Err(error) => {
                if let CommandError::UnknownCommand(arguments) = error {
                    self.count_unknown(&arguments.get(0).unwrap_or(EMPTY));
                }
                return Err(error.into());
            }
        };
        if !self.authenticated && !spec.flags.contains(Flags::NO_AUTH) {
            return Err(Trouble::text("NOAUTH", texts::NO_AUTH));
        }
        if !self.may_ask_for(spec) {
            return Err(no_permission(spec));
        }
        if self.queue.is_some() && is_flush(spec.id) {
            return Err(Trouble::Error("ERR", "Command not allowed inside a transaction".into()));
        }
        if self.only_listens() && !is_for_listeners(spec.id) {
            let why = String::from_utf8_lossy(texts::ONLY_SUBSCRIBED);
            let text = format!("Can't execute '{}': {why}", spec.name);
            return Err(match spec.id {
                Id::Exec => {
                    let text = format!("Transaction discarded because of: {text}");
                    Trouble::Error("EXECABORT", text.into())
                }
                _ => Trouble::Error("ERR", text.into()),
            });
        }
        if self.staged.is_none() {
            self.keep_to_a_slot(spec, arguments)?;
        }
        Ok(spec)
    }

    /// Whether its user may ask for this at all. What becomes of single sessions their homes decide, too.
    fn may_ask_for(&self, spec: &Spec) -> bool {
        if is_flush(spec.id) {
            return self.role.includes(Role::Operator);
        }
        let is_about_sessions = spec.has_keys()
            || spec.flags.contains(Flags::READONLY)
            || spec.flags.contains(Flags::WRITE);
        !is_about_sessions || self.store.may_read()
    }

    /// Strangers may say anything, a password among it: what they say is counted, and not remembered.
    fn count_unknown(&self, name: &[u8]) {
        self.door.reception.tally.add("redis_commands_unknown");
        self.door.unknown.add(if self.authenticated { name } else { b"" });
    }

    /// Does what most ask, as far as that is possible without waiting; `None`: nothing was done.
    fn begin_at_once<'a>(
        &mut self,
        spec: &'static Spec,
        command: &Command<'a>,
        answers: &mut Vec<u8>,
    ) -> Outcome<'a, Option<Begun>> {
        let mut out = Writer::new(answers, self.protocol);
        match *command {
            Command::Get { key } => Ok(self.get_near(&key, &mut out).then_some(Begun::Answered)),
            Command::Set { key, value, options } if is_plain(&options) => {
                let begun = self.set_ahead(spec, key, value, options.ttl)?;
                if let Some(Begun::Answered) = begun {
                    out.ok();
                }
                Ok(begun)
            }
            _ => Ok(None),
        }
    }

    async fn carry_out<'a>(
        &mut self,
        spec: &'static Spec,
        command: Command<'a>,
        answers: &mut Vec<u8>,
    ) -> Outcome<'a, ()> {
        let mut out = Writer::new(answers, self.protocol);
        match command {
            Command::Hello { protocol, credentials, name } => {
                let name = name.map(label).transpose()?;
                match credentials {
                    Some(credentials) => self.authenticate(credentials)?,
                    None if self.authenticated => {}
                    None => return Err(Trouble::text("NOAUTH", texts::NO_AUTH_HELLO)),
                }
                self.speak(protocol.unwrap_or(self.protocol));
                if let Some(name) = name {
                    self.client.facts().name = name;
                }
                self.hello(&mut Writer::new(answers, self.protocol));
            }
            Command::Auth(credentials) => {
                if credentials.user.is_none() && self.door.users.are_without_passwords() {
                    return Err(Trouble::text("ERR", texts::NO_PASSWORD));
                }
                self.authenticate(credentials)?;
                out.ok();
            }
            Command::Echo { message } => out.bulk(&message),
            Command::Ping { .. }
            | Command::Subscribe { .. }
            | Command::Unsubscribe { .. }
            | Command::Publish { .. }
            | Command::PubSubChannels { .. }
            | Command::PubSubNumSub { .. }
            | Command::PubSubNumPat => self.listen(command, &mut out)?,
            Command::Quit => {
                self.end();
                out.ok();
            }
            Command::Reset => {
                self.stop_listening();
                self.speak(Protocol::default());
                self.select(0);
                self.client.facts().name.clear();
                self.begin_anew();
                self.is_muted = false;
                self.told.clear();
                (self.queue, self.watched) = (None, Watched::default());
                Writer::new(answers, self.protocol).simple("RESET");
            }
            Command::Select { index } => {
                let number = usize::try_from(index).ok();
                let number = number.filter(|number| *number < self.door.tables.len());
                self.select(number.ok_or_else(|| Trouble::text("ERR", texts::DB_INDEX))?);
                out.ok();
            }
            Command::ClientReply(mode) => {
                match mode {
                    ReplyMode::On => self.is_muted = false,
                    ReplyMode::Off => self.is_muted = true,
                    ReplyMode::Skip => self.skips_next = !self.is_muted,
                }
                out.ok();
            }
            Command::Multi => {
                self.begin_queue()?;
                out.ok();
            }
            // One after a MULTI does not come here.
            Command::Exec => return Err(Trouble::text("ERR", texts::EXEC_WITHOUT_MULTI)),
            Command::Discard => {
                self.discard()?;
                out.ok();
            }
            Command::Watch { keys } => {
                self.watch(keys).await?;
                out.ok();
            }
            Command::Eval { .. }
            | Command::ScriptLoad { .. }
            | Command::ScriptExists { .. }
            | Command::ScriptFlush => self.script(command, &mut out).await?,
            Command::Unwatch => {
                self.watched = Watched::default();
                out.ok();
            }
            Command::Command(query) => table::answer(query, &mut out),
            Command::Help(container) => table::help(container, &mut out),
            Command::ReadOnly
            | Command::ReadWrite
            | Command::ClientNoEvict(_)
            | Command::ClientNoTouch(_) => out.ok(),
            // Nothing waits here for replicas: an acknowledged write is held by as many homes as its table says.
            Command::Wait { .. } => out.integer(0),
            // SYNC or ASYNC: the answer comes when it is done.
            Command::FlushDb(_) => {
                self.flush(self.table..self.table + 1).await?;
                out.ok();
            }
            Command::FlushAll(_) => {
                self.flush(0..self.door.tables.len()).await?;
                out.ok();
            }
            Command::AclWhoAmI => {
                out.bulk(self.user().as_bytes());
            }
            Command::Asking
            | Command::ClusterSlots
            | Command::ClusterShards
            | Command::ClusterNodes
            | Command::ClusterInfo
            | Command::ClusterMyId
            | Command::ClusterKeySlot { .. }
            | Command::ClusterCountKeysInSlot { .. } => self.cluster(command, &mut out)?,
            Command::ClientSetInfo { .. }
            | Command::ClientId
            | Command::ClientGetName
            | Command::ClientSetName { .. }
            | Command::ClientInfo
            | Command::ClientList(_)
            | Command::ClientKill(_)
            | Command::Info { .. }
            | Command::Time
            | Command::ConfigGet { .. }
            | Command::ConfigSet { .. } => self.tell(command, &mut out)?,
            Command::Get { .. }
            | Command::Set { .. }
            | Command::SetNx { .. }
            | Command::GetEx { .. }
            | Command::GetDel { .. }
            | Command::GetSet { .. }
            | Command::MGet { .. }
            | Command::MSet { .. }
            | Command::MSetNx { .. }
            | Command::StrLen { .. }
            | Command::Append { .. }
            | Command::GetRange { .. }
            | Command::SetRange { .. }
            | Command::IncrBy { .. }
            | Command::IncrByFloat { .. } => self.string(spec, command, &mut out).await?,
            Command::HSet { .. }
            | Command::HSetNx { .. }
            | Command::HGet { .. }
            | Command::HMGet { .. }
            | Command::HGetAll { .. }
            | Command::HLen { .. }
            | Command::HExists { .. }
            | Command::HStrLen { .. }
            | Command::HDel { .. }
            | Command::HIncrBy { .. }
            | Command::HIncrByFloat { .. }
            | Command::HRandField { .. }
            | Command::HExpire { .. }
            | Command::HPersist { .. }
            | Command::HTtl { .. }
            | Command::HScan { .. } => self.hash(spec, command, &mut out).await?,
            Command::SAdd { .. }
            | Command::SRem { .. }
            | Command::SMembers { .. }
            | Command::SIsMember { .. }
            | Command::SMIsMember { .. }
            | Command::SCard { .. }
            | Command::SScan { .. } => self.set_of_members(command, &mut out).await?,
            Command::ZAdd { .. }
            | Command::ZRem { .. }
            | Command::ZRemRangeByScore { .. }
            | Command::ZScore { .. }
            | Command::ZCard { .. }
            | Command::ZCount { .. }
            | Command::ZRange { .. }
            | Command::ZScan { .. } => self.sorted_set(command, &mut out).await?,
            Command::Scan(_) | Command::Keys { .. } | Command::DbSize | Command::RandomKey => {
                self.all_keys(command, &mut out).await?;
            }
            _ => self.key(spec, command, &mut out).await?,
        }
        Ok(())
    }

    /// It is who it says, if that is so.
    fn authenticate<'a>(&mut self, credentials: Credentials<'a>) -> Outcome<'a, ()> {
        let user = self.door.users.find(credentials, self.open).inspect_err(|_| {
            self.door.reception.tally.add("redis_passwords_wrong");
        })?;
        self.become_user(user)?;
        self.authenticated = true;
        Ok(())
    }

    fn speak(&mut self, protocol: Protocol) {
        self.hear_in(protocol);
        self.protocol = protocol;
        self.client.facts().protocol = protocol;
    }

    pub(super) fn select(&mut self, table: usize) {
        self.table = table;
        self.client.facts().table = table;
    }
}

impl<C: Clock> Drop for Connection<C> {
    fn drop(&mut self) {
        self.door.clients().remove(&self.client.number);
    }
}

/// What a client says of itself, which the node keeps.
///
/// # Errors
/// If it is long. (Redis takes any.)
pub(super) fn label(text: Argument<'_>) -> Outcome<'_, Vec<u8>> {
    if text.len() > LABEL_BYTES_MAX {
        let text =
            format!("a client's name, library and version have {LABEL_BYTES_MAX} bytes at most");
        return Err(Trouble::Error("ERR", text.into()));
    }
    Ok(text.to_vec())
}

/// It is for operators, and no part of a transaction: it takes more than one step.
fn is_flush(id: Id) -> bool {
    matches!(id, Id::FlushDb | Id::FlushAll)
}

fn no_permission<'a>(spec: &Spec) -> Trouble<'a> {
    let text = format!("this user has no permissions to run the '{}' command", spec.name);
    Trouble::Error("NOPERM", text.into())
}

const LABEL_BYTES_MAX: usize = 256;

const EMPTY: Argument<'static> = Argument(b"");

/// Whether a command is done though others are queued.
fn is_done_at_once(id: Id) -> bool {
    matches!(id, Id::Exec | Id::Discard | Id::Multi | Id::Watch | Id::Quit | Id::Reset)
}
