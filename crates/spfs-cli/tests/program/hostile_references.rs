//! References that name nothing, too much, or cannot be read; and verbs where they make no sense.

use crate::common::{Caller, Home, every_caller};

fn home() -> Home {
    Home::new(Caller::user())
}

/// A home with the layer `one`: a file `a`, a directory `d` with a file, a symlink `l`.
fn with_a_layer() -> (Home, String) {
    let home = home();
    home.write("tree/a", "a\n");
    home.write("tree/d/b", "b\n");
    home.sh("ln -s a tree/l").run().ok();
    let digest = home.commit("tree", "one");
    (home, digest)
}

#[test]
fn what_is_unknown_is_named_by_every_verb() {
    let (home, _) = with_a_layer();
    let verbs = [
        "run nope -- true",
        "shell nope",
        "info nope",
        "ls nope",
        "read nope a",
        "diff one nope",
        "diff nope one",
        "tag nope x",
        "log nope",
        "untag --all nope",
        "untag --latest nope",
        "check nope",
        "render nope",
        "commit --ref one+nope",
        "run one+nope -- true",
        "run one~3 -- true",
        "info QQQQQQQQQQQQ",
    ];
    for verb in verbs {
        let said = home.spfs_line(verb).run();
        said.code(1).stdout_is("").stderr_has("error: unknown reference \"").stderr_has("hint: ");
    }
    home.is_sound();
}

#[test]
fn what_is_nearly_right_is_suggested_everywhere() {
    let (home, _) = with_a_layer();
    for (line, near) in [
        ("ls one A", "; did you mean a?"),
        ("read one ab", "; did you mean a?"),
        ("help enviroments", "; did you mean environments?"),
        ("info onee", "did you mean `one`?"),
        ("comit", "did you mean `commit`?"),
    ] {
        home.spfs_line(line).run().code(1).stderr_has(near);
    }
    home.spfs_line("ls one nothing/like/it").run().code(1).stderr_lacks("did you mean");
}

#[test]
fn what_is_malformed_is_said_with_the_reason() {
    let (home, _) = with_a_layer();
    let table = [
        ("", "it is empty"),
        ("a/b//c", "a part between '/' is empty"),
        ("one:x", "':' is not allowed"),
        ("one~", "a whole number must follow '~'"),
        ("one~-1", "a whole number must follow '~'"),
        ("one~99999999999999999999999", "a whole number must follow '~'"),
        ("a b", "' ' is not allowed"),
        ("a\nb", "is not allowed"),
        ("ä", "is not allowed"),
        ("a/../b", "'.' and '..' are no names"),
    ];
    for (reference, reason) in table {
        for words in [["info", reference].as_slice(), &["ls", reference], &["run", reference, "--", "true"]] {
            // As an environment, the empty text is the empty one.
            if words[0] != "info" && reference.is_empty() {
                continue;
            }
            home.spfs(words).run().code(1).stdout_is("").stderr_has("error: invalid ").stderr_has(reason);
        }
        // An argument that is nothing but a tag is checked with the rest of the line.
        home.spfs(["tag", "one", reference]).run().code(2).stdout_is("");
    }
    home.spfs(["run", "one++one", "--", "true"]).run().code(1).stderr_has("an item beside a '+' is empty");
    home.spfs(["info", "./x"]).run().code(1).stderr_has("a file path names no object");
    home.spfs_line("tags").run().stdout_is("one");
    home.is_sound();
}

#[test]
fn an_ambiguous_prefix_lists_what_it_could_be() {
    let home = home();
    // Enough objects that two begin with the same character.
    for number in 0..40 {
        home.write(&format!("many/{number}"), number.to_string());
    }
    let layer = home.commit("many", "many");
    let mut all: Vec<String> = Vec::new();
    for entry in walk(&home.repository().join("objects")) {
        all.push(entry);
    }
    let twice = all.iter().map(|digest| &digest[..1]).find(|c| all.iter().filter(|d| d.starts_with(c)).count() > 1);
    let prefix = twice.unwrap();
    let said = home.spfs(["info", prefix]).run();
    said.code(1).stdout_is("").stderr_has(&format!("error: ambiguous reference \"{prefix}\""));
    for digest in &all {
        assert_eq!(said.stderr.contains(digest.as_str()), digest.starts_with(prefix), "{digest} {said}");
    }
    said.stderr_has("hint: it could be any of these; type more of the one you mean:");
    home.spfs(["run", prefix, "--", "true"]).run().code(1).stderr_has("ambiguous");
    home.spfs(["tag", prefix, "x"]).run().code(1).stderr_has("ambiguous");
    // A tag wins over the prefix that it looks like, with a warning.
    let prefix = &all.iter().find(|digest| **digest != layer).unwrap()[..6];
    home.spfs(["tag", "many", prefix]).run().ok();
    let said = home.spfs(["info", prefix]).run();
    said.ok().stdout_has(&layer[..8]).stderr_has("warning: ").stderr_has("the tag was taken");
    home.is_sound();
}

/// The digests of everything in a store.
fn walk(store: &std::path::Path) -> Vec<String> {
    let names = |dir: &std::path::Path| -> Vec<String> {
        std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let shards = names(store).into_iter().filter(|shard| shard.len() == 2);
    shards.flat_map(|shard| names(&store.join(&shard)).into_iter().map(move |rest| format!("{shard}{rest}"))).collect()
}

#[test]
fn verbs_of_a_runtime_say_so_outside_of_one() {
    every_caller(|home| {
        for stale in [None, Some(""), Some("nope"), Some("../../etc"), Some("a b"), Some("/"), Some("x\ny")] {
            for verb in
                ["info", "diff", "edit", "edit --off", "reset", "commit layer", "commit platform", "commit layer --all"]
            {
                let mut command = home.spfs_line(verb);
                if let Some(name) = stale {
                    command = command.env("SPFS_RUNTIME", name);
                }
                command
                    .run()
                    .code(1)
                    .stdout_is("")
                    .stderr_is("error: no active runtime\nhint: this works inside an environment: `spfs shell -` enters an empty one");
            }
            // It does not stop anybody from entering one.
            home.script("-", "echo in")
                .env("SPFS_RUNTIME", stale.unwrap_or_default())
                .run()
                .ok()
                .stdout_is("in")
                .stderr_is("");
        }
        home.is_sound();
    });
}

/// A variable that survives into a shell that is not in the runtime it names, which still lives.
#[test]
fn a_runtime_that_one_is_not_in_is_not_touched() {
    every_caller(|home| {
        let mut running = home
            .script("-", "echo kept > /spfs/f; echo $SPFS_RUNTIME; cat >/dev/null; cat /spfs/f")
            .stdin_open()
            .spawn();
        running.wait_for("\n");
        let name = running.stdout().trim().to_owned();
        for verb in ["commit layer", "reset", "edit --off"] {
            home.spfs_line(verb).env("SPFS_RUNTIME", &name).run().code(1).stdout_is("");
        }
        running.finish().ok().stdout_has("kept");
        home.is_sound();
    });
}

#[test]
fn nothing_to_commit_is_no_layer() {
    every_caller(|home| {
        let hint = "hint: `spfs info` lists the active changes, `spfs edit` allows new ones";
        home.script("-", "spfs commit layer -t x")
            .run()
            .code(1)
            .stdout_is("")
            .stderr_has("nothing to commit")
            .stderr_has(hint);
        home.script("-", "spfs commit platform -t x").run().code(1).stderr_has("nothing to commit");
        let code = "echo a > /spfs/a; spfs commit layer -t a -q; spfs edit; rm /spfs/a; echo a > /spfs/a; spfs commit layer -t b";
        home.script("-", code).run().code(1).stderr_has("nothing to commit");
        std::fs::create_dir(home.path("empty")).unwrap();
        home.own(&home.path("empty"), 0o755);
        home.spfs_line("commit --path empty -t x").run().code(1).stdout_is("").stderr_has("nothing to commit");
        home.spfs_line("tags").run().ok().stdout_is("a");
        home.is_sound();
    });
}

#[test]
fn paths_in_an_environment_are_what_they_say() {
    let (home, _) = with_a_layer();
    let table = [
        (["ls", "one", "..//x"], "'..' has no meaning in a stored tree"),
        (["ls", "one", "d/../../a"], "'..' has no meaning in a stored tree"),
        (["ls", "one", "nope"], "/spfs/nope: no such file or directory"),
        (["ls", "one", "a/b"], "no such file or directory"),
        (["read", "one", "d"], "/spfs/d: is a directory"),
        (["read", "one", "d/"], "/spfs/d: is a directory"),
        (["read", "one", "/"], "is a directory"),
        (["read", "one", "../../etc/passwd"], "'..' has no meaning in a stored tree"),
    ];
    for (words, reason) in table {
        home.spfs(words).run().code(1).stdout_is("").stderr_has(reason);
    }
    home.spfs(["ls", "one", "//.//d//./"]).run().ok().stdout_is("b");
    home.spfs(["ls", "one", "/spfs/d"]).run().ok().stdout_is("b");
    home.spfs(["read", "one", "/spfs//d/./b"]).run().ok().stdout_is("b");
    home.spfs(["read", "one"]).run().code(1).stderr_has("one is not a single file").stderr_has("hint: ");
}

#[test]
fn very_long_words_are_refused_in_words() {
    let (home, _) = with_a_layer();
    let long = "a".repeat(100_000);
    home.spfs(["info", &long]).run().code(1).stderr_has(" […] ").stderr_has("a part is longer than 240 bytes");
    home.spfs(["run", &long, "--", "true"]).run().code(1).stderr_has("a part is longer than 240 bytes");
    home.spfs(["tag", "one", &long]).run().code(2).stderr_has("a part is longer than 240 bytes");
    home.spfs(["run", "--runtime-name", &long, "-", "--", "true"]).run().code(1).stderr_has("invalid runtime name");
    home.spfs([long.as_str()]).run().code(1).stderr_has("there is no command");
    // Neither is a line repeated that makes no sense, nor is what it says obeyed.
    for words in [["tags", &long], ["run", &long], ["commit", &long], ["help", &long]] {
        let out = home.spfs(words).run();
        assert!(out.fails().stderr.len() < 20_000, "{} bytes for {}", out.stderr.len(), words[0]);
    }
    home.spfs(["run", "one", "\x1b[2J"]).run().code(2).stderr_has("-- '\\u{1b}[2J'");
    home.spfs(["ls", "one", &long]).run().code(1).stderr_has("no such file or directory");
    home.spfs(["run", &vec!["one"; 20_000].join("+"), "--", "true"]).run().code(1).stderr_has("more than 10000 items");
    // Deep rather than long: more than one system call takes.
    let deep = "a/".repeat(4000) + "x";
    home.spfs(["info", &deep]).run().code(1).stderr_has("error: ");
    home.spfs(["tag", "one", &deep]).run().fails();
    home.spfs_line("tags").run().ok().stdout_is("one");
    home.is_sound();
}

#[test]
fn arguments_that_are_not_utf8() {
    let (home, _) = with_a_layer();
    for line in ["spfs info $X", "spfs tag one $X", "spfs run $X -- true", "spfs $X", "spfs ls one $X"] {
        let code = format!("X=$(printf '\\377\\376'); {line}");
        home.sh(&code).run().code(2).stdout_is("").stderr_has("invalid UTF-8");
    }
    // A path and the words of a command may be anything.
    home.sh("X=$(printf '\\377'); mkdir $X; echo hi > $X/f; spfs commit -q --path $X -t strange").run().ok();
    home.spfs_line("read strange f").run().ok().stdout_is("hi");
    let out = home.sh("spfs run - -- printf %s \"$(printf '\\377')\"").run();
    assert_eq!(out.ok().stdout_bytes, b"\xff");
    home.is_sound();
}
