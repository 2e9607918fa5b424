//! `spfs remote` and `spfs config check`: the user's own file is edited and everything else left alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Caller, Home, every_caller};

fn config_file(home: &Home, text: &str) -> std::path::PathBuf {
    let file = home.home_dir().join(".config/spfs/spfs.toml");
    for directory in [".config", ".config/spfs"] {
        let directory = home.home_dir().join(directory);
        let _ = fs::create_dir(&directory);
        home.own(&directory, 0o755);
    }
    fs::write(&file, text).unwrap();
    home.own(&file, 0o644);
    file
}

#[test]
fn remotes_are_added_listed_and_removed() {
    every_caller(|home| {
        home.spfs_line("remote list").run().ok().stdout_is("");
        home.spfs_line("remote test").run().fails().stderr_has("spfs remote add origin");
        // The first one makes the file; a relative path is made absolute.
        home.spfs_line("remote add origin ./o").run().ok().stdout_has("added remote.origin = file:");
        let file = home.home_dir().join(".config/spfs/spfs.toml");
        let path = home.path("o").canonicalize().unwrap_or(home.path("o"));
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("[remote.origin]\naddress = \"file:{}\"\n", path.display())
        );
        home.spfs_line("remote add origin file:/p").run().fails().stderr_has("--replace");
        home.spfs_line("remote add --replace origin file:/p").run().ok();
        home.spfs_line("remote list").run().ok().stdout_has(&format!("origin  file:/p  {}", file.display()));
        for (line, said) in [
            ("remote add a/b file:/p", "letters, digits"),
            ("remote add x s3:/p", "none of file:"),
            ("remote add x proxy:", "no primary"),
            ("remote remove x", "there is no remote x"),
        ] {
            home.spfs_line(line).run().fails().stderr_has(said);
        }
        config_file(home, "# mine\n[remote.origin] # here\naddress = 'file:/p'\n\n# who\n[user]\nname = 'me' # I\n");
        home.spfs_line("remote remove origin").run().ok();
        assert_eq!(fs::read_to_string(&file).unwrap(), "\n# who\n[user]\nname = 'me' # I\n");
        home.spfs_line("remote list --json")
            .env("SPFS_REMOTE_X_ADDRESS", "/x")
            .run()
            .ok()
            .stdout_has("SPFS_REMOTE_X_ADDRESS");
    });
}

#[test]
fn each_part_of_a_remote_is_tried() {
    every_caller(|home| {
        let [a, b] = ["a", "b"].map(|name| home.path(name).display().to_string());
        for path in [&a, &b] {
            home.spfs(["init", "repo", path]).run().ok();
        }
        home.spfs(["remote", "add", "b", &b]).run().ok();
        home.spfs(["remote", "add", "origin", &format!("proxy:?primary=file:{a}&secondary[0]=b&secondary[1]=/away")])
            .run()
            .ok();
        if home.caller().uid() != 0 {
            for part in ["", "objects", "payloads", "tags"] {
                fs::set_permissions(home.path("b").join(part), fs::Permissions::from_mode(0o555)).unwrap();
            }
        }
        let tested = home.spfs_line("remote test origin --json").run();
        tested.code(1);
        let parts: serde_json::Value = serde_json::from_str(&tested.stdout).unwrap();
        let field = |part: usize, field: &str| parts[part][field].clone();
        assert_eq!(
            (field(0, "part"), field(1, "part"), field(2, "part")),
            ("primary".into(), "secondary[0]".into(), "secondary[1]".into())
        );
        assert_eq!(
            (field(0, "writable"), field(0, "version").is_string(), field(0, "latency_ms").is_number()),
            (true.into(), true, true)
        );
        assert_eq!((field(1, "readable"), field(1, "writable")), (true.into(), (home.caller().uid() == 0).into()));
        assert_eq!(field(2, "reachable"), false);
        assert!(field(2, "problems")[0].as_str().unwrap().contains("/away"));
        assert_eq!(fs::read_dir(home.path("a/payloads/work")).map_or(0, Iterator::count), 0, "nothing is left");
        fs::set_permissions(home.path("b"), fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    every_caller(|home| {
        home.spfs_line("config check").run().ok().stdout_is("No issues found");
        let file = config_file(home, "[storage]\nrot = 1\n[remote.a]\naddress = 'proxy:?primary=a'\n");
        let checked = home.spfs_line("config check").run();
        checked.code(1).stdout_has(&format!("read {}", file.display())).stdout_has("it contains itself: a -> a");
        checked.stdout_has("did you mean storage.root?");
        config_file(home, "[storage\n");
        home.spfs_line("config check").run().code(1).stdout_has("spfs.toml:1:9");
        home.spfs_line("tags").run().fails().stderr_has("spfs config check");
        config_file(home, "[storage]\nroot = 'here'\n");
        home.spfs_line("config check").run().code(1).stdout_has("must be an absolute path");
        config_file(home, "");
        home.spfs_line("config --origin").run().ok().stdout_has("default");
    });
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let home = Home::new(Caller::user());
    for name in ["SYNC_MAX_CONCURRENT_PAYLOADS", "COMMIT_MAX_CONCURRENT_BLOBS", "RENDER_MAX_CONCURRENT_BLOBS"] {
        home.set(&format!("SPFS_{name}"), "");
    }
    home.sh("mkdir t; echo a > t/a; spfs commit --path t -t x; spfs init repo $PWD/origin").run().ok();
    home.spfs_line("push x -r ./origin").run().ok().stdout_has("1 tags (0 skipped)");
    home.spfs_line("render x out").run().ok();
    home.spfs_line("push x -r ./origin").env("SPFS_SYNC_MAX_CONCURRENT_PAYLOADS", "many").run().code(2);
}

#[test]
fn what_a_remote_does_not_permit_is_no_matter_of_where_things_are_kept_here() {
    let home = Home::new(Caller::user());
    home.sh("mkdir t; echo a > t/a; spfs commit --path t -t x; spfs init repo $PWD/origin").run().ok();
    home.sh("chmod -R a-w origin").run().ok();
    let said = home.spfs_line("push x -r ./origin").run();
    said.fails().stderr_has("Permission denied").stderr_has("whoever owns that").stderr_lacks("SPFS_STORAGE_ROOT");
    let said = home.sh("chmod -R a-w ~/.local/share/spfs; echo b > t/a; spfs commit --path t -t x").run();
    said.fails().stderr_has("Permission denied").stderr_has("SPFS_STORAGE_ROOT");
}
