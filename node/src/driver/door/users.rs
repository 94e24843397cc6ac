//! Who clients of Redis say to be: a user is a role, and may do what that role may do elsewhere.

use annulus_proto::message::Role;
use annulus_resp::{Credentials, texts};
use annulus_seal::Zeroizing;

use super::super::error::RunError;
use super::super::host::Host;
use super::super::local_roles::grant;
use super::super::settings::RedisSettings;
use super::store::{Outcome, Trouble};

/// The passwords of all users that there are. Without any there is one user, and everybody is that one.
#[derive(Default)]
pub(in super::super) struct Users {
    /// Of the user [`DEFAULT`], if that is one with a password.
    default: Option<Zeroizing<String>>,
    /// Of the users who have the name of their role.
    roles: Vec<(Role, Zeroizing<String>)>,
}

/// Somebody who was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: &'static str,
    /// What this user may do, if whoever is at the other end of the connection may.
    role: Role,
    /// Whether that is given to whom it says no less of, too.
    is_default: bool,
}

/// The user who has no other name.
pub(super) const DEFAULT: &str = "default";
/// The shortest password.
const PASSWORD_BYTES_MIN: usize = 8;

impl Users {
    /// Reads all passwords.
    ///
    /// # Errors
    /// [`RunError::RedisPassword`].
    pub(in super::super) fn load<H: Host>(
        host: &H,
        settings: &RedisSettings,
    ) -> Result<Self, RunError> {
        let read = |setting: &'static str, path: &std::path::Path| {
            let fail = |why| RunError::RedisPassword { setting, path: path.to_owned(), why };
            let text = host.load_redis_password(path).map_err(|error| fail(error.to_string()))?;
            let line = text.lines().next().unwrap_or_default();
            if line.len() < PASSWORD_BYTES_MIN {
                return Err(fail(format!(
                    "its first line has {} bytes; write a password of at least {PASSWORD_BYTES_MIN} there",
                    line.len()
                )));
            }
            Ok(Zeroizing::new(line.to_owned()))
        };
        let default = settings.password_file.as_ref();
        let default = default.map(|path| read("redis.password_file", path)).transpose()?;
        let files = settings.password_files.iter();
        let roles = files.map(|(role, path)| Ok((*role, read("redis.password_files", path)?)));
        Ok(Self { default, roles: roles.collect::<Result<_, _>>()? })
    }

    /// Whether everybody is let in.
    pub(super) fn are_without_passwords(&self) -> bool {
        self.default.is_none() && self.roles.is_empty()
    }

    /// Who they are that say a name and a password.
    ///
    /// # Errors
    /// If there is no such user, or the password is another one.
    pub(super) fn find<'a>(&self, credentials: Credentials<'a>, open: User) -> Outcome<'a, User> {
        let wrong = || Trouble::text("WRONGPASS", texts::WRONG_PASS);
        // User names are compared as they are.
        let name = credentials.user.as_deref().unwrap_or(DEFAULT.as_bytes());
        if name == DEFAULT.as_bytes() {
            return match &self.default {
                // Redis, too, lets its default user in with whatever password, if none is set.
                None if self.roles.is_empty() => Ok(open),
                Some(password) if is_same(password.as_bytes(), &credentials.password) => {
                    Ok(User::AUTHORITY)
                }
                _ => Err(wrong()),
            };
        }
        let found = self.roles.iter().find(|(role, _)| role.name().as_bytes() == name);
        let (role, password) = found.ok_or_else(wrong)?;
        if !is_same(password.as_bytes(), &credentials.password) {
            return Err(wrong());
        }
        Ok(User { name: role.name(), role: *role, is_default: false })
    }

    /// Whether there is a user of this name.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        name == DEFAULT.as_bytes()
            || self.roles.iter().any(|(role, _)| role.name().as_bytes() == name)
    }
}

impl User {
    /// The default user where there are passwords: no more than sessions need.
    pub(super) const AUTHORITY: Self =
        Self { name: DEFAULT, role: Role::Authority, is_default: true };
    /// The default user where everybody may do everything anyway.
    pub(super) const DEVELOPMENT: Self =
        Self { name: DEFAULT, role: Role::Development, is_default: true };

    /// What this user may do at the end of a connection at which one may do so much.
    ///
    /// # Errors
    /// If a role was named that is not given there.
    pub(super) fn role_within<'a>(self, may: Role) -> Outcome<'a, Role> {
        if self.is_default {
            return Ok(if may.includes(self.role) { self.role } else { may });
        }
        grant(self.role, may).map_err(|why| Trouble::Error("NOPERM", why.to_string().into()))
    }
}

/// Compares secrets in a time that depends on the length of what was said alone.
fn is_same(password: &[u8], said: &[u8]) -> bool {
    let differs = said.iter().enumerate().fold(0, |differs, (at, byte)| {
        // Where the password has ended, with something: the lengths decide.
        differs | (byte ^ password.get(at).copied().unwrap_or_default())
    });
    std::hint::black_box(differs) == 0 && password.len() == said.len()
}

#[cfg(test)]
mod tests {
    use annulus_resp::{Limits, Parsed, Parser};

    use super::*;

    #[test]
    fn a_password_is_the_same_or_is_not() {
        assert!(is_same(b"correct horse", b"correct horse"));
        for said in ["", "correct", "correct horsf", "Correct horse", "correct horse\0"] {
            assert!(!is_same(b"correct horse", said.as_bytes()), "{said:?}");
        }
    }

    fn found(users: &Users, user: Option<&str>, password: &str) -> Option<User> {
        let mut bytes = format!("{} {password}\r\n", user.unwrap_or_default()).into_bytes();
        let mut parser = Parser::new(Limits::default());
        assert!(matches!(parser.parse(&mut bytes), Ok(Parsed::Request { .. })));
        let words: Vec<_> = parser.arguments(&bytes).iter().collect();
        let credentials = Credentials {
            user: user.map(|_| words[0]),
            password: *words.last().expect("a password"),
        };
        users.find(credentials, User::DEVELOPMENT).ok()
    }

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn each_user_has_a_password_of_its_own() {
        let mut users = Users::default();
        assert!(users.are_without_passwords());
        for user in [None, Some("default")] {
            assert_eq!(found(&users, user, "anything"), Some(User::DEVELOPMENT));
        }
        assert_eq!(found(&users, Some("worker"), "anything"), None);
        users.roles =
            vec![(Role::Worker, secret("of workers")), (Role::Operator, secret("of ops"))];
        assert!(!users.are_without_passwords());
        // Who has no name of a role is nobody now.
        assert_eq!(found(&users, None, "of-workers"), None);
        users.default = Some(secret("of-all"));
        users.roles[0].1 = secret("of-workers");
        assert_eq!(found(&users, None, "of-all"), Some(User::AUTHORITY));
        assert_eq!(found(&users, Some("default"), "of-all"), Some(User::AUTHORITY));
        let worker = found(&users, Some("worker"), "of-workers").expect("it is right");
        assert_eq!((worker.name, worker.role), ("worker", Role::Worker));
        for (user, password) in [
            (None, "of-workers"),
            (Some("worker"), "of-all"),
            (Some("Worker"), "of-workers"),
            (Some("authority"), "of-all"),
            (Some("development"), "of-all"),
        ] {
            assert_eq!(found(&users, user, password), None, "{user:?}");
        }
        assert!(users.knows(b"default") && users.knows(b"operator") && !users.knows(b"monitor"));
    }

    #[test]
    fn a_user_may_do_no_more_than_who_is_at_the_other_end() {
        let role = |user: User, may| user.role_within(may).ok();
        assert_eq!(role(User::AUTHORITY, Role::Development), Some(Role::Authority));
        assert_eq!(role(User::DEVELOPMENT, Role::Development), Some(Role::Development));
        for may in [Role::Authority, Role::Worker, Role::Monitor, Role::Operator] {
            assert_eq!(role(User::AUTHORITY, may), Some(may));
            assert_eq!(role(User::DEVELOPMENT, may), Some(may));
        }
        let worker = User { name: "worker", role: Role::Worker, is_default: false };
        assert_eq!(role(worker, Role::Development), Some(Role::Worker));
        assert_eq!(role(worker, Role::Worker), Some(Role::Worker));
        assert_eq!(role(worker, Role::Monitor), None);
    }
}
