//! A request's arguments: where they lie in bytes that somebody else keeps.

use std::fmt;
use std::ops::Deref;

/// Where an argument lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The offset of its first byte.
    pub from: u32,
    /// The offset behind its last byte.
    pub to: u32,
}

/// One argument: a key, a value, a password or a word. `Debug` tells its size alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Argument<'a>(pub &'a [u8]);

impl Argument<'_> {
    /// Whether it is this word, which is in lower case, in any case. Redis compares what stands before the first NUL: to it
    /// `EX\0y` is the option EX, here it is none.
    pub fn is(&self, word: &str) -> bool {
        self.0.eq_ignore_ascii_case(word.as_bytes())
    }

    /// What C takes for it: up to its first NUL. So much of it do Redis' errors repeat.
    pub(crate) fn until_nul(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl Deref for Argument<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The arguments of a request or some of them, as slices of the buffer in which they arrived. The first one of a
/// request is its command's name.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// These spans of a buffer.
    ///
    /// # Panics
    /// [`get`](Self::get) and what stands on it, if a span is not within the buffer.
    pub fn new(buffer: &'a [u8], spans: &'a [Span]) -> Self {
        Self { buffer, spans }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at an index, if there are so many.
    pub fn get(&self, index: usize) -> Option<Argument<'a>> {
        let &Span { from, to } = self.spans.get(index)?;
        Some(Argument(&self.buffer[from as usize..to as usize]))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Argument<'a>> + use<'a> {
        let Self { buffer, spans } = *self;
        spans.iter().map(|span| Argument(&buffer[span.from as usize..span.to as usize]))
    }

    /// All but the first `count`; none, if there are not so many.
    pub fn skip(&self, count: usize) -> Self {
        Self { buffer: self.buffer, spans: self.spans.get(count..).unwrap_or_default() }
    }

    /// The first `count`; all, if there are not so many.
    pub fn first(&self, count: usize) -> Self {
        Self { buffer: self.buffer, spans: self.spans.get(..count).unwrap_or(self.spans) }
    }

    /// Two by two, a last one without a partner left out: the keys and values of MSET.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (Argument<'a>, Argument<'a>)> + use<'a> {
        let Self { buffer, spans } = *self;
        let at = |span: &Span| Argument(&buffer[span.from as usize..span.to as usize]);
        spans.chunks_exact(2).map(move |pair| (at(&pair[0]), at(&pair[1])))
    }
}

impl PartialEq for Arguments<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Arguments<'_> {}

impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} arguments", self.len())
    }
}
