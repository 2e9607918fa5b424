//! Who may do what: tokens and their rights, servers that only read, servers that only append.

use spfs::repo::Digest;

use super::{Server, call, digest, get, head, message, post, send, tag};
use crate::common::{Home, every_caller};

const OK: u32 = 0;
const DENIED: u32 = 7;
const UNKNOWN: u32 = 16;

/// The hash of a token as `sha256sum` knows it, and the lines for it.
fn lines(home: &Home, token: &str, rights: &str) -> String {
    let hash = home.sh(&format!("printf %s {token} | sha256sum")).run().ok().stdout[..64].to_owned();
    format!("[[token]]\nname = \"{token}\"\nsha256 = \"{hash}\"\nrights = [{rights}]\n")
}

#[test]
fn a_token_has_its_rights_and_no_others() {
    every_caller(|home| {
        let tokens = [
            lines(home, "reader", "{ tags = \"\", allow = [\"read\"] }"),
            lines(home, "vfx", "{ tags = \"vfx/\", allow = [\"read\", \"write\", \"tag\"] }"),
            lines(home, "writer", "{ tags = \"\", allow = [\"write\"] }"),
            lines(home, "cleaner", "{ tags = \"\", allow = [\"delete\"] }"),
            lines(home, "studio", "{ tags = \"studio#ns/\", allow = [\"tag\"] }"),
            "[anonymous]\nrights = [{ tags = \"public\", allow = [\"read\"] }]\n".to_owned(),
        ];
        home.write("tokens.toml", tokens.concat());
        let server = Server::start(home, "--tokens tokens.toml");
        let at = server.address();
        assert!(post(at, Some("vfx"), b"content").starts_with("HTTP/1.1 200"));
        let name = Digest::of(b"content");
        let on = message(&[(1, &digest(&name))]);
        let folder = |path: &str| message(&[(1, path.as_bytes())]);
        let spec = |tag: &str| message(&[(1, tag.as_bytes())]);
        let all = message(&[(1, &message(&[(1, b"")]))]);
        let older = message(&[(1, &message(&[(1, b"2020-01-01T00:00:00Z")])), (2, &digest(&name))]);
        let (insert, remove) = ("/spfs.TagService/InsertTag", "/spfs.TagService/RemoveTag");
        // Reader, vfx, writer, cleaner, nobody.
        let table: &[(&str, &[u8], [u32; 5])] = &[
            ("/spfs.Repository/Ping", b"", [OK; 5]),
            ("/spfs.DatabaseService/HasObject", &on, [OK, OK, OK, DENIED, OK]),
            ("/spfs.PayloadService/HasPayload", &on, [OK, OK, OK, DENIED, OK]),
            ("/spfs.Exchange/Missing", b"", [OK, OK, OK, DENIED, OK]),
            ("/spfs.DatabaseService/ReadObject", &on, [OK, OK, DENIED, DENIED, OK]),
            ("/spfs.Exchange/ReadObjects", b"", [OK, OK, DENIED, DENIED, OK]),
            ("/spfs.Exchange/ReadPayloads", b"", [OK, OK, DENIED, DENIED, OK]),
            ("/spfs.PayloadService/OpenPayload", &on, [OK, OK, DENIED, DENIED, OK]),
            ("/spfs.DatabaseService/FindDigests", &all, [OK, DENIED, DENIED, DENIED, UNKNOWN]),
            ("/spfs.PayloadService/IterDigests", b"", [OK, DENIED, DENIED, DENIED, UNKNOWN]),
            ("/spfs.DatabaseService/WriteObject", b"", [DENIED, OK, OK, DENIED, UNKNOWN]),
            ("/spfs.PayloadService/WritePayload", b"", [DENIED, OK, OK, DENIED, UNKNOWN]),
            ("/spfs.Exchange/PutPack", b"", [DENIED, OK, OK, DENIED, UNKNOWN]),
            (insert, &tag("vfx/a", ""), [DENIED, OK, DENIED, DENIED, UNKNOWN]),
            (insert, &tag("vfxb/a", ""), [DENIED, DENIED, DENIED, DENIED, UNKNOWN]),
            (insert, &tag("vfx/a", "studio"), [DENIED, DENIED, DENIED, DENIED, UNKNOWN]),
            ("/spfs.Exchange/PushTag", &tag("vfx/b", ""), [DENIED, OK, DENIED, DENIED, UNKNOWN]),
            ("/spfs.TagService/ReadTag", &spec("vfx/a"), [OK, OK, DENIED, OK, UNKNOWN]),
            ("/spfs.TagService/ReadTag", &spec("public/a"), [OK, DENIED, DENIED, OK, OK]),
            ("/spfs.TagService/LsTags", &folder(""), [OK; 5]),
            (remove, &tag("vfx/a", ""), [DENIED, DENIED, DENIED, OK, UNKNOWN]),
            ("/spfs.TagService/RemoveTagStream", &spec("vfx/b"), [DENIED, DENIED, DENIED, OK, UNKNOWN]),
            ("/spfs.DatabaseService/RemoveObject", &on, [DENIED, DENIED, DENIED, OK, UNKNOWN]),
            ("/spfs.DatabaseService/RemoveObjectIfOlderThan", &older, [DENIED, DENIED, DENIED, OK, UNKNOWN]),
            ("/spfs.PayloadService/RemovePayload", &on, [DENIED, DENIED, DENIED, OK, UNKNOWN]),
        ];
        let callers = [Some("reader"), Some("vfx"), Some("writer"), Some("cleaner"), None];
        for (path, message, expected) in table {
            for (who, expected) in callers.iter().zip(expected) {
                let (status, answer) = call(at, *who, path, message);
                assert_eq!(status, *expected, "{path} by {who:?}: {answer}");
                assert_eq!(call(at, Some("guessed"), path, message).0, UNKNOWN, "{path}");
            }
        }
        let allowed = call(at, Some("studio"), insert, &tag("vfx/a", "studio"));
        assert_eq!(allowed.0, OK, "{}", allowed.1);

        // The payload channel.
        let download = |who| send(at, &head("GET", &format!("/{}", Digest::of(b"")), who, ""), b"");
        assert!(post(at, Some("vfx"), b"").starts_with("HTTP/1.1 200"));
        for (who, got, posted) in [
            (Some("reader"), 200, 403),
            (Some("writer"), 403, 200),
            (Some("cleaner"), 403, 403),
            (None, 200, 401),
            (Some("guessed"), 401, 401),
        ] {
            let (down, up) = (download(who), post(at, who, b""));
            assert!(down.starts_with(&format!("HTTP/1.1 {got}")), "{who:?}: {down}");
            assert!(up.starts_with(&format!("HTTP/1.1 {posted}")), "{who:?}: {up}");
            assert_eq!(up.contains("www-authenticate: Bearer"), posted == 401, "{up}");
        }
        assert!(get(at, "/healthz").starts_with("HTTP/1.1 200"));
        assert!(get(at, "/metrics").starts_with("HTTP/1.1 401"));
        assert!(send(at, &head("GET", "/metrics", Some("reader"), ""), b"").starts_with("HTTP/1.1 200"));
        server.stop();
    });
}

#[test]
fn tags_are_listed_for_those_who_may_read_them() {
    every_caller(|home| {
        let tokens =
            lines(home, "vfx", "{ tags = \"vfx/\", allow = [\"read\"] }, { tags = \"lib/x\", allow = [\"tag\"] }");
        home.write("tokens.toml", tokens + &lines(home, "all", "{ tags = \"\", allow = [\"tag\"] }"));
        let server = Server::start(home, "--tokens tokens.toml");
        let at = server.address();
        for name in ["vfx/one", "lib/x", "lib/secret", "secret/two", "top-secret"] {
            call(at, Some("all"), "/spfs.TagService/InsertTag", &tag(name, ""));
            call(at, Some("all"), "/spfs.TagService/InsertTag", &tag(name, "hidden-secret"));
        }
        for (path, request, shown) in [
            ("IterTagSpecs", message(&[]), &["vfx/one", "lib/x"][..]),
            ("LsTags", message(&[]), &["vfx", "lib"]),
            ("LsTags", message(&[(1, b"lib")]), &["x"]),
            ("LsTags", message(&[(1, b"/lib/")]), &["x"]),
            ("LsTags", message(&[(1, b"vfx/../secret")]), &[]),
            ("LsTags", message(&[(1, b"lib//")]), &[]),
            ("LsTags", message(&[(2, b"hidden-secret")]), &[]),
            ("FindTags", message(&[(1, &digest(&Digest::of(b"")))]), &["vfx/one", "lib/x"]),
        ] {
            let (status, answer) = call(at, Some("vfx"), &format!("/spfs.TagService/{path}"), &request);
            assert_eq!(status, OK, "{path}: {answer}");
            assert!(shown.iter().all(|name| answer.contains(name)), "{path}: {answer}");
            let body = answer.split("\r\n\r\n").nth(1).unwrap();
            assert!(!body.contains("two") && !body.contains("top") && (shown.is_empty() || !body.contains("secret")));
        }
        server.stop();
    });
}

#[test]
fn some_servers_only_read_or_never_remove() {
    every_caller(|home| {
        let server = Server::start(home, "");
        call(server.address(), None, "/spfs.TagService/InsertTag", &tag("a", ""));
        server.stop();
        for (option, add, removed) in [("--read-only", DENIED, DENIED), ("--append-only", OK, DENIED)] {
            let server = Server::start(home, option);
            let at = server.address();
            assert_eq!(call(at, None, "/spfs.TagService/ReadTag", &message(&[(1, b"a")])).0, OK);
            for path in ["TagService/InsertTag", "Exchange/PushTag"] {
                assert_eq!(call(at, None, &format!("/spfs.{path}"), &tag("b", "")).0, add, "{option} {path}");
            }
            for path in ["DatabaseService/WriteObject", "PayloadService/WritePayload", "Exchange/PutPack"] {
                assert_eq!(call(at, None, &format!("/spfs.{path}"), b"").0, add, "{option} {path}");
            }
            let status = if add == OK { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
            assert!(post(at, None, b"x").starts_with(status), "{option}");
            for path in ["TagService/RemoveTag", "TagService/RemoveTagStream", "DatabaseService/RemoveObject"] {
                assert_eq!(call(at, None, &format!("/spfs.{path}"), &tag("a", "")).0, removed, "{option} {path}");
            }
            for path in ["DatabaseService/RemoveObjectIfOlderThan", "PayloadService/RemovePayload"] {
                assert_eq!(call(at, None, &format!("/spfs.{path}"), b"").0, removed, "{option} {path}");
            }
            server.stop();
        }
        home.spfs_line("tags -r ./served").run().ok().stdout_is("a\nb");
    });
}

#[test]
fn tokens_are_made_and_read_again() {
    every_caller(|home| {
        let made = home.spfs(["server", "token", "a \"b\"", "--allow", "read,tag", "--tags", "vfx/"]).run();
        made.ok().stdout_has("name = \"a \\\"b\\\"\"").stdout_has("tags = \"vfx/\", allow = [\"read\", \"tag\"]");
        let token = made.stderr.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(token.starts_with("spfs_") && token.len() > 50 && !made.stdout.contains(&token), "{made}");
        let insert = |server: &Server, token: &str, name: &str| {
            call(server.address(), Some(token), "/spfs.TagService/InsertTag", &tag(name, "")).0
        };
        home.write("tokens.toml", &made.stdout);
        let server = Server::start(home, "--tokens tokens.toml");
        assert_eq!(insert(&server, &token, "vfx/a"), OK);
        assert_eq!(insert(&server, "new", "vfx/a"), UNKNOWN);

        home.write("tokens.toml", lines(home, "new", "{ tags = \"\", allow = [\"tag\"] }"));
        server.reload("read the configuration again: 1 tokens");
        assert_eq!(insert(&server, "new", "vfx/b"), OK);
        assert_eq!(insert(&server, &token, "vfx/b"), UNKNOWN);

        home.write("tokens.toml", "[[token]]\nname = \"x\"\ntoken = \"in plain text\"\n");
        server.reload("the configuration stays as it was: invalid file of tokens \"tokens.toml\"");
        assert_eq!(insert(&server, "new", "vfx/c"), OK, "the old file is still good");
        server.stop().stderr_has("unknown field `token`");
        home.spfs_line("server --listen 127.0.0.1:0 --tokens tokens.toml").run().fails().stderr_has("hint:");

        // Over a network, tokens are for TLS.
        home.write("tokens.toml", "");
        let plain = home.spfs_line("server --listen 0.0.0.0:0 --tokens tokens.toml").run();
        plain.fails().stderr_has("in plain text").stderr_has("--plain-tokens");
        let mut running = home.spfs_line("server --listen 0.0.0.0:0 --tokens tokens.toml --plain-tokens").spawn();
        running.wait_for("listening on: 0.0.0.0:");
        running.signal(rustix::process::Signal::TERM);
        running.finish().ok();
        let mut running = home.spfs_line("server --listen 0.0.0.0:0").spawn();
        running.wait_for("listening on: 0.0.0.0:");
        running.signal(rustix::process::Signal::TERM);
        running.finish().ok().stderr_has("warning: whoever reaches this server may change");
    });
}

/// Whatever the file of a token is called, in an address and in a configuration; and what is in it may be no token.
#[test]
fn a_token_comes_from_any_file() {
    every_caller(|home| {
        home.write("tokens.toml", lines(home, "reader", "{ tags = \"\", allow = [\"read\"] }"));
        let server = Server::start(home, "--tokens tokens.toml");
        let remote = format!("grpc://{}", server.address());
        home.write("to&ken=ä +%.txt", "reader\r\n");
        let tags = |address: &str| home.spfs(["tags", "-r", address]).run();
        tags(&format!("{remote}?token_file=to%26ken%3Dä%20%2B%25.txt")).ok();
        tags(&format!("{remote}?compress=true&token_file=to%26ken%3Dä+%2B%25.txt&timeout_ms=60000")).ok();
        tags(&format!("{remote}?token_file=to%2")).fails().stderr_has("two hexadecimal digits");
        home.set("SPFS_REMOTE_ODD_ADDRESS", &remote);
        home.set("SPFS_REMOTE__ODD__TOKEN_FILE", home.path("to&ken=ä +%.txt").to_str().unwrap());
        tags("odd").ok();
        tags("proxy:?primary=odd").ok();
        for content in ["", "two\nlines", "ä", "a\0b", "\u{feff}reader"] {
            home.write("token", content);
            tags(&format!("{remote}?token_file=token")).fails().stderr_has("it does not hold one line with a token");
        }
        server.stop();
    });
}
