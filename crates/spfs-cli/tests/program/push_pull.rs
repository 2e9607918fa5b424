//! Sharing through a directory: push, pull, and run of what is only at the origin.

use std::fs;

use crate::common::{Home, every_caller};

/// Another person's home that shares `origin` with this one: another local repository.
fn elsewhere(home: &Home) {
    home.set("XDG_DATA_HOME", home.path("other-data").to_str().unwrap());
}

fn with_origin(home: &Home) {
    let origin = home.path("origin");
    home.spfs(["init", "repo", origin.to_str().unwrap()]).run().ok();
    home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("file:{}", origin.display()));
    home.script("-", "echo 'hello, world' > /spfs/message.txt; spfs commit layer --tag my-layer").run().ok();
    let more = "echo 'hello, platform!' > /spfs/platform-message.txt; spfs commit platform --tag my-platform";
    home.script("my-layer --edit", more).run().ok();
    home.wait_for_the_end();
}

#[test]
fn the_guide_on_sharing() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-platform").run().ok().stdout_has("synced:\n\t1 tags (0 skipped)");
        home.spfs_line("tags -r origin").run().ok().stdout_is("my-platform");
        // The layer is there already, so that only the tag is made.
        home.spfs_line("push my-layer")
            .run()
            .ok()
            .stdout_is("synced:\n\t1 tags (0 skipped)\n\t0 objects (1 skipped)\n\t0 payloads (0 skipped) (0.0 B)");
        home.spfs_line("push my-layer").run().ok().stdout_has("0 tags (1 skipped)");

        elsewhere(home);
        let look = "cat /spfs/message.txt /spfs/platform-message.txt";
        home.script("my-platform", look).run().ok().stdout_is("hello, world\nhello, platform!");
        home.wait_for_the_end();
        home.spfs_line("tags").run().ok().stdout_is("");
        home.spfs_line("pull my-layer").run().ok().stdout_has("1 tags (0 skipped)");
        home.spfs_line("tags").run().ok().stdout_is("my-layer");
        home.spfs_line("check").run().ok();

        // The origin is away: what was run once runs again, and what was never here says why not.
        fs::rename(home.path("origin"), home.path("away")).unwrap();
        home.script("my-platform", look).run().ok().stdout_has("hello, platform!").stderr_has("cannot be asked");
        home.script("my-layer", "cat /spfs/message.txt").run().ok().stdout_is("hello, world").stderr_is("");
        home.script("something-else", "true").run().fails().stderr_has("could not open repository");
        home.wait_for_the_end();
    });
}

#[test]
fn a_damaged_payload_or_a_missing_one_does_not_arrive() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-platform").run().ok();
        elsewhere(home);
        let payloads = home.path("origin/payloads");
        let shard = fs::read_dir(&payloads).unwrap().flatten().find(|entry| entry.file_name() != "work").unwrap();
        let payload = fs::read_dir(shard.path()).unwrap().flatten().next().unwrap().path();
        let good = fs::read(&payload).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::remove_file(&payload).unwrap();
        home.spfs_line("pull my-platform").run().fails().stderr_has("missing payload");
        fs::write(&payload, bad).unwrap();
        home.spfs_line("pull my-platform").run().fails().stderr_has("the content that arrived has the digest");
        home.spfs_line("tags").run().ok().stdout_is("");
        home.spfs_line("check").run().ok();
        fs::remove_file(&payload).unwrap();
        fs::write(&payload, good).unwrap();
        home.spfs_line("pull my-platform").run().ok();
        home.spfs_line("check").run().ok();
    });
}

#[test]
fn what_is_lost_below_something_is_filled_in_when_asked_for() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-platform").run().ok();
        let payloads = home.path("origin/payloads");
        let shard = fs::read_dir(&payloads).unwrap().flatten().find(|entry| entry.file_name() != "work").unwrap();
        let payload = fs::read_dir(shard.path()).unwrap().flatten().next().unwrap().path();
        fs::remove_file(&payload).unwrap();
        home.spfs_line("push my-platform").run().ok();
        assert!(!payload.exists(), "present means complete");
        home.spfs_line("push --check my-platform").run().ok().stdout_has("1 payloads");
        assert!(payload.exists());
        let good = fs::read(&payload).unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::remove_file(&payload).unwrap();
        fs::write(&payload, bad).unwrap();
        home.spfs_line("push --resync my-platform").run().ok();
        assert_eq!(fs::read(&payload).unwrap(), good);
    });
}

/// As existing SPFS does it: what is pushed stays in the outer repository, what is pulled comes from both.
#[test]
fn an_origin_that_is_wrapped() {
    every_caller(|home| {
        home.write("tree/a", "a\n");
        home.write("more/b", "b\n");
        home.commit("tree", "one");
        home.spfs_line("push one --wrap-origin outer").run().code(2).stderr_has("there is none to wrap");
        home.sh("spfs init repo $PWD/far; spfs remote add origin $PWD/far; spfs push one").run().ok();
        home.commit("more", "two");
        home.spfs_line("push two --wrap-origin outer").run().ok();
        home.spfs_line("tags -r ./far").run().ok().stdout_is("one");
        home.spfs_line("tags -r ./outer").run().ok().stdout_is("two");
        home.set("SPFS_STORAGE_ROOT", home.path("empty").to_str().unwrap());
        home.spfs_line("pull two").run().code(1).stderr_has("unknown reference");
        home.spfs_line("--wrap-origin outer run one+two -- cat /spfs/a /spfs/b").run().ok().stdout_is("a\nb");
        home.spfs_line("tags -r origin --wrap-origin outer").run().ok().stdout_is("one\ntwo");
        home.spfs_line("tags -r remoteorigin --wrap-origin outer").run().ok().stdout_is("one");
    });
}

#[test]
fn chains_by_name_and_by_address() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-layer").run().ok();
        let [origin, mirror] = ["origin", "mirror"].map(|name| home.path(name).display().to_string());
        let config = format!(
            "[remote.mirror]\naddress = 'file:{mirror}?create=true'\n\
             [remote.site]\nscheme = 'fallback'\nprimary = 'mirror'\nsecondary = ['origin', 'file:/nonexistent']\n\
             [remote.early]\naddress = 'file:{origin}'\nwhen = '@2020-06-15'\n\
             [remote.round]\naddress = 'proxy:?primary=round'\n"
        );
        fs::create_dir_all(home.home_dir().join(".config/spfs")).unwrap();
        fs::write(home.home_dir().join(".config/spfs/spfs.toml"), config).unwrap();
        // What is found behind a fallback is kept by it.
        elsewhere(home);
        home.spfs_line("pull -r site my-layer").run().ok().stderr_has("repaired a missing");
        home.spfs_line("check -r mirror").run().ok();
        home.spfs_line("tags -r mirror").run().ok().stdout_is("");
        home.spfs_line("tags -r early").run().ok().stdout_is("");
        home.spfs_line("tag -r early my-layer another").run().fails();
        home.spfs_line("tags -r round").run().fails().stderr_has("it contains itself: round -> round");
        home.spfs_line("tags -r orgin").run().fails().stderr_has("did you mean origin?");
        // A namespace by address; what is away behind another matters only when it is needed.
        let address = format!("proxy:?primary=file:{mirror}&secondary[0]=file:/away&tag_namespace=n");
        home.spfs(["push", "--to", &address, "my-layer", "--progress", "json"]).run().fails().stderr_has("/away");
        let address = format!("proxy:?primary=file:{mirror}&secondary[0]=file:{origin}&tag_namespace=n");
        let pushed = home.spfs(["push", "--to", &address, "my-layer", "--progress", "none"]).run();
        pushed.ok().stdout_has("1 tags").stderr_is("");
        home.spfs(["tags", "-r", &format!("file:{mirror}?tag_namespace=n")]).run().ok().stdout_is("my-layer");
        home.spfs(["tags", "-r", "http://host"]).run().fails().stderr_has("grpc://HOST:PORT");
    });
}

#[test]
fn what_a_tag_once_meant_counts_only_while_its_origin_is_away() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-platform").run().ok();
        elsewhere(home);
        home.script("my-platform", "true").run().ok();
        home.wait_for_the_end();
        home.spfs_line("untag --all -r origin my-platform").run().ok();
        home.script("my-platform", "true").run().fails().stderr_has("unknown reference \"my-platform\"");
    });
}

#[test]
fn what_cannot_be_noted_runs_all_the_same() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("push my-platform").run().ok();
        elsewhere(home);
        home.spfs_line("write").run().ok();
        home.write("other-data/spfs/tracking", "in the way");
        let run = home.script("my-platform", "cat /spfs/message.txt").run();
        run.ok().stdout_is("hello, world").stderr_has("it cannot be noted for when origin is away");
        home.wait_for_the_end();
    });
}
