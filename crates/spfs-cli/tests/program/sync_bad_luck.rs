//! Bad luck while things move, with real processes: killed, full, forbidden, lied to, and two at a time.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use spfs::repo::manifest::{Entry, EntryKind, Manifest, Tree};
use spfs::repo::{Digest, Directory, Layer, Object, ObjectBody, Platform, Repository, Tag, codec};

use crate::common::{Cmd, Gate, Home, eventually, every_caller};
use crate::remote_wire::gated;

/// A remote directory `origin`; whose local repository is somebody else's from now on.
fn origin_of(home: &Home) -> PathBuf {
    let origin = home.path("origin");
    home.spfs(["init", "repo", origin.to_str().unwrap()]).run().ok();
    home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("file:{}", origin.display()));
    origin
}

/// From now on everything happens in another local repository.
fn elsewhere(home: &Home) -> PathBuf {
    home.set("XDG_DATA_HOME", home.path("other-data").to_str().unwrap());
    home.path("other-data/spfs")
}

/// The work directories of a repository, with all that is in them.
fn in_work(repository: &Path) -> Vec<String> {
    let stores = ["objects", "payloads"].map(|store| repository.join(store).join("work"));
    let entries = stores.iter().filter_map(|work| fs::read_dir(work).ok()).flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Bytes that do not compress and have no holes.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

const SIZE: usize = 12 << 20;

/// A layer of one large file at the origin, which is behind a gate from now on, and the place of its payload.
fn slow_layer(home: &Home) -> (PathBuf, Arc<Gate>, Vec<u8>) {
    let origin = origin_of(home);
    let content = noise(SIZE, 7);
    home.write("tree/large", &content);
    home.spfs_line("commit --path tree --tag large").run().ok();
    home.spfs_line("push large").run().ok();
    let payload = Directory::open(&origin).unwrap().payload_path(&Digest::of(&content));
    (payload, gated(home), content)
}

#[test]
fn a_killed_client_goes_on_where_it_stopped() {
    every_caller(|home| {
        let (payload, gate, content) = slow_layer(home);
        let local = elsewhere(home);
        gate.close_after(SIZE as u64 / 2);
        let pull = home.spfs_line("pull large").spawn();
        let part = || in_work(&local).into_iter().find(|name| name.starts_with("part-"));
        let arrived = |part: &String| fs::metadata(local.join("payloads/work").join(part)).unwrap().len();
        // Some of what went through the gate may be on its way still.
        eventually("the first half is in a file", || {
            part().is_some_and(|part| arrived(&part) >= (SIZE / 2 - (1 << 20)) as u64)
        });
        pull.signal(Signal::KILL);
        pull.finish();
        gate.open();
        let had = arrived(&part().unwrap()) as usize;
        assert!(Directory::open(&local).unwrap().payloads().unwrap().is_empty(), "what is there in part is not there");
        // What it has already is not read again: the origin has lost it.
        let mut rest = vec![0; content.len()];
        rest[had..].copy_from_slice(&content[had..]);
        let aside = home.path("aside");
        fs::rename(&payload, &aside).unwrap();
        fs::write(&payload, rest).unwrap();
        home.spfs_line("pull large").run().ok();
        home.spfs_line("check").run().ok();
        assert_eq!(in_work(&local), [""; 0]);
        // What was left may be damaged: then all of it comes again.
        fs::rename(&aside, &payload).unwrap();
        for damaged in [&content[1..1000], &[content.as_slice(), b"more"].concat()[..]] {
            fs::remove_dir_all(&local).unwrap();
            home.spfs_line("tags").run().ok();
            let name = format!("payloads/work/part-{}-{}", home.caller().uid(), Digest::of(&content));
            fs::create_dir_all(local.join("payloads/work")).unwrap();
            fs::write(local.join(&name), damaged).unwrap();
            home.own(&local.join("payloads/work"), 0o755);
            home.own(&local.join(&name), 0o600);
            home.spfs_line("pull large").run().ok();
            home.spfs_line("check").run().ok();
        }
    });
}

#[test]
fn two_who_want_the_same_fetch_it_once_and_a_dead_one_blocks_nobody() {
    every_caller(|home| {
        let (_, gate, _) = slow_layer(home);
        let local = elsewhere(home);
        gate.close_after(SIZE as u64 / 2);
        home.spfs_line("tags").run().ok();
        let claimed = || in_work(&local).iter().any(|name| name.starts_with("fetch-"));
        let pull = |home: &Home| home.spfs_line("pull large").spawn();
        let first = pull(home);
        eventually("the first has claimed it", claimed);
        let mut second = pull(home);
        std::thread::sleep(Duration::from_millis(300));
        assert!(second.is_alive());
        gate.open();
        first.finish().ok();
        second.finish().ok();
        assert!(gate.passed() < 2 * SIZE as u64, "fetched once: {}", gate.passed());
        home.spfs_line("check").run().ok();

        fs::remove_dir_all(&local).unwrap();
        home.spfs_line("tags").run().ok();
        gate.close_after(SIZE as u64 / 2);
        let first = pull(home);
        eventually("the first has claimed it", claimed);
        let second = pull(home);
        std::thread::sleep(Duration::from_millis(200));
        first.signal(Signal::KILL);
        first.finish();
        gate.open();
        second.finish().ok();
        home.spfs_line("check").run().ok();
        home.spfs_line("commit --path tree --tag again").run().ok();
        assert_eq!(in_work(&local), [""; 0]);
    });
}

#[test]
fn many_small_files_are_shared_out_and_survive_a_kill() {
    every_caller(|home| {
        origin_of(home);
        for number in 0..600u32 {
            home.write(&format!("tree/{number}"), noise(4000, number + 1));
        }
        home.spfs_line("commit --path tree --tag small").run().ok();
        home.spfs_line("push small").run().ok();
        let gate = gated(home);
        let local = elsewhere(home);
        gate.close_after(1 << 20);
        let first = home.spfs_line("pull small").spawn();
        eventually("it is in the midst of it", || gate.held() > 0 && !in_work(&local).is_empty());
        let second = home.spfs_line("pull small").spawn();
        std::thread::sleep(Duration::from_millis(300));
        first.signal(Signal::KILL);
        first.finish();
        gate.open();
        second.finish().ok().stdout_has("1 tags");
        home.spfs_line("check").run().ok();
        let run = home.script("small", "cksum < /spfs/599; ls /spfs | wc -l").run();
        let sum = home.sh("cksum < tree/599").run();
        run.ok().stdout_is(&format!("{}\n600", sum.ok().text()));
        home.wait_for_the_end();
        // What the dead one left goes with the next that writes.
        home.spfs_line("commit --path tree/../tree --tag again").run().ok();
        assert_eq!(in_work(&local), [""; 0]);
    });
}

/// Runs `script` where it may mount things that nobody else sees.
fn privately(home: &Home, script: &str) -> Cmd {
    let mut words = vec!["unshare".to_owned()];
    if !home.caller().is_root() {
        words.extend(["--user".to_owned(), "--map-root-user".to_owned()]);
    }
    words.extend(["--mount", "sh", "-euc", script].map(str::to_owned));
    home.command(words)
}

#[test]
fn a_full_disk_on_either_side() {
    every_caller(|home| {
        let origin = origin_of(home);
        home.write("tree/large", noise(9 << 20, 3));
        for number in 0..20u32 {
            home.write(&format!("tree/{number}"), noise(100_000, number));
        }
        home.spfs_line("commit --path tree --tag big").run().ok();
        let said = "said() { echo \"$@\"; \"$@\" 2>&1 && code=0 || code=$?; echo \"code $code\"; }";
        let tiny = |at: &Path| {
            format!(
                "{said}\nmkdir -p {0}; mount -t tmpfs -o size=30M,mode=755 tiny {0}; head -c 26M /dev/zero > {0}/filler",
                at.display()
            )
        };
        // The remote's disk, then ours.
        let script = format!(
            "{}\nspfs init repo {full}; said spfs push --to file:{full} big; spfs tags -r file:{full}; spfs check -r file:{full} > /dev/null
             ls {full}/objects/work {full}/payloads/work 2>/dev/null | grep -v : || true; rm {}/filler; said spfs push --to file:{full} big; spfs check -r file:{full}",
            tiny(&home.path("tiny")),
            home.path("tiny").display(),
            full = home.path("tiny/full").display(),
        );
        let out = privately(home, &script).run();
        out.ok()
            .stdout_has("No space left on device")
            .stdout_has("code 1\nspfs push")
            .stdout_has("code 0")
            .stdout_has("No issues found");
        home.spfs_line("push big").run().ok();
        let script = format!(
            "{}\nexport SPFS_STORAGE_ROOT={full}; said spfs pull big; spfs tags; spfs check > /dev/null
             rm {}/filler; said spfs pull big; spfs check",
            tiny(&home.path("tiny")),
            home.path("tiny").display(),
            full = home.path("tiny/full").display(),
        );
        let out = privately(home, &script).run();
        out.ok()
            .stdout_has("No space left on device")
            .stdout_has("code 1")
            .stdout_has("code 0")
            .stdout_has("No issues found");
        home.spfs(["check", "-r", origin.to_str().unwrap()]).run().ok();
    });
}

#[test]
fn a_remote_that_may_not_be_written_to() {
    every_caller(|home| {
        let origin = origin_of(home);
        home.write("tree/a", "a");
        home.spfs_line("commit --path tree --tag a").run().ok();
        let said = match home.caller().is_root() {
            true => {
                let path = origin.display();
                privately(home, &format!("mount --bind {path} {path}; mount -o remount,bind,ro {path}; spfs push a"))
                    .run()
            }
            false => {
                let places = ["objects", "payloads", "tags", ""].map(|name| origin.join(name));
                places.iter().for_each(|place| fs::set_permissions(place, fs::Permissions::from_mode(0o555)).unwrap());
                let said = home.spfs_line("push a").run();
                places.iter().for_each(|place| fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap());
                said
            }
        };
        said.fails().stderr_has("error: could not create ").stderr_has(origin.to_str().unwrap());
        assert!(said.time < Duration::from_secs(5), "what cannot pass is not tried again: {said}");
        assert_eq!(in_work(&origin), [""; 0]);
        home.spfs_line("tags -r origin").run().ok().stdout_is("");
    });
}

/// Writes an object under a name, its own or another's, and tags it.
fn plant(home: &Home, origin: &Path, tag: &str, object: &Object, name: Digest) {
    let repository = Directory::open(origin).unwrap();
    let path = repository.object_path(&name);
    let _ = fs::create_dir(path.parent().unwrap());
    fs::write(&path, codec::encode(object).unwrap()).unwrap();
    home.own(path.parent().unwrap(), 0o755);
    home.own(&path, 0o444);
    let time = "2020-01-01T00:00:00Z".parse().unwrap();
    let tag = Tag { name: tag.parse().unwrap(), target: name, parent: Digest::NULL, user: "me".to_owned(), time };
    repository.push_tag(&tag).unwrap();
    home.own(&origin.join(format!("tags/{}.tag", tag.name)), 0o644);
}

fn planted(home: &Home, origin: &Path, tag: &str, body: impl Into<ObjectBody>) -> Digest {
    let object = Object::new(body);
    let digest = codec::digest(&object).unwrap();
    plant(home, origin, tag, &object, digest);
    digest
}

#[test]
fn graphs_that_lie() {
    every_caller(|home| {
        let origin = origin_of(home);
        let nowhere = Digest::of(b"nowhere");
        planted(home, &origin, "childless", Platform { stack: vec![nowhere] });
        planted(home, &origin, "bare", Layer { manifest: Some(nowhere), annotations: Vec::new() });
        // A cycle needs a wrong digest, and that shows.
        let cycle = Digest::of(b"cycle");
        plant(home, &origin, "cycle", &Object::new(Platform { stack: vec![cycle] }), cycle);
        for (tag, reason) in [("childless", "is not there"), ("bare", "is not there"), ("cycle", "with the digest")] {
            let local = elsewhere(home);
            home.spfs(["pull", tag]).run().fails().stderr_has(reason).stderr_has(&origin.display().to_string());
            home.script(tag, "true").run().fails();
            assert_eq!(in_work(&local), [""; 0]);
        }
        home.spfs_line("tags").run().ok().stdout_is("");
        home.spfs_line("check").run().ok();
    });
}

#[test]
fn a_hundred_million_entries_in_a_few_bytes() {
    every_caller(|home| {
        let origin = origin_of(home);
        // Platforms that name the one below twice, 27 times over.
        let empty = planted(home, &origin, "empty", Manifest { trees: vec![Tree::default()] });
        let mut top = planted(home, &origin, "layer", Layer { manifest: Some(empty), annotations: Vec::new() });
        for _ in 0..27 {
            top = planted(home, &origin, "platforms", Platform { stack: vec![top, top] });
        }
        // Directories that name the one below twice.
        let file =
            Entry { kind: EntryKind::Mask, object: Digest::NULL, mode: 0o100_644, size: 0, name: "f".to_owned() };
        let mut trees = vec![Tree { entries: vec![file] }];
        for _ in 0..27 {
            let below = trees[0].digest();
            let entry = |name: &str| Entry {
                kind: EntryKind::Tree,
                object: below,
                mode: 0o040_755,
                size: 0,
                name: name.to_owned(),
            };
            trees.insert(0, Tree { entries: vec![entry("a"), entry("b")] });
        }
        let wide = planted(home, &origin, "manifest", Manifest { trees });
        planted(home, &origin, "wide", Layer { manifest: Some(wide), annotations: Vec::new() });
        elsewhere(home);
        home.spfs_line("pull platforms").run().ok().stdout_has("29 objects");
        home.script("platforms", "ls /spfs").run().ok().stdout_is("");
        home.wait_for_the_end();
        let out = home.sh("ulimit -v 4000000; spfs pull wide; spfs run wide -- true").run();
        out.fails().stderr_lacks("panicked").stderr_has("error: ");
    });
}

#[test]
fn two_pushes_to_one_tag_at_the_same_instant() {
    every_caller(|home| {
        origin_of(home);
        for name in ["a", "b", "c"] {
            home.write(&format!("{name}/file"), name);
            home.spfs(["commit", "--path", name, "--tag", "same", "-q"])
                .env("XDG_DATA_HOME", home.path(&format!("data-{name}")).to_str().unwrap())
                .run()
                .ok();
        }
        let pushes = ["a", "b", "c"].map(|name| {
            home.spfs_line("push same")
                .env("XDG_DATA_HOME", home.path(&format!("data-{name}")).to_str().unwrap())
                .spawn()
        });
        for push in pushes {
            push.finish().ok();
        }
        let log = home.spfs_line("log -r origin same").run();
        assert_eq!(log.ok().lines().len(), 3, "{log}");
        home.spfs_line("check -r origin").run().ok();
    });
}

#[test]
fn clocks_that_differ() {
    every_caller(|home| {
        let origin = origin_of(home);
        home.write("tree/a", "old");
        home.spfs_line("commit --path tree --tag t").run().ok();
        home.spfs_line("push t").run().ok();
        let repository = Directory::open(&origin).unwrap();
        let name = "t".parse().unwrap();
        let first = repository.history(&name).unwrap().remove(0);
        // Somebody whose clock is far ahead has pushed something else.
        let other = planted(home, &origin, "other", Manifest { trees: vec![Tree::default()] });
        let other = planted(home, &origin, "other", Layer { manifest: Some(other), annotations: Vec::new() });
        let future = Tag { target: other, time: "2190-01-01T00:00:00Z".parse().unwrap(), ..first.clone() };
        repository.insert_tag(&future).unwrap();
        home.own(&origin.join("tags/t.tag"), 0o644);
        home.write("tree/a", "new");
        home.spfs_line("commit --path tree --tag t").run().ok();
        home.spfs_line("push t").run().ok().stderr_has("has a younger version of t");
        let history = repository.history(&name).unwrap();
        assert_eq!((history.len(), history[0].target, history[2].target), (3, other, first.target), "none is lost");
        // Said at the remote itself, it is the newest, whatever the clocks say.
        home.spfs(["tag", "-r", "origin", &first.target.to_string(), "t"]).run().ok();
        assert_eq!(repository.history(&name).unwrap()[0].target, first.target);
        elsewhere(home);
        home.script("t", "cat /spfs/a").run().ok().stdout_is("old");
        home.wait_for_the_end();
    });
}

#[test]
fn transfers_through_a_tar_file() {
    every_caller(|home| {
        home.write("tree/large", noise(9 << 20, 5));
        home.write("tree/small", "small");
        home.spfs_line("commit --path tree --tag t").run().ok();
        let archive = home.path("o.tar");
        let address = format!("tar:{}", archive.display());
        home.write("first/a", "a");
        home.spfs_line("commit --path first --tag first").run().ok();
        home.spfs(["push", "--to", &address, "first"]).run().ok();
        let before = fs::read(&archive).unwrap();
        for _ in 0..3 {
            let push = home.spfs(["push", "--to", &address, "t"]).spawn();
            std::thread::sleep(Duration::from_millis(15));
            push.signal(Signal::KILL);
            push.finish();
            home.spfs(["check", "-r", &address]).run().ok();
            home.spfs(["tags", "-r", &address]).run().ok().stdout_has("first");
        }
        assert!(fs::metadata(&archive).unwrap().size() >= before.len() as u64);
        home.spfs(["push", "--to", &address, "t"]).run().ok();
        elsewhere(home);
        home.spfs(["pull", "--from", &address, "t", "first"]).run().ok();
        home.spfs_line("check").run().ok();
        home.script("t", "cat /spfs/small").run().ok().stdout_is("small");
        home.wait_for_the_end();
    });
}
