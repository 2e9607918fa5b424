//! `spfs server token`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::context::Context;
use crate::errors::{Failure, Result};

/// Make a token, and the lines that let a server know it
///
/// The lines go to standard output, for the file that --tokens names; they do not tell the token. The token goes to
/// standard error, once: hand it to whoever is to use it.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  spfs server token farm --allow read,write,tag --tags farm/ >> tokens.toml")]
pub struct Token {
    /// Its name, for the access log
    name: String,
    /// What it allows
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',', default_value = "read")]
    allow: Vec<Right>,
    /// For which tags: `farm` and all below it, `farm/` all below it, `farm*` all that begin so; empty for every tag
    #[arg(long, value_name = "PREFIX", default_value = "")]
    tags: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Right {
    /// Read tags and content
    Read,
    /// Store content
    Write,
    /// Add to tags
    Tag,
    /// Remove tags, and content where it is for every tag
    Delete,
}

impl Token {
    /// Makes it and prints both.
    pub fn make(self, context: &Context) -> Result<ExitCode> {
        let mut secret = [0u8; 32];
        let got = rustix::rand::getrandom(&mut secret[..], rustix::rand::GetRandomFlags::empty());
        if got != Ok(secret.len()) {
            return Err(Failure::new("the system has no random numbers"));
        }
        let digest = spfs::repo::Digest::from_bytes(secret).to_string();
        let token = format!("spfs_{}", digest.trim_end_matches('=').to_lowercase());
        let names: Vec<_> = self.allow.iter().filter_map(Right::to_possible_value).collect();
        let rights: Vec<String> = names.iter().map(|right| format!("{:?}", right.get_name())).collect();
        let mut out = context.out();
        writeln!(out, "[[token]]\nname = {}", quoted(&self.name))?;
        writeln!(out, "sha256 = \"{}\"", spfs_net::server::token_hash(&token))?;
        writeln!(out, "rights = [{{ tags = {}, allow = [{}] }}]", quoted(&self.tags), rights.join(", "))?;
        context.remark(format!("the token, shown only now: {token}"));
        out.finish()
    }
}

/// `text` as a string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
