//! What a runtime shows: its view, and the plan of its mounts.

use std::path::{Path, PathBuf};

use spfs_mount::plan::{Bind, Plan, Strategy, Upper};
use spfs_mount::{members, namespace};
use spfs_repo::{Digest, Progress};

use super::images;
use super::record::Record;
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::live::LiveBind;
use crate::render::{self, Options};
use crate::user;
use crate::views::{self, CachedView};
use crate::{Dirs, Spfs};

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
    let lazy = !record.config.lazy.is_empty();
    let bind = |live: &LiveBind| Bind { source: live.src.clone(), target: live.dest.clone() };
    Ok(Plan {
        name: record.name.clone(),
        source: members::source(&record.name, record.config.mark.as_deref()),
        strategies: strategies(spfs, cached, lazy)?,
        view: cached.path.clone(),
        payloads: spfs.local.payload_dir().to_owned(),
        fetch: lazy,
        upper,
        share: None,
        spare: spare(&spfs.dirs, &record.name),
        editable: record.status.editable,
        binds: record.config.live_layers.iter().map(bind).collect(),
    })
}

/// Where the changes of the runtime `name` go on disk, if they must.
pub fn spare(dirs: &Dirs, name: &str) -> Option<PathBuf> {
    Some(dirs.cache.as_ref()?.join("changes").join(name))
}

/// The ways in which the view may be shown, the best first; only one if the configuration names it. What is `lazy` has
/// no files yet to be written out.
fn strategies(spfs: &Spfs, cached: &CachedView, lazy: bool) -> Result<Vec<Strategy>> {
    let privileged = namespace::is_root_of_machine();
    let image = || images::ensure(spfs, &cached.key, &cached.view).map(Strategy::Image);
    let render = || render::view_path(&spfs.local, &user::name(&spfs.env), &cached.view).map(Strategy::Render);
    Ok(match spfs.config.filesystem.backend {
        Backend::Auto => {
            let image = privileged.then(image).flatten();
            let render = if lazy { None } else { render().ok() };
            image.into_iter().chain([Strategy::Server]).chain(render).chain([Strategy::Full]).collect()
        }
        Backend::Image if !privileged => {
            return Err(unusable("only root of the machine, with CAP_SYS_ADMIN, may mount an image"));
        }
        Backend::Image => vec![image().ok_or_else(|| unusable(NO_PLACE))?],
        Backend::Server => vec![Strategy::Server],
        Backend::Render => vec![render()?],
        Backend::Full => vec![Strategy::Full],
    })
}

/// Why there is no image where root may mount one.
const NO_PLACE: &str = "it needs a cache that root alone can write, and not on tmpfs or overlayfs, from which the kernel \
                        mounts no image";

fn unusable(reason: &str) -> Error {
    Error::Unsupported { what: "the backend `image`".to_owned(), reason: reason.to_owned() }
}

/// What writes the view out as plain directories, where it is shown so.
pub fn tree<'a>(
    spfs: &'a Spfs,
    cached: &'a CachedView,
    progress: &'a dyn Progress,
) -> impl Fn(&Path) -> spfs_mount::Result<()> + 'a {
    move |path| {
        let user = user::name(&spfs.env);
        let options = Options {
            strategy: render::Strategy::HardLink,
            allow_existing: false,
            threads: 0,
            user: &user,
            share_payloads: true,
            now: spfs.env.now(),
        };
        render::of_view(&spfs.local, &cached.view, path, &options, progress)
            .map_err(as_mount_error("write the environment out"))
    }
}

/// An error of ours as one of what was mounting meanwhile; for `map_err`.
pub fn as_mount_error(action: &str) -> impl FnOnce(Error) -> spfs_mount::Error {
    let action = action.to_owned();
    move |error| {
        let failure = crate::failure::Failure::of(&error);
        let reason = std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join(": ");
        spfs_mount::Error::System { action, detail: None, source: std::io::Error::other(reason) }
    }
}
