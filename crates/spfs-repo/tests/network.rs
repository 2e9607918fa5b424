//! Repositories on a file system that is not this kernel's alone: sshfs, over an SSH server of its own on loopback.
//!
//! It has no unnamed files, no link counts, no RENAME_NOREPLACE, caches attributes for twenty seconds, and each of its
//! mounts is another machine as far as caches go. `./test setup` installs it.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spfs_repo::{Archive, Blob, Digest, Directory, Object, Repository, Tag, TagName};

/// An SSH server for whoever runs the test, with keys made for it.
struct Server {
    place: tempfile::TempDir,
    child: Child,
    port: u16,
}

/// One mount of the directory `shared` at the server.
struct Mount(PathBuf);

impl Server {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        std::fs::create_dir(at("shared")).unwrap();
        if rustix::process::geteuid().is_root() {
            // Where sshd takes its privileges away.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        // Free a moment ago, and most probably still.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nMaxStartups 100\nSubsystem sftp internal-sftp\nPermitRootLogin yes\n",
            at("host"),
            at("user.pub")
        );
        std::fs::write(at("config"), configuration).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &at("config")])
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd (./test setup installs it)");
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Server { place, child, port }
    }

    /// What is shared, as the server sees it.
    fn shared(&self) -> PathBuf {
        self.place.path().join("shared")
    }

    fn mount(&self, name: &str) -> Mount {
        let path = self.place.path().join(name);
        std::fs::create_dir(&path).unwrap();
        run(Command::new("sshfs")
            .args(["-p", &self.port.to_string()])
            .arg("-o")
            .arg(format!("IdentityFile={}", self.place.path().join("user").display()))
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .arg(format!("127.0.0.1:{}", self.shared().display()))
            .arg(&path));
        Mount(path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} (./test setup installs it): {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tag(name: &str, target: Digest) -> Tag {
    let time = jiff::Timestamp::from_second(1_000_000_000).unwrap();
    Tag { name: name.parse().unwrap(), target, parent: Digest::NULL, user: "me@host".to_owned(), time }
}

fn add_files(repository: &dyn Repository, seed: &str, count: usize) -> Vec<Digest> {
    let batch = repository.begin().unwrap();
    let mut digests = Vec::new();
    for n in 0..count {
        let content = format!("{seed} {n}");
        let (payload, size) = batch.add_payload(&mut content.as_bytes(), None).unwrap();
        digests.push(batch.add_object(&Object::new(Blob { payload, size })).unwrap());
    }
    batch.finish().unwrap();
    digests
}

/// What the processes do. Without the variable it is a test like any other: a writer that nobody disturbs.
#[test]
fn writer() {
    let Ok(task) = std::env::var("SPFS_TEST_WRITER") else {
        let place = tempfile::tempdir().unwrap();
        write(Path::new(&place.path().join("repository")), "alone", 2);
        return;
    };
    let (seed, rest) = task.split_once(' ').unwrap();
    let (count, root) = rest.split_once(' ').unwrap();
    // All but the last are for `.ci/nfs`, which has these things done on NFS.
    match seed {
        "conform" => conform(Path::new(root)),
        "files" => drop(add_files(&*open(Path::new(root)), "file", count.parse().unwrap())),
        "count" => check(Path::new(root), count.parse().unwrap()),
        _ => write(Path::new(root), seed, count.parse().unwrap()),
    }
}

/// Opens what is at `root`.
fn open(root: &Path) -> Box<dyn Repository> {
    match root.extension() {
        Some(_) => Box::new(Archive::open(root).unwrap()),
        None => Box::new(Directory::open(root).unwrap()),
    }
}

/// Whether the stream has `count` records, and all that they point to is there.
fn check(root: &Path, count: usize) {
    let repository = open(root);
    let stream: TagName = "many/writers".parse().unwrap();
    let history = repository.history(&stream).unwrap();
    assert_eq!(history.len(), count, "{}", root.display());
    for tag in history {
        repository.read_object(&tag.target).unwrap();
        let mut content = String::new();
        std::io::Read::read_to_string(&mut repository.open_payload(&tag.target).unwrap(), &mut content).unwrap();
        assert_eq!(Digest::of(content.as_bytes()), tag.target);
    }
}

/// Pushes `count` tags to one stream, each with content of its own and some that others have too; or, for 0, one tag
/// without content.
fn write(root: &Path, seed: &str, count: usize) {
    let repository: Box<dyn Repository> = match root.extension() {
        Some(_) => Box::new(Archive::create(root).unwrap()),
        None => Box::new(Directory::create(root).unwrap()),
    };
    if count == 0 {
        repository.push_tag(&tag("many/writers", Digest::of(seed.as_bytes()))).unwrap();
    }
    for n in 0..count {
        let target = add_files(&*repository, &format!("{seed} {n}"), 1)[0];
        add_files(&*repository, &format!("everyone {n}"), 2);
        repository.push_tag(&tag("many/writers", target)).unwrap();
    }
}

fn start(seed: &str, count: usize, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer", "--nocapture"]).stdout(Stdio::null());
    command.env("SPFS_TEST_WRITER", format!("{seed} {count} {}", root.display()));
    command
}

/// Every kind of repository below `root`.
fn conform(root: &Path) {
    let mut count = 0;
    spfs_repo::conformance::run(&mut || {
        count += 1;
        Box::new(Directory::create(root.join(count.to_string())).unwrap())
    });
    spfs_repo::conformance::run(&mut || {
        count += 1;
        Box::new(Archive::create(root.join(format!("{count}.tar"))).unwrap())
    });
}

#[test]
fn repositories_conform() {
    let server = Server::start();
    let mount = server.mount("mount");
    conform(&mount.0);
}

#[test]
fn writers_on_several_machines_lose_nothing() {
    let server = Server::start();
    let mounts = [server.mount("a"), server.mount("b"), server.mount("c")];
    for name in ["directory", "archive.tar"] {
        let each = 8;
        let mut children: Vec<Child> = mounts
            .iter()
            .enumerate()
            .map(|(n, mount)| start(&n.to_string(), each, &mount.0.join(name)).spawn().unwrap())
            .collect();
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        let path = server.shared().join(name);
        check(&path, mounts.len() * each);
        assert_eq!(open(&path).payloads().unwrap().len(), mounts.len() * each + 2 * each);
    }
    let shared = std::fs::read_dir(server.shared().join("directory/tags/many")).unwrap();
    assert_eq!(shared.count(), 1, "neither locks nor work files are left");
}

#[test]
fn a_writer_killed_while_it_takes_a_lock_blocks_nobody() {
    use std::os::unix::process::ExitStatusExt as _;
    let server = Server::start();
    let mount = server.mount("mount");
    let root = mount.0.join("repository");
    write(&root, "before", 1);
    let tags = server.shared().join("repository/tags/many");
    // The lock is written, linked to its name, its first name removed; then the stream is linked and read, and replaced.
    let steps = [("link", 1), ("unlink", 1), ("link", 2), ("unlink", 2), ("rename", 1)];
    for (call, nth) in steps {
        let calls = format!("{call},{call}at");
        let task = start(&format!("{call}{nth}"), 0, &root);
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={nth}")]);
        command.arg(task.get_program()).args(task.get_args()).stdout(Stdio::null());
        command.env("SPFS_TEST_WRITER", format!("{call}{nth} 0 {}", root.display()));
        let status = command.status().expect("strace (./test setup installs it)");
        let left: Vec<_> = std::fs::read_dir(&tags).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(status.signal(), Some(9), "{call} {nth} did not happen: {status}, {left:?}");
        assert!(left.len() > 1, "killed at {call} {nth}, and nothing is left");
        let before = Instant::now();
        write(&root, &format!("after {call}{nth}"), 0);
        assert!(before.elapsed() < Duration::from_secs(20), "it waited for a lock of a dead process");
    }
    // What a killed one leaves beside a stream is removed now and then.
    let repository = Directory::open(&root).unwrap();
    let listed = || std::fs::read_dir(&tags).unwrap().count();
    for n in 0..200 {
        if listed() == 1 {
            break;
        }
        repository.push_tag(&tag("many/writers", Digest::of(&[n]))).unwrap();
    }
    assert_eq!(listed(), 1);
}
