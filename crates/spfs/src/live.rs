//! Live layers: files and directories of the host that are mounted over the view, not committed.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::error::{Error, Result};
use crate::spec_file::{place_of, wrong};

/// What a live-layer file is called in errors.
pub(crate) const WHAT: &str = "live layer";

/// A file or directory of the host that is mounted over the view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LiveBind {
    /// The file or directory on the host: absolute, without symlinks.
    #[serde(with = "crate::json_path")]
    pub src: PathBuf,
    /// Where it goes, relative to `/spfs`.
    #[serde(with = "crate::json_path")]
    pub dest: PathBuf,
}

/// The file as written (`docs/format.md`, live layers).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LiveLayer {
    #[serde(rename = "api")]
    _api: String,
    contents: Vec<Content>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(alias = "src")]
    bind: Spanned<String>,
    dest: Spanned<String>,
}

/// Reads the text of the live layer at `file`, which must be in its place: its sources are looked at.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<LiveBind>> {
    let layer: LiveLayer = crate::yaml::parse(WHAT, file, text)?;
    let parent = file.parent().unwrap_or(Path::new("/"));
    let dir = std::fs::canonicalize(parent).map_err(Error::io("find", parent))?;
    layer.contents.into_iter().map(|content| bind(file, &dir, &content)).collect()
}

fn bind(file: &Path, dir: &Path, content: &Content) -> Result<LiveBind> {
    let source = dir.join(&content.bind.value);
    let at_source = |reason: String| wrong(WHAT, place_of(file, &content.bind), reason);
    let src =
        std::fs::canonicalize(&source).map_err(|e| at_source(format!("{} cannot be used: {e}", source.display())))?;
    if !src.starts_with(dir) {
        return Err(at_source(format!("{} is not below {}", src.display(), dir.display())));
    }
    let dest = destination(&content.dest.value).map_err(|reason| {
        wrong(WHAT, place_of(file, &content.dest), format!("dest {:?}: {reason}", content.dest.value))
    })?;
    Ok(LiveBind { src, dest })
}

/// The path below `/spfs` that `text` names, with or without `/spfs/` before it.
fn destination(text: &str) -> Result<PathBuf, &'static str> {
    let relative = text.strip_prefix("/spfs").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(text);
    let relative = if relative.len() < text.len() { relative.trim_start_matches('/') } else { relative };
    let mut dest = PathBuf::new();
    for component in Path::new(relative).components() {
        match component {
            Component::Normal(name) if !name.as_encoded_bytes().contains(&0) => dest.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("'..' is not allowed"),
            _ => return Err("it is not below /spfs"),
        }
    }
    if dest.as_os_str().is_empty() {
        return Err("it is /spfs itself");
    }
    Ok(dest)
}

/// Makes sure that each of `binds`, which are mounted in order, will find its mount point: what an earlier one covers
/// is no longer the view, so there the host must have the place.
pub(crate) fn check(binds: &[LiveBind]) -> Result<()> {
    for (number, bind) in binds.iter().enumerate() {
        let is_above = |earlier: &&LiveBind| earlier.dest != bind.dest && earlier.dest.starts_with(&bind.dest);
        if let Some(earlier) = binds[..number].iter().find(is_above).filter(|_| !bind.src.is_dir()) {
            let (dest, inner) = (bind.dest.display(), earlier.dest.display());
            let reason = format!("{} is a file, and /spfs/{inner} is mounted below it", bind.src.display());
            return Err(Error::invalid(WHAT, format!("/spfs/{dest}"), reason));
        }
        let covering = binds[..number].iter().rev().find(|earlier| bind.dest.starts_with(&earlier.dest));
        let Some(earlier) = covering else { continue };
        let rest = bind.dest.strip_prefix(&earlier.dest).unwrap_or(Path::new(""));
        let point = if rest.as_os_str().is_empty() { earlier.src.clone() } else { earlier.src.join(rest) };
        if !point.exists() || point.is_dir() != bind.src.is_dir() {
            let sort = if bind.src.is_dir() { "directory" } else { "file" };
            let reason = format!(
                "{} is mounted over /spfs/{} before, and {} is no {sort} to mount on",
                earlier.src.display(),
                earlier.dest.display(),
                point.display()
            );
            return Err(Error::invalid(WHAT, format!("/spfs/{}", bind.dest.display()), reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn read(dir: &Path, contents: &str) -> Result<Vec<LiveBind>> {
        parse(&dir.join("x.spfs.yaml"), &format!("api: spfs/v0/livelayer\ncontents:\n{contents}"))
    }

    #[test]
    fn files_and_directories_are_bound() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "").unwrap();
        let text = format!("  - bind: d\n    dest: /spfs/a/b\n  - {{src: {}/d/f, dest: ./c}}\n", root.display());
        let bind = |src: &str, dest: &str| LiveBind { src: root.join(src), dest: dest.into() };
        assert_eq!(read(&root, &text).unwrap(), [bind("d", "a/b"), bind("d/f", "c")]);
        assert_eq!(read(&root, "  []\n").unwrap(), []);
    }

    #[test]
    fn wrong_files_are_named_with_line_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap().join("x");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        for (text, at, reason) in [
            ("  - bind: no\n    dest: a\n", "3:11", "cannot be used: No such file"),
            ("  - bind: ..\n    dest: a\n", "3:11", "is not below"),
            ("  - bind: out\n    dest: a\n", "3:11", "/etc is not below"),
            ("  - bind: .\n    dest: ../a\n", "4:11", "'..' is not allowed"),
            ("  - bind: .\n    dest: /etc\n", "4:11", "it is not below /spfs"),
            ("  - bind: .\n    dest: /spfs\n", "4:11", "/spfs itself"),
            ("  - bind: .\n    dest: /spfs/\n", "4:11", "/spfs itself"),
            ("  - bind: .\n", "3:5", "dest"),
            ("  - bind: .\n    dest: a\n    mode: ro\n", "5:5", "mode"),
            ("  - bind: [\n", "3:11", ""),
        ] {
            let error = read(&root, text).unwrap_err().to_string();
            let expected = format!("invalid live layer {}/x.spfs.yaml:{at}: ", root.display());
            assert!(error.starts_with(&expected) && error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_bind_inside_another_needs_its_place_on_the_host() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let bind = |src: &str, dest: &str| LiveBind { src: dir.path().join(src), dest: dest.into() };
        check(&[bind("d", "a"), bind("d", "a/sub"), bind("f", "b")]).unwrap();
        check(&[bind("d", "a"), bind("d", "a")]).unwrap();
        check(&[bind("f", "a/x"), bind("d", "a")]).unwrap();
        let error = check(&[bind("f", "a/x"), bind("f", "a")]).unwrap_err().to_string();
        assert!(error.contains("/spfs/a/x is mounted below it"), "{error}");
        for (src, dest) in [("f", "a/sub"), ("d", "a/no"), ("f", "a/no"), ("f", "a")] {
            let error = check(&[bind("d", "a"), bind(src, dest)]).unwrap_err().to_string();
            assert!(error.contains("mounted over /spfs/a before"), "{dest}: {error}");
        }
    }
}
