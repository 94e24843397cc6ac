//! What the processes of this host may do over the Unix socket: a role for each user.

use std::collections::BTreeMap;

use annulus_proto::message::{Rejected, Role};

/// The roles of this host's users, over the Unix socket and over the lanes that are given out there.
///
/// The kernel says whose process is at the other end of a socket (SO_PEERCRED): the user that it
/// ran as when it connected. Users of other user namespaces appear under the number that they have
/// in the node's, or as 65534 if they have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoles {
    /// The role of every user that is not named. Default [`Role::Development`], which is everything:
    /// whoever may open the socket.
    pub default: Role,
    /// The roles of users, by their number. Root and the node's own user have
    /// [`Role::Development`] whatever stands here: they could write the segments themselves.
    pub users: BTreeMap<u32, Role>,
}

impl Default for LocalRoles {
    fn default() -> Self {
        Self { default: Role::Development, users: BTreeMap::new() }
    }
}

impl LocalRoles {
    /// What processes of `user` may do, where the node runs as the user `own`.
    pub fn of(&self, user: u32, own: u32) -> Role {
        if user == ROOT || user == own {
            return Role::Development;
        }
        self.users.get(&user).copied().unwrap_or(self.default)
    }

    /// Whether processes of `user` may change the keys of the cluster: those who could write the
    /// keyring anyway, and those to whom it was given in so many words. That every user of a host may
    /// do everything with its sessions is no such word: keys are of all hosts.
    pub(super) fn may_see_to_keys(&self, user: u32, own: u32) -> bool {
        let is_named = self.users.get(&user).is_some_and(|role| role.includes(Role::Operator));
        user == ROOT || user == own || is_named || self.of(user, own) == Role::Operator
    }
}

/// The user who may do everything anyway.
pub(crate) const ROOT: u32 = 0;

/// The role of a stream whose caller asked for one role and whose user may have another: the lesser
/// of the two.
///
/// # Errors
/// [`Rejected::RoleNotGranted`] if neither includes the other.
pub(super) fn grant(asked: Role, may: Role) -> Result<Role, Rejected> {
    match (asked, may) {
        _ if may.includes(asked) => Ok(asked),
        _ if asked.includes(may) => Ok(may),
        _ => Err(Rejected::RoleNotGranted { asked, granted: may }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 990;

    #[test]
    fn everybody_who_may_open_the_socket_has_everything_by_default() {
        for user in [ROOT, OWN, 33, 65_534] {
            assert_eq!(LocalRoles::default().of(user, OWN), Role::Development);
        }
    }

    #[test]
    fn a_named_user_has_its_role_and_the_others_have_the_default() {
        let users = [(33, Role::Authority), (34, Role::Development)].into();
        let roles = LocalRoles { default: Role::Worker, users };
        assert_eq!(roles.of(33, OWN), Role::Authority);
        assert_eq!(roles.of(34, OWN), Role::Development);
        assert_eq!(roles.of(35, OWN), Role::Worker);
        assert_eq!(roles.of(65_534, OWN), Role::Worker);
    }

    #[test]
    fn root_and_the_nodes_own_user_have_everything_whatever_is_written() {
        let users = [(ROOT, Role::Worker), (OWN, Role::Monitor)].into();
        let roles = LocalRoles { default: Role::Worker, users };
        assert_eq!(roles.of(ROOT, OWN), Role::Development);
        assert_eq!(roles.of(OWN, OWN), Role::Development);
        assert_eq!(roles.of(OWN, 991), Role::Monitor);
    }

    #[test]
    fn keys_are_for_who_runs_the_node_and_whoever_was_made_an_operator() {
        let roles = LocalRoles::default();
        assert!(roles.may_see_to_keys(ROOT, OWN) && roles.may_see_to_keys(OWN, OWN));
        for user in [33, 65_534] {
            assert!(!roles.may_see_to_keys(user, OWN), "{user}");
        }
        let users = [(33, Role::Operator), (34, Role::Development), (35, Role::Authority)].into();
        let roles = LocalRoles { default: Role::Development, users };
        let may = [33, 34, 35, 36].map(|user| roles.may_see_to_keys(user, OWN));
        assert_eq!(may, [true, true, false, false]);
        let roles = LocalRoles { default: Role::Operator, users: [(35, Role::Worker)].into() };
        assert_eq!([35, 36].map(|user| roles.may_see_to_keys(user, OWN)), [false, true]);
    }

    #[test]
    fn the_lesser_of_what_was_asked_for_and_what_is_allowed_is_granted() {
        for may in Role::ALL {
            assert_eq!(grant(Role::Development, may), Ok(may));
            assert_eq!(grant(may, Role::Development), Ok(may));
            assert_eq!(grant(may, may), Ok(may));
        }
        let limited = Role::ALL.into_iter().filter(|role| *role != Role::Development);
        for (asked, may) in limited.clone().flat_map(|one| limited.clone().map(move |b| (one, b))) {
            let refused = Rejected::RoleNotGranted { asked, granted: may };
            let expected = if asked == may { Ok(may) } else { Err(refused) };
            assert_eq!(grant(asked, may), expected);
        }
        let refused = grant(Role::Authority, Role::Worker).unwrap_err().to_string();
        assert!(refused.contains("the role authority is not granted"), "{refused}");
        assert!(refused.contains("has the role worker here"), "{refused}");
        assert!(refused.contains("`local_roles`"), "{refused}");
    }
}
