//! `spfs config`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use spfs::config::{Config, Env};

use super::Run;
use crate::context::{Context, surroundings};
use crate::errors::{Result, chain};
use crate::shared::Json;

/// Print the configuration that is in force, and where each value comes from
///
/// Defaults, files and variables are put together; `spfs help config` says which wins, and what may be set. Where
/// standard output is no terminal, the values alone are printed, as JSON.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  spfs config
  spfs config --origin --json
  spfs config check"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Print one key a line with its value and where that came from, wherever it is printed to
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Subcommand)]
enum What {
    /// Look for everything that is wrong or odd in configuration files and variables
    ///
    /// Every file is read to its end, remotes included, but nothing is opened. Ends with 1 if something was found.
    #[command(after_help = "Example:\n  spfs config check")]
    Check {
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Serialize)]
struct Setting {
    value: serde_json::Value,
    origin: String,
}

/// What `spfs config check` found.
#[derive(Serialize)]
struct Report {
    files: Vec<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        if let Some(What::Check { json }) = &self.what {
            return check(context, json);
        }
        let (env, config) = surroundings()?;
        let mut out = context.out();
        let table = self.origin || (std::io::stdout().is_terminal() && !self.json.json);
        if !table {
            out.json(&config.to_json(&env))?;
            return out.finish();
        }
        let settings = config.settings(&env).into_iter().map(|setting| {
            let value = setting.value.map_or(serde_json::Value::Null, |value| value.to_json());
            (setting.key, Setting { value, origin: setting.origin.to_string() })
        });
        let settings: BTreeMap<String, Setting> = settings.collect();
        if self.json.json {
            out.json(&settings)?;
            return out.finish();
        }
        let key_width = settings.keys().map(String::len).max().unwrap_or_default();
        let value_width = settings.values().map(|setting| setting.value.to_string().len()).max().unwrap_or_default();
        for (key, Setting { value, origin }) in &settings {
            // serde_json's numbers and strings do not know about widths.
            let value = value.to_string();
            writeln!(out, "{key:<key_width$}  {value:<width$}  {origin}", width = value_width.min(40))?;
        }
        out.finish()
    }
}

fn check(context: &Context, json: &Json) -> Result<ExitCode> {
    let checked = Config::check(&Env::from_process());
    let said = |error: &spfs::Error| chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let report = Report {
        files: checked.files.iter().map(|file| file.display().to_string()).collect(),
        errors: checked.errors.iter().map(said).collect(),
        warnings: checked.warnings.iter().map(ToString::to_string).collect(),
    };
    let mut out = context.out();
    if json.json {
        out.json(&report)?;
    } else {
        let lines = [("read", &report.files), ("error:", &report.errors), ("warning:", &report.warnings)];
        for (word, texts) in lines {
            texts.iter().try_for_each(|text| writeln!(out, "{word} {text}"))?;
        }
        if report.errors.is_empty() && report.warnings.is_empty() {
            writeln!(out, "No issues found")?;
        }
    }
    out.finish()?;
    Ok(ExitCode::from(u8::from(!report.errors.is_empty() || !report.warnings.is_empty())))
}
