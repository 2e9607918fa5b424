//! Arguments that several commands have in common. Flatten one into a command's own.
// These structs have plain comments: clap would take a doc comment for the help of the command itself.

// `--json`, for every command that prints data.
#[derive(clap::Args)]
pub struct Json {
    /// Print JSON instead, with the fields of docs/json.md
    #[arg(long)]
    pub json: bool,
}

/// How many of something at the same time. An empty text says nothing: an empty variable is an unset one.
#[derive(Clone, Copy)]
pub struct Count(pub Option<usize>);

impl std::str::FromStr for Count {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Count(None)) } else { text.parse().map(|count| Count(Some(count))) }
    }
}

// `-q/--quiet`, for every command that makes something.
#[derive(clap::Args)]
pub struct Quiet {
    /// Print only the digest of what was made
    #[arg(short, long)]
    pub quiet: bool,
}

impl Quiet {
    /// Says what was made: its digest, and without `-q` what it is called.
    pub fn created(
        &self,
        out: &mut crate::output::Output,
        digest: &spfs::repo::Digest,
        tags: &[spfs::repo::TagName],
    ) -> crate::errors::Result<()> {
        use std::io::Write;
        if self.quiet {
            writeln!(out, "{digest}")?;
            return Ok(());
        }
        writeln!(out, "created digest={digest}")?;
        for tag in tags {
            writeln!(out, "created tag={tag}")?;
        }
        Ok(())
    }
}
