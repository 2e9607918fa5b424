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

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::Env;
use crate::error::{Error, Result};

/// Where an environment keeps its start-up files.
pub const STARTUP_DIR: &str = "/spfs/etc/spfs/startup.d";

/// What an interactive shell says when it is ready, unless `SPFS_SHELL_MESSAGE` says something else.
pub const DEFAULT_MESSAGE: &str = "* You are now in a configured subshell *";

/// What is to be started.
pub struct ShellRequest<'a> {
    /// The surroundings whose variables the process will have.
    pub env: &'a Env,
    /// The runtime's name.
    pub runtime: &'a str,
    /// The command with its arguments; empty for a shell.
    pub command: &'a [OsString],
    /// A directory of the runtime's own; the files that a shell needs go into a directory below it.
    pub scratch: &'a Path,
}

/// What to start: the files to write first, then the program with its arguments and its changed environment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecPlan {
    /// The program; without a slash it is looked for on the PATH. Also its first argument, its own name.
    pub program: OsString,
    /// The arguments behind the program's own name.
    pub arguments: Vec<OsString>,
    /// Variables to set, or to remove. `SPFS_RUNTIME` is among them.
    pub environment: Vec<(&'static str, Option<OsString>)>,
    /// Files to write, with their content; their directories are to be made, mode 0700.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

/// The shells whose ways we know.
const KNOWN: &str = "bash, sh, dash, zsh, fish, tcsh, csh";

impl ShellRequest<'_> {
    /// For the files of this process alone: a second one may join the same runtime at the same time.
    fn own_scratch(&self) -> PathBuf {
        self.scratch.join(format!("shell-{}", std::process::id()))
    }
}

impl ExecPlan {
    /// Writes the files, for their owner alone.
    pub fn write_files(&self) -> Result<()> {
        for (path, content) in &self.files {
            if let Some(parent) = path.parent() {
                let mut builder = fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
                builder.create(parent).map_err(Error::io("create", parent))?;
            }
            fs::write(path, content).map_err(Error::io("write", path))?;
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
/// To be called inside the environment: that is where the files are. A shell is interactive if standard input and
/// standard error are terminals; otherwise it is started like any command, and reads commands from standard input.
///
/// Errors: there is no shell that we know; the directory cannot be read.
pub fn plan(request: &ShellRequest<'_>, startup_dir: &Path) -> Result<ExecPlan> {
    decide(request, startup_dir, io::stdin().is_terminal() && io::stderr().is_terminal())
}

fn decide(request: &ShellRequest<'_>, startup_dir: &Path, terminal: bool) -> Result<ExecPlan> {
    let var = |name: &str| request.env.var(name);
    let shell = choose(var("SHELL"), var("PATH"));
    let mut plan = match (shell, request.command) {
        (Some(shell), []) if terminal => {
            let sources = sources(startup_dir, shell.kind)?;
            // Here an empty one says something: nothing.
            let message = request.env.vars.get(OsStr::new("SPFS_SHELL_MESSAGE"));
            let message = message.map_or(OsStr::new(DEFAULT_MESSAGE), OsString::as_os_str);
            let script = script::Script { sources: &sources, debug: var("SPFS_DEBUG").is_some(), message };
            interactive(&shell, &script, request)
        }
        (Some(shell), []) => {
            let itself = [shell.path.clone().into_os_string()];
            command(&shell, &itself, startup_dir, request)?
        }
        (Some(shell), words) => command(&shell, words, startup_dir, request)?,
        (None, []) => return Err(Error::NoShell { known: KNOWN }),
        // Without a shell there is nobody who could read start-up files; that is no reason not to run a command.
        (None, words) => directly(words),
    };
    plan.environment.push(("SPFS_RUNTIME", Some(request.runtime.into())));
    Ok(plan)
}

/// A shell on this machine.
struct Shell {
    path: PathBuf,
    kind: Kind,
}

/// `$SHELL` if we know its ways, else the first shell of ours on the PATH or in `/bin`.
fn choose(shell: Option<&OsStr>, path: Option<&OsStr>) -> Option<Shell> {
    let known = ["bash", "sh", "zsh", "dash", "fish", "tcsh", "csh"].map(OsStr::new);
    shell.into_iter().chain(known).find_map(|name| {
        let kind = Kind::of(name)?;
        Some(Shell { path: find_program(name, path)?, kind })
    })
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
fn sources(startup_dir: &Path, kind: Kind) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("list", startup_dir)(error);
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
    let (program, arguments) =
        command.split_first().map(|(program, rest)| (program.clone(), rest.to_vec())).unwrap_or_default();
    ExecPlan { program, arguments, ..ExecPlan::default() }
}

/// A command: directly, or through a shell that reads the start-up files first.
fn command(shell: &Shell, words: &[OsString], startup_dir: &Path, request: &ShellRequest<'_>) -> Result<ExecPlan> {
    let sources = sources(startup_dir, shell.kind)?;
    if sources.is_empty() {
        return Ok(directly(words));
    }
    let debug = request.env.var("SPFS_DEBUG").is_some();
    let script = script::Script { sources: &sources, debug, message: OsStr::new("") };
    let mut plan = ExecPlan { program: shell.path.clone().into_os_string(), ..ExecPlan::default() };
    let with_script = |options: &[&str], text: Vec<u8>| -> Vec<OsString> {
        let options = options.iter().map(OsString::from);
        let text = OsStr::from_bytes(&text).to_owned();
        // What follows the script is `$0`, then the command; fish has no `$0` there.
        let zeroth = (shell.kind != Kind::Fish).then(|| OsString::from("spfs"));
        options.chain([text]).chain(zeroth).chain(words.iter().cloned()).collect()
    };
    plan.arguments = match shell.kind {
        // --posix is how bash is kept from reading $BASH_ENV; the script's first line ends it.
        Kind::Bash => with_script(&["--posix", "-c"], script.bash_command()),
        Kind::Sh => with_script(&["-c"], script.sh_command()),
        Kind::Zsh => with_script(&["-f", "-c"], script.zsh_command()),
        Kind::Fish => with_script(&["--no-config", "-c"], script.fish_command()),
        Kind::Csh => {
            // `$argv:q` of csh drops empty arguments, so the command goes around it, in a file for sh.
            let sh = request.own_scratch().join("command.sh");
            let csh = request.own_scratch().join("startup.csh");
            plan.files = vec![(sh.clone(), script::exec_words(words)), (csh.clone(), script.csh_command(&sh))];
            vec![OsString::from("-f"), csh.into_os_string()]
        }
    };
    Ok(plan)
}

/// A shell for a person: it reads the person's files as always, then those of the environment.
fn interactive(shell: &Shell, script: &script::Script<'_>, request: &ShellRequest<'_>) -> ExecPlan {
    let var = |name: &str| request.env.var(name);
    let scratch = request.own_scratch();
    let file = |name: &str| scratch.join(name);
    let mut plan = ExecPlan { program: shell.path.clone().into_os_string(), ..ExecPlan::default() };
    match shell.kind {
        Kind::Bash => {
            plan.files = vec![(file("bashrc"), script.bash_interactive())];
            plan.arguments = vec!["--init-file".into(), file("bashrc").into_os_string()];
        }
        Kind::Sh => {
            plan.files = vec![(file("shrc"), script.sh_interactive(var("ENV")))];
            plan.environment = vec![("ENV", Some(file("shrc").into_os_string()))];
        }
        Kind::Zsh => {
            let (zshenv, zshrc) = script.zsh_interactive(var("ZDOTDIR"), &scratch);
            plan.files = vec![(file(".zshenv"), zshenv), (file(".zshrc"), zshrc)];
            plan.environment = vec![("ZDOTDIR", Some(scratch.into_os_string()))];
        }
        Kind::Csh => {
            // csh finds its file through HOME alone; the file gives HOME back before anything else.
            plan.files = vec![(file(".cshrc"), script.csh_interactive(var("HOME")))];
            plan.environment = vec![("HOME", Some(scratch.into_os_string()))];
        }
        Kind::Fish => {
            plan.arguments = vec!["-C".into(), OsStr::from_bytes(&script.fish_interactive()).to_owned()];
        }
    }
    plan
}
