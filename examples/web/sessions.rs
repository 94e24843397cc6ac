//! Sessions of a web application, in the way of express-session: a cookie with a key that nobody can guess, loaded
//! with the request, saved if changed, touched if not, under another key after each login.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use annulus_client::{Acknowledged, Change, Error, OwnedSession, StartOptions, Table, Value};
use annulus_client::{Key, Version};

/// What cookies are called.
const COOKIE: &str = "sid";
/// 256 bits, in hexadecimal.
const KEY_DIGITS: usize = 64;

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

/// The session of one request. Without one in the store it is empty, and begins once something is set.
pub(crate) struct Session {
    settings: Settings,
    stored: Option<Stored>,
    user: Option<String>,
    /// As they were read or written last, and as they are to be.
    saved: Fields,
    fields: Fields,
    cookie: Cookie,
}

/// How sessions are kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where they are.
    pub(crate) table: Table,
    /// Whether cookies are sent over TLS alone.
    pub(crate) is_secure: bool,
    /// How many sessions each user has at most; 0 = any number.
    pub(crate) per_user_max: usize,
}

/// Where it is in the store.
struct Stored {
    key: String,
    birth: Version,
}

/// What the browser is told.
#[derive(Clone, Copy)]
enum Cookie {
    Unchanged,
    New,
    Forget,
}

impl Session {
    /// The session that a request's cookies name: out of shared memory where that has it, else from a node. One that
    /// ended or expired is begun anew.
    ///
    /// # Errors
    /// Those of [`Table::get`].
    pub(crate) async fn load<'a>(
        settings: Settings,
        cookies: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut session = Self {
            settings,
            stored: None,
            user: None,
            saved: Fields::new(),
            fields: Fields::new(),
            cookie: Cookie::Unchanged,
        };
        let Some(key) = key_in(cookies) else { return Ok(session) };
        match session.settings.table.get(&key).await {
            Ok(read) => {
                let read = read.session;
                session.stored = Some(Stored { key, birth: read.birth });
                session.user = String::from_utf8(read.attributes.owner).ok();
                session.user = session.user.filter(|user| !user.is_empty());
                if let Value::Map(fields) = read.value {
                    session.fields = fields;
                }
                session.saved.clone_from(&session.fields);
            }
            // Never under a key that the browser brought: somebody else may have put it there.
            Err(error) if is_gone(&error) => session.cookie = Cookie::Forget,
            Err(error) => return Err(error),
        }
        Ok(session)
    }

    /// Who is logged in.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// A number in it, 0 if there is none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let field = self.fields.get(name.as_bytes());
        let text = field.and_then(|field| str::from_utf8(field).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Sets a number; saved with the rest at the end of the request.
    pub(crate) fn set_number(&mut self, name: &str, number: u64) {
        self.fields.insert(name.as_bytes().to_vec(), number.to_string().into_bytes());
    }

    /// Logs a user in: what there is goes on under another key, as his. What was somebody else's ends.
    ///
    /// # Errors
    /// Those of [`Table::rotate_for`] and [`Table::end`].
    pub(crate) async fn log_in(&mut self, user: &str) -> Result<(), Error> {
        if self.user().is_some_and(|other| other != user) {
            self.log_out().await?;
        }
        let new = draw_key();
        let rotated = match &self.stored {
            Some(Stored { key, birth }) => {
                let rotating =
                    self.settings.table.rotate_for(key, Some(*birth), &new, user.as_bytes());
                Some(rotating.await)
            }
            None => None,
        };
        self.user = Some(user.to_owned());
        match rotated {
            Some(Ok(rotated)) => self.is_at(new, rotated.begun),
            Some(Err(error)) if !is_gone(&error) => return Err(error),
            Some(Err(_)) => {
                self.fields.clear();
                self.start(new).await?;
            }
            None => self.start(new).await?,
        }
        self.limit(user).await;
        Ok(())
    }

    /// Ends those that were used longest ago, should there be too many. What fails is made up for at the next login.
    async fn limit(&self, user: &str) {
        let Settings { table, per_user_max, .. } = &self.settings;
        let Some(Stored { birth, .. }) = self.stored.as_ref().filter(|_| *per_user_max > 0) else {
            return;
        };
        if let Err(error) = table.limit_sessions_of(user, *per_user_max, Some(*birth)).await {
            eprintln!("annulus-web: a user may have more than {per_user_max} sessions: {error}");
        }
    }

    /// Ends it for good. It may be repeated should it fail.
    ///
    /// # Errors
    /// Those of [`Table::end`].
    pub(crate) async fn log_out(&mut self) -> Result<(), Error> {
        if let Some(Stored { key, birth }) = &self.stored {
            match self.settings.table.end(key, Some(*birth)).await {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        (self.stored, self.user, self.cookie) = (None, None, Cookie::Forget);
        self.saved.clear();
        self.fields.clear();
        Ok(())
    }

    /// Ends all other sessions of whoever is logged in. Returns how many there were.
    ///
    /// # Errors
    /// Those of [`Table::end_sessions_of`].
    pub(crate) async fn log_out_elsewhere(&self) -> Result<usize, Error> {
        match (&self.user, &self.stored) {
            (Some(user), Some(Stored { key, .. })) => {
                self.settings.table.end_sessions_of(user, Some(key.as_bytes())).await
            }
            _ => Ok(0),
        }
    }

    /// The sessions of whoever is logged in, each with whether it is this one, the last used first.
    ///
    /// # Errors
    /// Those of [`Table::sessions_of`].
    pub(crate) async fn all_of_user(&self) -> Result<Vec<(OwnedSession, bool)>, Error> {
        let Some(user) = &self.user else { return Ok(Vec::new()) };
        let is_this = |key: &Key| {
            self.stored.as_ref().is_some_and(|stored| stored.key.as_bytes() == key.as_bytes())
        };
        let mut all: Vec<_> = self.settings.table.sessions_of(user).await?.sessions;
        all.sort_by_key(|session| std::cmp::Reverse(session.listed.touched));
        Ok(all
            .into_iter()
            .map(|it| (is_this(&it.listed.key), it))
            .map(|(is, it)| (it, is))
            .collect())
    }

    /// Saves what was changed, field by field, so that two requests at the same time lose nothing of each other's; notes
    /// the use if nothing was. Returns what the browser is to be told, for a `Set-Cookie`.
    ///
    /// # Errors
    /// Those of [`Table::start`] and [`Table::update`]; [`Error::Ended`] and its like if the user has logged out meanwhile.
    pub(crate) async fn save(mut self) -> Result<Option<String>, Error> {
        match &self.stored {
            None if self.fields.is_empty() => {}
            None => self.start(draw_key()).await?,
            Some(Stored { key, birth }) if self.fields != self.saved => {
                let is_new =
                    |(name, value): &(&Vec<u8>, &Vec<u8>)| self.saved.get(*name) != Some(*value);
                let set = self.fields.iter().filter(is_new);
                let set = set.map(|(name, value)| (name.clone(), value.clone())).collect();
                let is_missing = |name: &&Vec<u8>| !self.fields.contains_key(*name);
                let delete = self.saved.keys().filter(is_missing).cloned().collect();
                self.settings
                    .table
                    .update(key, Some(*birth), Change::Fields { set, delete })
                    .await?;
            }
            // The next request notes it if this one cannot.
            Some(Stored { key, birth }) => _ = self.settings.table.touch_soon(key, Some(*birth)),
        }
        Ok(match (self.cookie, &self.stored) {
            (Cookie::New, Some(stored)) => {
                Some(set_cookie(&stored.key, "", self.settings.is_secure))
            }
            (Cookie::Forget, _) => Some(forget(self.settings.is_secure)),
            _ => None,
        })
    }

    async fn start(&mut self, key: String) -> Result<(), Error> {
        let owner = self.user.clone().unwrap_or_default().into_bytes();
        let options = StartOptions { owner, ..StartOptions::default() };
        let begun =
            self.settings.table.start(&key, Value::Map(self.fields.clone()), options).await?;
        self.saved.clone_from(&self.fields);
        self.is_at(key, begun);
        Ok(())
    }

    fn is_at(&mut self, key: String, begun: Acknowledged) {
        self.stored = Some(Stored { key, birth: begun.birth });
        self.cookie = Cookie::New;
    }
}

/// Whether there is no such session any more.
pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Absent | Error::Ended | Error::Expired)
}

/// Has a browser forget its cookie.
pub(crate) fn forget(is_secure: bool) -> String {
    set_cookie("", "; Max-Age=0", is_secure)
}

fn set_cookie(value: &str, more: &str, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}")
}

/// The key in the values of `Cookie` headers, if there is one such as are drawn here.
fn key_in<'a>(cookies: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let pairs = cookies.into_iter().flat_map(|header| header.split(';'));
    let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
    let (_, key) = named.find(|(name, _)| *name == COOKIE)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (key.len() == KEY_DIGITS && key.bytes().all(is_digit)).then(|| key.to_owned())
}

/// Out of a generator that the system has seeded. Whoever knows a key has the session, so it is shown to its browser alone.
fn draw_key() -> String {
    let bytes: [u8; KEY_DIGITS / 2] = rand::random();
    bytes.iter().fold(String::with_capacity(KEY_DIGITS), |mut key, byte| {
        write!(key, "{byte:02x}").expect("a string takes all");
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_among_other_cookies_and_nothing_else_is_taken_for_one() {
        let key = draw_key();
        assert_ne!(key, draw_key());
        let found = |header: &str| key_in([header]);
        assert_eq!(found(&format!("theme=dark; sid={key}; a=b")).as_ref(), Some(&key));
        assert_eq!(key_in(["theme=dark", &format!("sid={key}")]), Some(key.clone()));
        for wrong in [
            String::new(),
            "sid".to_owned(),
            "sid=".to_owned(),
            format!("xsid={key}"),
            format!("sid={key}0"),
            format!("sid={}", &key[1..]),
            format!("sid={}", "G".repeat(KEY_DIGITS)),
        ] {
            assert_eq!(found(&wrong), None);
        }
    }
}
