//! What was probably meant by a command line that clap refuses.

use std::ffi::OsString;

/// What to type instead of a line that clap refuses, if we have an idea.
pub fn hint(words: &[OsString]) -> Option<String> {
    if let Some(line) = corrected(words) {
        return Some(format!("the command comes after `--`: {line}"));
    }
    let has = |wanted: &str| words.iter().skip(1).any(|word| word == wanted);
    if has("run") && !has("--") {
        return Some("`spfs run REF -- COMMAND` runs a command, `spfs shell REF` starts your shell".to_owned());
    }
    let bare = words.iter().skip(1).all(|word| word.to_string_lossy().starts_with('-') || word == "shell");
    if has("shell") && bare {
        return Some("`spfs shell -` starts your shell in an empty environment".to_owned());
    }
    (has("run") && words.iter().skip_while(|word| *word != "run").nth(1).is_some_and(|word| word == "--"))
        .then(|| "`spfs run - -- COMMAND` runs a command in an empty environment".to_owned())
}

/// The right line for `spfs run REF cmd…`, if that is what `words` are: the `--` before the command is missing.
fn corrected(words: &[OsString]) -> Option<String> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let at = words.iter().skip(1).position(|word| word == "run")? + 1;
    if words.contains(&"--".to_owned()) {
        return None;
    }
    // The first word that is neither an option nor the value of one is the reference; the command follows it.
    const WITH_VALUE: &[&str] = &[
        "--runtime-name",
        "--rerun",
        "--annotation",
        "--annotation-file",
        "-r",
        "--remote",
        "--backend",
        "--wrap-origin",
    ];
    let takes_value = |word: &str| WITH_VALUE.contains(&word);
    let mut rerun = false;
    let mut rest = at + 1;
    while rest < words.len() && words[rest].starts_with('-') && words[rest].len() > 1 {
        rerun |= words[rest].starts_with("--rerun");
        rest += if takes_value(&words[rest]) { 2 } else { 1 };
    }
    rest += usize::from(!rerun);
    let command = words.get(rest..).filter(|command| !command.is_empty())?;
    let line: Vec<String> = words[at..rest]
        .iter()
        .map(|word| quoted(word))
        .chain(["--".to_owned()])
        .chain(command.iter().map(|word| quoted(word)))
        .collect();
    Some(format!("spfs {}", line.join(" ")))
}

/// `word` as a shell would need it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+:=,@%~^".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('~') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_dashes_are_put_in() {
        let table = [
            ("spfs run my-layer ls -l", Some("spfs run my-layer -- ls -l")),
            ("spfs -v run --edit a+b make all", Some("spfs run --edit a+b -- make all")),
            ("spfs run --runtime-name x - sh -c 'a", Some(r"spfs run --runtime-name x - -- sh -c ''\''a'")),
            ("spfs run --rerun x ls", Some("spfs run --rerun x -- ls")),
            ("spfs run my-layer", None),
            ("spfs run my-layer --", None),
            ("spfs tags oops", None),
        ];
        for (line, right) in table {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(corrected(&words).as_deref(), right, "{line}");
        }
    }

    #[test]
    fn quoting_is_for_shells() {
        for (word, right) in [("a-b.c", "a-b.c"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("~x", "'~x'")]
        {
            assert_eq!(quoted(word), right);
        }
    }
}
