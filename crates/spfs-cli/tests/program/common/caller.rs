//! Who runs a command: root, or an ordinary user.

use std::fmt;
use std::fs;

/// The account that `./test setup` makes; it has a supplementary group of its own.
const USER: &str = "spfs-test";

/// Who runs a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The superuser of this machine or container.
    Root,
    /// An ordinary user with supplementary groups and no capability.
    User(Account),
}

/// One line of /etc/passwd, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Caller {
    /// Everybody that this process can act as: root and the test user when it is root, else only itself.
    pub fn all() -> Vec<Caller> {
        if is_root() { vec![Caller::Root, Caller::user()] } else { vec![Caller::user()] }
    }

    /// An ordinary user: the test user when this process is root, else the user that runs the tests.
    pub fn user() -> Caller {
        let account = if is_root() {
            accounts().find(|account| account.name == USER).unwrap_or_else(|| {
                panic!("these tests also run as the ordinary user '{USER}', which does not exist: run `./test setup` as root")
            })
        } else {
            let uid = rustix::process::getuid().as_raw();
            accounts().find(|account| account.uid == uid).unwrap_or(Account {
                name: uid.to_string(),
                uid,
                gid: rustix::process::getgid().as_raw(),
            })
        };
        Caller::User(account)
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        match self {
            Caller::Root => 0,
            Caller::User(account) => account.uid,
        }
    }

    /// The primary group id.
    pub fn gid(&self) -> u32 {
        match self {
            Caller::Root => 0,
            Caller::User(account) => account.gid,
        }
    }

    /// The name of the account.
    pub fn name(&self) -> &str {
        match self {
            Caller::Root => "root",
            Caller::User(account) => &account.name,
        }
    }

    /// Whether this is root.
    pub fn is_root(&self) -> bool {
        *self == Caller::Root
    }

    /// The words that go before a command so that it runs as this caller.
    ///
    /// `setpriv` because the standard library drops every supplementary group when it changes the user.
    pub(super) fn prefix(&self) -> Vec<String> {
        match self {
            Caller::User(account) if is_root() => vec![
                "setpriv".into(),
                format!("--reuid={}", account.uid),
                format!("--regid={}", account.gid),
                "--init-groups".into(),
                "--".into(),
            ],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Root => write!(f, "root"),
            Caller::User(account) => write!(f, "the user {}", account.name),
        }
    }
}

/// Whether the tests themselves run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn accounts() -> impl Iterator<Item = Account> {
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    passwd.lines().filter_map(account).collect::<Vec<_>>().into_iter()
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    Some(Account { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}
