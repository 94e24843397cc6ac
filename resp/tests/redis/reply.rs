//! Replies, read as far as comparing them needs.

/// A reply, with the bytes that it was.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    /// Of an aggregate: a map's are keys and values by turns.
    pub(crate) children: Vec<Reply>,
}

/// The replies that lie in these bytes, which must end with one.
pub(crate) fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let reply = first(bytes);
        bytes = &bytes[reply.bytes.len()..];
        all.push(reply);
    }
    all
}

fn first(bytes: &[u8]) -> Reply {
    let line = bytes.windows(2).position(|two| two == b"\r\n").expect("a line's end");
    let number = || -> i64 {
        let digits = std::str::from_utf8(&bytes[1..line]).expect("digits");
        digits.parse().expect("a number")
    };
    let mut end = line + 2;
    let mut children = Vec::new();
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' => {}
        b'$' | b'=' => {
            if let Ok(size) = usize::try_from(number()) {
                end += size + 2;
            }
        }
        kind @ (b'*' | b'~' | b'%' | b'>') => {
            let count = if kind == b'%' { 2 * number() } else { number() };
            for _ in 0..count {
                let child = first(&bytes[end..]);
                end += child.bytes.len();
                children.push(child);
            }
        }
        other => panic!("no reply begins with {other}"),
    }
    Reply { bytes: bytes[..end].to_vec(), children }
}

impl Reply {
    /// The bytes of a bulk string.
    pub(crate) fn bulk(&self) -> &[u8] {
        let line = self.bytes.windows(2).position(|two| two == b"\r\n").expect("a line's end");
        assert_eq!(self.bytes[0], b'$');
        &self.bytes[line + 2..self.bytes.len() - 2]
    }

    /// The value of a field of a map, flat or not.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        let mut fields = self.children.chunks_exact(2);
        fields.find(|pair| pair[0].bulk() == name.as_bytes()).map(|pair| &pair[1])
    }

    /// Without a field, wherever there is one of that name.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut children = Vec::new();
        let mut rest = self.children.iter();
        while let Some(child) = rest.next() {
            if child.bytes.first() == Some(&b'$') && child.bulk() == name.as_bytes() {
                rest.next();
            } else {
                children.push(child.without(name));
            }
        }
        let bytes = if self.children.is_empty() { self.bytes.clone() } else { vec![self.bytes[0]] };
        Self { bytes, children }
    }

    /// For people, and to compare: each value in order, with the kind of each aggregate.
    pub(crate) fn text(&self) -> String {
        let own = self.bytes.escape_ascii().to_string();
        let children: Vec<String> = self.children.iter().map(Self::text).collect();
        if children.is_empty() {
            own
        } else {
            format!("{}({})", char::from(self.bytes[0]), children.join(" "))
        }
    }
}
