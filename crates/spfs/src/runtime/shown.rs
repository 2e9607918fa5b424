//! What a runtime shows: its views, and the plan of its mounts.

use spfs_mount::namespace;
use spfs_mount::plan::{Bind, Plan, Strategy, Upper};
use spfs_mount::view::View;
use spfs_repo::{Digest, ObjectBody, Repository};

use super::images;
use super::record::Record;
use crate::Spfs;
use crate::error::{Error, Result};
use crate::live::LiveBind;

/// A view in the cache.
pub struct Cached {
    /// The view.
    pub view: View,
    /// Its file.
    pub path: std::path::PathBuf,
    /// What it is called in the cache.
    pub key: String,
}

/// The merged view of a stack, top-most first.
pub fn merged(spfs: &Spfs, stack: &[Digest], _live: &[LiveBind]) -> Result<Cached> {
    let mut views = Vec::new();
    for digest in stack.iter().rev() {
        collect(spfs, digest, &mut views)?;
    }
    let refs: Vec<&View> = views.iter().collect();
    let bytes = spfs_mount::view::merge(&refs)?;
    let key = Digest::of(&bytes).short(20);
    let path = spfs.dirs.cache_sub("views").ok_or(Error::NoRuntime)?.join(&key);
    spfs_mount::view::write(&path, &bytes, &spfs.env.boot_id)?;
    Ok(Cached { view: View::open(&path, &spfs.env.boot_id)?, path, key })
}
fn collect(spfs: &Spfs, digest: &Digest, out: &mut Vec<View>) -> Result<()> {
    match spfs.local.read_object(digest)?.body {
        ObjectBody::Platform(p) => {
            for d in &p.stack {
                collect(spfs, d, out)?;
            }
        }
        ObjectBody::Layer(l) => {
            if l.manifest.is_some() {
                out.push(layer(spfs, digest)?)
            }
        }
        _ => {}
    }
    Ok(())
}
/// The view of one layer, with its masks.
pub fn layer(spfs: &Spfs, digest: &Digest) -> Result<View> {
    let ObjectBody::Layer(l) = spfs.local.read_object(digest)?.body else { return Err(Error::NoRuntime) };
    let ObjectBody::Manifest(m) = spfs.local.read_object(&l.manifest.unwrap_or(Digest::NULL))?.body else {
        return Err(Error::NoRuntime);
    };
    let bytes = spfs_mount::view::build_manifest(&m, |d| {
        let mut v = Vec::new();
        let _ = spfs.local.open_payload(d)?.read_to_end(&mut v);
        Ok(v)
    })?;
    Ok(View::from_bytes(bytes)?)
}

/// The mounts of the runtime of `record` over the view `cached`.
pub fn plan(spfs: &Spfs, record: &Record, cached: &Cached) -> Result<Plan> {
    let image = if namespace::is_privileged() { images::ensure(spfs, &cached.key, &cached.view) } else { None };
    let upper = match record.config.upper_dir.as_ref().and_then(|upper| upper.parent()) {
        Some(dir) => Upper::Disk { dir: dir.to_owned() },
        None => Upper::Memory { size: record.config.tmpfs_size.clone() },
    };
    let bind = |live: &LiveBind| Bind { source: live.src.clone(), target: live.dest.clone() };
    Ok(Plan {
        name: record.name.clone(),
        strategy: image.map_or(Strategy::Server, Strategy::Image),
        view: cached.path.clone(),
        payloads: spfs.local.payload_dir().to_owned(),
        upper,
        editable: record.status.editable,
        binds: record.config.live_layers.iter().map(bind).collect(),
    })
}
