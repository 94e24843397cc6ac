//! A file of the archive, line by line.

use std::io::{self, BufRead, Read as _};

use super::line::{LINE_BYTES_MAX, LineError, read_line};
use crate::core::Overflowed;

/// The lines of an archive that are not empty, each with its number, from 1 on.
///
/// Whatever stands there it goes on, and takes no more memory than the longest session. A file that cannot be read ends
/// it with what is in the way.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    number: u64,
    line: Vec<u8>,
    is_over: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of what is read from there.
    pub fn new(from: R) -> Self {
        Self { from, number: 0, line: Vec::new(), is_over: false }
    }

    /// Reads a line, up to one byte more than it may have. Returns whether there is one.
    fn read(&mut self) -> io::Result<bool> {
        self.line.clear();
        let most = LINE_BYTES_MAX as u64 + 2;
        self.from.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LINE_BYTES_MAX {
            self.from.skip_until(b'\n')?;
        }
        Ok(true)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Result<Overflowed, LineError>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.read() {
                Ok(true) if self.line.trim_ascii().is_empty() => {}
                Ok(true) => return Some(Ok((self.number, read_line(&self.line)))),
                Ok(false) => self.is_over = true,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::line::tests::session;
    use super::super::write_line;
    use super::*;

    type Read = Vec<(u64, Result<Overflowed, LineError>)>;

    fn read(bytes: &[u8]) -> Read {
        Lines::new(bytes).map(|line| line.expect("memory is read")).collect()
    }

    proptest! {
        #[test]
        fn garbage_and_cut_lines_keep_no_other_line_from_being_read(
            sessions in prop::collection::vec(session(), 1..5),
            garbage in prop::collection::vec("[^\n]{0,40}", 1..5),
            cut in 1usize..40,
        ) {
            let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
            let mut number = 0;
            for (at, session) in sessions.iter().enumerate() {
                if let Some(garbage) = garbage.get(at) {
                    bytes.extend_from_slice(garbage.as_bytes());
                    bytes.push(b'\n');
                    number += 1;
                }
                write_line(session, &mut bytes);
                number += 1;
                numbers.push(number);
            }
            let whole = bytes.len();
            write_line(&sessions[0], &mut bytes);
            bytes.truncate(whole + cut);
            let read = read(&bytes);
            let right: Vec<_> = read.iter().filter(|(_, it)| it.is_ok()).collect();
            prop_assert_eq!(right.len(), sessions.len());
            for ((number, session), (at, expected)) in right.iter().zip(numbers.iter().zip(&sessions)) {
                prop_assert_eq!((number, session), (at, &Ok(expected.clone())));
            }
            prop_assert_eq!(read.last(), Some(&(number + 1, Err(LineError::Syntax))));
        }
    }

    #[test]
    fn a_line_without_an_end_costs_no_more_memory_than_the_longest_session() {
        let mut bytes = vec![b'x'; 3 * LINE_BYTES_MAX];
        let mut lines = Lines::new(&bytes[..]);
        let first = lines.next().expect("a line").expect("memory is read");
        assert_eq!(first, (1, Err(LineError::TooLong)));
        assert!(lines.line.capacity() < 3 * LINE_BYTES_MAX, "{}", lines.line.capacity());
        assert!(lines.next().is_none());
        // The next one is read all the same.
        bytes.extend_from_slice(b"\n[]\n\n  \n[]");
        let numbers: Vec<u64> = read(&bytes).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2, 5]);
    }
}
