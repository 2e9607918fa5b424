//! Who a command is inside a runtime, what it may not do there, and what the files of a layer look like to it.

use crate::common::{Caller, Home, every_caller, everywhere};

/// The mount options of every mount at or below /spfs, as `mount point: options`; for `sh -c` inside a runtime.
const MOUNTS: &str = "awk '$5 ~ /^\\/spfs(\\/|$)/ {print $5 \": \" $6}' /proc/self/mountinfo";

/// A directory `live` that is shown at /spfs/live, and a file `one` at /spfs/one, by the live layer `live.spfs.yaml`.
fn live_layer(home: &Home) -> String {
    home.write("live/file", "live\n");
    home.write("one", "single\n");
    let binds = "{bind: live, dest: /spfs/live}, {bind: one, dest: one}";
    let spec = home.write("live.spfs.yaml", format!("api: spfs/v0/livelayer\ncontents: [{binds}]\n"));
    spec.to_str().unwrap().to_owned()
}

#[test]
fn a_command_is_who_its_caller_is_and_nothing_more() {
    everywhere(|home| {
        let who = "id -u; id -g; grep -E '^(Uid|Gid|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status";
        let outside = home.sh(who).run().ok().stdout.clone();
        home.script("-", who).run().ok().stdout_is(&outside);
        home.script("-", "spfs run - -- sh -c 'id -u; id -g'").run().ok().stdout_is(&format!(
            "{}\n{}",
            home.caller().uid(),
            home.caller().gid()
        ));
        if !home.caller().is_root() {
            let caps = "CapInh CapPrm CapEff CapAmb".split(' ').map(|set| format!("{set}:\t{:016x}", 0));
            caps.for_each(|line| assert!(outside.contains(&line), "the caller has capabilities:\n{outside}"));
            home.script("-", "mount -t tmpfs none /spfs || umount -l /spfs || mount -o remount,rw /spfs").run().fails();
        }
    });
}

#[test]
fn groups_stay() {
    every_caller(|home| {
        // The supplementary groups of a user show as nobody's, but still open doors.
        home.write("shared/file", "for the group\n");
        let outside = home.sh("grep ^Groups: /proc/self/status | wc -w").run().ok().stdout.clone();
        home.script("-", "grep ^Groups: /proc/self/status | wc -w").run().ok().stdout_is(&outside);
        home.script("-", &format!("cat {}", home.path("shared/file").display())).run().ok().stdout_is("for the group");
    });
}

#[test]
fn no_mount_allows_set_uid_programs_or_devices() {
    everywhere(|home| {
        let live = live_layer(home);
        for (reference, count) in [("-".to_owned(), 1), (format!("{live} --edit"), 3)] {
            let checked = |out: &str| {
                assert_eq!(out.lines().count(), count, "{out}");
                for line in out.lines() {
                    assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
                }
            };
            checked(&home.script(&reference, MOUNTS).run().ok().stdout);
        }
        home.script("- --edit", &format!("spfs reset; spfs edit --off; spfs edit; {MOUNTS}"))
            .run()
            .ok()
            .stdout_has("nosuid,nodev");
    });
}

#[test]
fn a_set_uid_program_of_a_layer_raises_nobody() {
    if !crate::common::is_root() {
        return a_set_uid_program_of_mine_stays_mine();
    }
    let home = Home::new(Caller::Root);
    let live = live_layer(&home);
    home.sh("cp /usr/bin/id live/id && chmod 6755 live/id").run().ok();
    home.script("-", "cp /usr/bin/id /spfs/id; chmod 6755 /spfs/id; spfs commit layer -t suid").run().ok();
    let Caller::User(user) = Caller::user() else { panic!("a user is a user") };
    let drop = format!("setpriv --reuid={} --regid={} --clear-groups", user.uid, user.gid);
    // The same file outside does raise: what is looked at is the mount.
    home.script("suid", &format!("{drop} /spfs/id -u; {drop} /spfs/id -g"))
        .run()
        .ok()
        .stdout_is(&format!("{}\n{}", user.uid, user.gid));
    home.script(&live, &format!("{drop} /spfs/live/id -u")).run().ok().stdout_is(&user.uid.to_string());
    home.script("-", &format!("cp /usr/bin/id /spfs/id; chmod 6755 /spfs/id; {drop} /spfs/id -u"))
        .run()
        .ok()
        .stdout_is(&user.uid.to_string());
}

fn a_set_uid_program_of_mine_stays_mine() {
    let home = Home::new(Caller::user());
    home.script("-", "cp /usr/bin/id /spfs/id; chmod 6755 /spfs/id; spfs commit layer -t suid").run().ok();
    home.script("suid", "/spfs/id -u").run().ok().stdout_is(&home.caller().uid().to_string());
}

#[test]
fn devices_do_not_work() {
    every_caller(|home| {
        let live = live_layer(home);
        if home.caller().is_root() {
            home.script("-", "mknod /spfs/null c 1 3 && cat /spfs/null").run().fails().stderr_has("Permission denied");
            home.sh("mknod live/null c 1 3").run().ok();
            home.script(&live, "cat /spfs/live/null").run().fails().stderr_has("Permission denied");
        } else {
            home.script("-", "mknod /spfs/null c 1 3").run().fails().stderr_has("not permitted");
        }
    });
}

#[test]
fn a_file_shows_its_own_mode_size_owner_and_a_single_link() {
    everywhere(|home| {
        let code = r#"cd /spfs; umask 022
            printf same > a; printf same > b; printf same > c; : > empty; : > empty2; mkdir -m 711 d; printf x > d/f
            chmod 755 a; chmod 640 b; chmod 444 c; ln -s a link; mkdir -m 1777 sticky
            spfs commit layer -t base"#;
        home.script("-", code).run().ok();
        // Whatever becomes of the payloads.
        home.sh("find $XDG_DATA_HOME/spfs/payloads -type f -exec chmod 0600 {} + -exec touch {} +").run().ok();
        let me = format!("{}:{}", home.caller().uid(), home.caller().gid());
        let expected = [
            (".", "755", "d"),
            ("a", "755", "4"),
            ("b", "640", "4"),
            ("c", "444", "4"),
            ("d", "711", "d"),
            ("d/f", "644", "1"),
            ("empty", "644", "0"),
            ("empty2", "644", "0"),
            ("link", "777", "1"),
            ("sticky", "1777", "d"),
        ];
        for reference in ["base", "base --edit", "base+base"] {
            let code = "cd /spfs; find . -mindepth 1 | sort | cut -c3- | xargs stat -c '%n %a %s %h %u:%g %Y %i %F' .";
            let out = home.script(reference, code).run().ok().stdout.clone();
            let mut inodes = Vec::new();
            for (line, (name, mode, size)) in out.lines().zip(expected) {
                let words: Vec<&str> = line.split(' ').collect();
                assert_eq!(words[..2], [name, mode], "{out}");
                assert_eq!(words[4], me, "{out}");
                if name != "." {
                    assert_eq!(words[5], "315532800", "{out}");
                }
                if size != "d" {
                    assert_eq!(words[2..4], [size, "1"], "{out}");
                }
                inodes.push(words[6].to_owned());
            }
            assert_eq!(out.lines().count(), expected.len(), "{out}");
            inodes.sort();
            inodes.dedup();
            assert_eq!(inodes.len(), expected.len(), "two of them share an inode:\n{out}");
        }
        home.script("base", "test -x /spfs/a && ! test -x /spfs/b && cat /spfs/a").run().ok().stdout_is("same");
        home.script("base", "cp -a /spfs/. copy && ls -A copy | wc -l").run().ok().stdout_is("8");
    });
}

#[test]
fn disk_usage_is_that_of_the_files() {
    every_caller(|home| {
        let code = "head -c 1048576 /dev/urandom > /spfs/big; cp /spfs/big /spfs/again; spfs commit layer -t base";
        home.script("-", code).run().ok();
        let out = home.script("base", "du -s --block-size=1 /spfs; du -s --apparent-size --block-size=1 /spfs").run();
        for line in out.ok().lines() {
            let bytes: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
            assert!((2 << 20..3 << 20).contains(&bytes), "{out}");
        }
        home.script("base", "df /spfs").run().ok();
    });
}

#[test]
fn nobody_else_sees_it() {
    every_caller(|home| {
        let mut inside = home.script("-", "echo secret > /spfs/f; echo ready; cat").stdin_open().spawn();
        inside.wait_for("ready");
        home.sh("cat /spfs/f").run().fails();
        home.script("-", "ls -A /spfs").run().ok().stdout_is("");
        inside.close_stdin();
        inside.finish().ok();
    });
}
