//! What to type next, by the kind of error; only the program knows this, never the library.

use std::error::Error;

use spfs::repo;

use crate::errors::chain;

/// The hints for an error: looked for along the whole chain of causes.
pub fn of(error: &(dyn Error + 'static)) -> Vec<String> {
    chain(error).filter_map(|error| error.downcast_ref::<repo::Error>()).flat_map(of_repository).collect()
}

fn of_repository(error: &repo::Error) -> Vec<String> {
    match error {
        repo::Error::UnknownReference { similar, .. } => {
            let mut hints = Vec::new();
            if !similar.is_empty() {
                hints.push(format!("did you mean {}?", either(similar)));
            }
            hints.push("`spfs tags` lists the tags that there are, `spfs search TERM` looks for one".to_owned());
            hints
        }
        repo::Error::AmbiguousReference { candidates, .. } => {
            let mut hint = "it could be any of these; type more of the one you mean:".to_owned();
            for digest in candidates {
                hint.push_str(&format!("\n    {digest}"));
            }
            vec![hint]
        }
        _ => Vec::new(),
    }
}

/// `a`, `a or b`, `a, b or c`, each in backquotes.
pub fn either(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
