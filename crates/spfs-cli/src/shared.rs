//! Arguments that several commands have in common. Flatten one into a command's own.
// These structs have plain comments: clap would take a doc comment for the help of the command itself.

// `--json`, for every command that prints data.
#[derive(clap::Args)]
pub struct Json {
    /// Print JSON instead, with the fields of docs/json.md
    #[arg(long)]
    pub json: bool,
}

// `-q/--quiet`, for every command that makes something.
#[derive(clap::Args)]
pub struct Quiet {
    /// Print only the digest of what was made
    #[arg(short, long)]
    pub quiet: bool,
}
