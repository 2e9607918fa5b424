//! The few lines of script that make each shell read an environment's start-up files.
//!
//! Everything that varies (paths, values) is quoted into the text, so nothing of ours stays in the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a script does.
pub struct Script<'a> {
    /// The files to read, in order.
    pub sources: &'a [PathBuf],
    /// Whether to name each on standard error.
    pub debug: bool,
    /// What to say on standard error in the end; nothing if empty.
    pub message: &'a OsStr,
}

impl Script<'_> {
    pub fn bash_command(&self) -> Vec<u8> {
        lines([b"set +o posix".to_vec(), self.posix(), b"exec -- \"$@\"".to_vec()])
    }

    pub fn sh_command(&self) -> Vec<u8> {
        // No `--`: dash would run a program of that name.
        lines([self.posix(), b"exec \"$@\"".to_vec()])
    }

    pub fn zsh_command(&self) -> Vec<u8> {
        lines([self.posix(), b"exec -- \"$@\"".to_vec()])
    }

    pub fn fish_command(&self) -> Vec<u8> {
        // `command -s` finds the program, where a plain exec would also run a function or a builtin of that name.
        let find = br#"set -l __spfs_program (command -s -- $argv[1])
if test -z "$__spfs_program"
    echo "spfs: $argv[1]: command not found" >&2
    exit 127
end
set -e argv[1]
exec $__spfs_program $argv"#;
        lines([self.fish(), find.to_vec()])
    }

    /// For csh, the last line of which runs the file `sh` with sh.
    pub fn csh_command(&self, sh: &Path) -> Vec<u8> {
        lines([self.csh(), [b"exec /bin/sh ", &csh_quoted(sh.as_os_str())[..]].concat()])
    }

    /// For `bash --init-file`, which bash reads instead of `~/.bashrc` and after the system's file.
    pub fn bash_interactive(&self) -> Vec<u8> {
        lines([b"if [ -r ~/.bashrc ]; then . ~/.bashrc; fi".to_vec(), self.posix(), self.posix_message()])
    }

    /// For the file that `ENV` names, which sh reads when it is interactive; `original` is what it named before.
    pub fn sh_interactive(&self, original: Option<&OsStr>) -> Vec<u8> {
        let restore = match original {
            // POSIX has `$ENV` expanded once more before the file is opened.
            Some(value) => lines([
                [b"ENV=", &sh_quoted(value)[..]].concat(),
                br#"eval "__spfs_env=\"$ENV\"""#.to_vec(),
                br#"if [ -r "$__spfs_env" ]; then . "$__spfs_env"; fi; unset __spfs_env"#.to_vec(),
            ]),
            None => b"unset ENV".to_vec(),
        };
        lines([restore, self.posix(), self.posix_message()])
    }

    /// For `.zshenv` and `.zshrc` in the directory `ours`, to which `ZDOTDIR` points; `original` is where it pointed.
    pub fn zsh_interactive(&self, original: Option<&OsStr>, ours: &Path) -> (Vec<u8>, Vec<u8>) {
        let restore = match original {
            Some(value) => [b"export ZDOTDIR=", &sh_quoted(value)[..]].concat(),
            None => b"unset ZDOTDIR".to_vec(),
        };
        let user =
            |name: &str| format!("if [[ -r ${{ZDOTDIR:-$HOME}}/{name} ]]; then . ${{ZDOTDIR:-$HOME}}/{name}; fi");
        // The user's .zshenv may move ZDOTDIR; that is kept for the .zshrc, while ours has to be found first.
        let zshenv = lines([
            restore,
            user(".zshenv").into_bytes(),
            b"typeset -g __spfs_zdotdir=${ZDOTDIR-} __spfs_zdotdir_set=${+ZDOTDIR}".to_vec(),
            [b"ZDOTDIR=", &sh_quoted(ours.as_os_str())[..]].concat(),
        ]);
        let back = b"if (( __spfs_zdotdir_set )); then export ZDOTDIR=$__spfs_zdotdir; else unset ZDOTDIR; fi
unset __spfs_zdotdir __spfs_zdotdir_set";
        let zshrc = lines([back.to_vec(), user(".zshrc").into_bytes(), self.posix(), self.posix_message()]);
        (zshenv, zshrc)
    }

    /// For `.cshrc` in the directory to which `HOME` points; `original` is what `HOME` was.
    pub fn csh_interactive(&self, original: Option<&OsStr>) -> Vec<u8> {
        let restore = match original {
            Some(home) => {
                let home = csh_quoted(home);
                lines([[b"setenv HOME ", &home[..]].concat(), [b"set home=", &home[..]].concat()])
            }
            None => b"unsetenv HOME\nunset home".to_vec(),
        };
        let user = b"if ($?home) then
    if ($?tcsh && -r \"$home/.tcshrc\") then
        source \"$home/.tcshrc\"
    else if (-r \"$home/.cshrc\") then
        source \"$home/.cshrc\"
    endif
endif";
        let message = match self.message.is_empty() {
            true => Vec::new(),
            // csh itself cannot write to standard error alone.
            false => [b"/bin/sh -c 'printf \"%s\\n\" \"$1\" >&2' sh ", &csh_quoted(self.message)[..]].concat(),
        };
        lines([restore, user.to_vec(), self.csh(), message])
    }

    /// For `fish -C`, which fish runs after its own files.
    pub fn fish_interactive(&self) -> Vec<u8> {
        let message = match self.message.is_empty() {
            true => Vec::new(),
            false => [b"printf '%s\\n' ", &fish_quoted(self.message)[..], b" >&2"].concat(),
        };
        lines([self.fish(), message])
    }

    fn posix(&self) -> Vec<u8> {
        self.each(sh_quoted, b". ", b"echo source ", b" >&2")
    }

    fn posix_message(&self) -> Vec<u8> {
        match self.message.is_empty() {
            true => Vec::new(),
            false => [b"printf '%s\\n' ", &sh_quoted(self.message)[..], b" >&2"].concat(),
        }
    }

    fn fish(&self) -> Vec<u8> {
        self.each(fish_quoted, b"source ", b"echo source ", b" >&2")
    }

    fn csh(&self) -> Vec<u8> {
        self.each(csh_quoted, b"source ", b"/bin/sh -c 'echo source \"$1\" >&2' sh ", b"")
    }

    /// One line a file, and one before it that names it if that is wanted.
    fn each(&self, quoted: fn(&OsStr) -> Vec<u8>, read: &[u8], echo: &[u8], echo_end: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for source in self.sources {
            let path = quoted(source.as_os_str());
            if self.debug {
                lines.push([echo, &path, echo_end].concat());
            }
            lines.push([read, &path].concat());
        }
        lines.join(&b'\n')
    }
}

/// A script for sh that becomes the program `words`.
pub fn exec_words(words: &[OsString]) -> Vec<u8> {
    let mut line = b"exec".to_vec();
    for word in words {
        line.push(b' ');
        line.extend(sh_quoted(word));
    }
    line.push(b'\n');
    line
}

/// The pieces that are not empty, each on its own line.
fn lines<const N: usize>(pieces: [Vec<u8>; N]) -> Vec<u8> {
    let mut text: Vec<u8> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(&b'\n');
    text.push(b'\n');
    text
}

/// `word` for sh, bash and zsh.
fn sh_quoted(word: &OsStr) -> Vec<u8> {
    quoted(word, &[(b'\'', br"'\''")])
}

/// `word` for csh, where quotes stop neither history (`!`) nor the end of the line.
fn csh_quoted(word: &OsStr) -> Vec<u8> {
    quoted(word, &[(b'\'', br"'\''"), (b'!', br"\!"), (b'\n', b"\\\n")])
}

/// `word` for fish.
fn fish_quoted(word: &OsStr) -> Vec<u8> {
    quoted(word, &[(b'\'', br"\'"), (b'\\', br"\\")])
}

/// `word` in single quotes, with some bytes written in another way.
fn quoted(word: &OsStr, special: &[(u8, &[u8])]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for &byte in word.as_bytes() {
        match special.iter().find(|(plain, _)| *plain == byte) {
            Some((_, written)) => text.extend_from_slice(written),
            None => text.push(byte),
        }
    }
    text.push(b'\'');
    text
}
