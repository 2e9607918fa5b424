//! `spfs doctor`.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use spfs::doctor::{self, Finding, Report, Status};

use super::Run;
use crate::context::{Context, surroundings};
use crate::errors::Result;
use crate::output::Output;
use crate::shared::Json;
use crate::{hints, style};

/// Say whether environments work on this machine, how they are shown, and what is missing
///
/// Everything is tried: each way to show an environment shows a tiny one, in namespaces that end at once. For what is
/// missing it says what you, or whoever administers the machine, can do. The exit status is 0 if `spfs run` works, else 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  spfs doctor\n  spfs doctor --json")]
pub struct Args {
    #[command(flatten)]
    json: Json,
}

#[derive(Serialize)]
struct Shown<'a> {
    version: &'a str,
    #[serde(flatten)]
    report: &'a Report,
    advice: Vec<Advice>,
}

/// What can be done about something that is missing.
#[derive(Serialize)]
struct Advice {
    about: &'static str,
    text: String,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let (env, config) = surroundings()?;
        let report = doctor::examine(&env, &config);
        let advice = advice(&report);
        let mut out = context.out();
        if self.json.json {
            out.json(&Shown { version: env!("CARGO_PKG_VERSION"), report: &report, advice })?;
        } else {
            show(&mut out, &report, &advice)?;
        }
        out.finish()?;
        Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// All findings under their headings.
fn groups(report: &Report) -> [(&'static str, &[Finding]); 3] {
    [
        ("Backends, the best first", &report.backends),
        ("Kernel", &report.kernel_facilities),
        ("Places and limits", &report.places),
    ]
}

fn show(out: &mut Output, report: &Report, advice: &[Advice]) -> Result<()> {
    let who = match (report.uid, report.privileged) {
        (0, true) => "root".to_owned(),
        (0, false) => "root without CAP_SYS_ADMIN".to_owned(),
        (uid, _) => format!("user {uid}"),
    };
    let end = style::END;
    let machine = format!("spfs {} on Linux {}, as {who}", env!("CARGO_PKG_VERSION"), report.kernel);
    match report.backend {
        Some(backend) if report.works => {
            let (style, what) = match report.editable {
                true => (style::ADDED, "Environments work here"),
                false => (style::WARNING, "Environments can be read here, but not edited"),
            };
            writeln!(out, "{style}{what}{end}, shown by the backend `{backend}`: {}", cost(backend))?;
        }
        _ => writeln!(
            out,
            "{}Environments do not work here.{end} What needs none does: commit --path, ls, read, check.",
            style::ERROR
        )?,
    }
    writeln!(out, "({machine})")?;
    for (heading, findings) in groups(report) {
        writeln!(out, "\n{}{heading}{end}", style::HEADING)?;
        for finding in findings {
            let (style, mark) = match finding.status {
                Status::Ok => (style::ADDED, "ok"),
                Status::Unused => (style::HEADING, "-"),
                Status::Missing => (style::WARNING, "no"),
                Status::Fatal => (style::ERROR, "NO"),
            };
            let detail = out.name(&finding.detail).into_owned();
            let line = format!("  {style}{mark:<2}{end}  {:<18} {detail}", finding.name);
            writeln!(out, "{}", line.trim_end())?;
            for advice in advice.iter().filter(|advice| advice.about == finding.name) {
                writeln!(out, "      {}->{end} {}", style::HINT, advice.text)?;
            }
        }
    }
    Ok(())
}

/// What the reader pays for a backend.
fn cost(backend: &str) -> &'static str {
    match backend {
        "image" => "nothing is slower than in any overlay",
        "server" => "the first touch of each file takes some microseconds more",
        "render" => "the first run of an environment writes a tree of links to its files",
        "fuse" => "everything is read through a server, and kept in memory once more",
        _ => "see docs/mounts.md",
    }
}

fn advice(report: &Report) -> Vec<Advice> {
    let mut all: Vec<Advice> = Vec::new();
    // What one cause takes away is said once.
    let namespaces = fails(report, "user namespaces");
    let mut no_calls = false;
    for (_, findings) in groups(report) {
        for finding in findings.iter().filter(|finding| finding.status >= Status::Missing) {
            let caused = namespaces && finding.detail.contains("user namespaces are not permitted");
            if caused && finding.name != "user namespaces" {
                continue;
            }
            if finding.errno == Some(libc_errno::ENOSYS) {
                if !std::mem::replace(&mut no_calls, true) {
                    all.push(Advice { about: finding.name, text: NO_CALLS.to_owned() });
                }
                continue;
            }
            if let Some(text) = remedy(finding, report) {
                all.push(Advice { about: finding.name, text });
            }
        }
    }
    all
}

/// Where the kernel does not know a system call.
const NO_CALLS: &str = "the calls that mount need Linux 5.2, and a container's seccomp filter may hide them: \
                        start it with --security-opt seccomp=unconfined";

fn fails(report: &Report, name: &str) -> bool {
    report.kernel_facilities.iter().any(|finding| finding.name == name && finding.status >= Status::Missing)
}

/// What can be done, and by whom.
fn remedy(finding: &Finding, report: &Report) -> Option<String> {
    let denied = finding.errno == Some(libc_errno::EACCES);
    let text = match finding.name {
        "user namespaces" => hints::user_namespaces_here(),
        "mount namespaces" | "private root" => format!("{}; {}", hints::CONTAINER, "see docs/install.md"),
        "/dev/fuse" if denied => hints::FUSE_DENIED.to_owned(),
        "/dev/fuse" => hints::FUSE_MISSING.to_owned(),
        // It says the same as the line of /dev/fuse.
        "FUSE mounts" | "FUSE resend" if fails(report, "/dev/fuse") => return None,
        "FUSE mounts" => hints::FUSE_MISSING.to_owned(),
        "FUSE resend" if fails(report, "FUSE mounts") => return None,
        "FUSE resend" => {
            "Linux 6.9 has it; without it, files fail for an instant if the metadata server is killed".to_owned()
        }
        "overlayfs" => hints::NO_OVERLAY.to_owned(),
        "data-only layers" if fails(report, "overlayfs") => return None,
        "data-only layers" => "a newer kernel has them: Linux 6.16, for root 6.13".to_owned(),
        "mount beneath" => {
            "Linux 6.5 has it; without it `spfs reset` and `edit --keep-runtime` fail inside a runtime".to_owned()
        }
        "inotify" => {
            "as root: sysctl -w fs.inotify.max_user_instances=1024; until then FUSE is used instead".to_owned()
        }
        "records" => hints::RECORDS.to_owned(),
        "storage" if finding.status == Status::Missing => {
            "what is in it can be shown, nothing can be added; SPFS_STORAGE_ROOT=DIR keeps the repository elsewhere"
                .to_owned()
        }
        "storage" => "SPFS_STORAGE_ROOT=DIR keeps the repository elsewhere".to_owned(),
        "durable changes" => {
            "SPFS_STORAGE_DURABLE_DIR=DIR on a local disk (not NFS, not overlayfs) keeps them elsewhere; \
             only --keep-runtime needs it"
                .to_owned()
        }
        "cache" => "each start makes its view anew; XDG_CACHE_HOME=DIR keeps caches elsewhere".to_owned(),
        "namespaces" => return None,
        // The line of the cache says what can be done.
        "image" if report.places.iter().any(|place| place.name == "cache" && place.status != Status::Ok) => {
            return None;
        }
        "image" => "it needs Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE, and a cache on a disk of its own \
             (not tmpfs, not overlayfs)"
            .to_owned(),
        _ => return None,
    };
    Some(text)
}

/// Error numbers of Linux, without a dependency for one of them.
mod libc_errno {
    /// Permission denied.
    pub const EACCES: i32 = 13;
    /// Function not implemented.
    pub const ENOSYS: i32 = 38;
}
