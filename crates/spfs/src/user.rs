//! Who the caller is, without the C library's user database: a static binary cannot trust that one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::{Config, Env};

/// One line of `/etc/passwd`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell; may be empty.
    pub shell: PathBuf,
}

/// The first account with this number in `<etc>/passwd`.
pub fn lookup(etc: &Path, uid: u32) -> Option<Account> {
    let text = std::fs::read(etc.join("passwd")).ok()?;
    accounts(&String::from_utf8_lossy(&text)).find(|(number, _)| *number == uid).map(|(_, account)| account)
}

/// The caller's login name: `$USER` if that account has the caller's number in `/etc/passwd`, else the account there
/// with that number, else what `getent` says (LDAP and the like), else the number.
pub fn name(env: &Env) -> String {
    let text = std::fs::read(env.etc.join("passwd")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = env.var("USER").and_then(|user| user.to_str());
    let mut mine = accounts(&text).filter(|(uid, _)| *uid == env.uid).map(|(_, account)| account.name).peekable();
    if let Some(first) = mine.peek().cloned() {
        let confirmed = mine.find(|name| Some(name.as_str()) == said);
        return confirmed.unwrap_or(first);
    }
    getent(env).unwrap_or_else(|| env.uid.to_string())
}

/// Who makes tags: `name@domain`, from `user.name` and `user.domain` of the configuration where they are set.
pub fn identity(env: &Env, config: &Config) -> String {
    let name = config.user.name.clone().unwrap_or_else(|| name(env));
    let domain = config.user.domain.as_deref().unwrap_or(&env.hostname);
    if domain.is_empty() { name } else { format!("{name}@{domain}") }
}

/// Asks the system's own tool, which knows of directory services.
fn getent(env: &Env) -> Option<String> {
    let path = env.var("PATH").unwrap_or("/usr/bin:/bin".as_ref());
    let mut command = Command::new("getent");
    command.arg("passwd").arg(env.uid.to_string()).env_clear().env("PATH", path);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = accounts(&text).find(|(uid, _)| *uid == env.uid).map(|(_, account)| account.name);
    found.filter(|name| !name.is_empty())
}

/// The accounts in the text of a passwd file, in order; lines that are none are passed over.
fn accounts(text: &str) -> impl Iterator<Item = (u32, Account)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let home = PathBuf::from(fields.nth(2)?);
        let shell = PathBuf::from(fields.next()?);
        Some((uid, Account { name, home, shell }))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str =
        "# comment\nroot:x:0:0:root:/root:/bin/bash\nann:x:7:7::/home/ann:/bin/sh\nbob:x:7:7::/home/bob:\nbroken\n";

    fn env(uid: u32, user: &str) -> (tempfile::TempDir, Env) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("passwd"), PASSWD).unwrap();
        let mut env = Env { uid, etc: dir.path().to_owned(), ..Env::bare("/h") }.with_var("USER", user);
        // An empty PATH keeps the real getent, and the machine's own accounts, out of it.
        env = env.with_var("PATH", "/nonexistent");
        (dir, env)
    }

    #[test]
    fn the_name_is_what_the_number_says() {
        for (uid, user, expected) in [
            (0, "root", "root"),
            (0, "ann", "root"),
            (7, "ann", "ann"),
            (7, "bob", "bob"),
            (7, "", "ann"),
            (99, "eve", "99"),
        ] {
            let (_dir, env) = env(uid, user);
            assert_eq!(name(&env), expected, "{uid} {user}");
        }
    }

    #[test]
    fn accounts_have_homes() {
        let (dir, _) = env(0, "");
        assert_eq!(lookup(dir.path(), 7).unwrap().home, Path::new("/home/ann"));
        assert_eq!(lookup(dir.path(), 0).unwrap().shell, Path::new("/bin/bash"));
        assert_eq!(lookup(dir.path(), 8), None);
    }
}
