//! Spec files: which kind one is, and where in it something stands.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;
use spfs_repo::reference::Reference;

use crate::error::{Error, Place, Result};
use crate::live::{self, LiveBind};
use crate::run_spec;

/// The name of the spec file that a directory stands for.
const IN_DIRECTORY: &str = "layer.spfs.yaml";
/// How the name of every spec file ends.
const SUFFIX: &str = ".spfs.yaml";
/// Spec files are small; this keeps a wrong path from being read into memory.
const MOST_BYTES: u64 = 1 << 20;

/// What a spec file says.
pub(crate) enum SpecFile {
    /// Files and directories to mount.
    Live(Vec<LiveBind>),
    /// References, bottom-most first, with their places.
    Run(Vec<(Reference, Place)>),
}

#[derive(Deserialize)]
struct Head {
    api: Option<Spanned<String>>,
}

/// The spec file that `path` means: itself, or the `layer.spfs.yaml` in that directory; absolute, without symlinks.
pub(crate) fn locate(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join(IN_DIRECTORY) } else { path.to_owned() };
    if !file.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
        let reason = format!("a spec file's name ends in {SUFFIX}, or it is a directory with a {IN_DIRECTORY}");
        return Err(Error::invalid("spec file", path.display().to_string(), reason));
    }
    // Only the directory: bind sources are relative to where the file was named, also through a symlink.
    let (parent, name) = (file.parent().unwrap_or(Path::new("/")), file.file_name().unwrap_or_default());
    let parent = std::fs::canonicalize(parent).map_err(Error::io("open", &file))?;
    Ok(parent.join(name))
}

/// Reads the spec file at `file`.
pub(crate) fn read(file: &Path) -> Result<SpecFile> {
    let metadata = std::fs::metadata(file).map_err(Error::io("open", file))?;
    if !metadata.is_file() {
        return Err(wrong("spec file", Place::whole(file), "it is not a regular file".to_owned()));
    }
    let length = metadata.len();
    if length > MOST_BYTES {
        return Err(wrong("spec file", Place::whole(file), "it is larger than 1 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
    let head: Head = crate::yaml::parse("spec file", file, &text)?;
    let Some(api) = head.api else {
        let reason = "it has no 'api'; write 'api: spfs/v0/livelayer' or 'api: spfs/v0/runspec'";
        return Err(wrong("spec file", Place::whole(file), reason.to_owned()));
    };
    match api.value.as_str() {
        "spfs/v0/livelayer" | "v0/livelayer" | "v0/layer" => live::parse(file, &text).map(SpecFile::Live),
        "spfs/v0/runspec" | "v0/runspec" => run_spec::parse(file, &text).map(SpecFile::Run),
        other => {
            let reason = format!("unknown api {other:?}; spfs/v0/livelayer and spfs/v0/runspec are known");
            Err(wrong("spec file", place_of(file, &api), reason))
        }
    }
}

/// Where in `file` a value stands.
pub(crate) fn place_of<T>(file: &Path, value: &Spanned<T>) -> Place {
    let location = value.referenced;
    Place::at(file, location.line(), location.column())
}

/// An [`Error::SpecFile`].
pub(crate) fn wrong(what: &'static str, place: Place, reason: String) -> Error {
    Error::SpecFile { what, place, reason }
}
