//! `annulus top`: the cluster at a glance, again and again.
//!
//! One loop owns everything: it asks, takes in what is answered ([`board`]), and draws ([`view`]). Questions are tasks with
//! a time limit, so that a member that does not answer holds up nothing but its own row.

mod ask;
mod board;
mod keys;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::args::{Global, TopArgs};
use crate::cluster::Cluster;
use crate::exit::{Failed, UNREACHABLE};
use crate::output;
use ask::Asks;
use board::{Board, Moment};
use keys::{Key, Keys};

/// How often what has changed is drawn, at most.
const DRAW_PERIOD: Duration = Duration::from_millis(50);
/// How wide a frame is that is printed, and how high at most.
const PRINTED_WIDTH: u16 = 100;
const PRINTED_HEIGHT_MAX: u16 = 1_000;

/// Whether this can be done at all, before anybody is asked.
///
/// # Errors
/// There is nothing to draw on.
pub(crate) fn check(global: &Global, args: &TopArgs) -> anyhow::Result<()> {
    if args.once {
        return Ok(());
    }
    if global.json {
        return Err(Failed::usage(
            "top draws for people: with --json give --once, or see `annulus status --all`",
        ));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failed::usage(
            "top needs a terminal: give --once for a single picture, or see `annulus status --all`",
        ));
    }
    Ok(())
}

/// Shows the cluster until it is told to stop, or once.
pub(crate) async fn run(cluster: &Cluster, global: &Global, args: &TopArgs) -> anyhow::Result<()> {
    let mut asks = Asks::new(cluster.client.clone(), global.timeout);
    let mut board = Board::default();
    if args.once {
        return once(cluster, args, &mut asks, &mut board).await;
    }
    // Who is told to end leaves the terminal as it was.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut rounds = interval(args.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draws = interval(DRAW_PERIOD);
    draws.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drawn_at = None;
    let mut screen = Screen::open()?;
    let mut keys = Keys::listen();
    loop {
        tokio::select! {
            _ = rounds.tick() => asks.begin_round(),
            answer = asks.next() => board.take(answer, &mut asks, Instant::now()),
            _ = draws.tick() => {
                // Ages grow though nothing is answered.
                let is_old = drawn_at.is_none_or(|at: Instant| at.elapsed() >= args.interval);
                if std::mem::take(&mut board.has_changed) || is_old {
                    screen.draw(&board)?;
                    drawn_at = Some(Instant::now());
                }
            }
            key = keys.next() => match key.context("reading the keyboard")? {
                Key::Quit => return Ok(()),
                Key::Up => board.scroll(-1),
                Key::Down => board.scroll(1),
                Key::Resize => board.has_changed = true,
            },
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Asks twice, since rates are differences, and prints what came of it.
async fn once(
    cluster: &Cluster,
    args: &TopArgs,
    asks: &mut Asks,
    board: &mut Board,
) -> anyhow::Result<()> {
    for round in 0..2 {
        if round > 0 {
            sleep(args.interval).await;
        }
        asks.begin_round();
        while !asks.is_idle() {
            let answer = asks.next().await;
            board.take(answer, asks, Instant::now());
        }
    }
    if let Some(why) = board.trouble() {
        return Err(Failed { code: UNREACHABLE, why: why.to_owned() }.into());
    }
    if cluster.json {
        return output::json(&board.document());
    }
    let area = Rect::new(0, 0, PRINTED_WIDTH, view::height(board).min(PRINTED_HEIGHT_MAX));
    let mut buffer = Buffer::empty(area);
    view::draw(board, Moment::now(), area, &mut buffer);
    output::line(view::text(&buffer))
}

/// The terminal while it is drawn on. It is as it was before once this is dropped, or something panics.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn open() -> anyhow::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error).context("opening the terminal")
            }
        }
    }

    fn draw(&mut self, board: &Board) -> anyhow::Result<()> {
        let draw = |frame: &mut ratatui::Frame<'_>| {
            let area = frame.area();
            view::draw(board, Moment::now(), area, frame.buffer_mut());
        };
        self.terminal.draw(draw).context("drawing")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may be gone, and where to complain with it.
        let _ = ratatui::try_restore();
    }
}
