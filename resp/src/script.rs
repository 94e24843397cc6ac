//! The scripts of session libraries that are known, and done as commands are: no Lua runs.
//!
//! A script is recognised by its text, whatever its blanks and whichever quotes it has, or by the SHA-1 of the text as its
//! library sends it.

use sha1::{Digest, Sha1};

/// What a known script does. Its key is `KEYS[1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Deletes the key if it holds `ARGV[1]`: 1, or 0. So release locks phpredis, Laravel and redis-py.
    DeleteIfEqual,
    /// If there is nothing, sets the key to `ARGV[1]` for `ARGV[2]` seconds: `+OK`, or null. Laravel.
    SetIfAbsent,
    /// If the key holds `ARGV[1]` and has a deadline, puts that off by `ARGV[2]` milliseconds, or, if `ARGV[3]` is not 0, to so
    /// many from now: 1, or 0. redis-py.
    Extend,
    /// If the key holds `ARGV[1]`, sets its deadline to `ARGV[2]` milliseconds from now: 1, or 0. redis-py.
    Reacquire,
    /// Reads the key, and if it has a deadline, sets it to `ARGV[1]` seconds from now. Litestar.
    GetAndRenew,
}

/// A script as a library sends it, and the SHA-1 of that.
struct Known {
    script: Script,
    text: &'static str,
    sha1: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        script: Script::DeleteIfEqual,
        text: r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#,
        sha1: "b70c2384248f88e6b75b9f89241a180f856ad852",
    },
    Known {
        script: Script::DeleteIfEqual,
        text: r#"if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end"#,
        sha1: "647c65a442733a1aa440f99908d249d13b4d6c4a",
    },
    Known {
        script: Script::SetIfAbsent,
        text: "return redis.call('exists',KEYS[1])<1 and redis.call('setex',KEYS[1],ARGV[2],ARGV[1])",
        sha1: "a08c9c69b7c07ae2485190873b90d128a23e502d",
    },
    Known {
        script: Script::DeleteIfEqual,
        text: "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('del', KEYS[1])
        return 1
    ",
        sha1: "c3f8721cbb97f72bc19e972846bd7aaf91901658",
    },
    Known {
        script: Script::Extend,
        text: r#"
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        local expiration = redis.call('pttl', KEYS[1])
        if not expiration then
            expiration = 0
        end
        if expiration < 0 then
            return 0
        end

        local newttl = ARGV[2]
        if ARGV[3] == "0" then
            newttl = ARGV[2] + expiration
        end
        redis.call('pexpire', KEYS[1], newttl)
        return 1
    "#,
        sha1: "a4e8783852e6b949f9ef3a97212805108459a890",
    },
    Known {
        script: Script::Reacquire,
        text: "
        local token = redis.call('get', KEYS[1])
        if not token or token ~= ARGV[1] then
            return 0
        end
        redis.call('pexpire', KEYS[1], ARGV[2])
        return 1
    ",
        sha1: "1cac51482acf5858da00f6d685d68f886cd6b6b2",
    },
    Known {
        script: Script::GetAndRenew,
        text: "
        local key = KEYS[1]
        local renew = tonumber(ARGV[1])

        local data = redis.call('GET', key)
        local ttl = redis.call('TTL', key)

        if ttl > 0 then
            redis.call('EXPIRE', key, renew)
        end

        return data
        ",
        sha1: "54ea03b66da5fbbf9c19520232b7fc68354b94eb",
    },
];

/// A SHA-1 in hexadecimal digits has so many bytes.
pub const SHA1_BYTES: usize = 40;

impl Script {
    /// The script with this text; `None`: it is not known. Costs the length of the text.
    pub fn of_text(text: &[u8]) -> Option<Self> {
        let found = KNOWN.iter().find(|known| plain(known.text.as_bytes()).eq(plain(text)));
        found.map(|known| known.script)
    }

    /// The script whose text, as its library sends it, has this SHA-1, in hexadecimal digits of any case.
    pub fn of_sha1(sha1: &[u8]) -> Option<Self> {
        let found = KNOWN.iter().find(|known| sha1.eq_ignore_ascii_case(known.sha1.as_bytes()));
        found.map(|known| known.script)
    }

    /// How many arguments it takes beside its key.
    pub fn arguments(self) -> usize {
        match self {
            Self::DeleteIfEqual | Self::GetAndRenew => 1,
            Self::SetIfAbsent | Self::Reacquire => 2,
            Self::Extend => 3,
        }
    }
}

/// The SHA-1 of a text, in lower-case hexadecimal digits.
pub fn sha1(text: &[u8]) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text without blanks but those between words, and with one kind of quotes. That two texts are the same then says that they
/// do the same: none of the known ones has a blank within quotes.
fn plain(text: &[u8]) -> impl Iterator<Item = u8> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut words = text.iter().copied().peekable();
    let mut last = None;
    std::iter::from_fn(move || {
        let mut was_blank = false;
        while words.next_if(u8::is_ascii_whitespace).is_some() {
            was_blank = true;
        }
        let next = *words.peek()?;
        if was_blank && last.is_some_and(is_word) && is_word(next) {
            last = Some(b' ');
            return last;
        }
        words.next();
        last = Some(if next == b'"' { b'\'' } else { next });
        last
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_script_is_found_by_its_text_and_by_its_sha1() {
        for known in KNOWN {
            assert_eq!(sha1(known.text.as_bytes()), known.sha1);
            assert_eq!(Script::of_text(known.text.as_bytes()), Some(known.script));
            assert_eq!(Script::of_sha1(known.sha1.to_uppercase().as_bytes()), Some(known.script));
        }
    }

    #[test]
    fn blanks_and_quotes_make_no_difference_and_everything_else_does() {
        let known = KNOWN[1].text;
        for (from, to) in [("\n", "\r\n\t"), ("    ", ""), ("\"", "'"), (",", " , ")] {
            let text = known.replace(from, to);
            assert_eq!(Script::of_text(text.as_bytes()), Some(Script::DeleteIfEqual), "{text}");
        }
        for (from, to) in [
            ("KEYS[1]", "KEYS[2]"),
            ("==", "~="),
            ("get", "g et"),
            ("return 0", "return0"),
            ("else", ""),
            ("get", "GET"),
        ] {
            let text = known.replacen(from, to, 1);
            assert_eq!(Script::of_text(text.as_bytes()), None, "{text}");
        }
        for text in [&b""[..], b" ", b"return 1", b"\0", b"\""] {
            assert_eq!(Script::of_text(text), None);
        }
        assert_eq!(Script::of_sha1(b""), None);
        assert_eq!(sha1(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    }
}
