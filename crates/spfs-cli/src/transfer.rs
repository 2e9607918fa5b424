//! The options of every command that moves things between repositories.

use spfs::sync::{Options, Policy};

use crate::progress::Style;
use crate::shared::Count;

// How things are moved; a plain comment, because clap would take a doc comment for the help of the command itself.
#[derive(clap::Args)]
pub struct Transfer {
    /// Ask the remotes first, and bring tags up to date that are there already
    #[arg(long, alias = "pull")]
    sync: bool,
    /// The same, and look below what is there already too, and fill in what is missing
    #[arg(long)]
    check: bool,
    /// The same, and read and compare what is there already too, and replace what is damaged
    #[arg(long)]
    resync: bool,
    /// How many files to move at the same time
    #[arg(long, value_name = "N", env = "SPFS_SYNC_MAX_CONCURRENT_PAYLOADS", hide_env_values = true)]
    max_concurrent_payloads: Option<Count>,
    // Manifests are read with the same threads.
    #[arg(long, hide = true, value_name = "N")]
    max_concurrent_manifests: Option<usize>,
    /// How progress is shown, on standard error: bars are shown on a terminal only
    #[arg(long, value_enum, value_name = "STYLE", default_value_t)]
    pub progress: Style,
}

impl Transfer {
    /// The options of the engine, of which the policy is at least `least`.
    pub fn options(&self, least: Policy) -> Options {
        let policy = match (self.resync, self.check, self.sync) {
            (true, ..) => Policy::Resync,
            (_, true, _) => Policy::Check,
            (.., true) => Policy::LatestTags,
            _ => Policy::MissingOnly,
        };
        let threads = self.max_concurrent_payloads.and_then(|count| count.0).map_or(0, |count| count.clamp(1, 64));
        Options { policy: policy.max(least), threads }
    }
}
