//! How a program or an interactive shell is started inside an environment: which program, with what, reading what.
//!
//! The start-up files of an environment are in [`STARTUP_DIR`]: `*.sh` for bash, sh and zsh, `*.csh` for tcsh and csh,
//! `*.fish` for fish, read in the order of their names. A command with none to read is started directly. With some,
//! a shell reads them and then becomes the command; the user's own start-up files are not read. An interactive shell
//! reads the user's files as it always does, then those of the environment.
//!
//! [`plan`] only looks: at the directory, and for the shell. The caller writes the files and replaces itself.

mod script;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{Access, access};

/// Where an environment keeps its start-up files.
pub const STARTUP_DIR: &str = "/spfs/etc/spfs/startup.d";

/// What an interactive shell says when it is ready, unless `SPFS_SHELL_MESSAGE` says something else.
pub const DEFAULT_MESSAGE: &str = "* You are now in a configured subshell *";

/// What is to be started, and in which circumstances.
pub struct ShellRequest<'a> {
    /// The command with its arguments; empty for a shell.
    pub command: &'a [OsString],
    /// Whether a person sits in front: standard input and standard error are terminals. A shell without a person is
    /// started like any command, and reads its commands from standard input.
    pub terminal: bool,
    /// The environment variables that the process will have.
    pub vars: &'a BTreeMap<OsString, OsString>,
    /// A directory of this start's own, for the files that a shell needs; it need not exist.
    pub scratch: &'a Path,
}

/// What to start: the files to write first, the environment to change, then program and arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecPlan {
    /// The program; without a slash it is looked for on the PATH.
    pub program: OsString,
    /// All arguments, the program's own name first.
    pub argv: Vec<OsString>,
    /// Variables to set, or to remove.
    pub env: Vec<(&'static str, Option<OsString>)>,
    /// Files to write, with their content; their directories are to be made, mode 0700.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// There is no shell that we know.
    #[error("found no shell: SHELL names none of {KNOWN}, and none of them is on the PATH or in /bin")]
    NoShell,
    /// The directory of the start-up files cannot be read, or a file of ours cannot be written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

const KNOWN: &str = "bash, sh, dash, zsh, fish, tcsh, csh";

impl ExecPlan {
    /// Writes the files, for their owner alone.
    pub fn write_files(&self) -> Result<(), ShellError> {
        for (path, content) in &self.files {
            let failed = |action| move |source| ShellError::Io { action, path: path.clone(), source };
            if let Some(parent) = path.parent() {
                let mut builder = fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
                builder.create(parent).map_err(failed("make the directory of"))?;
            }
            fs::write(path, content).map_err(failed("write"))?;
        }
        Ok(())
    }
}

/// The ways of shells: which start-up files they read, and how they are told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bash,
    Sh,
    Zsh,
    Csh,
    Fish,
}

impl Kind {
    /// By the name of the program.
    fn of(program: &OsStr) -> Option<Kind> {
        match Path::new(program).file_name()?.to_str()? {
            "bash" => Some(Kind::Bash),
            "sh" | "dash" | "ash" => Some(Kind::Sh),
            "zsh" => Some(Kind::Zsh),
            "tcsh" | "csh" => Some(Kind::Csh),
            "fish" => Some(Kind::Fish),
            _ => None,
        }
    }

    /// What the names of its start-up files end in.
    fn suffix(self) -> &'static str {
        match self {
            Kind::Bash | Kind::Sh | Kind::Zsh => ".sh",
            Kind::Csh => ".csh",
            Kind::Fish => ".fish",
        }
    }
}

/// Decides what to start for `request`, in an environment whose start-up files are in `startup_dir`.
///
/// To be called inside the environment: that is where the files are.
pub fn plan(request: &ShellRequest<'_>, startup_dir: &Path) -> Result<ExecPlan, ShellError> {
    let var = |name: &str| request.vars.get(OsStr::new(name)).cloned();
    if request.command.is_empty() {
        let shell = choose(var("SHELL"), var("PATH"))?;
        if request.terminal {
            let sources = sources(startup_dir, shell.kind)?;
            let message = var("SPFS_SHELL_MESSAGE").unwrap_or_else(|| DEFAULT_MESSAGE.into());
            let script = script::Script { sources: &sources, debug: var("SPFS_DEBUG").is_some(), message: &message };
            return Ok(interactive(&shell, &script, request));
        }
        let itself = [shell.path.clone().into_os_string()];
        return command(&shell, &itself, startup_dir, request);
    }
    match choose(var("SHELL"), var("PATH")) {
        Ok(shell) => command(&shell, request.command, startup_dir, request),
        // Without a shell there is nobody who could read start-up files; that is no reason not to run a command.
        Err(ShellError::NoShell) => Ok(directly(request.command)),
        Err(error) => Err(error),
    }
}

/// A shell on this machine.
struct Shell {
    path: PathBuf,
    kind: Kind,
}

/// `$SHELL` if we know its ways, else the first shell of ours on the PATH or in `/bin`.
fn choose(shell: Option<OsString>, path: Option<OsString>) -> Result<Shell, ShellError> {
    let known = ["bash", "sh", "zsh", "dash", "fish", "tcsh", "csh"].map(OsString::from);
    let wanted = shell.filter(|shell| !shell.is_empty());
    wanted
        .into_iter()
        .chain(known)
        .find_map(|name| {
            let kind = Kind::of(&name)?;
            Some(Shell { path: find_program(&name, path.as_deref())?, kind })
        })
        .ok_or(ShellError::NoShell)
}

fn find_program(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let runs = |candidate: &PathBuf| candidate.is_file() && access(candidate, Access::EXEC_OK).is_ok();
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(runs);
    }
    let places = std::env::split_paths(path.unwrap_or_default()).filter(|place| place.is_absolute());
    places.chain([PathBuf::from("/bin"), PathBuf::from("/usr/bin")]).map(|place| place.join(name)).find(runs)
}

/// The start-up files for a shell, in the order of their names (by byte, whatever the locale).
fn sources(startup_dir: &Path, kind: Kind) -> Result<Vec<PathBuf>, ShellError> {
    let failed = |source| ShellError::Io { action: "read the directory", path: startup_dir.to_owned(), source };
    let entries = match fs::read_dir(startup_dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // As a shell's `*.sh` would: no hidden files.
        if name.as_bytes().ends_with(kind.suffix().as_bytes()) && !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| startup_dir.join(name)).filter(|path| path.is_file()).collect())
}

/// No shell at all.
fn directly(command: &[OsString]) -> ExecPlan {
    ExecPlan { program: command.first().cloned().unwrap_or_default(), argv: command.to_vec(), ..ExecPlan::default() }
}

/// A command: directly, or through a shell that reads the start-up files first.
fn command(
    shell: &Shell,
    words: &[OsString],
    startup_dir: &Path,
    request: &ShellRequest<'_>,
) -> Result<ExecPlan, ShellError> {
    let sources = sources(startup_dir, shell.kind)?;
    if sources.is_empty() {
        return Ok(directly(words));
    }
    let debug = request.vars.contains_key(OsStr::new("SPFS_DEBUG"));
    let script = script::Script { sources: &sources, debug, message: OsStr::new("") };
    let mut plan = ExecPlan { program: shell.path.clone().into_os_string(), ..ExecPlan::default() };
    let with_script = |options: &[&str], text: Vec<u8>| -> Vec<OsString> {
        let options = options.iter().map(OsString::from);
        let text = OsStr::from_bytes(&text).to_owned();
        // What follows the script is `$0`, then the command; fish has no `$0` there.
        let zeroth = (shell.kind != Kind::Fish).then(|| OsString::from("spfs"));
        options.chain([text]).chain(zeroth).chain(words.iter().cloned()).collect()
    };
    let arguments = match shell.kind {
        // --posix is how bash is kept from reading $BASH_ENV; the script's first line ends it.
        Kind::Bash => with_script(&["--posix", "-c"], script.bash_command()),
        Kind::Sh => with_script(&["-c"], script.sh_command()),
        Kind::Zsh => with_script(&["-f", "-c"], script.zsh_command()),
        Kind::Fish => with_script(&["--no-config", "-c"], script.fish_command()),
        Kind::Csh => {
            // `$argv:q` of csh drops empty arguments, so the command goes around it, in a file for sh.
            let sh = request.scratch.join("command.sh");
            let csh = request.scratch.join("startup.csh");
            plan.files = vec![(sh.clone(), script::exec_words(words)), (csh.clone(), script.csh_command(&sh))];
            vec![OsString::from("-f"), csh.into_os_string()]
        }
    };
    plan.argv = std::iter::once(plan.program.clone()).chain(arguments).collect();
    Ok(plan)
}

/// A shell for a person: it reads the person's files as always, then those of the environment.
fn interactive(shell: &Shell, script: &script::Script<'_>, request: &ShellRequest<'_>) -> ExecPlan {
    let var = |name: &str| request.vars.get(OsStr::new(name)).map(OsString::as_os_str);
    let file = |name: &str| request.scratch.join(name);
    let scratch = || Some(request.scratch.as_os_str().to_owned());
    let mut plan = ExecPlan { program: shell.path.clone().into_os_string(), ..ExecPlan::default() };
    let mut arguments: Vec<OsString> = Vec::new();
    match shell.kind {
        Kind::Bash => {
            plan.files = vec![(file("bashrc"), script.bash_interactive())];
            arguments = vec!["--init-file".into(), file("bashrc").into_os_string()];
        }
        Kind::Sh => {
            plan.files = vec![(file("shrc"), script.sh_interactive(var("ENV")))];
            plan.env = vec![("ENV", Some(file("shrc").into_os_string()))];
        }
        Kind::Zsh => {
            let (zshenv, zshrc) = script.zsh_interactive(var("ZDOTDIR"), request.scratch);
            plan.files = vec![(file(".zshenv"), zshenv), (file(".zshrc"), zshrc)];
            plan.env = vec![("ZDOTDIR", scratch())];
        }
        Kind::Csh => {
            // csh finds its file through HOME alone; the file gives HOME back before anything else.
            plan.files = vec![(file(".cshrc"), script.csh_interactive(var("HOME")))];
            plan.env = vec![("HOME", scratch())];
        }
        Kind::Fish => {
            arguments = vec!["-C".into(), OsStr::from_bytes(&script.fish_interactive()).to_owned()];
        }
    }
    plan.argv = std::iter::once(plan.program.clone()).chain(arguments).collect();
    plan
}
