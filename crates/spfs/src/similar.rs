//! Near names, for "did you mean".

/// How many near names are worth showing.
const MOST: usize = 3;

/// The one of `names` that `text` most likely should have been.
pub fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    near(text, names).into_iter().next()
}

/// Up to three of `names` that `text` may have meant, the nearest first.
///
/// Near is: the same but for case, the same last part after a `/` (a tag typed without its org), a beginning of the
/// other, or few changed letters for the length.
pub fn near<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = text.to_lowercase();
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| *name != text)
        .filter_map(|name| Some((distance(&lower, &name.to_lowercase())?, name)))
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// How far `name` is from `text`, or `None` if it is something else altogether.
fn distance(text: &str, name: &str) -> Option<usize> {
    if text == name || last_part(text) == last_part(name) {
        return Some(usize::from(text != name));
    }
    let changes = strsim::osa_distance(text, name);
    let changes = match last_part(name) != name && !text.contains('/') {
        true => changes.min(1 + strsim::osa_distance(text, last_part(name))),
        false => changes,
    };
    let allowed = 1 + text.chars().count() / 4;
    if changes <= allowed {
        return Some(1 + changes);
    }
    let begins = text.len() >= 3 && name.len() >= 3 && (name.starts_with(text) || text.starts_with(name));
    begins.then_some(1 + allowed + changes)
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_not() {
        let names = ["my-layer", "my-platform", "vfx/maya", "vfx/nuke", "tools", "a"];
        for (text, expected) in [
            ("my-layr", vec!["my-layer"]),
            ("My-Layer", vec!["my-layer"]),
            ("maya", vec!["vfx/maya"]),
            ("maia", vec!["vfx/maya"]),
            ("other/maya", vec!["vfx/maya"]),
            ("tool", vec!["tools"]),
            ("my-", vec!["my-layer", "my-platform"]),
            ("completely-different", vec![]),
        ] {
            assert_eq!(near(text, names), expected, "{text}");
        }
        assert_eq!(nearest("tols", names), Some("tools"));
    }
}
