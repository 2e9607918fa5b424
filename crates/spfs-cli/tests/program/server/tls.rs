//! TLS, with an authority of certificates that is thrown away.

use std::io::Write;

use super::{Server, connect, get, rest};
use crate::common::{Home, every_caller};

/// Makes an authority, and a certificate by it for `localhost` and 127.0.0.1.
pub fn certificates(home: &Home, name: &str) {
    let code = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}-ca \
             -keyout {name}-ca.key -out {name}-ca.pem
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > {name}.ext
         openssl x509 -req -days 2 -in {name}.csr -CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial \
             -extfile {name}.ext -out {name}.pem"
    );
    home.sh(&format!("set -e; {code}")).run().ok();
}

#[test]
fn everything_goes_over_tls() {
    every_caller(|home| {
        certificates(home, "one");
        certificates(home, "two");
        home.sh("cp one.pem cert.pem; cp one.key key.pem").run().ok();
        let mut server = Server::start(home, "--tls-cert cert.pem --tls-key key.pem");
        let at = server.address();
        let curl = |ca: &str, more: &str| {
            home.sh(&format!(
                "curl -sS --cacert {ca} -w '%{{http_version}}' {more} https://localhost:{}/healthz",
                at.port()
            ))
            .run()
        };
        curl("one-ca.pem", "--http2").ok().stdout_is("ok\n2");
        curl("one-ca.pem", "--http1.1").ok().stdout_is("ok\n1.1");
        curl("two-ca.pem", "").fails();
        // Nobody gets in without it.
        assert!(!get(at, "/healthz").contains("ok"));
        let mut half = connect(at);
        half.write_all(&[22, 3, 1]).unwrap();

        // Where payloads are to be had is said with https.
        let frame = r"printf '\0\0\0\0\0' | curl -sS --cacert one-ca.pem --http2 -H 'content-type: application/grpc' -H 'te: trailers'";
        let ask = format!("{frame} --data-binary @- https://localhost:{}/spfs.PayloadService/WritePayload", at.port());
        home.sh(&ask).run().ok().stdout_has(&format!("https://localhost:{}/", at.port()));

        home.sh("cp two.pem cert.pem").run().ok();
        server.reload("the configuration stays as it was: invalid TLS file");
        curl("one-ca.pem", "").ok();
        home.sh("cp two.key key.pem").run().ok();
        server.reload("read the configuration again");
        curl("two-ca.pem", "").ok();
        curl("one-ca.pem", "").fails();
        drop(half);
        assert!(server.running.is_alive());
        server.stop();

        home.write("key.pem", "no key");
        let wrong = home.spfs_line("server --listen 127.0.0.1:0 --tls-cert cert.pem --tls-key key.pem").run();
        wrong.fails().stderr_has("\"key.pem\"").stderr_has("no private key");
    });
}

#[test]
fn one_that_says_nothing_is_not_waited_for() {
    every_caller(|home| {
        certificates(home, "one");
        let settings = "tls_cert = \"one.pem\"\ntls_key = \"one.key\"\n[limits]\nbegin_seconds = 0.3\n";
        let server = Server::with(home, settings);
        let mut half = connect(server.address());
        half.write_all(&[22, 3, 1]).unwrap();
        assert_eq!(rest(half), "");
        server.stop();
    });
}
