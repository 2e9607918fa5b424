//! Every layer, or every platform, of a repository.

use spfs_repo::{Digest, DigestPrefix, Kind, Repository};

use crate::error::Result;
use crate::names::{Named, Names, short_among};
use crate::{parallel, resolve};

/// The objects of one kind, sorted by digest, with short forms and tags. An object that cannot be read is an error.
pub fn list(repository: &dyn Repository, kind: Kind) -> Result<Vec<Named>> {
    let all = repository.find(&DigestPrefix::any())?;
    let names = Names::load(repository)?;
    let kinds = parallel::map(parallel::cores(), &all, |digest| resolve::kind(repository, digest));
    let mut found = Vec::new();
    for (digest, its_kind) in all.iter().zip(kinds) {
        if its_kind? == kind {
            found.push(named(&names, &all, digest));
        }
    }
    Ok(found)
}

fn named(names: &Names<'_>, all: &[Digest], digest: &Digest) -> Named {
    Named { digest: *digest, short: short_among(all, digest), tags: names.tags(digest).to_vec() }
}
