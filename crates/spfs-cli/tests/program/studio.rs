//! A studio's day, small: a repository of the existing program is adopted in place, a platform is built on it and shared in
//! every way, and somebody else runs it lazily while the server is killed and started again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use spfs::repo::Digest;

use crate::common::{Caller, Home, Running, binary, eventually};
use crate::remote_ssh::Sshd;
use crate::server::tls::certificates;

/// A repository as the existing program leaves it (`docs/format.md`): blob and layer in FlatBuffers, manifest and platform in the
/// legacy encoding, digests without salt; the tag `show/2019` on the platform.
fn old_repository(home: &Home) {
    const HEADER: &str = "2d2d535046532d2d0a";
    const BLOB: &str = "QU77SN3CUBW5X5ZCYTV6TXOWNWHWHXNOVF7VEHB6ZQQNU7EXMAQA====";
    const MANIFEST: &str = "MIGFM6A22JC7UMNY4S5XGKQC4HICNB357XWHJD3FEVMCDQ5D3SVQ====";
    const LAYER: &str = "L2LZ3UZA6YJUHCGLQVRRW34OTW55XT6TWZ5LJGYGZ5XMH52HZ3XA====";
    const PLATFORM: &str = "UWMHXJPPKKM25DDYGWCMDYYKUNIAWZAJ3YBIAFCC3KAM7FOCFOTQ====";
    let bytes = |digest: &str| digest.parse::<Digest>().unwrap().as_bytes().to_vec();
    let text = |digest: &str| bytes(digest).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (blob, manifest, layer) = (text(BLOB), text(MANIFEST), text(LAYER));
    let objects = [
        (BLOB, format!("01 01 0000000000 00 10000000 00000000 0800 0c00 0700 0800 08000000 000000 04 0c000000 0800 2c00 2400 0400
            08000000 {blob} 0d00000000000000")),
        (MANIFEST, format!("01 00 0000000000 01 0000000000000001 {blob} 66696c6500 00000000000081a4 000000000000000d
            6d6573736167652e74787400 0000000000000000")),
        (LAYER, format!("01 01 0000000000 02 0c000000 0800 0c00 0700 0800 08000000 000000 02 0c000000 0800 2800 0400 2400
            08000000 {manifest} 04000000 00000000")),
        (PLATFORM, format!("01 00 0000000000 03 0000000000000001 {layer}")),
    ];
    let root = home.repository();
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (digest, hex) in objects {
        let digits: String = format!("{HEADER} {hex}").split_whitespace().collect();
        let content = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        files.insert(format!("objects/{}/{}", &digest[..2], &digest[2..]), content.collect());
    }
    files.insert(format!("payloads/{}/{}", &BLOB[..2], &BLOB[2..]), b"hello, world\n".to_vec());
    let mut record = b"show\x002019\x00".to_vec();
    record.extend(bytes(PLATFORM));
    record.extend(b"me@host\x002020-01-02T03:04:05.123456+00:00\x00");
    record.extend(Digest::NULL.as_bytes());
    let length = (record.len() as u64).to_be_bytes();
    files.insert("tags/show/2019.tag".to_owned(), [&length[..], &record].concat());
    files.insert("VERSION".to_owned(), b"0.44.0".to_vec());
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        home.own(&path, 0o666);
    }
    let caller = home.caller();
    let own = |path: &Path| rustix::fs::chown(path, Some(rustix::fs::Uid::from_raw(caller.uid())), None).unwrap();
    for directory in ["", "..", "../..", "tags", "tags/show", "objects", "payloads"] {
        own(&root.join(directory));
    }
    for store in ["objects", "payloads"] {
        fs::read_dir(root.join(store)).unwrap().flatten().for_each(|entry| own(&entry.path()));
    }
}

/// `spfs server` with these words behind it; it has said where it listens.
fn server(home: &Home, words: &str, port: u16) -> (Running, u16) {
    let line = format!("server --listen 127.0.0.1:{port} {words}");
    let mut running = home.spfs_line(&line).spawn();
    running.wait_for("listening on: ");
    running.wait_for("\n");
    let port = running.stdout().trim().rsplit(':').next().unwrap().parse().unwrap();
    (running, port)
}

fn stop(running: Running) {
    running.signal(Signal::TERM);
    running.finish().ok();
}

const SUMS: &str = "find . -type f | LC_ALL=C sort | xargs sha256sum";

/// The platform `studio/platform`: the old one, and tools above it. The sums of what it shows.
fn build(home: &Home) -> String {
    old_repository(home);
    home.script("show/2019", "cat /spfs/message.txt").run().ok().stdout_is("hello, world");
    let code =
        "mkdir -p tree/bin tree/lib; printf '#!/bin/sh\ncat /spfs/lib/data\n' > tree/bin/tool; chmod +x tree/bin/tool
        head -c 300000 /dev/urandom > tree/lib/data; for i in $(seq 60); do echo file $i > tree/lib/f$i; done
        spfs commit --path tree --tag studio/tools
        spfs run show/2019+studio/tools -- spfs commit platform --tag studio/platform";
    home.sh(code).run().ok();
    home.wait_for_the_end();
    let sums = home.sh(&format!("echo hello, world > tree/message.txt; cd tree; {SUMS}")).run().ok().stdout.clone();
    home.script("studio/platform", &format!("cd /spfs; {SUMS}")).run().ok().stdout_is(sums.trim_end());
    home.wait_for_the_end();
    sums
}

/// Runs `remote`'s platform lazily as `home`; `away` and `back` are in the middle of it.
fn run_lazily(home: &Home, remote: &str, sums: &str, away: impl FnOnce(), back: impl FnOnce()) {
    let code = format!(
        "cat /spfs/message.txt; echo ready; read l; cat /spfs/message.txt /spfs/lib/data | wc -c; read l
         /spfs/bin/tool | wc -c; cd /spfs; {SUMS}"
    );
    let run = ["run", "--lazy", "-r", remote, "studio/platform", "--", "sh", "-c", &code];
    let mut inside = home.spfs(run).stdin_open().spawn();
    inside.wait_for("hello, world\nready");
    away();
    inside.send("\n");
    // What is here is here.
    inside.wait_for("ready\n13\n");
    back();
    inside.send("\n");
    let expected = format!("hello, world\nready\n13\n300000\n{}", sums.trim_end());
    inside.finish().ok().stdout_is(&expected).stderr_has("Input/output error");
}

#[test]
fn a_studio_shares_a_platform_in_every_way() {
    let (maker, artist) = (Home::new(Caller::all().remove(0)), Home::new(Caller::user()));
    let sums = build(&maker);
    for name in ["central", "plain", "tokens", "over-ssh"] {
        maker.spfs(["init", "repo", maker.path(name).to_str().unwrap()]).run().ok();
    }
    let push = |remote: &str| maker.spfs(["push", "studio/platform", "-r", remote]).run();
    let pushed = |remote: &str| {
        push(remote).ok().stdout_has("1 tags (0 skipped)");
    };
    pushed("./central");
    let (plain, port) = server(&maker, "-r ./plain", 0);
    pushed(&format!("grpc://127.0.0.1:{port}"));
    stop(plain);
    let sshd = Sshd::start(&maker);
    pushed(&sshd.address(maker.path("over-ssh").to_str().unwrap(), binary().to_str().unwrap()));
    sshd.stop();

    certificates(&maker, "one");
    let token = |name: &str, words: &str| {
        let code = format!(
            "spfs server token {name} {words} >> tokens.toml 2> said; grep -oE '[A-Za-z0-9_-]{{40,}}' said | head -1"
        );
        maker.sh(&code).run().ok().text().to_owned()
    };
    maker.write("farm", token("farm", "--allow read,write,tag --tags studio/"));
    artist.write("token", token("reader", "--allow read"));
    artist.write("ca.pem", fs::read(maker.path("one-ca.pem")).unwrap());
    maker.sh("chmod 600 farm").run().ok();
    artist.sh("chmod 600 token").run().ok();
    maker.write("server.toml", "tls_cert = \"one.pem\"\ntls_key = \"one.key\"\ntokens = \"tokens.toml\"\n");
    let start = |port| server(&maker, "-r ./tokens --config server.toml", port);
    let (first, port) = start(0);
    let address = format!("grpcs://localhost:{port}");
    push(&format!("{address}?ca=one-ca.pem")).fails().stderr_has("token");
    pushed(&format!("{address}?ca=one-ca.pem&token_file=farm"));

    let remote = format!("{address}?ca=ca.pem&token_file=token");
    let mut second = None;
    let kill = || {
        first.signal(Signal::KILL);
        first.finish().killed_by(Signal::KILL);
    };
    run_lazily(&artist, &remote, &sums, kill, || second = Some(start(port).0));
    artist.wait_for_the_end();
    artist.spfs_line("tags").run().ok().stdout_is("");
    artist.spfs_line("check").run().ok();
    artist.sh("mkdir t; echo a > t/a; spfs commit --path t -t studio/mine").run().ok();
    artist.spfs(["push", "studio/mine", "-r", &remote]).run().fails();
    artist.spfs(["pull", "studio/platform", "-r", &remote]).run().ok().stdout_has("1 tags (0 skipped)");
    stop(second.unwrap());
    artist.script("studio/platform", &format!("cd /spfs; {SUMS}")).run().ok().stdout_is(sums.trim_end());
    artist.wait_for_the_end();
    artist.spfs_line("check").run().ok().stdout_has("No issues found");
    for remote in ["./central", "./plain", "./tokens", "./over-ssh"] {
        maker.spfs(["check", "-r", remote]).run().ok().stdout_has("No issues found");
    }
    maker.spfs_line("check").run().ok().stdout_has("No issues found");
    eventually("everything of the maker has ended", || maker.records().is_empty());
}
