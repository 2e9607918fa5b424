//! Caches in trouble: full, read-only, cut short, somebody else's, or not what they should be. Nothing needs them: they
//! are made again, or gone around, and nobody is told.

use crate::common::{Caller, Home, Output, every_caller, every_strategy, is_root};

/// A layer `x`, and all that uses a cache: views, images, renders, what is known of committed directories.
const USE: &str = "mkdir -p t/d; test -e t/x || { echo one > t/x; echo two > t/d/y; ln -s x t/l; }
    spfs commit --path t -t x >/dev/null; spfs run x -- sh -c 'cat /spfs/x /spfs/d/y; readlink /spfs/l'
    spfs run x --edit -- sh -c 'rm /spfs/l; spfs commit layer -t z >/dev/null'; spfs run x+z -- ls -A /spfs; spfs ls x";

const SAID: &str = "one\ntwo\nx\nd\nx\nd/\nl\nx\n";

fn works(home: &Home, what: &str) {
    let out = home.sh(USE).run();
    assert!(out.ok().stdout == SAID, "{what}: {out}");
    out.stderr_lacks("error").stderr_lacks("panicked");
    home.wait_for_the_end();
}

#[test]
fn whatever_its_files_hold() {
    let damages = [
        ("empty", ": > $f"),
        ("cut short", "truncate -s 100 $f"),
        ("a byte less", "truncate -s -1 $f"),
        ("longer", "echo more >> $f"),
        ("zeros, as after a power cut", "s=$(stat -c %s $f); : > $f; truncate -s $s $f"),
        ("zeros in the second half", "s=$(stat -c %s $f); truncate -s $((s/2)) $f; truncate -s $s $f"),
        ("noise", "head -c 5000 /dev/urandom > $f"),
        ("no file", "rm $f; mkdir $f"),
        ("a link to nothing", "rm $f; ln -s nowhere $f"),
        ("not to be read", "chmod 0 $f"),
    ];
    every_strategy(|home| {
        works(home, "at first");
        for (what, damage) in damages {
            // As after another boot: the stamp of this one says that a file is whole. In an image it is the UUID.
            let stamp = "case $f in *.erofs) at=1072;; *) at=16;; esac
                printf 0123456789abcdef | dd of=$f bs=1 seek=$at conv=notrunc 2>/dev/null";
            let code = format!("find ~/.cache/spfs -type f | while read f; do {stamp}; {damage}; done");
            home.sh(&code).run().ok();
            works(home, what);
            home.sh("find ~/.cache/spfs -mindepth 2 -type d -exec rmdir {} + 2>/dev/null; true").run().ok();
        }
        works(home, "in the end");
    });
}

/// Runs `code` where a file system of a few kilobytes, or a read-only one, takes the place of the caches.
fn with_cache(home: &Home, mount: &str, code: &str) -> Output {
    let unshare = match home.caller() {
        Caller::Root => "unshare --mount",
        Caller::User(_) => "unshare --user --map-current-user --keep-caps --mount",
    };
    home.write("code", code);
    home.sh(&format!("mkdir -p ~/.cache; exec {unshare} sh -euc '{mount}; exec sh ./code'")).run()
}

#[test]
fn when_it_is_full_or_read_only() {
    every_strategy(|home| {
        let tmpfs = "mount -t tmpfs -o mode=700,size=";
        let full = format!("{tmpfs}8k none $HOME/.cache; head -c 1M /dev/zero > $HOME/.cache/fill 2>/dev/null || true");
        let read_only =
            format!("{tmpfs}1m none $HOME/.cache; mkdir -m 700 $HOME/.cache/spfs; mount -o remount,ro $HOME/.cache");
        for (what, mount) in
            [("full", full), ("small", format!("{tmpfs}16k none $HOME/.cache")), ("read-only", read_only)]
        {
            let is_image = home.environment().get("SPFS_FILESYSTEM_BACKEND").is_some_and(|name| name == "image");
            if is_image {
                // Asked for by its name it is an error: an image cannot be mounted from such a place.
                continue;
            }
            let out = with_cache(home, &mount, USE);
            assert!(out.ok().stdout == SAID, "{what}: {out}");
            out.stderr_lacks("error");
            home.wait_for_the_end();
        }
    });
}

#[test]
fn when_it_is_somebody_elses() {
    if !is_root() {
        return;
    }
    for caller in Caller::all() {
        let home = Home::new(caller);
        works(&home, "at first");
        let other = home.caller().uid() + 1;
        let root = Home::new(Caller::Root);
        for path in ["", "/views", "/views/*", "/images/*", "/stat/*"] {
            let code = format!("for f in {}{path}; do test ! -e $f || chown {other} $f; done", home.cache().display());
            root.sh(&code).run().ok();
            works(&home, path);
            root.sh(&format!("chown -R {} {}", home.caller().uid(), home.cache().display())).run().ok();
        }
        works(&home, "in the end");
    }
}

/// The number of a device goes to the next one (here most times, on a quiet machine), and all of /spfs has one time: only
/// their content tells these files apart.
#[test]
fn what_is_committed_from_the_same_place_is_read_again() {
    every_caller(|home| {
        let code = "mkdir a b; echo one > a/f; echo two > b/f; spfs commit --path a -t a; spfs commit --path b -t b";
        home.sh(code).run().ok();
        for _ in 0..3 {
            for (name, content) in [("a", "one"), ("b", "two")] {
                home.script(&format!("{name} --edit"), "spfs commit --path /spfs -t copy").run().ok();
                home.spfs_line("read copy f").run().ok().stdout_is(content);
                home.wait_for_the_end();
            }
        }
    });
}
