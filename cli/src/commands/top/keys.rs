//! What is typed, as far as it means anything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// End.
    Quit,
    /// Show members further up, or further down.
    Up,
    Down,
    /// The terminal has another size.
    Resize,
}

/// Reads the keyboard, in a thread of its own: that blocks.
pub(super) struct Keys {
    typed: mpsc::Receiver<io::Result<Key>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// How long it takes at most until the thread notices that it is to end.
const PERIOD: Duration = Duration::from_millis(50);
/// How long it is waited for then: a terminal that has gone may keep it reading for ever.
const ENDS_WITHIN: Duration = Duration::from_millis(500);
/// Keys that wait; later ones are lost.
const WAITING_MAX: usize = 64;

impl Keys {
    pub(super) fn listen() -> Self {
        let (tell, typed) = mpsc::channel(WAITING_MAX);
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        let listen = move || {
            while !ends.load(Ordering::Relaxed) {
                let key = match event::poll(PERIOD) {
                    Ok(false) => continue,
                    Ok(true) => event::read().map(meaning),
                    Err(error) => Err(error),
                };
                let is_last = key.is_err();
                if let Some(key) = key.transpose() {
                    let _ = tell.try_send(key);
                }
                if is_last {
                    return;
                }
            }
        };
        Self { typed, is_over, thread: std::thread::spawn(listen) }
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// There is no keyboard any more.
    pub(super) async fn next(&mut self) -> io::Result<Key> {
        self.typed.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }
}

impl Drop for Keys {
    /// What is typed from now on is for others.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let until = Instant::now() + ENDS_WITHIN;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn meaning(event: Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resize),
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(KeyEvent { code, modifiers, .. }) => match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
            KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_an_interrupt_quit_and_other_keys_do_not() {
        let typed = |code, modifiers| meaning(Event::Key(KeyEvent::new(code, modifiers)));
        let plain = KeyModifiers::NONE;
        assert_eq!(typed(KeyCode::Char('q'), plain), Some(Key::Quit));
        assert_eq!(typed(KeyCode::Esc, plain), Some(Key::Quit));
        assert_eq!(typed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(typed(KeyCode::Char('c'), plain), None);
        assert_eq!(typed(KeyCode::Down, plain), Some(Key::Down));
        assert_eq!(meaning(Event::Resize(80, 24)), Some(Key::Resize));
    }
}
