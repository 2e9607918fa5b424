//! `spfs config`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use super::Run;
use crate::context::{Context, surroundings};
use crate::errors::Result;
use crate::shared::Json;

/// Print the configuration that is in force, as JSON
///
/// Defaults, files and variables are put together; `spfs help config` says which wins, and what may be set.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  spfs config
  spfs config --origin")]
pub struct Args {
    /// Print one key a line with its value and where that came from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(serde::Serialize)]
struct Setting {
    value: serde_json::Value,
    origin: String,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let (env, config) = surroundings()?;
        let mut out = context.out();
        if !self.origin {
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
