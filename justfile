# Short names for what CONTRIBUTING.md describes; every line is a plain command that can be typed instead.

# everything that is asked of a change, but for the long tests
check: format lint docs deny test

format:
    cargo fmt --all --check

lint:
    cargo lint

docs:
    RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" cargo docs

deny:
    cargo deny check

test *arguments:
    ./test {{arguments}}

# one static binary: target/x86_64-unknown-linux-gnu/release/spfs
static:
    cargo static

bench *arguments:
    cargo run --release --package spfs-bench -- {{arguments}}
