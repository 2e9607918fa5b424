//! Sharing: push and pull through a directory against copying the repository's own files, through a server against rsync
//! and curl; pushing again; and the memory that it takes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::bench::{Bench, Result};
use crate::measure::{Contender, high_water, interleaved, median, ms, peak, ratio, time};
use crate::report::Row;
use crate::tree::Tree;

/// Rounds of what writes a whole tree, at most.
const ROUNDS: usize = 3;
/// The large file of the quick size, and of the full one.
const LARGE: (u64, u64) = (1 << 30, 10 << 30);

/// The tree of many small files.
fn small(bench: &Bench) -> Result<Tree> {
    let many = bench.trees()?.into_iter().filter(|tree| (40_000..100_000).contains(&tree.files));
    many.min_by_key(Tree::mean).ok_or("no tree of many small files".into())
}

/// A home with a commit of `tree`, tagged `tree`, and nothing else; its repository.
fn committed(bench: &Bench, tree: &Tree) -> Result<PathBuf> {
    bench.output(bench.spfs("share", &format!("commit --path {} --tag tree", tree.path.display())))?;
    Ok(bench.home("share").join(".local/share/spfs"))
}

/// Runs an spfs command after a sync, so that what others have written is theirs to pay.
fn alone(bench: &Bench, home: &str, line: &str) -> Result<Duration> {
    bench.home(home);
    rustix::fs::sync();
    time(&mut bench.spfs(home, line))
}

/// Push and pull through `file:`.
pub fn directory(bench: &Bench) -> Result<Vec<Row>> {
    let tree = &small(bench)?;
    let repository = committed(bench, tree)?.display().to_string();
    let places = bench.home("places");
    let place = |name: &str, round: usize| places.join(format!("{name}-{round}"));
    let script = "mkdir \"$2\" && cp -a \"$1/objects\" \"$1/payloads\" \"$1/tags\" \"$2\" && sync -f \"$2\"";
    let times = interleaved(
        bench.rounds.min(ROUNDS),
        vec![
            Contender::timed("spfs push", |round| {
                alone(bench, "share", &format!("push --to file:{}?create=true tree", place("push", round).display()))
            }),
            Contender::timed("spfs pull", |round| {
                alone(bench, &format!("pull-{round}"), &format!("pull --from file:{repository} tree"))
            }),
            Contender::timed("cp -a; sync -f", |round| {
                rustix::fs::sync();
                let mut copy = bench.command("share", "sh");
                time(copy.args(["-c", script, "sh", &repository]).arg(place("copy", round)))
            }),
        ],
    )?;
    checked(bench, &place("push", 1), "share")?;
    let measured =
        format!("push {:.0} ms, pull {:.0} ms, cp and sync {:.0} ms", ms(times[0]), ms(times[1]), ms(times[2]));
    let row = |word: &str, time| {
        let work = format!("{word} of {} files to file:, to cp of the repository's own files", tree.files);
        Row::ratio(bench.who(), work, ratio(time, times[2]), Some(1.3), &measured)
    };
    Ok(vec![row("push", times[0]), row("pull", times[1])])
}

/// Fails if the repository at `path` is not sound.
fn checked(bench: &Bench, path: &Path, home: &str) -> Result<()> {
    bench.output(bench.spfs(home, &format!("check --fast -r file:{}", path.display()))).map(drop)
}

/// A server that is stopped when this is dropped.
pub struct Served {
    process: Child,
    pub address: String,
}

impl Served {
    /// The most memory that it had so far, in kB.
    pub fn high_water(&self) -> u64 {
        high_water(self.process.id()).unwrap_or(0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `spfs server` of a new, empty repository.
pub fn server(bench: &Bench, home: &str) -> Result<Served> {
    let mut command = bench.spfs(home, "server --listen 127.0.0.1:0");
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|err| format!("spfs server: {err}"))?;
    let mut line = String::new();
    let stdout = process.stdout.take().ok_or("no output")?;
    BufReader::new(stdout).read_line(&mut line).map_err(|err| format!("spfs server: {err}"))?;
    let address = line.trim().strip_prefix("listening on: ").ok_or(format!("spfs server said {line:?}"))?;
    let address = address.split(',').next().unwrap_or(address).to_owned();
    Ok(Served { process, address })
}

/// Push and pull through `spfs server`, against rsync through its daemon.
pub fn served(bench: &Bench) -> Result<Vec<Row>> {
    let tree = &small(bench)?;
    if !has(bench, "rsync") {
        return Ok(vec![not_run(bench, "push and pull through spfs server, to rsync", "rsync")]);
    }
    committed(bench, tree)?;
    let places = bench.home("places");
    let daemon = Daemon::rsync(bench, &places, &tree.path)?;
    let times = interleaved(
        bench.rounds.min(ROUNDS),
        vec![
            Contender::timed("spfs push", |round| {
                let server = server(bench, &format!("served-{round}"))?;
                alone(bench, "share", &format!("push --to grpc://{} tree", server.address))
            }),
            Contender::timed("rsync there", |round| {
                let to = format!("rsync://127.0.0.1:{}/places/there-{round}/", daemon.port);
                rustix::fs::sync();
                let mut rsync = bench.command("share", "sh");
                let script = "rsync -a \"$1/\" \"$2\" && sync -f \"$3\"";
                time(rsync.args(["-c", script, "sh"]).arg(&tree.path).arg(to).arg(&places))
            }),
            Contender::timed("spfs pull", |round| {
                let server = server(bench, &format!("served-{round}"))?;
                alone(bench, &format!("pulled-{round}"), &format!("pull --from grpc://{} tree", server.address))
            }),
            Contender::timed("rsync back", |round| {
                let from = format!("rsync://127.0.0.1:{}/tree/", daemon.port);
                rustix::fs::sync();
                let mut rsync = bench.command("share", "sh");
                let script = "rsync -a \"$1\" \"$2\" && sync -f \"$2\"";
                time(rsync.args(["-c", script, "sh", &from]).arg(places.join(format!("back-{round}"))))
            }),
        ],
    )?;
    let measured = format!(
        "push {:.0} ms, rsync there {:.0} ms, pull {:.0} ms, rsync back {:.0} ms; all with sync",
        ms(times[0]),
        ms(times[1]),
        ms(times[2]),
        ms(times[3])
    );
    let row = |word: &str, spfs, rsync| {
        let work = format!("{word} of {} files through spfs server, to rsync -a through its daemon", tree.files);
        Row::ratio(bench.who(), work, ratio(spfs, rsync), Some(2.0), &measured)
    };
    Ok(vec![row("push", times[0], times[1]), row("pull", times[2], times[3])])
}

/// A daemon that measures are compared with, stopped when this is dropped.
struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    fn rsync(bench: &Bench, places: &Path, tree: &Path) -> Result<Daemon> {
        let port = free_port()?;
        let config = places.join("rsyncd.conf");
        let owner = if bench.is_root { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "use chroot = no\n{owner}[places]\npath = {}\nread only = no\n[tree]\npath = {}\n",
            places.display(),
            tree.display()
        );
        fs::write(&config, text).map_err(|err| format!("{}: {err}", config.display()))?;
        let mut command = bench.command("share", "rsync");
        command.args(["--daemon", "--no-detach", "--address", "127.0.0.1", "--port", &port.to_string(), "--config"]);
        let process = command.arg(&config).spawn().map_err(|err| format!("rsync: {err}"))?;
        wait_for(port)?;
        Ok(Daemon { process, port })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|err| format!("a free port: {err}"))?;
    Ok(listener.local_addr().map_err(|err| format!("a free port: {err}"))?.port())
}

fn wait_for(port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err(format!("nothing listens on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether `program` is there; root may install what is missing.
fn has(bench: &Bench, program: &str) -> bool {
    let there = || {
        bench.output({
            let mut which = bench.command("share", "sh");
            which.args(["-c", "command -v \"$1\"", "sh", program]);
            which
        })
    };
    if there().is_ok() {
        return true;
    }
    let package = if program == "nginx" { "nginx-light" } else { program };
    if bench.is_root {
        bench.say(&format!("installing {package}"));
        let script = "apt-get update -qq && apt-get install -y -qq --no-install-recommends \"$1\"";
        let mut install = bench.command("share", "sh");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(["-c", script, "sh", package]).stderr(Stdio::null());
        let _ = install.status();
    }
    there().is_ok()
}

fn not_run(bench: &Bench, work: &str, program: &str) -> Row {
    Row::new(bench.who(), format!("{work}: **not run**"), 0.0, "", None, format!("{program} is not installed"))
}

/// Pushing what is there already, and peak memory: of a tree of few files, one of many, and with `--full` of all.
pub fn again(bench: &Bench) -> Result<Vec<Row>> {
    let small = small(bench)?.name;
    let mut rows = Vec::new();
    for tree in bench.trees()?.iter().filter(|tree| bench.full || tree.files < 1000 || tree.name == small) {
        rows.extend(unchanged_and_memory(bench, tree)?);
        bench.clean_up();
    }
    Ok(rows)
}

/// Pushing what is there already, and the peak memory of a client, and of a server, that move all of `tree`.
fn unchanged_and_memory(bench: &Bench, tree: &Tree) -> Result<Vec<Row>> {
    committed(bench, tree)?;
    let origin = bench.home("places").join("origin");
    let line = format!("push --to file:{}?create=true tree", origin.display());
    let pushed = peak(bench.spfs("share", &line))?.1;
    let pulled = peak(bench.spfs("other", &format!("pull --from file:{} tree", origin.display())))?.1;
    let mut again = bench.spfs("share", &line);
    let times: Result<Vec<Duration>> = (0..10).map(|_| time(&mut again)).collect();
    let again = median(times?);
    let work = format!("push again of {} files, nothing changed", tree.files);
    let mut rows = vec![Row::new(bench.who(), work, ms(again), "ms", Some(50.0), "median of 10")];
    let target = Some(200.0);
    for (word, kb) in [("pushes", pushed), ("pulls", pulled)] {
        let work = format!("peak memory of a client that {word} {} files, file:", tree.files);
        rows.push(Row::new(bench.who(), work, kb as f64 / 1024.0, "MB", target, "VmHWM"));
    }
    let served = server(bench, "served")?;
    let client = peak(bench.spfs("share", &format!("push --to grpc://{} tree", served.address)))?.1;
    let fetched = peak(bench.spfs("third", &format!("pull --from grpc://{} tree", served.address)))?.1;
    let server = served.high_water();
    for (word, kb) in
        [("a client that pushes", client), ("a client that pulls", fetched), ("the server of both", server)]
    {
        let work = format!("peak memory of {word}, {} files, grpc:", tree.files);
        rows.push(Row::new(bench.who(), work, kb as f64 / 1024.0, "MB", target, "VmHWM"));
    }
    Ok(rows)
}

/// One large file through the server, against curl of it from nginx.
pub fn large(bench: &Bench) -> Result<Vec<Row>> {
    let bytes = if bench.full { LARGE.1 } else { LARGE.0 };
    let work = format!("pull of one file of {} GiB through spfs server, to curl from nginx", bytes >> 30);
    for program in ["curl", "nginx"] {
        if !has(bench, program) {
            return Ok(vec![not_run(bench, &work, program)]);
        }
    }
    let places = bench.home("places");
    let tree = places.join("tree");
    fs::create_dir_all(&tree).map_err(|err| format!("{}: {err}", tree.display()))?;
    let make = format!("head -c {bytes} /dev/urandom > \"$1/large\"");
    bench.output({
        let mut make_it = bench.command("share", "sh");
        make_it.args(["-c", &make, "sh"]).arg(&tree);
        make_it
    })?;
    bench.output(bench.spfs("share", &format!("commit --path {} --tag tree", tree.display())))?;
    let nginx = nginx(bench, &places, &tree)?;
    let server = server(bench, "share")?;
    let times = interleaved(
        if bench.full { 1 } else { bench.rounds.min(ROUNDS) },
        vec![
            Contender::timed("spfs pull", |round| {
                let home = format!("pulled-{round}");
                let time = alone(bench, &home, &format!("pull --from grpc://{} tree", server.address));
                let _ = fs::remove_dir_all(bench.home(&home));
                time
            }),
            Contender::timed("curl; sync", |_| {
                let to = places.join("fetched");
                rustix::fs::sync();
                let script = "curl -s -o \"$2\" \"$1\" && sync \"$2\"";
                let mut curl = bench.command("share", "sh");
                let time =
                    time(curl.args(["-c", script, "sh", &format!("http://127.0.0.1:{}/large", nginx.port)]).arg(&to));
                let _ = fs::remove_file(to);
                time
            }),
        ],
    )?;
    let measured = format!("pull {:.0} ms, curl and sync {:.0} ms", ms(times[0]), ms(times[1]));
    Ok(vec![Row::ratio(bench.who(), work, ratio(times[0], times[1]), Some(1.3), measured)])
}

fn nginx(bench: &Bench, places: &Path, tree: &Path) -> Result<Daemon> {
    let port = free_port()?;
    let config = places.join("nginx.conf");
    let user = if bench.is_root { "user root;\n" } else { "" };
    let place = places.display();
    let text = format!(
        "{user}daemon off;\npid {place}/nginx.pid;\nerror_log {place}/nginx.log;\nevents {{}}\nhttp {{\naccess_log off;\nsendfile on;\n\
         client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3; uwsgi_temp_path {place}/t4; \
         scgi_temp_path {place}/t5;\nserver {{ listen 127.0.0.1:{port}; root {}; }}\n}}\n",
        tree.display()
    );
    fs::write(&config, text).map_err(|err| format!("{}: {err}", config.display()))?;
    let mut command = bench.command("share", "nginx");
    let process =
        command.arg("-c").arg(&config).stderr(Stdio::null()).spawn().map_err(|err| format!("nginx: {err}"))?;
    wait_for(port)?;
    Ok(Daemon { process, port })
}
