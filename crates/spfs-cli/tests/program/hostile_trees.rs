//! Trees that are hard to commit, or cannot be: special files, names, depth, size, and files that change meanwhile.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use crate::common::{Caller, Home, every_caller};

#[test]
fn special_files_are_named_all_at_once() {
    every_caller(|home| {
        home.write("tree/a", "a");
        home.sh("mkfifo tree/fifo").run().ok();
        let _socket = UnixListener::bind(home.path("tree/d.sock")).unwrap();
        let said = home.spfs_line("commit --path tree -t x").run();
        said.code(1).stdout_is("").stderr_has("cannot commit tree/d.sock: it is a socket");
        said.stderr_has("tree/fifo: it is a named pipe");
        if home.caller().is_root() {
            home.sh("rm tree/fifo tree/d.sock; mknod tree/null c 1 3").run().ok();
            home.spfs_line("commit --path tree -t x").run().code(1).stderr_has("tree/null: it is a device");
        }
        let code = "echo a > /spfs/a; mkfifo /spfs/fifo; spfs commit layer -t x; echo code $?; spfs info | tail -2
            rm /spfs/fifo; spfs commit layer -q -t x > /dev/null; echo code $?";
        let out = home.script("-", code).run();
        out.ok().stdout_is("code 1\n + /a\n + /fifo\ncode 0").stderr_has("cannot commit fifo: it is a ");
        out.stderr_has("hint: `spfs info` lists the active changes; remove the file, or `spfs reset` it");
        home.spfs_line("ls x").run().ok().stdout_is("a");
        home.is_sound();
    });
}

#[test]
fn names_that_are_not_utf8() {
    every_caller(|home| {
        home.sh("mkdir -p tree/d; echo x > tree/d/\"$(printf 'a\\377b')\"").run().ok();
        let said = home.spfs_line("commit --path tree -t x").run();
        said.code(1).stdout_is("").stderr_has("cannot commit tree/d/").stderr_has("is not UTF-8");
        let code = "echo a > /spfs/a; N=$(printf '/spfs/\\377'); echo x > \"$N\"; cat \"$N\"
            spfs commit layer -t x; echo code $?; mv \"$N\" /spfs/b; spfs commit layer -q -t x >/dev/null; echo code $?";
        home.script("-", code).run().ok().stdout_is("x\ncode 1\ncode 0").stderr_has("its name is not UTF-8");
        home.spfs_line("ls x").run().ok().stdout_is("a\nb");
        home.is_sound();
    });
}

#[test]
fn what_cannot_be_read_is_named() {
    let home = Home::new(Caller::user());
    for (path, mode) in [("tree/secret", "000"), ("tree/closed", "000"), ("tree/listed", "400")] {
        home.write(&format!("{path}{}", if path == "tree/secret" { "" } else { "/f" }), "x");
        home.sh(&format!("chmod {mode} {path}")).run().ok();
        let said = home.spfs_line("commit --path tree -t x").run();
        said.code(1).stdout_is("").stderr_has(path).stderr_has("permission to read it is denied");
        home.sh(&format!("chmod 700 {path}; rm -r {path}")).run().ok();
    }
    home.spfs_line("tags").run().ok().stdout_is("");
    // In a runtime the monitor reads what its owner has closed.
    let code = "echo x > /spfs/secret; chmod 000 /spfs/secret; mkdir /spfs/d; echo y > /spfs/d/f; chmod 000 /spfs/d
        spfs commit layer -q -t closed";
    home.script("-", code).run().ok();
    home.spfs_line("read closed d/f").run().ok().stdout_is("y");
    home.script("closed", "stat -c %a /spfs/secret /spfs/d").run().ok().stdout_is("0\n0");
    home.is_sound();
}

/// Its content is another each time, and never as long as it says.
#[test]
fn a_file_that_is_not_what_it_was() {
    let home = Home::new(Caller::user());
    let said = home.spfs_line("commit --path /proc/sys/kernel/random -t x").run();
    said.code(1)
        .stdout_is("")
        .stderr_has("cannot commit /proc/sys/kernel/random/")
        .stderr_has("it changed while being read");
    home.spfs_line("tags").run().ok().stdout_is("");
    home.is_sound();
}

#[test]
fn files_that_change_while_they_are_committed() {
    every_caller(|home| {
        home.sh("mkdir tree; for i in 1 2 3 4 5 6 7 8; do head -c 300000 /dev/zero > tree/$i; done").run().ok();
        let writer = "while :; do for i in 1 2 3 4 5 6 7 8; do echo $$ >> tree/$i; mv tree/$i tree/n; mv tree/n tree/$i; done; done";
        let writer = home.sh(writer).spawn();
        for _ in 0..8 {
            let said = home.spfs_line("commit --path tree -q -t moving").run();
            if !said.status.success() {
                said.code(1).stdout_is("").stderr_has("cannot commit tree/");
            }
        }
        writer.signal_group(rustix::process::Signal::KILL);
        drop(writer);
        // It may have died between the two renames.
        home.sh("for i in 1 2 3 4 5 6 7 8; do [ -e tree/$i ] || mv tree/n tree/$i; done").run().ok();
        home.commit("tree", "still");
        home.sh("for i in 1 2 3 4 5 6 7 8; do spfs read still $i | cmp - tree/$i; done").run().ok();
        // A warm cache has noticed nothing wrong.
        let (warm, cold) = (home.commit("tree", "still"), home.spfs_line("commit -q --no-cache --path tree").run());
        cold.ok().stdout_is(&warm);
        home.is_sound();
    });
}

#[test]
fn names_with_everything_in_them() {
    every_caller(|home| {
        let long = "ä".repeat(127) + "z";
        let names = [
            "a\nb",
            " lead",
            "trail ",
            "-rf",
            "c:d",
            "e,f",
            "g\\h",
            "i'j",
            "k\"l",
            "$(x)",
            "m=n",
            "*",
            "\u{1b}[31m",
            "ünï",
            ".hidden",
            "...",
            "#ns",
            "o.tag",
            "%s",
            "~",
            "a;b",
            "\u{202e}txt",
            "\t",
            long.as_str(),
        ];
        for name in names {
            home.write(&format!("tree/{name}"), name);
        }
        home.commit("tree", "names");
        home.script("names", "cd /spfs && ls -A1b > $OLDPWD/inside; cat ./*; diff -r . $OLDPWD/tree").run().ok();
        home.sh("cd tree && ls -A1b | cmp - ../inside").run().ok();
        for name in names {
            home.spfs(["read", "names", &format!("/spfs/{name}")]).run().ok().stdout_is(name);
        }
        // Over another layer, and committed from a runtime, they are the same.
        home.script("-", "cp -a tree/. /spfs && spfs commit layer -q -t again").run().ok();
        home.spfs_line("diff names again").run().ok().stdout_is("");
        home.script("names --edit", "rm /spfs/*; spfs commit layer -q -t less; ls -A1b /spfs").run().ok();
        home.script("names+less", "ls -A /spfs").run().ok().stdout_is("...\n.hidden");
        home.spfs_line("render names out").run().ok();
        home.sh("diff -r tree out").run().ok();
        home.is_sound();
    });
}

/// Makes directories inside each other, one step at a time, with a file in the innermost; their path is longer than one
/// system call takes.
fn deep_tree(home: &Home, name: &str, levels: usize) {
    use rustix::fs::{Mode, OFlags};
    let mut at = rustix::fs::open(home.path(""), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let owner = |fd: &std::os::fd::OwnedFd| {
        let (uid, gid) = (home.caller().uid(), home.caller().gid());
        std::os::unix::fs::fchown(fd, Some(uid), Some(gid)).unwrap();
    };
    for level in 0..=levels {
        let name = if level == 0 { name } else { "directory" };
        rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        owner(&at);
    }
    let file = rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"end\n").unwrap();
    owner(&file);
}

#[test]
fn a_very_deep_tree() {
    every_caller(|home| {
        deep_tree(home, "tree", 1000);
        home.commit("tree", "deep");
        home.script("deep", "find /spfs -name f | wc -c; find /spfs -type d | wc -l")
            .run()
            .ok()
            .stdout_is("10008\n1001");
        home.spfs(["read", "deep", &("directory/".repeat(1000) + "f")]).run().ok().stdout_is("end");
        home.spfs_line("render deep out").run().ok();
        home.sh("test $(find out -type d | wc -l) = 1001 && rm -r out tree").run().ok();
        // In a runtime, as deep as a shell gets.
        let deep = "i=0; while [ $i -lt 1000 ]; do mkdir d; cd d; i=$((i+1)); done; echo end > f";
        let code = format!("cd /spfs; {deep}; cd /; spfs info | grep -c d/f; spfs commit layer -q -t again >/dev/null");
        home.script("-", &code).run().ok().stdout_is("1");
        home.script("again", "find /spfs -type d | wc -l").run().ok().stdout_is("1001");
        home.script("deep+again", "find /spfs -type d | wc -l").run().ok().stdout_is("2001");
        home.is_sound();
    });
}

#[test]
fn a_directory_with_very_many_entries() {
    let home = Home::new(Caller::user());
    fs::create_dir(home.path("tree")).unwrap();
    home.own(&home.path("tree"), 0o755);
    // One content, so that the disk has little to do.
    fs::write(home.path("tree/0"), "").unwrap();
    home.own(&home.path("tree/0"), 0o644);
    for number in 1..100_000 {
        let name = home.path(&format!("tree/{number}"));
        match number % 10 {
            0 => symlink("0", &name).unwrap(),
            _ => fs::hard_link(home.path(&format!("tree/{}", number / 30_000 * 30_000 + 1)), &name).unwrap_or_else(
                |_| {
                    fs::write(&name, "").unwrap();
                    home.own(&name, 0o644);
                },
            ),
        }
    }
    home.commit("tree", "many");
    home.script("many", "ls -f /spfs | wc -l; cd /spfs; stat -c '%F %h' 99999 99990")
        .run()
        .ok()
        .stdout_is("100002\nregular empty file 1\nsymbolic link 1");
    home.script("many --edit", "rm /spfs/12345; spfs info | tail -1; spfs commit layer -q -t less >/dev/null")
        .run()
        .ok()
        .stdout_is(" - /12345");
    home.script("many+less", "ls -f /spfs | wc -l").run().ok().stdout_is("100001");
    assert_eq!(home.spfs_line("ls many").run().lines().len(), 100_000);
    home.is_sound();
}

#[test]
fn a_large_and_hollow_file() {
    let home = Home::new(Caller::user());
    home.sh("mkdir tree; truncate -s 2100M tree/hollow; printf end >> tree/hollow").run().ok();
    home.commit("tree", "hollow");
    let code = "stat -c %s /spfs/hollow; tail -c 3 /spfs/hollow; head -c 5 /spfs/hollow | od -An -tx1";
    home.script("hollow", code).run().ok().stdout_is("2202009603\nend 00 00 00 00 00");
    // The holes stay holes.
    home.sh(&format!("test $(du -s --block-size=1M {} | cut -f1) -lt 10", home.repository().display())).run().ok();
    home.wait_for_the_end();
}

#[test]
fn hard_links_and_loops_of_symlinks() {
    every_caller(|home| {
        home.write("tree/a", "same");
        home.sh("ln tree/a tree/b; ln -s loop2 tree/loop1; ln -s loop1 tree/loop2; ln -s . tree/self; ln -s /nowhere tree/lost; ln -s ../../../etc tree/up").run().ok();
        home.commit("tree", "links");
        let code = "stat -c %h /spfs/a /spfs/b; cat /spfs/a /spfs/self/self/b; readlink /spfs/loop1 /spfs/lost /spfs/up
            cat /spfs/loop1 2>&1 | grep -o 'Too many levels'";
        home.script("links", code).run().ok().stdout_is("1\n1\nsamesameloop2\n/nowhere\n../../../etc\nToo many levels");
        let code = "cd /spfs; echo x > x; ln x y; ln -s z z; spfs commit layer -q -t made >/dev/null; echo more >> /dev/null; cat y";
        home.script("links --edit", code).run().ok().stdout_is("x");
        home.script("links+made", "cat /spfs/y; readlink /spfs/z").run().ok().stdout_is("x\nz");
        home.spfs_line("render links out").run().ok();
        home.sh("diff --no-dereference -r tree out").run().ok();
        // The tree itself may be named through a symlink, and a loop is no tree.
        home.sh("ln -s tree named; ln -s ring ring").run().ok();
        assert_eq!(home.commit("named", "named"), home.commit("tree", "links"));
        home.spfs_line("commit --path ring")
            .run()
            .code(1)
            .stderr_has("ring")
            .stderr_has("Too many levels of symbolic links");
        home.is_sound();
    });
}
