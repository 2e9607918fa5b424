//! The machine a command runs on: as it is, or in a private mount namespace where `/spfs` exists or does not.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use super::caller::is_root;

/// A host; cloning shares it. A private one ends with its last clone.
#[derive(Clone)]
pub struct Host {
    with_spfs: bool,
    holder: Option<Rc<Holder>>,
}

/// The process that keeps a private mount namespace; it ends when its standard input is closed, so also with the test.
struct Holder(Child);

impl Host {
    /// The machine the tests run on, as it is.
    pub fn as_it_is() -> Host {
        Host { with_spfs: Path::new("/spfs").is_dir(), holder: None }
    }

    /// A host with an empty directory `/spfs` that belongs to root, or one with no `/spfs`. Needs root.
    ///
    /// It is a new root of recursive binds of the old one, in a mount namespace of its own (and pivoted, as a process in
    /// a mere chroot may not make user namespaces). A new one for each test: spfs as root makes the directory that it
    /// misses.
    pub fn variant(with_spfs: bool) -> Host {
        Host { with_spfs, holder: Some(Rc::new(Holder::start(with_spfs))) }
    }

    /// New ones of both variants when the tests run as root, else the machine as it is.
    pub fn all() -> Vec<Host> {
        if is_root() { vec![Host::variant(false), Host::variant(true)] } else { vec![Host::as_it_is()] }
    }

    /// Whether `/spfs` was there at first.
    pub fn has_spfs(&self) -> bool {
        self.with_spfs
    }

    /// The words that go before a command so that it runs there.
    pub(super) fn prefix(&self) -> Vec<String> {
        match &self.holder {
            Some(holder) => vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", holder.0.id()), "--".into()],
            None => Vec::new(),
        }
    }

    /// The mount table of the host.
    pub(super) fn mountinfo(&self) -> String {
        let pid = self.holder.as_ref().map_or("self".to_owned(), |holder| holder.0.id().to_string());
        std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the host's mount table is readable")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} /spfs", if self.with_spfs { "with" } else { "without" })
    }
}

impl Holder {
    fn start(with_spfs: bool) -> Holder {
        assert!(is_root(), "only root can make a host that is different from this one");
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-euc", NEW_ROOT, "new-root", if with_spfs { "yes" } else { "no" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) can be started: see `./test setup`");
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        if first != "ready\n" {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("no private host could be made (CAP_SYS_ADMIN is needed; in a container: --privileged): {said}");
        }
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Makes the new root, says `ready`, and stays until its input ends. Mounts are shared there, as systemd has them.
const NEW_ROOT: &str = r#"
new=$(mktemp -d /var/tmp/spfs-test-root.XXXXXX)
mount -t tmpfs -o mode=755,size=1m spfs-test-root "$new"
for entry in /* /.[!.]*; do
    name=${entry#/}
    if [ "$name" = spfs ]; then continue
    elif [ -L "$entry" ]; then cp -P "$entry" "$new/$name"
    elif [ -d "$entry" ]; then mkdir "$new/$name"; mount --rbind "$entry" "$new/$name"
    elif [ -e "$entry" ]; then : > "$new/$name"; mount --bind "$entry" "$new/$name"
    fi
done
if [ "$1" = yes ]; then mkdir -m 755 "$new/spfs"; fi
mkdir "$new/.old"
cd "$new"
pivot_root . .old
cd /
umount -l /.old "$new"
rmdir /.old "$new"
mount --make-rshared /
echo ready
exec cat > /dev/null
"#;
