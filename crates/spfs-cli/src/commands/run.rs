//! `spfs run`, and what it has in common with `spfs shell`.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use spfs::config::Backend;
use spfs::resolve::{Fetch, resolve_with};
use spfs::runtime::{self, Origin, StartRequest};
use spfs::sync::Policy;
use spfs::{EnvSpec, Spfs, annotation};

use super::Run;
use crate::context::Context;
use crate::environment::Environment;
use crate::errors::{Failure, Result, warn};
use crate::progress::{Bar, Late};

/// Run a program in an environment
///
/// /spfs shows the environment to the program and to everything that it starts, and to nobody else. spfs becomes the
/// program: same process, same exit status, and nothing between it and the terminal.
///
/// An environment of something that exists is read-only unless --edit is given; the empty one is not.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs run my-layer -- ls /spfs
  spfs run base+tools -- make -C /src
  spfs run - -- sh -c 'echo hi > /spfs/f; spfs commit layer -t f'
  spfs run --rerun work -- ls /spfs")]
pub struct Args {
    #[command(flatten)]
    environment: Environment,
    /// The program and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        enter(context, &self.environment, &self.command)
    }
}

/// Becomes `command`, or a shell if it is empty, in an environment. Returns only if that fails.
pub fn enter(context: &Context, environment: &Environment, command: &[OsString]) -> Result<ExitCode> {
    let mut spfs = context.open()?;
    if let Some(backend) = environment.backend {
        spfs.config.filesystem.backend = backend;
    }
    let origin = origin(context, &spfs, environment)?;
    let keep_unnamed = matches!(&origin, Origin::Stack { durable: true, name: None, .. });
    let now = spfs.env.now();
    let request = StartRequest { origin, editable: environment.editable(), command: command.to_vec(), now };
    let prepared = runtime::prepare(spfs, request)?;
    if keep_unnamed {
        let name = prepared.name();
        warn(&format!(
            "this runtime is kept under the name {name}; `spfs runtime rm --remove-durable {name}` removes it"
        ));
    }
    context.detail(prepared.plan());
    let entered = {
        let bar = Late::new("writing files", environment.transfer.progress);
        prepared.enter(&bar)?
    };
    for remark in &entered.remarks {
        warn(remark);
    }
    Err(not_started(entered.exec(command)))
}

/// What to start from: the saved runtime, or the stack that REF means, with the annotations on top.
fn origin(context: &Context, spfs: &Spfs, environment: &Environment) -> Result<Origin> {
    let Some(reference) = &environment.reference else {
        let name = environment.rerun.clone().unwrap_or_default();
        return Ok(Origin::Saved { name, force: environment.force });
    };
    let bar = Bar::new("pulling", environment.transfer.progress);
    let fetch = Fetch {
        from: environment.remote.as_deref(),
        options: environment.transfer.options(Policy::MissingOnly),
        lazy: is_lazy(context, spfs, environment),
        progress: &bar,
    };
    let mut stack = resolve_with(spfs, &reference.parse::<EnvSpec>()?, Some(&fetch))?;
    drop(bar);
    stack.remarks.iter().for_each(|remark| context.remark(remark));
    for warning in &stack.warnings {
        warn(&warning.to_string());
    }
    let (files, options) = (&environment.annotation_file, &environment.annotation);
    let pairs = annotation::collect(files, options, &mut std::io::stdin().lock())?;
    for layer in annotation::store(spfs, &pairs)? {
        stack.push(layer);
    }
    Ok(Origin::Stack {
        stack: stack.digests,
        live: stack.live,
        name: environment.runtime_name.clone(),
        durable: environment.keep_runtime,
        lazy: stack.lazy,
    })
}

/// Whether files may stay in their remote until they are opened.
fn is_lazy(context: &Context, spfs: &Spfs, environment: &Environment) -> bool {
    let lazy = environment.lazy().unwrap_or(spfs.config.filesystem.lazy);
    if lazy && spfs.config.filesystem.backend == Backend::Render {
        context.remark("the backend `render` needs every file, so all of them are fetched now");
        return false;
    }
    lazy
}

/// A command that cannot be started ends us as it would end a shell: 127 if there is none, 126 if it cannot be run.
pub fn not_started(error: spfs::Error) -> Failure {
    let code = match &error {
        spfs::Error::Exec { source, .. } if source.kind() == ErrorKind::NotFound => 127,
        spfs::Error::Exec { .. } => 126,
        _ => 1,
    };
    Failure::from(error).code(code)
}
