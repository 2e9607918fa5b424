//! `spfs reset`: throwing changes away, all or some, and exchanging what an environment is made of.

use crate::common::{Home, every_caller, everywhere};

fn with_layers(home: &Home) {
    home.script("-", "cd /spfs; echo base > f; echo base > g; mkdir d; echo d > d/in; spfs commit layer -t base")
        .run()
        .ok();
    home.script("-", "echo other > /spfs/f; echo o > /spfs/only; spfs commit layer -t other").run().ok();
}

/// Everything below /spfs with its content.
const SHOW: &str = "show() { (cd /spfs; find . -type f | LC_ALL=C sort | xargs grep -H . | tr '\\n' ' '; echo); }\n";

#[test]
fn everything_active_is_thrown_away() {
    everywhere(|home| {
        with_layers(home);
        let code = "cd /spfs; echo x > new; rm f; echo G > g; mv d e; chmod 600 g; cd /; spfs reset; show; spfs diff
            echo again > /spfs/new; show";
        home.script("base --edit", &format!("{SHOW}{code}"))
            .run()
            .ok()
            .stdout_is("./d/in:d ./f:base ./g:base \n./d/in:d ./f:base ./g:base ./new:again ")
            .stderr_has("no changes");
        // What was committed stays.
        let code =
            "echo 1 > /spfs/one; spfs commit layer; spfs edit; echo 2 > /spfs/two; rm /spfs/one; spfs reset; show";
        home.script("-", &format!("{SHOW}{code}")).run().ok().stdout_has("./one:1 \n");
    });
}

#[test]
fn patterns_choose_what_is_thrown_away() {
    everywhere(|home| {
        with_layers(home);
        let changes =
            "cd /spfs; echo x > a.o; echo x > b.c; mkdir -p n/m; echo x > n/m/c.o; rm f; echo G > g; echo n > d/new";
        for (patterns, left) in [
            ("'*.o'", "+/spfs/b.c +/spfs/d/new -/spfs/f ~/spfs/g +/spfs/n +/spfs/n/m"),
            ("/spfs/f g", "+/spfs/a.o +/spfs/b.c +/spfs/d/new +/spfs/n +/spfs/n/m +/spfs/n/m/c.o"),
            ("/spfs/d/ n", "+/spfs/a.o +/spfs/b.c -/spfs/f ~/spfs/g"),
            ("nothing", "+/spfs/a.o +/spfs/b.c +/spfs/d/new -/spfs/f ~/spfs/g +/spfs/n +/spfs/n/m +/spfs/n/m/c.o"),
            ("'*'", ""),
            ("/spfs", ""),
        ] {
            let code = format!(
                "{changes}; cd /; spfs reset {patterns}; spfs diff | cut -d' ' -f1 | LC_ALL=C sort -k1.2 | paste -sd' '; cat /spfs/g"
            );
            let out = home.script("base --edit", &code).run();
            let content = if left.contains("~/spfs/g") { "G" } else { "base" };
            assert_eq!(out.ok().text().trim_start(), format!("{left}\n{content}").trim_start(), "{patterns}: {out}");
        }
    });
}

#[test]
fn another_environment_takes_the_place() {
    everywhere(|home| {
        with_layers(home);
        let run = |code: &str| home.script("base --edit", &format!("{SHOW}{code}")).run();
        run("echo x > /spfs/new; rm /spfs/g; spfs reset --ref other; show; spfs info | grep -- '->'")
            .ok()
            .stdout_has("./f:other ./only:o \n  - ")
            .stdout_has("-> other\n")
            .stdout_lacks("-> base");
        run("spfs reset --ref other; touch /spfs/x || echo read-only").ok().stdout_is("");
        home.script("base", "spfs reset --ref other; touch /spfs/x || echo read-only")
            .run()
            .ok()
            .stdout_is("read-only");
        home.script("base", "spfs reset --ref other --edit; touch /spfs/x || echo read-only").run().ok().stdout_is("");
    });
}

#[test]
fn changes_can_be_kept_on_another_environment() {
    everywhere(|home| {
        with_layers(home);
        let code = "echo x > /spfs/new; rm /spfs/g; echo y > /spfs/d/more; chmod 755 /spfs/f
            spfs reset --ref base+other --keep-changes --edit; show; spfs diff | cut -d' ' -f1 | LC_ALL=C sort -k1.2 | paste -sd' '
            stat -c %a /spfs/f; touch /spfs/writable";
        let out = home.script("base --edit", &format!("{SHOW}{code}")).run();
        let expected =
            "./d/in:d ./d/more:y ./f:base ./new:x ./only:o \n+/spfs/d/more ~/spfs/f -/spfs/g +/spfs/new\n755";
        assert_eq!(out.ok().text(), expected, "{out}");
    });
}

#[test]
fn an_empty_environment_takes_the_place_and_can_be_edited() {
    every_caller(|home| {
        with_layers(home);
        home.script("base", "spfs reset --ref -; ls -A /spfs; touch /spfs/x; ls -A /spfs").run().ok().stdout_is("x");
        home.script("base", "spfs reset --ref no/such").run().code(1).stderr_has("no/such");
        home.script("base", "spfs reset --ref no/such; cat /spfs/f").run().ok().stdout_is("base");
    });
}

#[test]
fn processes_that_sit_in_the_old_one_keep_it() {
    everywhere(|home| {
        with_layers(home);
        let code = "cd /spfs; echo x > new; exec 3< new; spfs reset; cat <&3; ls; cd /spfs; ls";
        home.script("base --edit", code).run().ok().stdout_is("x\nd\nf\ng\nnew\nd\nf\ng");
        // The old one's end is not the end of the runtime, nor does it keep the runtime.
        let code =
            "cd /spfs; spfs reset; cd /; for i in 1 2 3; do spfs reset; done; sleep 0.05; echo y > /spfs/y; spfs diff";
        home.script("base --edit", code).run().ok().stdout_is("+/spfs/y");
    });
}

#[test]
fn it_goes_on_as_before_after_many_resets() {
    every_caller(|home| {
        let code = "set -e; for i in 1 2 3 4 5; do echo $i > /spfs/f; spfs reset; done
            echo done > /spfs/f; spfs commit layer -t f; spfs edit; spfs reset --ref f+f --edit; echo z > /spfs/z
            spfs commit platform -t p";
        home.script("-", code).run().ok();
        home.script("p", "cat /spfs/f /spfs/z").run().ok().stdout_is("done\nz");
    });
}

#[test]
fn a_person_is_asked_before_changes_are_lost() {
    every_caller(|home| {
        with_layers(home);
        home.set("SHELL", "/bin/sh");
        let code = "echo x > /spfs/new; spfs reset --ref other; echo co''de $?; ls /spfs";
        for (answer, code_was) in [("n\n", "code 2"), ("y\n", "code 0")] {
            let mut terminal = home.pty(["run", "base", "--edit", "--", "sh", "-c", code]);
            terminal.expect("(y/N)");
            terminal.keys(answer);
            terminal.expect(code_was);
            let (_, screen) = terminal.finish();
            assert_eq!(screen.contains("only"), answer == "y\n", "{screen}");
        }
        home.script("base --edit", "echo x > /spfs/new; spfs reset --ref other --yes; ls /spfs")
            .run()
            .ok()
            .stdout_is("f\nonly");
    });
}
