//! Sharing over ssh: a real `sshd` on loopback, and `spfs serve --stdio` behind it. `./test setup` installs it.

use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::common::{Home, Running, binary, eventually, every_caller};

/// An SSH server for whoever calls, with keys made for it in the home.
pub struct Sshd {
    running: Running,
    port: u16,
}

impl Sshd {
    pub fn start(home: &Home) -> Sshd {
        for key in ["host-key", "key"] {
            let file = home.path(key).display().to_string();
            home.command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &file].map(str::to_owned).into())
                .run()
                .ok();
        }
        if home.caller().uid() == 0 {
            // Where sshd takes its privileges away.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        // Free a moment ago, and most probably still.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| home.path(name).display().to_string();
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitRootLogin yes\nMaxStartups 100\n",
            at("host-key"),
            at("key.pub")
        );
        let file = home.write("sshd_config", configuration).display().to_string();
        // As the caller, so that it needs nothing of the system's accounts.
        let running = home.command(["/usr/sbin/sshd", "-D", "-e", "-f", &file].map(str::to_owned).into()).spawn();
        eventually("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let command = format!(
            "ssh -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes",
            at("key")
        );
        home.set("SPFS_SSH_COMMAND", command);
        Sshd { running, port }
    }

    /// The address of `path` over there, where spfs is `program`.
    pub fn address(&self, path: &str, program: &str) -> String {
        format!("ssh://127.0.0.1:{}{path}?program={program}", self.port)
    }

    pub fn stop(self) {
        self.running.signal(Signal::TERM);
        self.running.finish();
    }
}

#[test]
fn the_guide_on_sharing_over_ssh() {
    every_caller(|home| {
        let sshd = Sshd::start(home);
        let origin = home.path("origin dir").display().to_string();
        home.spfs(["init", "repo", &origin]).run().ok();
        let program = binary().display().to_string();
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", sshd.address(&origin, &program));
        home.script("-", "echo hi > /spfs/a; head -c 3000000 /dev/urandom > /spfs/large; spfs commit layer --tag one")
            .run()
            .ok();
        home.wait_for_the_end();
        home.spfs_line("push one").run().ok().stdout_has("synced:\n\t1 tags (0 skipped)");
        home.set("XDG_DATA_HOME", home.path("other-data").to_str().unwrap());
        // No ssh is left to the command that runs, not even as a zombie.
        let look = "cat /spfs/a; wc -c < /spfs/large; ps --ppid $$ -o comm= | grep -c ssh || true";
        home.script("one", look).run().ok().stdout_is("hi\n3000000\n0");
        home.wait_for_the_end();
        home.spfs_line("pull one").run().ok();
        home.spfs_line("check").run().ok();
        home.spfs_line("tags -r origin").run().ok().stdout_is("one");

        // What can be wrong over there is said.
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", sshd.address(&origin, "/no/such/spfs"));
        home.spfs_line("tags -r origin")
            .run()
            .fails()
            .stderr_has("there is no program \"/no/such/spfs\" on the other side");
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", sshd.address("/no/such/place", &program));
        home.spfs_line("tags -r origin").run().fails().stderr_has("could not open repository /no/such/place");
        home.set(
            "SPFS_SSH_COMMAND",
            "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null",
        );
        home.spfs_line("tags -r origin").run().fails().stderr_has("Host key verification failed");
        sshd.stop();
    });
}
