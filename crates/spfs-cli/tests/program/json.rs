//! `--json`: one value on standard output, and no field that docs/json.md does not name.

use serde_json::Value;

use crate::common::{Home, every_caller};

/// Everything that prints data, in a home with something of every kind.
const COMMANDS: &[&str] = &[
    "info one",
    "info --follow both",
    "info $MANIFEST",
    "info $BLOB",
    "diff one both",
    "ls both",
    "ls -R both",
    "write --file tree/a --tag blob",
    "tag one other",
    "untag other --latest",
    "tags",
    "ls-tags",
    "log one",
    "search one",
    "layers",
    "platforms",
    "commit --path tree",
    "commit --ref one+two",
    "render both out",
    "runtime list",
    "runtime info kept",
    "runtime info kept --get-all",
    "check",
    "clean --dry-run",
    "clean",
    "remote add origin store",
    "remote list",
    "remote test",
    "push --dry-run two",
    "push both one",
    "pull one",
    "remote remove origin",
    "config check",
    "doctor",
];

/// The same inside an environment with changes.
const INSIDE: &[&str] =
    &["info", "info /spfs/a", "diff", "commit layer --tag made", "commit platform --tag all", "runtime info inner"];

#[test]
fn every_field_is_documented() {
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/json.md")).unwrap();
    let code = documented.split('`').skip(1).step_by(2);
    let words: Vec<&str> = code.flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || c == '_'))).collect();
    every_caller(|home| {
        prepare(home);
        for command in COMMANDS {
            let out = home.sh(&format!("spfs {command} --json")).run();
            // Something is damaged here, and a directory that is no repository is no remote.
            if !command.starts_with("check") {
                out.ok();
            }
            check(&out.stdout, &words, command);
        }
        let code: String = INSIDE.iter().map(|command| format!("spfs {command} --json; echo '@end@'; ")).collect();
        let reference = "--edit --runtime-name inner --annotation k=v both";
        let out = home.script(reference, &format!("rm /spfs/b; chmod 600 /spfs/a; echo n > /spfs/new; {code}")).run();
        for (text, command) in out.ok().stdout.split("@end@\n").zip(INSIDE) {
            check(text, &words, command);
        }
        home.spfs_line("runtime rm --remove-durable kept").run().ok();
    });
}

fn prepare(home: &Home) {
    home.write("tree/a", "a\n");
    home.write("tree/directory/damaged", "damaged\n");
    home.commit("tree", "one");
    home.write("more/b", "b\n");
    home.commit("more", "two");
    home.spfs_line("commit --ref one+two --tag both").run().ok();
    home.sh("spfs init repo store; spfs render one; spfs write -f more/b").run().ok();
    home.set("MANIFEST", home.sh("spfs info one | sed -n 's/^ manifest: //p'").run().ok().text());
    home.set("BLOB", home.sh("spfs write -q --file tree/directory/damaged").run().ok().text());
    home.script("--keep-runtime --runtime-name kept --annotation key=value both", "true").run().ok();
    home.wait_for_the_end();
    home.sh("f=$(find . ~ -path '*payloads*' -name \"$(echo $BLOB | cut -c3-)\"); chmod 600 $f; echo other > $f")
        .run()
        .ok();
    home.allow_remains();
}

fn check(text: &str, words: &[&str], command: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("spfs {command}: {error}:\n{text}"));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "spfs {command}: one value and a line's end:\n{text:?}");
    // The annotations themselves are what users make them.
    if !command.ends_with("--get-all") {
        fields(&value, &mut |field| {
            // Counters, of which the summary of a render has too many to name each.
            let counter =
                command.starts_with("render") && (field.ends_with("_count") || field.starts_with("total_bytes"));
            assert!(
                counter || words.contains(&field),
                "spfs {command} prints the field {field:?}, and docs/json.md has no such word"
            );
        });
    }
}

fn fields(value: &Value, seen: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(map) => map.iter().for_each(|(field, value)| {
            seen(field);
            fields(value, seen);
        }),
        Value::Array(list) => list.iter().for_each(|value| fields(value, seen)),
        _ => {}
    }
}
