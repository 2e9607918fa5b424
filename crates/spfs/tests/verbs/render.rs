//! Renders: a view written out as plain directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use spfs::render::{Options, Strategy, in_repository, to_directory};
use spfs::repo::{Digest, NoProgress};

use crate::Repo;

fn options(strategy: Strategy) -> Options<'static> {
    let now = jiff::Timestamp::now();
    Options { strategy, allow_existing: false, threads: 3, user: "me", share_payloads: false, now }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode()
}

/// Every path with its mode and content.
fn snapshot(root: &Path) -> Vec<(String, u32, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let content = if path.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if path.is_dir() {
                pending.push(path.clone());
                String::new()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.push((name, mode(&path), content));
        }
    }
    found.sort();
    found
}

fn sample(repo: &Repo) -> Vec<Digest> {
    let bottom = repo.layer(&[("d/gone", "x"), ("d/kept", "640:kept"), ("suid", "4755:run"), ("link -> d/kept", "")]);
    let top = repo.layer(&[("!d/gone", ""), ("closed/", "555"), ("closed/in", "444:inside"), ("empty", "")]);
    vec![bottom, top]
}

fn expected() -> Vec<(String, u32, String)> {
    let item = |path: &str, mode, content: &str| (path.to_owned(), mode, content.to_owned());
    vec![
        item("closed", 0o040555, ""),
        item("closed/in", 0o100444, "inside"),
        item("d", 0o040755, ""),
        item("d/kept", 0o100640, "kept"),
        item("empty", 0o100644, ""),
        item("link", 0o120777, "d/kept"),
        item("suid", 0o104755, "run"),
    ]
}

#[test]
fn copies_and_links_show_the_same_tree() {
    let repo = Repo::new();
    let layers = sample(&repo);
    for (name, strategy) in [("copy", Strategy::Copy), ("link", Strategy::HardLink)] {
        let target = repo.beside(name).join("deep/target");
        let rendered = to_directory(&repo.dir, &layers, &target, &options(strategy), &NoProgress).unwrap();
        assert_eq!(rendered.paths_rendered, std::slice::from_ref(&target));
        assert_eq!(snapshot(&target), expected(), "{name}");
        let summary = rendered.render_summary;
        assert_eq!((summary.entry_count, summary.symlink_count), (7, 1));
        assert_eq!(if strategy == Strategy::Copy { summary.copy_count } else { summary.link_count }, 4);
        assert_eq!(summary.total_bytes_rendered, 4 + 3 + 6);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
    let target = repo.beside("payloads");
    to_directory(&repo.dir, &layers, &target, &options(Strategy::HardLinkNoProxy), &NoProgress).unwrap();
    let payload = repo.payload_path(&repo.file(b"kept"));
    assert_eq!(fs::metadata(target.join("d/kept")).unwrap().ino(), fs::metadata(payload).unwrap().ino());
}

#[test]
fn proxies_are_shared_between_renders_and_payloads_where_the_mode_fits() {
    let repo = Repo::new();
    let layer = repo.layer(&[("a", "444:same"), ("b", "444:same"), ("c", "755:same"), ("d", "755:same")]);
    let render = |name: &str| {
        let target = repo.beside(name);
        let rendered = to_directory(&repo.dir, &[layer], &target, &options(Strategy::HardLink), &NoProgress).unwrap();
        let inode = |file: &str| fs::metadata(target.join(file)).unwrap().ino();
        (rendered.render_summary, [inode("a"), inode("b"), inode("c")])
    };
    let (first, inodes) = render("one");
    let payload = repo.payload_path(&repo.file(b"same"));
    assert_eq!(mode(&payload), 0o100444);
    assert_eq!(inodes[0], fs::metadata(&payload).unwrap().ino());
    assert_eq!(inodes[0], inodes[1]);
    assert_ne!(inodes[0], inodes[2]);
    assert!((1..=2).contains(&first.copy_wrong_mode_count), "{first:?}");
    let (second, again) = render("two");
    assert_eq!((second.copy_wrong_mode_count, second.link_count), (0, 4));
    assert_eq!(inodes[0], again[0]);
    let proxies = repo.root().join("renders/me/proxy");
    let work: Vec<_> = fs::read_dir(proxies.join("work")).unwrap().collect();
    assert_eq!(work.len(), 0, "no temporary is left");
    let text = repo.file(b"same").to_string();
    let proxy = proxies.join(&text[..2]).join(&text[2..]);
    assert_eq!(mode(&proxy.join("33261")), 0o100755);
    assert_eq!(mode(&proxy.join("33060")), 0o100444);
}

#[test]
fn a_target_must_be_empty_unless_said_otherwise() {
    let repo = Repo::new();
    let layers = sample(&repo);
    let target = repo.beside("target");
    fs::create_dir_all(target.join("d")).unwrap();
    fs::write(target.join("mine"), "mine").unwrap();
    let error = to_directory(&repo.dir, &layers, &target, &options(Strategy::Copy), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
    // A file there that is a link of a payload must not be written through.
    let payload = repo.payload_path(&repo.file(b"other"));
    fs::hard_link(&payload, target.join("d/kept")).unwrap();
    let existing = Options { allow_existing: true, ..options(Strategy::Copy) };
    to_directory(&repo.dir, &layers, &target, &existing, &NoProgress).unwrap();
    assert_eq!(fs::read_to_string(target.join("d/kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(&payload).unwrap(), "other");
    assert_eq!(fs::read_to_string(target.join("mine")).unwrap(), "mine");
    let links = Options { allow_existing: true, ..options(Strategy::HardLink) };
    let summary = to_directory(&repo.dir, &layers, &target, &links, &NoProgress).unwrap().render_summary;
    assert_eq!((summary.already_existed_count, summary.link_count), (5, 0), "{summary:?}");
}

#[test]
fn what_stands_in_the_way_is_not_followed() {
    let repo = Repo::new();
    let layers = [repo.layer(&[("d/f", "x")])];
    let (target, outside) = (repo.beside("target"), repo.beside("outside"));
    fs::create_dir_all(&target).unwrap();
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("d")).unwrap();
    let existing = Options { allow_existing: true, ..options(Strategy::Copy) };
    assert!(to_directory(&repo.dir, &layers, &target, &existing, &NoProgress).is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_failure_leaves_nothing() {
    let repo = Repo::new();
    let layers = sample(&repo);
    fs::remove_file(repo.payload_path(&repo.file(b"kept"))).unwrap();
    let target = repo.beside("target");
    for strategy in [Strategy::Copy, Strategy::HardLink, Strategy::HardLinkNoProxy] {
        let error = to_directory(&repo.dir, &layers, &target, &options(strategy), &NoProgress).unwrap_err();
        assert!(error.to_string().contains("missing payload"), "{error}");
        assert!(!target.exists());
        assert!(in_repository(&repo.dir, &layers, &options(strategy), &NoProgress).is_err());
    }
    fs::create_dir(&target).unwrap();
    assert!(to_directory(&repo.dir, &layers, &target, &options(Strategy::Copy), &NoProgress).is_err());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::read_dir(repo.temp.path()).unwrap().count(), 2, "the repository and the target");
    assert_eq!(fs::read_dir(repo.root().join("renders/me/work")).unwrap().count(), 0);
}

#[test]
fn a_payload_cut_short_is_not_rendered() {
    let repo = Repo::new();
    let layers = sample(&repo);
    let payload = repo.payload_path(&repo.file(b"kept"));
    fs::remove_file(&payload).unwrap();
    fs::write(&payload, "").unwrap();
    let error = to_directory(&repo.dir, &layers, &repo.beside("t"), &options(Strategy::Copy), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("is damaged: it has 0 bytes instead of 4"), "{error}");
}

#[test]
fn renders_in_the_repository_are_made_once_by_many() {
    let repo = Repo::new();
    let layers = sample(&repo);
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || in_repository(&repo.dir, &layers, &options(Strategy::HardLink), &NoProgress).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().paths_rendered).collect()
    });
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(results[0].len(), 2);
    assert!(results[0][0].starts_with(repo.root().join("renders/me")));
    assert_eq!(mode(&results[0][0].join("suid")), 0o104755);
    assert_eq!(mode(&results[0][1].join("closed")), 0o040555);
    assert!(!results[0][1].join("d/gone").exists(), "masks are not rendered");
    assert_eq!(fs::read_dir(repo.root().join("renders/me/work")).unwrap().count(), 0);
    let again = in_repository(&repo.dir, &layers, &options(Strategy::HardLink), &NoProgress).unwrap();
    assert_eq!(again.render_summary, spfs::render::Summary::default());
    for user in ["", "..", "a/b", ".hidden"] {
        let odd = Options { user, ..options(Strategy::Copy) };
        assert!(in_repository(&repo.dir, &layers, &odd, &NoProgress).is_err(), "{user:?}");
    }
}

#[test]
fn deep_trees_and_many_files() {
    let repo = Repo::new();
    let deep = "d/".repeat(700);
    let mut files: Vec<(String, String)> = (0..1500).map(|n| (format!("many/{}/{n}", n % 7), format!("{n}"))).collect();
    files.push((format!("{deep}f"), "deep".into()));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    let layer = repo.layer(&files);
    let target = repo.beside("target");
    let rendered = to_directory(&repo.dir, &[layer], &target, &options(Strategy::Copy), &NoProgress).unwrap();
    assert_eq!(rendered.render_summary.copy_count, 1501);
    assert_eq!(fs::read_to_string(target.join("many/3/10")).unwrap(), "10");
    assert_eq!(fs::read_to_string(target.join(format!("{deep}f"))).unwrap(), "deep");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn leftovers_of_killed_renders_go_in_time() {
    let repo = Repo::new();
    let layers = sample(&repo);
    let work = repo.root().join("renders/me/work");
    for (name, days) in [("old", 8), ("young", 1)] {
        fs::create_dir_all(work.join(name).join("closed")).unwrap();
        fs::set_permissions(work.join(name).join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 3600);
        fs::File::open(work.join(name)).unwrap().set_modified(time).unwrap();
    }
    in_repository(&repo.dir, &layers, &options(Strategy::HardLink), &NoProgress).unwrap();
    assert!(!work.join("old").exists());
    assert!(work.join("young").exists());
    fs::set_permissions(work.join("young/closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn leftovers_beside_a_target_go_with_the_next_render_there() {
    let repo = Repo::new();
    let layers = sample(&repo);
    let beside = |name: &str, seconds: u64| {
        let path = repo.beside(name);
        fs::create_dir_all(path.join("closed")).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let [left, young, held] = [(".spfs-render-1", 60), (".spfs-render-2", 0), (".spfs-render-3", 60)]
        .map(|(name, seconds)| beside(name, seconds));
    let other = beside("spfs-render", 60);
    let lock = fs::File::open(&held).unwrap();
    lock.lock_shared().unwrap();
    to_directory(&repo.dir, &layers, &repo.beside("target"), &options(Strategy::Copy), &NoProgress).unwrap();
    assert!(!left.exists(), "nobody works in it");
    assert!(young.exists() && held.exists() && other.exists());
}

#[test]
fn a_target_that_somebody_else_fills_meanwhile_is_not_taken_for_ours() {
    struct Meanwhile(std::path::PathBuf);
    impl spfs_repo::Progress for Meanwhile {
        fn expect(&self, _: u64, _: u64) {
            fs::create_dir_all(self.0.join("theirs")).unwrap();
        }
    }
    let repo = Repo::new();
    let layers = sample(&repo);
    let target = repo.beside("target");
    let meanwhile = Meanwhile(target.clone());
    let error = to_directory(&repo.dir, &layers, &target, &options(Strategy::Copy), &meanwhile).unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
    assert_eq!(fs::read_dir(repo.temp.path()).unwrap().count(), 2, "the repository and the target");
}
