//! What a runtime shows: its view, and the plan of its mounts.

use spfs_mount::namespace;
use spfs_mount::plan::{Bind, Plan, Strategy, Upper};
use spfs_repo::Digest;

use super::images;
use super::record::Record;
use crate::Spfs;
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::live::LiveBind;
use crate::views::{self, CachedView};

/// The merged view of a stack as a record has it, top-most first.
pub fn merged(spfs: &Spfs, stack: &[Digest], live: &[LiveBind]) -> Result<CachedView> {
    let bottom_up: Vec<Digest> = stack.iter().rev().copied().collect();
    views::merged(spfs, &bottom_up, live)
}

/// The mounts of the runtime of `record` over the view `cached`.
pub fn plan(spfs: &Spfs, record: &Record, cached: &CachedView) -> Result<Plan> {
    let upper = match record.config.upper_dir.as_ref().and_then(|upper| upper.parent()) {
        Some(dir) => Upper::Disk { dir: dir.to_owned() },
        None => Upper::Memory { size: record.config.tmpfs_size.clone() },
    };
    let bind = |live: &LiveBind| Bind { source: live.src.clone(), target: live.dest.clone() };
    Ok(Plan {
        name: record.name.clone(),
        strategies: strategies(spfs, cached)?,
        view: cached.path.clone(),
        payloads: spfs.local.payload_dir().to_owned(),
        upper,
        share: None,
        editable: record.status.editable,
        binds: record.config.live_layers.iter().map(bind).collect(),
    })
}

/// The ways in which the view may be shown, the best first; only one if the configuration names it.
fn strategies(spfs: &Spfs, cached: &CachedView) -> Result<Vec<Strategy>> {
    let privileged = namespace::is_privileged();
    let image = || images::ensure(spfs, &cached.key, &cached.view).map(Strategy::Image);
    Ok(match spfs.config.filesystem.backend {
        Backend::Auto => privileged.then(image).flatten().into_iter().chain([Strategy::Server]).collect(),
        Backend::Server => vec![Strategy::Server],
        Backend::Image if !privileged => return Err(unusable("only root, with CAP_SYS_ADMIN, may mount an image")),
        Backend::Image => vec![image().ok_or_else(|| unusable("there is no cache that root alone can write"))?],
    })
}

fn unusable(reason: &str) -> Error {
    Error::Unsupported { what: "the backend `image`".to_owned(), reason: reason.to_owned() }
}
