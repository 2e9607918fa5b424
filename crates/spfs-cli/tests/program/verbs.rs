//! The commands that look at and look after what is stored, with the real program.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::{Caller, Home, every_caller};

const F1_LAYER: &str = "L2LZ3UZA6YJUHCGLQVRRW34OTW55XT6TWZ5LJGYGZ5XMH52HZ3XA====";
const F1_BLOB: &str = "QU77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";

fn home() -> Home {
    Home::new(Caller::all().remove(0))
}

/// A home with the tree of the format document's vector F1 as `my-layer`, another layer `tools`, both as `my-platform`.
fn stocked(home: &Home) {
    home.write("f1/message.txt", "hello, world\n");
    let tool = home.write("tools/bin/tool", "a tool");
    home.own(&tool, 0o755);
    symlink("tool", home.path("tools/bin/link")).unwrap();
    home.spfs_line("commit --path f1 --tag my-layer").run().ok();
    home.spfs_line("commit --path tools --tag tools").run().ok();
    home.spfs_line("commit --ref my-layer+tools --tag my-platform").run().ok();
}

/// The file of an object or payload.
fn stored(home: &Home, store: &str, digest: &str) -> PathBuf {
    home.repository().join(store).join(&digest[..2]).join(&digest[2..])
}

fn overwrite(home: &Home, path: &Path, content: &str) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
    home.own(path, 0o644);
}

#[test]
fn commit_says_what_it_made() {
    every_caller(|home| {
        home.write("f1/message.txt", "hello, world\n");
        let commit = "commit --path f1 --tag a --tag vfx/b";
        let said = format!("created digest={F1_LAYER}\ncreated tag=a\ncreated tag=vfx/b");
        home.spfs_line(commit).run().ok().stdout_is(&said).stderr_is("");
        home.spfs_line(&format!("{commit} -q")).run().ok().stdout_is(F1_LAYER);
        let json: serde_json::Value =
            serde_json::from_str(&home.spfs_line(&format!("{commit} --json")).run().ok().stdout).unwrap();
        assert_eq!(json, serde_json::json!({"layer": F1_LAYER, "platform": null, "tags": ["a", "vfx/b"]}));
        // The platform [L] of the format document.
        let platform = "UWMHXJPPKKM25DDYGWCMDYYKUNIAWZAJ3YBIAFCC3KAM7FOCFOTQ====";
        home.spfs_line("commit --ref a -q").run().ok().stdout_is(platform);
        home.spfs_line("commit --ref a+vfx/b -q").run().ok().stdout_is(platform);
    });
}

#[test]
fn what_cannot_be_committed_is_named_and_nothing_is_left() {
    every_caller(|home| {
        home.spfs_line("commit --path nowhere").run().code(1).stderr_has("could not open nowhere");
        home.write("file", "x");
        home.spfs_line("commit --path file").run().code(1).stderr_has("could not open file");
        fs::create_dir(home.path("empty")).unwrap();
        home.own(&home.path("empty"), 0o755);
        home.spfs_line("commit --path empty").run().code(1).stderr_has("nothing to commit").stderr_has("is empty");
        home.spfs_line("commit --path empty --allow-empty -q").run().ok();
        home.write("tree/fine", "x");
        home.sh("mkfifo tree/pipe").run().ok();
        home.spfs_line("commit --path tree --tag t").run().code(1).stderr_has("pipe");
        home.sh("rm tree/pipe; touch \"$(printf 'tree/b\\377d')\"").run().ok();
        home.spfs_line("commit --path tree --tag t").run().code(1).stderr_has("UTF-8");
        home.sh("rm -r tree; mkdir tree; echo x > tree/secret; chmod 000 tree/secret").run().ok();
        if home.caller().is_root() {
            home.spfs_line("commit --path tree -q").run().ok();
        } else {
            home.spfs_line("commit --path tree --tag t").run().code(1).stderr_has("tree/secret");
        }
        home.spfs_line("tags").run().ok().stdout_is("");
        home.spfs_line("commit").run().code(2);
        home.spfs_line("commit layer --path tree").run().code(2);
        home.spfs_line("commit --path tree --tag a:b").run().code(2).stderr_has("invalid tag \"a:b\"");
        home.spfs_line("commit --ref nothing").run().code(1).stderr_has("unknown reference \"nothing\"");
    });
}

#[test]
fn info_is_as_the_guide_prints_it() {
    let home = home();
    stocked(&home);
    let short = |reference: &str| {
        let json = home.spfs(["info", "--json", reference]).run().ok().stdout.clone();
        serde_json::from_str::<serde_json::Value>(&json).unwrap()[0]["short"].as_str().unwrap().to_owned()
    };
    let (platform, layer, tools) = (short("my-platform"), short("my-layer"), short("tools"));
    assert_eq!((platform.len(), layer.as_str()), (8, &F1_LAYER[..8]));
    let said =
        format!("platform:\n refs: {platform} -> my-platform\n stack:\n  - {tools} -> tools\n  - {layer} -> my-layer");
    home.spfs_line("info my-platform").run().ok().stdout_is(&said);
    home.spfs_line("info my-layer")
        .run()
        .ok()
        .stdout_is(&format!("layer:\n refs: {layer} -> my-layer\n manifest: MIGFM6A2\n annotations: none"));
    home.spfs_line("info MIGFM6A2")
        .run()
        .ok()
        .stdout_is("manifest:\n refs: MIGFM6A2\n size: 13\n 100644 file QU77SN3C /spfs/message.txt");
    home.spfs_line("info -H QU77SN3C").run().ok().stdout_is("blob:\n refs: QU77SN3C\n size: 13.0 B");
    let both = home.spfs(["info", "my-layer", "QU77SN3C"]).run();
    both.ok().stdout_has("annotations: none\n\nblob:\n");
    home.spfs_line("info --full my-layer").run().ok().stdout_has(&format!(" refs: {F1_LAYER} -> my-layer"));
    let below = home.spfs_line("info --follow my-platform").run().ok().stdout.clone();
    let kinds: Vec<&str> = below.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(kinds, ["platform:", "layer:", "manifest:", "layer:", "manifest:"]);
    for wrong in ["info", "info /spfs/message.txt", "diff", "diff my-layer"] {
        home.spfs_line(wrong).run().code(1).stderr_has("no active runtime");
    }
}

#[test]
fn listing_and_reading() {
    let home = home();
    stocked(&home);
    home.spfs_line("ls my-platform").run().ok().stdout_is("bin/\nmessage.txt");
    home.spfs_line("list-dir my-platform /spfs/bin").run().ok().stdout_is("link\ntool");
    home.spfs_line("ls -R my-layer+tools")
        .run()
        .ok()
        .stdout_is("/spfs:\nbin/  message.txt\n\n/spfs/bin:\nlink  tool\n\n");
    let long = home.spfs_line("ls -l my-layer").run().ok().text().to_owned();
    let words: Vec<&str> = long.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[6]), ("-rw-r--r--", "13", "message.txt"), "{long}");
    home.spfs(["ls", "-lH", F1_LAYER]).run().ok().stdout_is("-rw-r--r-- 13.0 B message.txt");
    home.spfs_line("ls my-layer nothing").run().code(1).stderr_has("/spfs/nothing: no such file or directory");
    home.spfs_line("ls my-layer message.txt").run().code(1).stderr_has("is not a directory");
    home.spfs(["ls", F1_BLOB]).run().code(1).stderr_has("is a blob, not a layer");
    for alias in ["read", "read-file", "cat", "cat-file"] {
        home.spfs([alias, "my-platform", "/spfs/message.txt"]).run().ok().stdout_is("hello, world");
    }
    home.spfs_line("read tools bin/link").run().ok().stdout_is("tool");
    home.spfs_line("read tools bin").run().code(1).stderr_has("/spfs/bin: is a directory");
    home.spfs_line("read tools").run().code(1).stderr_has("not a single file").stderr_has("spfs read tools PATH");
    home.spfs_line("read tools ../x").run().code(1).stderr_has("'..' has no meaning");
    home.spfs(["read", F1_BLOB]).run().ok().stdout_is("hello, world");
}

#[test]
fn files_are_written_from_anywhere() {
    let home = home();
    let written = home.spfs_line("write --tag note").stdin("hello, world\n").run();
    written.ok().stdout_is(&format!("created digest={F1_BLOB}\ncreated tag=note"));
    home.write("f", "hello, world\n");
    home.spfs_line("write -q --file f").run().ok().stdout_is(F1_BLOB);
    home.spfs_line("write --file none").run().code(1).stderr_has("could not open none");
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    home.spfs_line("write --tag big").stdin(&binary).run().ok();
    assert!(home.spfs_line("read big").run().ok().stdout_bytes == binary);
}

#[test]
fn tags_and_their_history() {
    let home = home();
    stocked(&home);
    home.spfs_line("tag my-layer vfx/x y").run().ok().stdout_is("created tag=vfx/x\ncreated tag=y").stderr_is("");
    home.spfs_line("tag tools vfx/x -q").run().ok();
    home.spfs_line("tags").run().ok().stdout_is("my-layer\nmy-platform\ntools\nvfx/x\ny");
    home.spfs_line("tags --target").run().ok().stdout_has(&format!("my-layer -> {F1_LAYER}\n"));
    home.spfs_line("tags --target --short").run().ok().stdout_has(&format!("y -> {}\n", &F1_LAYER[..8]));
    home.spfs_line("ls-tags").run().ok().stdout_is("/my-layer\n/my-platform\n/tools\n/vfx/\n/y");
    home.spfs_line("list-tags vfx").run().ok().stdout_is("x");
    home.spfs_line("ls-tags --recursive").run().ok().stdout_has("/vfx/x\n").stdout_lacks("/vfx/\n");
    let log = home.spfs_line("log vfx/x").run().ok().stdout.clone();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!((lines.len(), lines[0][1], lines[1][1]), (2, "vfx/x", "vfx/x~1"), "{log}");
    assert_eq!((lines[1][0], lines[1].len(), lines[1][4].len()), (&F1_LAYER[..10], 6, 15), "{log}");
    home.spfs_line("layers --tags").run().ok().stdout_has(&format!("{} -> my-layer -> vfx/x~1 -> y\n", &F1_LAYER[..8]));
    assert_eq!(home.spfs_line("platforms").run().ok().text().len(), 56);
    home.spfs_line("search LAYER").run().ok().stdout_is("");
    home.spfs_line("search layer").run().ok().stdout_is("my-layer  local");

    home.spfs_line("untag vfx/x").run().code(1).stderr_has("--latest").stderr_has("vfx/x~1");
    home.spfs_line("untag vfx/x~1 --all").run().code(2);
    home.spfs_line("untag vfx/x~1").run().ok().stdout_is("removed tag=vfx/x~1");
    home.spfs_line("untag vfx/x --latest").run().ok().stdout_is("removed tag=vfx/x");
    home.spfs_line("log vfx/x").run().code(1).stderr_has("unknown reference \"vfx/x\"");
    home.spfs_line("untag y -a").run().ok();
    home.spfs_line("untag my-layr --all").run().code(1).stderr_has("did you mean `my-layer`?");
    for (line, message) in [
        ("tag nothing x", "unknown reference"),
        ("tag my-layer a//b", "invalid tag \"a//b\""),
        ("tag my-layer ..", "invalid tag \"..\""),
        ("log my-layer~x", "a whole number must follow '~'"),
        ("untag a#b --all", "invalid tag"),
        ("info my-layer~5", "did you mean `my-layer`?"),
        ("info my/lay:er", "invalid"),
    ] {
        home.spfs_line(line).run().fails().stderr_has(message);
    }
}

#[test]
fn an_ambiguous_prefix_lists_what_it_could_be() {
    let home = home();
    // Of 33 objects two at least share their first character.
    for number in 0..33 {
        home.spfs_line("write -q").stdin(number.to_string()).run().ok();
    }
    let mut first: Vec<String> = fs::read_dir(home.repository().join("objects"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap()[..1].to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
        .collect();
    first.sort();
    let shared = first.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0].clone();
    let output = home.spfs(["info", &shared]).run();
    output.code(1).stderr_has(&format!("ambiguous reference {shared:?}")).stderr_has("type more of the one you mean");
    assert!(output.stderr.lines().filter(|line| line.trim().len() == 56).count() >= 2, "{output}");
}

#[test]
fn differences_between_environments() {
    let home = home();
    stocked(&home);
    home.write("f1/message.txt", "hello\n");
    home.write("f1/new", "x");
    home.own(&home.path("f1/new"), 0o600);
    home.spfs_line("commit --path f1 --tag my-layer").run().ok();
    home.spfs_line("diff my-layer~1 my-layer")
        .run()
        .ok()
        .stdout_is("~/spfs/message.txt [content, size {13=>6}]\n+/spfs/new");
    home.spfs_line("diff my-layer my-layer~1").run().ok().stdout_has("-/spfs/new");
    home.spfs_line("diff - tools").run().ok().stdout_is("+/spfs/bin\n+/spfs/bin/link\n+/spfs/bin/tool");
    home.spfs_line("diff my-layer my-layer").run().ok().stdout_is("").stderr_has("no changes");
    let json = home.spfs_line("diff --json my-layer~1 my-layer").run().ok().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!([
        {"path": "message.txt", "change": "changed", "content": true, "size": [13, 6]},
        {"path": "new", "change": "added"},
    ]);
    assert_eq!(json, expected);
}

#[test]
fn check_finds_and_names_what_is_damaged() {
    every_caller(|home| {
        stocked(home);
        let healthy = home.spfs_line("check").run();
        healthy.ok().stdout_has("           3 tags visited     (0 missing)\n");
        healthy.stdout_has("           8 objects visited  (0 missing, 0 repaired)\n");
        healthy.stdout_has("           3 payloads visited (0 missing, 0 repaired)\n");
        healthy.stdout_has("    23 bytes total payload footprint\nNo issues found\n");
        overwrite(home, &stored(home, "payloads", F1_BLOB), "hello, WORLD\n");
        let damaged = home.spfs_line("check").run();
        damaged.code(1).stdout_has(&format!("Damaged: {F1_BLOB} (payload)\n")).stdout_has("1 issue found");
        damaged.stdout_has("belongs to /spfs/message.txt in manifest MIGFM6A2 in layer L2LZ3UZA in tag my-layer");
        damaged.stdout_has("payloads visited (0 missing, 0 repaired, 1 damaged)");
        home.spfs_line("check --fast").run().ok();
        home.spfs_line("check tools").run().ok().stdout_has("No issues found");
        home.spfs_line("read my-layer message.txt").run().code(1).stderr_has("is damaged");
        fs::remove_file(stored(home, "payloads", F1_BLOB)).unwrap();
        for line in ["check", "check --fast", "check my-platform"] {
            home.spfs_line(line).run().code(1).stdout_has(&format!("Missing: {F1_BLOB} (payload)\n"));
        }
        fs::remove_file(stored(home, "objects", F1_LAYER)).unwrap();
        let missing = home.spfs_line("check").run();
        missing.code(1).stdout_has("(1 missing)\n").stdout_has(&format!("Missing: {F1_LAYER} (object)"));
        home.spfs_line("ls my-layer").run().code(1).stderr_has(F1_LAYER);
        let json = home.spfs_line("check --json").run().code(1).stdout.clone();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["objects"]["missing"], 1);
        assert_eq!(json["problems"][0]["piece"]["object"], F1_LAYER);
    });
}

#[test]
fn damaged_objects_and_tags_are_clear_errors() {
    let home = home();
    stocked(&home);
    overwrite(&home, &stored(&home, "objects", F1_LAYER), "garbage");
    for line in ["info my-layer", "ls my-layer", "read my-layer message.txt", "diff - my-layer", "render my-layer out"]
    {
        home.spfs_line(line).run().code(1).stderr_has("is damaged").stderr_has(F1_LAYER);
    }
    overwrite(&home, &home.repository().join("tags/tools.tag"), "\0\0\0\0\0\0\0\x09x");
    home.spfs_line("log tools").run().code(1).stderr_has("tools.tag").stderr_has("is damaged");
    home.spfs_line("check").run().code(1).stdout_has("Damaged: tag tools").stdout_has("Damaged: ");
    home.spfs_line("clean --dry-run").run().ok().stderr_has("cannot be read");
}

#[test]
fn clean_shows_and_keeps_what_nothing_needs() {
    let home = home();
    stocked(&home);
    home.spfs_line("write -q").stdin("nobody needs this").run().ok();
    let plan = home.spfs_line("clean --dry-run").run();
    plan.ok().stdout_has("           9 objects  visited [     1 that nothing needs");
    plan.stdout_has("           4 payloads visited [     1 that nothing needs, 17.0 B]");
    let blob = plan.text().split_whitespace().rfind(|word| word.ends_with("====")).unwrap().to_owned();
    home.spfs_line("clean").run().ok().stderr_has("are not removed by this version");
    home.spfs(["read", &blob]).run().ok().stdout_is("nobody needs this");
    home.spfs(["tag", &blob, "needed"]).run().ok();
    home.spfs_line("clean --dry-run").run().ok().stdout_has("payloads visited [     0 that nothing needs");
}

#[test]
fn renders_are_plain_directories() {
    every_caller(|home| {
        stocked(home);
        let output = home.spfs_line("render my-platform out").run();
        let json: serde_json::Value = serde_json::from_str(&output.ok().stdout).unwrap();
        assert_eq!(json["paths_rendered"][0], home.path("out").to_str().unwrap());
        assert_eq!(json["render_summary"]["copy_count"], 2);
        let tool = fs::metadata(home.path("out/bin/tool")).unwrap();
        assert_eq!((tool.permissions().mode() & 0o7777, tool.uid()), (0o755, home.caller().uid()));
        assert_eq!(fs::read_link(home.path("out/bin/link")).unwrap(), Path::new("tool"));
        home.spfs_line("render my-platform out").run().code(1).stderr_has("it is not empty");
        home.spfs_line("render my-platform out --allow-existing").run().ok();
        home.spfs_line("render tools out2 --strategy hardlink").run().ok();
        let renders = home.spfs_line("render my-platform").run().ok().stdout.clone();
        let json: serde_json::Value = serde_json::from_str(&renders).unwrap();
        let first = json["paths_rendered"][0].as_str().unwrap();
        assert_eq!(fs::read_to_string(Path::new(first).join("message.txt")).unwrap(), "hello, world\n");
        assert!(first.contains(&format!("/renders/{}/MI/", home.caller().name())), "{first}");
        home.write("taken", "x");
        home.spfs_line("render tools taken").run().code(1).stderr_has("taken");
        home.spfs_line("render tools taken/below").run().code(1).stderr_has("taken");
    });
}

#[test]
fn other_repositories_by_name_and_path() {
    let home = home();
    stocked(&home);
    home.spfs(["init", "repo", home.path("other").to_str().unwrap()]).run().ok();
    let other = home.path("other").to_str().unwrap().to_owned();
    home.spfs(["commit", "--path", "f1", "--tag", "there", "-r", &other]).run().ok();
    home.spfs(["tags", "-r", &format!("file:{other}")]).run().ok().stdout_is("there");
    home.spfs(["read", "there", "message.txt", "-r", &other]).run().ok().stdout_is("hello, world");
    home.spfs_line("info there").run().code(1).stderr_has("unknown reference");
    home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("file:{other}"));
    home.spfs_line("search there").run().ok().stdout_is("there  origin");
    home.spfs_line("tags -r origin").run().ok().stdout_is("there");
    home.spfs_line("check -r origin").run().ok().stdout_has("           1 tags visited");
    home.spfs_line("tags -r orgin").run().code(1).stderr_has("did you mean origin?");
    home.spfs_line("tags -r /no/where").run().code(1).stderr_has("could not open repository /no/where");
    home.spfs_line("tags -r grpc://no-host.invalid").run().code(1).stderr_has("its name cannot be resolved");
    home.set("SPFS_REMOTE_AWAY_ADDRESS", "grpc://no-host.invalid");
    home.spfs_line("search there").run().ok().stdout_is("there  origin").stderr_has("the remote away was not searched");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let home = home();
    stocked(&home);
    for number in 0..30 {
        home.spfs(["tag".to_owned(), "tools".to_owned(), format!("many/{number}")]).run().ok();
    }
    for line in ["tags", "ls-tags --recursive", "info -vv my-platform", "search many", "layers", "check"] {
        let output = home.sh(&format!("spfs {line} | true")).run();
        output.ok().stderr_is("");
    }
}

#[test]
fn a_read_only_store_can_be_looked_at() {
    let home = Home::new(Caller::user());
    stocked(&home);
    home.sh("chmod -R a-w ../home/.local/share/spfs").run().ok();
    for line in ["tags", "info my-platform", "ls my-platform", "read my-layer message.txt", "check", "clean --dry-run"]
    {
        home.spfs_line(line).run().ok();
    }
    home.spfs_line("write").stdin("x").run().code(1).stderr_has("could not").stderr_has("Permission denied");
    home.spfs_line("commit --path f1 --no-cache --tag t").run().code(1).stderr_has("Permission denied");
    home.spfs_line("tag tools t").run().code(1).stderr_has("Permission denied");
    home.spfs_line("untag tools --all").run().code(1).stderr_has("Permission denied");
    home.spfs_line("render tools").run().code(1).stderr_has("Permission denied");
    home.sh("chmod -R u+w ../home/.local").run().ok();
}

#[test]
fn inside_an_environment() {
    every_caller(|home| {
        stocked(home);
        let info = home.script("-", "echo hello > /spfs/message.txt; spfs info").run();
        info.ok().stdout_has("Active Runtime:\n id: ").stdout_has("\n editable: true\nstack (top-down):\n\n");
        info.stdout_has("\nActive Changes:\n + /message.txt\n");
        let unchanged = home.script("my-platform", "spfs info; spfs diff").run();
        unchanged.ok().stdout_has(" editable: false\nstack (top-down):\n  - ").stdout_has(" -> my-platform\n");
        unchanged.stdout_has("\nNo Active Changes\n").stderr_has("no changes");
        let changes = "cd /spfs; rm message.txt; echo longer > bin/tool; mkdir new; echo x > new/file";
        let changed = home.script("my-platform --edit", &format!("{changes}; spfs info; spfs diff")).run();
        changed.ok().stdout_has("Active Changes:\n ~ /bin/tool\n + /new\n + /new/file\n - /message.txt\n");
        changed.stdout_has("~/spfs/bin/tool [content, size {6=>7}]\n+/spfs/new\n+/spfs/new/file\n-/spfs/message.txt\n");
        let against =
            home.script("my-platform --edit", &format!("{changes}; spfs diff my-platform; spfs diff tools")).run();
        against.ok().stdout_has("-/spfs/message.txt\n~/spfs/bin/tool").stdout_lacks("+/spfs/bin");
        let sources = home
            .script("my-platform --edit", "spfs info /spfs/bin/tool; echo x > /spfs/new; spfs info /spfs/new /spfs/no");
        let sources = sources.run();
        sources
            .ok()
            .stdout_has("/spfs/bin/tool: file (in 1 layer)\n platform: ")
            .stdout_has(" -> my-platform\n layer: ");
        sources.stdout_has("-rwxr-xr-x file ").stdout_has(" 6 /spfs/bin/tool\n");
        sources.stdout_has("/spfs/new: an active change\n + /new\n").stdout_has("/spfs/no: not found\n");
        let json = home.script("my-layer", "spfs info --json; spfs info --json /spfs/message.txt | head -c 1").run();
        json.ok().stdout_has("\"editable\": false").stdout_has("\"changes\": []");
        let noted = home.script("my-layer --annotation a=1 --annotation b=x:y", "spfs info --get a --get b --get c");
        noted.run().ok().stdout_is("1\nx:y\n\n").stderr_has("no annotation \"c\"");
    });
}
