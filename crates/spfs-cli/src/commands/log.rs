//! `spfs log`.

use std::io::Write;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use spfs::repo::TagSpec;
use spfs::tags;

use super::Run;
use crate::complete;
use crate::context::Context;
use crate::errors::Result;
use crate::repository::Choice;
use crate::shared::Json;

/// Show what a tag has meant, newest first
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs log my-layer")]
pub struct Args {
    /// The tag
    #[arg(add = complete::reference())]
    tag: TagSpec,
    #[command(flatten)]
    repository: Choice,
    #[command(flatten)]
    json: Json,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let spfs = context.spfs()?;
        let repository = self.repository.open(spfs)?;
        let mut versions = tags::log(&*repository, &self.tag.name)?;
        versions.retain(|version| version.tag.version >= self.tag.version);
        let mut out = context.out();
        if self.json.json {
            out.json(&versions)?;
        } else {
            let zone = TimeZone::system();
            for version in &versions {
                let time = version.time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f %:z").to_string();
                let (target, user) = (version.target.short(10), out.name(&version.user).into_owned());
                writeln!(out, "{target} {} {user} {time}", version.tag)?;
            }
        }
        out.finish()
    }
}
