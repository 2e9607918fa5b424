//! Package managers in a runtime: pip, npm and cargo, with their real registries. Only with `SPFS_TEST_FULL=1`; the
//! small tests of [`super::real_programs`] stand for them (`python`, `compilers`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Caller, Home, every_strategy, full, strategies};
use crate::real_programs::make;

/// What a machine behind a proxy sets so that its programs reach the registries.
const NETWORK: [&str; 9] = [
    "PIP_CERT",
    "PIP_INDEX_URL",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_REGISTRY",
    "SSL_CERT_FILE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
];

fn with_network(home: &Home) {
    for name in NETWORK {
        if let Ok(value) = std::env::var(name) {
            home.set(name, value);
        }
    }
}

/// Runs `code` in a runtime, with time to spare.
#[track_caller]
fn says(home: &Home, reference: &str, code: &str, expected: &str) {
    home.script(reference, code).limit(Duration::from_secs(300)).run().ok().stdout_is(expected);
}

#[test]
fn pip_installs_replaces_and_removes() {
    if !full() {
        return;
    }
    every_strategy(|home| {
        with_network(home);
        home.set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        home.set("PIP_NO_INPUT", "1");
        make(home, "-", "venv", "/usr/bin/python3 -m venv venv; venv/bin/pip install -q numpy attrs==23.1.0 idna");
        let look =
            "import numpy, attr, idna; print(numpy.arange(10).sum(), attr.__version__, idna.encode(\"ü.de\").decode())";
        let look = format!("/spfs/venv/bin/python -c '{look}'; /spfs/venv/bin/pip check");
        says(home, "venv", &look, "45 23.1.0 xn--tda.de\nNo broken requirements found.");
        // pip moves what it removes out of the way first: whole directories from the layer below.
        make(home, "venv", "next", "venv/bin/pip install -q attrs==23.2.0; venv/bin/pip uninstall -q -y idna");
        let look = "/spfs/venv/bin/python -c 'import attr; print(attr.__version__)'; ls -d /spfs/venv/lib/python3*/site-packages/*idna* 2>/dev/null; /spfs/venv/bin/pip check";
        says(home, "venv+next", look, "23.2.0\nNo broken requirements found.");
        says(home, "venv+next", "ls -A /spfs/venv/lib/python3*/site-packages | grep '^~' || echo none", "none");
    });
}

#[test]
fn npm_installs_from_a_lock_file_again_and_again() {
    if !full() {
        return;
    }
    every_strategy(|home| {
        with_network(home);
        home.write(
            "app/package.json",
            r#"{"name": "app", "version": "1.0.0", "dependencies": {"express": "4.19.2", "lodash": "4.17.21"}}"#,
        );
        let app = home.path("app").display().to_string();
        make(
            home,
            "-",
            "app",
            &format!(
                "cp -r {app} .; cd app; npm install --no-audit --no-fund --silent --package-lock-only; npm ci --no-audit --no-fund --silent"
            ),
        );
        let look = "cd /spfs/app; node -e 'console.log(require(\"lodash\").chunk([1,2,3],2).length, typeof require(\"express\")())'; npm ls --silent | wc -l";
        let out = home.script("app", look).limit(Duration::from_secs(300)).run();
        assert!(out.ok().stdout.starts_with("2 function\n"), "{out}");
        // `npm ci` removes all that is there, and installs it again: the same bytes, so nothing has changed.
        let again =
            "cd /spfs/app; npm ci --no-audit --no-fund --silent; cd /; rm -f /spfs/app/node_modules/.package-lock.json;
            spfs diff | grep -v package-lock; node -e 'require(\"/spfs/app/node_modules/express\")' && echo works";
        says(home, "app --edit", again, "works");
        // A change of versions renames directories in node_modules.
        make(
            home,
            "app",
            "older",
            "cd app; npm install --no-audit --no-fund --silent lodash@4.17.20; npm uninstall --no-audit --no-fund --silent express",
        );
        let look =
            "cd /spfs/app; node -p 'require(\"lodash\").VERSION'; ls node_modules; npm ls --silent | sed 1d | grep .";
        says(home, "app+older", look, "4.17.20\nlodash\n└── lodash@4.17.20");
    });
}

#[test]
fn cargo_builds_with_a_toolchain_from_a_layer() {
    if !full() {
        return;
    }
    let toolchain = sysroot();
    for caller in Caller::all() {
        let home = Home::new(caller.clone());
        // What a build needs, without documentation; the caller may not be allowed to look into the original.
        let tree = home.path("rust");
        copy(&toolchain, &tree, &home);
        home.spfs(["commit", "-q", "--path", tree.to_str().unwrap(), "--tag", "rust"])
            .limit(Duration::from_secs(300))
            .run()
            .ok();
        for backend in strategies(&caller) {
            eprintln!("-- as {caller} with the backend {backend}");
            home.set("SPFS_FILESYSTEM_BACKEND", backend);
            build(&home, &format!("-{backend}"));
        }
    }
}

/// Builds a small workspace in /spfs with the toolchain in /spfs.
fn build(home: &Home, suffix: &str) {
    let new = "export PATH=/spfs/bin:$PATH CARGO_NET_OFFLINE=true; mkdir project; cd project
        mkdir -p src part/src; printf '[package]\\nname = \"app\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\npart = { path = \"part\" }\\n' > Cargo.toml
        printf '[package]\\nname = \"part\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n' > part/Cargo.toml
        echo 'pub fn value() -> u32 { 42 }' > part/src/lib.rs; echo 'fn main() { println!(\"{}\", part::value()) }' > src/main.rs
        cargo build -q; cargo test -q > /dev/null; target/debug/app";
    let built = &format!("built{suffix}");
    make(home, "rust", built, new);
    let fresh = "export PATH=/spfs/bin:$PATH CARGO_NET_OFFLINE=true; cd /spfs/project; cargo build 2>&1 | grep -c Compiling; target/debug/app; cargo run -q";
    says(home, &format!("rust+{built} --edit"), fresh, "0\n42\n42");
    says(home, &format!("rust+{built}"), "/spfs/project/target/debug/app", "42");
    let change = "export PATH=/spfs/bin:$PATH CARGO_NET_OFFLINE=true; cd project; sed -i s/42/43/ part/src/lib.rs; cargo build 2>&1 | grep -c Compiling > /spfs/said; target/debug/app >> /spfs/said";
    make(home, &format!("rust+{built}"), &format!("changed{suffix}"), change);
    says(home, &format!("rust+{built}+changed{suffix}"), "cat /spfs/said; /spfs/project/target/debug/app", "2\n43\n43");
}

/// The toolchain that built this test.
fn sysroot() -> PathBuf {
    let said = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim_end())
}

fn copy(toolchain: &Path, tree: &Path, home: &Home) {
    let script = "set -e; mkdir -p $2/bin $2/lib/rustlib; cp -p $1/bin/cargo $1/bin/rustc $2/bin; cp -p $1/lib/*.so* $2/lib
        cp -rp $1/lib/rustlib/$(uname -m)-unknown-linux-gnu $2/lib/rustlib; test -d $1/libexec && cp -rp $1/libexec $2/; chown -R $3 $2";
    let owner = format!("{}:{}", home.caller().uid(), home.caller().gid());
    let done = Command::new("sh").args(["-c", script, "copy"]).args([toolchain, tree]).arg(owner).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
