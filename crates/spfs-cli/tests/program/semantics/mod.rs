//! What files mean: one list of checks, the same for a plain directory, a plain overlay, and every way of showing /spfs.
//!
//! The checks run inside, as whoever entered: this test binary starts itself there (`SPFS_SEMANTICS` says what to do).
//! No check asks where it is. What does not hold somewhere is in [`EXCEPTIONS`], and fails the test when it comes to
//! hold; `docs/semantics.md` has the same table.

mod content;
mod exceptions;
mod kernel;
mod naming;
mod place;
mod random;
mod reading;
mod refusals;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use crate::common::{Caller, Home, Host, Output, every_caller, every_strategy, full, strategies};
use exceptions::{EXCEPTIONS, PLACES};
use place::Place;
use tree::{STACK, layers};

/// The modification time of everything that comes from a layer: 1980-01-01T00:00:00Z.
const TIME: i64 = 315_532_800;

/// One thing that files do.
pub struct Check {
    /// What it is, as the documentation calls it.
    pub name: &'static str,
    /// Whether it changes something, and so has a directory of its own in [`tree`].
    pub edits: bool,
    run: fn(&Place),
}

const fn reading(name: &'static str, run: fn(&Place)) -> Check {
    Check { name, edits: false, run }
}

const fn editing(name: &'static str, run: fn(&Place)) -> Check {
    Check { name, edits: true, run }
}

/// Every check, in the order in which they run: those that read come first.
pub const CHECKS: &[Check] = &[
    reading("modes", reading::modes),
    reading("access by mode", reading::access),
    reading("execution", reading::execution),
    reading("owners", reading::owners),
    reading("sizes", reading::sizes),
    reading("block counts", reading::blocks),
    reading("symbolic links", reading::symlinks),
    reading("empty directories", reading::empty_directories),
    reading("masks", reading::masks),
    reading("files and directories in each other's place", reading::replacements),
    reading("link counts", reading::link_counts),
    reading("an inode for each entry", reading::inodes),
    reading("stable inodes", reading::stable_inodes),
    reading("inodes in listings", reading::listed_inodes),
    reading("one device", reading::one_device),
    reading("the documented time", reading::times),
    reading("the documented time for access and change", reading::other_times),
    reading("listings", reading::listings),
    reading("seeking in listings", reading::seeking_in_listings),
    reading("odd names", reading::odd_names),
    reading("paths of open files and working directories", reading::paths),
    reading("ways of opening", reading::opening),
    reading("mappings", reading::mappings),
    reading("direct reading", reading::direct_reading),
    reading("copying out in the kernel", reading::copying_out),
    reading("no extended attributes", reading::no_attributes),
    reading("holes", reading::holes),
    editing("changed content", content::changed_content),
    editing("the same file after a change", content::same_file),
    editing("open files", content::open_files),
    editing("changed modes", content::changed_modes),
    editing("changed owners", content::changed_owners),
    editing("changed times", content::changed_times),
    editing("huge files", content::huge_files),
    editing("sparse files", content::sparse_files),
    editing("appending together", content::appending_together),
    editing("first changes of many at once", content::changing_together),
    editing("removed open files", content::removed_open_files),
    editing("link counts of removed files", content::removed_link_counts),
    editing("syncing", content::syncing),
    editing("running programs", content::running_programs),
    editing("running programs from below", content::running_programs_from_below),
    editing("hard links", naming::hard_links),
    editing("inodes of hard links to files from below", naming::linked_inodes),
    editing("renames between hard links to files from below", naming::renamed_links),
    editing("removal", naming::removal),
    editing("removal while listing", naming::removal_while_listing),
    editing("renamed files", naming::renamed_files),
    editing("careful renames", naming::careful_renames),
    editing("inodes of renamed files", naming::renamed_inodes),
    editing("renamed new directories", naming::renamed_new_directories),
    editing("renamed directories from below", naming::renamed_directories),
    editing("moved directories from below", naming::moved_directories),
    editing("moving working directory", naming::moving_working_directory),
    editing("new symbolic links", naming::new_symlinks),
    editing("special files", naming::special_files),
    editing("nameless files", naming::nameless_files),
    editing("changed listings", naming::changed_listings),
    editing("inheritance", naming::inheritance),
    editing("mapped writing", kernel::mapped_writing),
    editing("early mappings", kernel::early_mappings),
    editing("direct writing", kernel::direct_writing),
    editing("copying in the kernel", kernel::copying),
    editing("watched directories", kernel::watched_directories),
    editing("watched files", kernel::watched_files),
    editing("flock", kernel::flocks),
    editing("record locks", kernel::record_locks),
    editing("attributes", kernel::attributes),
    editing("access control lists", kernel::access_lists),
];

/// What the checks said: nothing where they hold, else why not.
type Found = BTreeMap<String, Option<String>>;

/// Where a runtime shows its environment.
const SPFS: &str = "/spfs";

/// The variable that makes the test binary do one thing inside: `read`, `edit`, `refuse`, `random` or `snapshot`, and a
/// directory.
const INSIDE: &str = "SPFS_SEMANTICS";

/// What `random` needs besides: a seed, a number of changes and a plain directory.
const RANDOM: &str = "SEMANTICS_RANDOM";

#[test]
fn in_a_plain_directory() {
    if let Ok(job) = std::env::var(INSIDE) {
        let (what, root) = job.split_once(' ').unwrap();
        return inside(what, &Place { root: root.into() });
    }
    every_caller(|home| {
        plain_tree(home);
        let found = checks(home.sh(&format!("exec {}", job(home, "edit", home.path("tree")))).run());
        none(compare("directory", home.caller(), &found));
    });
}

#[test]
fn in_a_plain_overlay() {
    every_caller(|home| {
        plain_tree(home);
        home.sh("mkdir top mounted").run().ok();
        let mounts = "mount -t tmpfs -o mode=700 none top && mkdir top/upper top/work && mount -t overlay -o \
            userxattr,redirect_dir=nofollow,metacopy=off,index=off,xino=on,lowerdir=tree,upperdir=top/upper,workdir=top/work \
            none mounted && chmod 755 mounted";
        let run = job(home, "edit", home.path("mounted"));
        let code = if home.caller().is_root() {
            format!("unshare --mount sh -c '{mounts} && exec {run}'")
        } else {
            let unshare = "unshare --user --map-current-user --keep-caps --mount";
            format!("{unshare} sh -c '{mounts} && exec setpriv --inh-caps=-all --ambient-caps=-all {run}'")
        };
        none(compare("overlay", home.caller(), &checks(home.sh(&code).run())));
    });
}

#[test]
fn in_every_runtime() {
    let mut wrong = Vec::new();
    let mut committed = BTreeMap::<String, Vec<String>>::new();
    // Also where /spfs is missing, and the whole root is another one: its paths must not show.
    let hosts = || if full() { Host::all() } else { vec![Host::as_it_is()] };
    for caller in Caller::all() {
        for home in hosts().into_iter().map(|host| Home::on(caller.clone(), host)) {
            commit_layers(&home);
            for backend in strategies(&caller) {
                home.set("SPFS_FILESYSTEM_BACKEND", backend);
                wrong.extend(compare(backend, &caller, &read(&home)));
                // Where changes are kept has little to do with what is below: once for each caller is enough in short.
                let first = *backend == strategies(&caller)[0];
                for durable in [false, true].into_iter().filter(|durable| !durable || first || full()) {
                    let (found, manifest) = edit(&home, durable);
                    wrong.extend(compare(backend, &caller, &found));
                    committed.entry(manifest).or_default().push(format!("{backend}, durable: {durable}, {caller}"));
                }
            }
        }
    }
    none(wrong);
    assert!(committed.len() == 1, "the same changes were committed as different layers: {committed:#?}");
}

/// For one command: in the full size each reads, changes or commits a file of two gigabytes, perhaps while others want
/// the disk. Only for what hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Commits the layers of [`tree`], each in a runtime of those below it.
fn commit_layers(home: &Home) {
    let mut below = "-".to_owned();
    for (tag, code) in layers(huge()) {
        let code = format!("cd /spfs; {code} spfs commit layer -q -t {tag}");
        home.script(&format!("{below} --edit"), &code).limit(LIMIT).run().ok();
        below = if below == "-" { tag.into() } else { format!("{below}+{tag}") };
    }
}

/// Runs what only reads in a read-only runtime, where everything else is refused.
fn read(home: &Home) -> Found {
    let code = format!("{} && {}", job(home, "read", SPFS), job(home, "refuse", SPFS));
    checks(home.script(STACK, &code).limit(LIMIT).run())
}

/// Runs everything in an editable runtime, and commits: what was found, and the manifest of the new layer. A runtime of
/// that layer must show the same tree.
fn edit(home: &Home, durable: bool) -> (Found, String) {
    let (look, tag) = (format!("{} | grep ^entry:", job(home, "snapshot", SPFS)), "edited");
    let code = format!("{} && {look} > before; spfs commit layer -q -t {tag}", job(home, "edit", SPFS));
    let options = if durable { "--keep-runtime --runtime-name kept" } else { "" };
    let found = checks(home.script(&format!("{STACK} --edit {options}"), &code).limit(LIMIT).run());
    let code = format!("{look} > after; test -s before && diff before after");
    home.script(&format!("{STACK}+{tag}"), &code).limit(LIMIT).run().ok();
    if durable {
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable kept").run().ok();
    }
    let info = home.spfs(["info", tag]).run();
    let manifest = info.ok().stdout.lines().find(|line| line.contains("manifest: ")).unwrap().to_owned();
    (found, manifest)
}

#[test]
fn random_changes_are_those_of_a_plain_directory_and_are_committed() {
    let (seeds, count) = if full() { (12, 3000) } else { (1, 500) };
    every_strategy(|home| {
        for seed in 0..seeds {
            let mut below = "-".to_owned();
            home.sh("rm -rf plain; mkdir plain").run().ok();
            // Each generation stands on the layers of those before.
            for generation in 0..4 {
                let plain = home.path("plain");
                let random = format!("{} {count} {}", 10 * seed + generation, plain.display());
                let code = format!("{} && spfs commit layer -q -t generation{generation}", job(home, "random", SPFS));
                home.script(&format!("{below} --edit"), &code).env(RANDOM, random).run().ok();
                below = if generation == 0 { "generation0".into() } else { format!("{below}+generation{generation}") };
                let look = |root| format!("{} | grep ^entry:", job(home, "snapshot", root));
                let code = format!(
                    "{} > here; {} > there; test -s here; diff here there",
                    look(Path::new(SPFS)),
                    look(&plain)
                );
                home.script(&below, &code).run().ok();
                // A layer has no hard links: from now on every name is a file of its own.
                home.sh("cp -rP --preserve=mode plain copy && rm -rf plain && mv copy plain").run().ok();
            }
        }
    });
}

#[test]
fn the_documentation_has_these_checks_and_exceptions() {
    for known in EXCEPTIONS {
        assert!(CHECKS.iter().any(|check| check.name == known.check), "there is no check {:?}", known.check);
        assert!(known.places.iter().all(|place| PLACES.contains(place)), "{:?} are not all places", known.places);
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/semantics.md")).unwrap();
    let (list, table) = (exceptions::list(), exceptions::table());
    let known = page.contains(&list) && page.contains(&table);
    assert!(known, "docs/semantics.md does not have one of these as it is:\n\n{list}\n\n{table}\n");
}

/// How big the huge file is: beyond what 32 bits can count in the full size.
fn huge() -> u64 {
    if full() { (2 << 30) + (1 << 20) } else { 64 << 20 }
}

/// The tree of all layers in the directory `tree`, without spfs.
fn plain_tree(home: &Home) {
    for (_, code) in layers(huge()) {
        home.sh(&format!("mkdir -p tree; cd tree; {code}")).run().ok();
    }
}

/// The words that do `what` with the directory `root`, for a shell.
fn job(home: &Home, what: &str, root: impl AsRef<Path>) -> String {
    let program = home.path("checks");
    if !program.exists() {
        let this = std::env::current_exe().unwrap();
        // Another name, where every user can reach it; a copy only where that is on another file system.
        fs::hard_link(&this, &program).or_else(|_| fs::copy(&this, &program).map(drop)).unwrap();
    }
    let test = concat!(module_path!(), "::in_a_plain_directory");
    let test = test.split_once("::").unwrap().1;
    format!(
        "env {INSIDE}=\"{what} {}\" {} --exact {test} --nocapture --quiet --test-threads=1",
        root.as_ref().display(),
        program.display()
    )
}

/// Inside: does `what` is asked for.
fn inside(what: &str, place: &Place) {
    println!();
    match what {
        "read" => run_checks(place, CHECKS.iter().filter(|check| !check.edits)),
        "edit" => run_checks(place, CHECKS.iter()),
        "refuse" => refusals::everything_is_refused(place),
        "random" => {
            let words = std::env::var(RANDOM).unwrap();
            let words: Vec<&str> = words.split(' ').collect();
            random::changes(place, Path::new(words[2]), words[0].parse().unwrap(), words[1].parse().unwrap());
        }
        "snapshot" => println!("{}", place::snapshot(&place.root)),
        other => panic!("there is no {other:?}"),
    }
}

/// Runs checks, and prints one line for each.
fn run_checks<'a>(place: &Place, list: impl Iterator<Item = &'a Check>) {
    for check in list {
        let result = catch_unwind(AssertUnwindSafe(|| (check.run)(place)));
        let said = result.map(|()| "holds".to_owned()).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        println!("check: {}: {}", check.name, said.replace('\n', "; "));
    }
}

/// Takes what the checks said from what was printed.
fn checks(output: Output) -> Found {
    let lines = output.ok().stdout.lines().filter_map(|line| line.strip_prefix("check: "));
    lines
        .map(|line| {
            let (name, said) = line.split_once(": ").unwrap();
            (name.to_owned(), (said != "holds").then(|| said.to_owned()))
        })
        .collect()
}

/// What is not as [`EXCEPTIONS`] says of `place`.
fn compare(place: &str, caller: &Caller, found: &Found) -> Vec<String> {
    let place = if caller.is_root() { place.to_owned() } else { format!("{place}, user") };
    assert!(found.len() >= CHECKS.iter().filter(|check| !check.edits).count(), "only {found:?}");
    let mut wrong = Vec::new();
    for check in CHECKS {
        let excepted = EXCEPTIONS.iter().any(|known| known.check == check.name && known.places.contains(&&*place));
        match found.get(check.name) {
            Some(Some(why)) if !excepted => wrong.push(format!("{place}: {}: {why}", check.name)),
            Some(None) if excepted => wrong.push(format!("{place}: {}: holds, but is excepted", check.name)),
            _ => {}
        }
    }
    wrong
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
