//! Redis' patterns for names.

/// The longest pattern that [`Command::parse`](crate::Command::parse) takes, in bytes, and for CONFIG GET all of them together:
/// whoever asks has each key compared with it. Redis takes a pattern of any size. Patterns are seldom longer than the names
/// that they are for, and ten such are still within.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// Whether letters differ from those of the other case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They do: for keys.
    Sensitive,
    /// ASCII letters don't: for names of commands and settings.
    Insensitive,
}

/// Whether a name matches a pattern, byte by byte: `*` any bytes, `?` one, `[a-z_]` one of these and `[^a-z_]` one of the
/// others (a range the wrong way round is turned; `^` alone, not `!`), `\` the byte behind it as it is. A class that is not
/// closed ends with the pattern; `\` at the end is itself; a name that is empty matches stars alone.
///
/// When what stands behind a star does not match, only the last star takes one byte more: for earlier ones to take more
/// helps nobody, so that there is one place to go back to. At most `pattern · name` steps, for each name: patterns of clients
/// have at most [`PATTERN_BYTES_MAX`].
pub fn matches(pattern: &[u8], name: &[u8], case: Case) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the pattern goes on behind the last star, and the byte of the name that the star takes next.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, n));
                continue;
            }
            (None, None) => return true,
            (Some(_), Some(&byte)) => {
                let (accepts, next) = one(&pattern[p..], byte, case);
                if accepts {
                    (p, n) = (p + next, n + 1);
                    continue;
                }
            }
            // Whatever the star takes, the rest of the pattern wants a byte more.
            (Some(_), None) => return false,
            (None, Some(_)) => {}
        }
        let Some((behind, takes)) = star else { return false };
        star = Some((behind, takes + 1));
        (p, n) = (behind, takes + 1);
    }
}

/// Whether what a pattern begins with, which is no star, accepts a byte, and how long it is.
fn one(pattern: &[u8], byte: u8, case: Case) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', b'^', class @ ..] => {
            let (within, taken) = one_of(class, byte, case);
            (!within, taken + 2)
        }
        [b'[', class @ ..] => {
            let (within, taken) = one_of(class, byte, case);
            (within, taken + 1)
        }
        [b'\\', escaped, ..] => (fold(*escaped, case) == fold(byte, case), 2),
        [literal, ..] => (fold(*literal, case) == fold(byte, case), 1),
        [] => (false, 0),
    }
}

/// Whether a byte is in a class, and how long that is with its bracket.
fn one_of(class: &[u8], byte: u8, case: Case) -> (bool, usize) {
    let (mut within, mut at) = (false, 0);
    loop {
        match &class[at..] {
            // As in Redis, letters behind a backslash are compared as they are.
            [b'\\', escaped, ..] => {
                within |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => return (within, at + 1),
            [] => return (within, at),
            [from, b'-', to, ..] => {
                let (from, to) = (fold(*from.min(to), case), fold(*from.max(to), case));
                within |= (from..=to).contains(&fold(byte, case));
                at += 3;
            }
            [literal, ..] => {
                within |= fold(*literal, case) == fold(byte, case);
                at += 1;
            }
        }
    }
}

fn fold(byte: u8, case: Case) -> u8 {
    match case {
        Case::Sensitive => byte,
        Case::Insensitive => byte.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;
