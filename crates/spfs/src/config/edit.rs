//! Changing the user's configuration file: only what is asked for, everything else, comments included, stays.

use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

use super::Env;
use crate::error::{Error, Place, Result};

/// The user's configuration file, read to be changed.
#[derive(Debug)]
pub struct UserFile {
    /// Where it is; a symlink is followed, so that it stays one.
    path: PathBuf,
    document: DocumentMut,
    mode: Option<std::fs::Permissions>,
}

impl UserFile {
    /// Reads `spfs.toml` in the user's configuration directory; one that is not there is empty.
    ///
    /// Errors: no home directory; a file in another format, in whose place this one would be read; one that is wrong.
    pub fn open(env: &Env) -> Result<Self> {
        let directory = env.xdg("XDG_CONFIG_HOME", ".config").ok_or_else(|| Error::Unsupported {
            what: "a configuration file without a home directory".to_owned(),
            reason: "neither HOME nor XDG_CONFIG_HOME is set".to_owned(),
        })?;
        let path = directory.join("spfs/spfs.toml");
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let text = match super::files::read(&path)? {
            Some(text) => text,
            None => {
                refuse_others(&path)?;
                String::new()
            }
        };
        // Through the reader of configurations first: its errors are the better ones.
        super::files::parse(&path, &text, super::files::Syntax::Toml)?;
        let document = text
            .parse::<DocumentMut>()
            .map_err(|error| Error::Config { place: Place::whole(&path), reason: error.message().to_owned() })?;
        let mode = std::fs::metadata(&path).ok().map(|metadata| metadata.permissions());
        Ok(UserFile { path, document, mode })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has a remote of this name.
    pub fn has_remote(&self, name: &str) -> bool {
        self.document.get("remote").is_some_and(|remotes| remotes.get(name).is_some())
    }

    /// Sets the address of a remote. One that has other keys loses them: they belonged to another address.
    ///
    /// Errors: `remote` is not a table.
    pub fn set_remote(&mut self, name: &str, address: &str) -> Result<()> {
        let remotes = self.document.entry("remote").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let reason = "remote is not a table";
        let place = Place::whole(&self.path);
        let remotes = remotes.as_table_like_mut().ok_or_else(|| Error::Config { place, reason: reason.to_owned() })?;
        match remotes.get_mut(name).and_then(Item::as_table_like_mut) {
            Some(there) => {
                let others: Vec<String> =
                    there.iter().map(|(key, _)| key.to_owned()).filter(|key| key != "address").collect();
                others.iter().for_each(|key| drop(there.remove(key)));
                match there.get_mut("address").and_then(Item::as_value_mut) {
                    // In place, so that what is written behind it stays.
                    Some(old) => {
                        let decor = old.decor().clone();
                        *old = address.into();
                        *old.decor_mut() = decor;
                    }
                    None => drop(there.insert("address", value(address))),
                }
            }
            None => {
                let mut remote = Table::new();
                remote.insert("address", value(address));
                remotes.insert(name, Item::Table(remote));
            }
        }
        Ok(())
    }

    /// Removes a remote; says whether it was there.
    pub fn remove_remote(&mut self, name: &str) -> bool {
        let Some(remotes) = self.document.get_mut("remote").and_then(Item::as_table_like_mut) else { return false };
        remotes.remove(name).is_some()
    }

    /// Writes it, in one piece: a reader sees the old file or the new one, after a crash too.
    pub fn save(&self) -> Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let temporary = directory.join(format!(".spfs.toml.{}", spfs_repo::unique()));
        let written = self.write(&temporary).and_then(|()| std::fs::rename(&temporary, &self.path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            Error::io("write", &self.path)(error)
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        use io::Write;
        let mut file = std::fs::File::create_new(path)?;
        if let Some(mode) = &self.mode {
            file.set_permissions(mode.clone())?;
        }
        file.write_all(self.document.to_string().as_bytes())?;
        file.sync_all()
    }
}

/// Refuses to make `toml` beside a file in another format, which would then not be read any more.
fn refuse_others(toml: &Path) -> Result<()> {
    for extension in ["json", "yaml", "yml", "ini"] {
        let other = toml.with_extension(extension);
        if other.exists() {
            let what = format!("changing {}", other.display());
            return Err(Error::Unsupported { what, reason: "only spfs.toml is edited; edit it yourself".to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BEFORE: &str = "# mine\n[storage]\nroot = '/big' # the big one\n\n# work\n[remote.work]\naddress = \"file:/w\" # net\nlazy = true\n\n\
                          [remote.old] # gone soon\naddress = 'file:/o'\n\n# last\n[user]\nname = 'me'\n";

    fn user_file(text: &str) -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".config/spfs")).unwrap();
        std::fs::write(home.path().join(".config/spfs/spfs.toml"), text).unwrap();
        let env = Env::bare(home.path());
        (home, env)
    }

    #[test]
    fn only_what_is_asked_for_changes() {
        let (home, env) = user_file(BEFORE);
        let mut file = UserFile::open(&env).unwrap();
        assert!(file.has_remote("work") && !file.has_remote("new"));
        file.set_remote("work", "file:/x").unwrap();
        file.set_remote("new", "grpc://host:1").unwrap();
        assert!(file.remove_remote("old") && !file.remove_remote("old"));
        file.save().unwrap();
        let after = std::fs::read_to_string(home.path().join(".config/spfs/spfs.toml")).unwrap();
        let expected = "# mine\n[storage]\nroot = '/big' # the big one\n\n# work\n[remote.work]\naddress = \"file:/x\" # net\n\n\
                        [remote.new]\naddress = \"grpc://host:1\"\n\n# last\n[user]\nname = 'me'\n";
        assert_eq!(after, expected);
        assert_eq!(std::fs::read_dir(home.path().join(".config/spfs")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_another_format_is_left_alone() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (home, env) = user_file("");
        let (link, target) = (home.path().join(".config/spfs/spfs.toml"), home.path().join("dotfile"));
        std::fs::rename(&link, &target).unwrap();
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&target, &link).unwrap();
        let mut file = UserFile::open(&env).unwrap();
        file.set_remote("a", "/a").unwrap();
        file.save().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "[remote.a]\naddress = \"/a\"\n");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&link).unwrap();
        std::fs::write(link.with_extension("yaml"), "").unwrap();
        assert!(UserFile::open(&env).unwrap_err().to_string().contains("spfs.yaml"));
    }

    #[test]
    fn a_file_that_is_wrong_is_named_with_the_place() {
        let (_home, env) = user_file("[remote.a]\naddress == 3\n");
        assert!(UserFile::open(&env).unwrap_err().to_string().contains("spfs.toml:2:10"), "{:?}", UserFile::open(&env));
    }
}
