//! Stored things that have gone bad: whoever reads one says which file it is, `check` says what it belongs to, and
//! caches are made again without a word.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Caller, DAMAGES, Damage, Home, every_caller};

/// A home with the layer `one`, and the digests of its layer, manifest, and the payloads of `a` and of the symlink.
struct Stored {
    home: Home,
    layer: String,
    manifest: String,
    file: String,
    symlink: String,
}

fn stored(caller: Caller) -> Stored {
    let home = Home::new(caller);
    home.write("tree/a", "a file of some length\n");
    home.sh("ln -s somewhere/else tree/l").run().ok();
    home.write("other/b", "b");
    let layer = home.commit("tree", "one");
    home.commit("other", "other");
    let json = home.spfs(["info", "--json", &layer]).run().ok().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let manifest = json[0]["manifest"]["digest"].as_str().unwrap().to_owned();
    let digest = |content: &str| home.spfs_line("write -q").stdin(content).run().ok().text().to_owned();
    let (file, symlink) = (digest("a file of some length\n"), digest("somewhere/else"));
    Stored { home, layer, manifest, file, symlink }
}

impl Stored {
    /// Damages a file, does something, and puts the file back.
    fn with(&self, damage: Option<Damage>, file: &Path, test: impl FnOnce()) {
        let good = fs::read(file).unwrap();
        match damage {
            Some(damage) => damage.to(file),
            None => fs::remove_file(file).unwrap(),
        }
        // The views were made before the damage.
        let _ = fs::remove_dir_all(self.home.cache());
        test();
        // It may have been made again, read-only.
        let _ = fs::remove_file(file);
        fs::write(file, good).unwrap();
        self.home.own(file, 0o444);
    }
}

const READERS: [&str; 6] =
    ["ls one", "read one a", "run one -- cat /spfs/a", "diff one other", "render one", "commit --ref one+other"];

#[test]
fn objects() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    for digest in [&stored.layer, &stored.manifest] {
        let file = home.stored("objects", digest);
        for damage in DAMAGES.into_iter().filter(|damage| *damage != Damage::Longer) {
            stored.with(Some(damage), &file, || {
                for reader in READERS {
                    // A platform needs the kinds of what it is made of, and nothing else of them.
                    if *digest == stored.manifest && reader.starts_with("commit") {
                        continue;
                    }
                    let said = home.spfs_line(reader).run();
                    said.code(1).stdout_is("").stderr_has("is damaged: ").stderr_has(file.to_str().unwrap());
                    said.stderr_has("hint: `spfs check` finds everything that is damaged, and what it belongs to");
                }
                let said = home.spfs_line("check").run();
                said.code(1).stdout_has(&format!("Damaged: {digest} (object)")).stdout_has("1 issue found");
                said.stdout_has("tag one").stdout_has(file.to_str().unwrap());
            });
        }
        stored.with(None, &file, || {
            home.spfs_line("ls one").run().code(1).stderr_has(digest).stderr_has("hint: `spfs check`");
            home.spfs_line("run one -- true").run().code(1).stderr_has(digest).stderr_has("hint: `spfs check`");
            home.spfs_line("check").run().code(1).stdout_has(&format!("Missing: {digest} (object)"));
        });
    }
    home.is_sound();
}

/// The header of an object says a version that is not known yet.
#[test]
fn objects_of_a_later_version() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    for digest in [&stored.layer, &stored.manifest] {
        let file = home.stored("objects", digest);
        for (at, what) in [(9, "digest strategy 9"), (10, "encoding 9"), (16, "kind 9")] {
            let good = fs::read(&file).unwrap();
            let mut bytes = good.clone();
            bytes[at] = 9;
            Damage::Empty.to(&file);
            fs::write(&file, bytes).unwrap();
            let _ = fs::remove_dir_all(home.cache());
            for reader in ["ls one", "run one -- true"] {
                let said = home.spfs_line(reader).run();
                said.code(1).stderr_has("is not supported: ").stderr_has(what).stderr_has(file.to_str().unwrap());
            }
            home.spfs_line("check").run().code(1).stdout_has(what).stdout_has("tag one");
            fs::write(&file, good).unwrap();
        }
    }
    home.is_sound();
}

#[test]
fn blobs_and_payloads() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    for damage in DAMAGES {
        stored.with(Some(damage), &home.stored("payloads", &stored.file), || {
            let said = home.spfs_line("read one a").run();
            said.code(1).stderr_has(&stored.file).stderr_has("is damaged").stderr_has("hint: `spfs check`");
            let said = home.spfs_line("check").run();
            said.code(1).stdout_has(&format!("Damaged: {} (payload)", stored.file)).stdout_has("1 issue found");
            said.stdout_has("belongs to /spfs/a in manifest ").stdout_has("tag one");
            home.spfs_line("check other").run().ok();
            // Whoever has the content repairs it by committing it again.
            home.spfs_line("commit --no-cache --path tree").run().ok();
        });
        stored.with(Some(damage), &home.stored("payloads", &stored.symlink), || {
            for reader in ["run one -- true", "read one l"] {
                let said = home.spfs_line(reader).run();
                said.code(1).stderr_has(&stored.symlink).stderr_has("is damaged").stderr_has("hint: `spfs check`");
            }
            home.spfs_line("check").run().code(1).stdout_has("belongs to /spfs/l in manifest ");
        });
    }
    for (damage, file) in [(Damage::Cut, "file"), (Damage::Zeroed, "file")] {
        stored.with(Some(damage), &home.stored("objects", &stored.file), || {
            let said = home.spfs_line("check").run();
            said.code(1)
                .stdout_has(&format!("Damaged: {} (object)", stored.file))
                .stdout_has("/spfs/a")
                .stdout_lacks("(payload)");
            assert!(said.stdout.contains("1 issue found"), "{file}: {said}");
        });
    }
    for (content, path) in [(&stored.file, "a"), (&stored.symlink, "l")] {
        stored.with(None, &home.stored("payloads", content), || {
            home.spfs_line("check --fast").run().code(1).stdout_has(&format!("Missing: {content} (payload)"));
            home.spfs(["read", "one", path]).run().code(1).stderr_has(content).stderr_has("hint: `spfs check`");
            home.spfs_line("render one").run().code(1).stderr_has(content);
        });
    }
    home.is_sound();
}

/// The size that a blob gives is no longer that of its payload.
#[test]
fn a_blob_with_another_size_is_the_one_that_is_damaged() {
    let stored = stored(Caller::user());
    let file = stored.home.stored("objects", &stored.file);
    let good = fs::read(&file).unwrap();
    let size = 22u64.to_le_bytes();
    let at = good.windows(8).position(|window| window == size).expect("the size of the payload is in its blob");
    let mut bytes = good.clone();
    bytes[at] = 23;
    Damage::Empty.to(&file);
    fs::write(&file, bytes).unwrap();
    let said = stored.home.spfs_line("check").run();
    said.code(1).stdout_has(&format!("Damaged: {} (object)", stored.file)).stdout_has("has 23 bytes, and that has 22");
    said.stdout_lacks("(payload)").stdout_has("1 issue found");
    fs::write(&file, good).unwrap();
    stored.home.is_sound();
}

#[test]
fn tag_streams() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    let file = home.repository().join("tags/one.tag");
    for damage in [Damage::Cut, Damage::Zeroed, Damage::Altered, Damage::Longer] {
        stored.with(Some(damage), &file, || {
            for reader in ["info one", "run one -- true", "log one", "tags", "tag other one", "untag --latest one"] {
                let said = home.spfs_line(reader).run();
                said.code(1)
                    .stderr_has("is damaged: ")
                    .stderr_has(file.to_str().unwrap())
                    .stderr_has("hint: `spfs check`");
            }
            // The others are shown all the same, and what is asked for by digest does not need it.
            home.spfs_line("tags").run().stdout_is("other");
            home.spfs(["info", &stored.layer]).run().ok();
            home.spfs(["run", &stored.layer, "--", "true"]).run().ok();
            home.spfs_line("check").run().code(1).stdout_has("Damaged: tag one").stdout_has("1 issue found");
            home.spfs_line("clean --dry-run").run().ok().stderr_has("warning: one cannot be read");
            assert!(fs::read_dir(file.parent().unwrap()).unwrap().count() == 2, "no lock is left");
        });
    }
    Damage::Cut.to(&file);
    home.spfs_line("untag --all one").run().ok();
    home.spfs_line("tags").run().ok().stdout_is("other");
    // What is no file is not opened, and found all the same.
    home.sh(&format!("mkfifo {}", file.display())).run().ok();
    home.spfs_line("tags").run().code(1).stdout_is("other").stderr_has("it is not a regular file");
    home.spfs_line("check").run().code(1).stdout_has("Damaged: tag one").stdout_has("1 issue found");
    home.spfs_line("untag --all one").run().ok();
    home.spfs(["tag", &stored.layer, "one"]).run().ok();
    home.is_sound();
}

#[test]
fn a_repository_of_another_version() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    let file = home.repository().join("VERSION");
    for (version, reason) in
        [("1.0.0", "it is of version 1.0.0, and this program reads versions 0.x"), ("9", "version 9")]
    {
        fs::write(&file, version).unwrap();
        for command in ["tags", "info one", "run one -- true", "commit --path tree", "check", "clean", "write"] {
            let said = home.spfs_line(command).run();
            said.code(1).stdout_is("").stderr_has(home.repository().to_str().unwrap()).stderr_has(reason);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), version);
    }
    fs::write(&file, "\0\0\0").unwrap();
    home.spfs_line("tags").run().code(1).stderr_has(file.to_str().unwrap()).stderr_has("is not a version");
    for good in ["", "0.99.1\n", "0.44.0"] {
        fs::write(&file, good).unwrap();
        home.spfs_line("tags").run().ok();
    }
    home.is_sound();
}

#[test]
fn caches_are_made_again_in_silence() {
    every_caller(|caller| {
        let stored = stored(caller.caller().clone());
        let home = &stored.home;
        let works = |what: &str| {
            for reference in ["one", "one+other"] {
                let out = home.spfs(["run", reference, "--", "sh", "-c", "cat /spfs/a; readlink /spfs/l"]).run();
                assert!(
                    out.ok().stdout == "a file of some length\nsomewhere/else\n" && out.stderr.is_empty(),
                    "{what}: {out}"
                );
            }
            let again = home.commit("tree", "one");
            assert_eq!(again, stored.layer, "{what}");
        };
        works("undamaged");
        for damage in DAMAGES {
            // Twice: so that what was made in place of the damaged one is used too.
            cache_files(home).iter().for_each(|file| {
                damage.to(file);
                forget_boot(file);
            });
            works(&format!("{damage:?}"));
            works(&format!("{damage:?}, again"));
        }
        home.is_sound();
    });
}

/// Makes a cache file one of an earlier boot: those of this one are not read through before they are used.
fn forget_boot(file: &Path) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().replace('-', "");
    let boot: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&boot[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut bytes = fs::read(file).unwrap();
    if let Some(at) = bytes.windows(16).position(|window| window == boot) {
        bytes[at..at + 16].fill(7);
        fs::write(file, bytes).unwrap();
    }
}

/// Views and stat caches.
fn cache_files(home: &Home) -> Vec<PathBuf> {
    let files = |name: &str| fs::read_dir(home.cache().join(name)).into_iter().flatten().flatten().map(|e| e.path());
    ["views", "stat"].into_iter().flat_map(files).collect()
}

#[test]
fn images_that_are_not_whole_are_made_again() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let stored = stored(Caller::Root);
    let home = &stored.home;
    home.spfs_line("run one -- true").run().ok().stderr_is("");
    for damage in [Damage::Cut, Damage::Empty, Damage::Zeroed, Damage::Longer] {
        let images: Vec<_> = fs::read_dir(home.cache().join("images")).unwrap().flatten().map(|e| e.path()).collect();
        assert!(!images.is_empty(), "root mounts images");
        images.iter().for_each(|image| damage.to(image));
        home.spfs_line("run one -- cat /spfs/a").run().ok().stdout_is("a file of some length").stderr_is("");
    }
    home.is_sound();
}

#[test]
fn renders() {
    every_caller(|caller| {
        let stored = stored(caller.caller().clone());
        let home = &stored.home;
        let payload = home.stored("payloads", &stored.file);
        for damage in [Damage::Cut, Damage::Empty, Damage::Longer] {
            stored.with(Some(damage), &payload, || {
                let said = home.spfs_line("render one").run();
                said.code(1)
                    .stdout_is("")
                    .stderr_has(&stored.file)
                    .stderr_has("is damaged")
                    .stderr_has("hint: `spfs check`");
                home.spfs_line("render one out").run().fails();
                let _ = fs::remove_dir_all(home.path("out"));
            });
        }
        home.spfs_line("render one").run().ok();
        home.is_sound();
    });
}

#[test]
fn records_of_durable_runtimes() {
    every_caller(|home| {
        home.script("--keep-runtime --runtime-name work -", "echo kept > /spfs/f").run().ok();
        home.wait_for_the_end();
        let file = home.repository().join("durable_edits/work/record.json");
        let good = fs::read(&file).unwrap();
        for damage in DAMAGES {
            damage.to(&file);
            for reader in ["runtime info work", "run --rerun work -- true", "runtime rm work"] {
                let said = home.spfs_line(reader).run();
                said.code(1).stdout_is("").stderr_has("invalid runtime record ").stderr_has(file.to_str().unwrap());
                said.stderr_has("hint: `spfs runtime rm --remove-durable NAME`");
            }
            home.spfs_line("runtime list").run().ok().stdout_is("").stderr_has("warning: runtime work is left out");
            home.spfs_line("clean --dry-run").run().ok().stderr_has("warning: runtime work is left out");
            home.spfs_line("run - -- true").run().ok().stderr_is("");
            let taken = home.spfs_line("run --keep-runtime --runtime-name work - -- true").run();
            taken.code(1).stderr_has("a runtime of this name exists already");
        }
        fs::write(&file, good).unwrap();
        home.spfs_line("run --rerun work -- cat /spfs/f").run().ok().stdout_is("kept");
        home.wait_for_the_end();
        Damage::Cut.to(&file);
        home.spfs_line("runtime rm --remove-durable work").run().ok();
        assert!(!file.parent().unwrap().exists());
        home.is_sound();
    });
}

/// The record of a runtime that is gone: the next command that looks removes it.
#[test]
fn records_of_dead_runtimes() {
    every_caller(|home| {
        let dir = home.run_dir().join("spfs/runtimes/dead");
        home.spfs_line("run - -- true").run().ok();
        home.wait_for_the_end();
        for content in [b"".as_slice(), b"{\"name\": \"dead\", \"aut", b"\0\0\0\0", b"[]", b"\xff\xfe"] {
            fs::create_dir(&dir).unwrap();
            home.own(&dir, 0o700);
            fs::write(dir.join("record.json"), content).unwrap();
            home.own(&dir.join("record.json"), 0o644);
            home.spfs_line("runtime list").run().ok().stdout_is("").stderr_is("");
            assert!(!dir.exists(), "{content:?}");
        }
        home.is_sound();
    });
}

/// In a repository that many write to, somebody may put anything under a name; opening a fifo waits for ever, and
/// `/dev/zero` has no end.
#[test]
fn what_is_no_file_and_what_has_no_end() {
    let stored = stored(Caller::user());
    let home = &stored.home;
    let repository = home.repository();
    let object = home.stored("objects", &stored.manifest);
    let payload = home.stored("payloads", &stored.file);
    let places = [
        (object, "ls one"),
        (payload, "read one a"),
        (repository.join("tags/one.tag"), "ls one"),
        (repository.join("VERSION"), "ls one"),
    ];
    let before = "rm -f $0 && ";
    let makers = ["mkfifo -m 666 $0", "ln -s /dev/zero $0", "truncate -s 8T $0"];
    for (place, reader) in places {
        for (number, maker) in makers.into_iter().enumerate() {
            // A payload is not read into memory, and its length is known from what refers to it.
            let is_long_payload = number == 2 && place.starts_with(repository.join("payloads"));
            if is_long_payload {
                continue;
            }
            stored.with(None, &place, || {
                let place = place.to_str().unwrap();
                home.sh(&format!("{before}{maker}").replace("$0", place)).run().ok();
                let reason = if number < 2 { "it is not a regular file" } else { "at most make sense" };
                home.spfs_line(reader).run().code(1).stderr_has(reason).stderr_has(place);
                home.spfs_line("check").run().code(1);
            });
        }
    }
    home.is_sound();
}
