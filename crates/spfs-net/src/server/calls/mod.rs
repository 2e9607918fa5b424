//! What the methods of the protocol do, each on a blocking thread: a request's bytes in, an answer's bytes out.

mod answer;
mod content;
mod exchange;
mod tags;

use std::cell::RefCell;

use bytes::Bytes;
use spfs_repo::{Digest, PayloadReader, Repository};

use super::batches::Batches;
use super::exchange::read_only;
use super::tokens::Who;
use answer::denied;

pub use answer::Failed;
pub use content::stored;

/// What a call answers.
pub enum Reply {
    /// One message, framed.
    Message(Bytes),
    /// A stream of digests.
    Digests(Vec<Digest>),
    /// The beginning of a message, framed, and what holds the rest of it.
    File(Bytes, PayloadReader),
}

type Called = std::result::Result<Reply, Failed>;

/// What became of a call.
pub struct Done {
    /// What it answers.
    pub reply: Called,
    /// The tag that it was about, if it was to change one.
    pub subject: Option<String>,
}

impl Done {
    /// A call that failed before it began.
    pub fn failed(failed: Failed) -> Self {
        Done { reply: Err(failed), subject: None }
    }
}

/// How much one answer of our own methods holds: a little more than this.
const ANSWER: usize = 4 << 20;

/// Every method, for the log and the metrics.
pub const METHODS: &[&str] = &[
    "/spfs.Repository/Ping",
    "/spfs.TagService/LsTags",
    "/spfs.TagService/ResolveTag",
    "/spfs.TagService/FindTags",
    "/spfs.TagService/IterTagSpecs",
    "/spfs.TagService/ReadTag",
    "/spfs.TagService/InsertTag",
    "/spfs.TagService/RemoveTagStream",
    "/spfs.TagService/RemoveTag",
    "/spfs.DatabaseService/HasObject",
    "/spfs.DatabaseService/ReadObject",
    "/spfs.DatabaseService/FindDigests",
    "/spfs.DatabaseService/WriteObject",
    "/spfs.DatabaseService/RemoveObject",
    "/spfs.DatabaseService/RemoveObjectIfOlderThan",
    "/spfs.PayloadService/IterDigests",
    "/spfs.PayloadService/HasPayload",
    "/spfs.PayloadService/WritePayload",
    "/spfs.PayloadService/OpenPayload",
    "/spfs.PayloadService/RemovePayload",
    "/spfs.Exchange/PushTag",
    "/spfs.Exchange/Missing",
    "/spfs.Exchange/ReadObjects",
    "/spfs.Exchange/ReadPayloads",
    "/spfs.Exchange/PutBegin",
    "/spfs.Exchange/PutPack",
    "/spfs.Exchange/PutFinish",
    "/spfs.Exchange/PutDrop",
];

/// What a call takes of the server's memory.
pub struct Memory {
    /// The largest message, in bytes.
    pub most: usize,
    /// How many times its message is in memory while it is worked on.
    pub factor: usize,
    /// Bytes of its answer.
    pub answer: usize,
}

/// What the method at `path` takes.
pub fn memory(path: &str) -> Memory {
    match path.rsplit('/').next().unwrap_or_default() {
        "WriteObject" | "PutPack" => Memory { most: usize::MAX, factor: 3, answer: 0 },
        "ReadObject" | "ReadObjects" | "ReadPayloads" => Memory { most: ANSWER, factor: 1, answer: 2 * ANSWER },
        _ => Memory { most: ANSWER, factor: 2, answer: 0 },
    }
}

/// What a method needs beyond its request.
pub struct Call<'a> {
    /// The repository that is served.
    pub repository: &'a dyn Repository,
    /// What clients have open.
    pub batches: &'a Batches,
    /// Where payloads are posted to and got from, with a `/` at its end.
    pub payloads: &'a str,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether nothing may be removed.
    pub append_only: bool,
    /// Who asks.
    pub who: &'a Who,
    /// Whose batches are opened: the name of a token, or an address.
    pub owner: &'a str,
    /// The tag that is to be changed, once it is known.
    pub subject: RefCell<Option<String>>,
}

/// Whether a method changes something; and whether it removes something.
fn changes(path: &str) -> (bool, bool) {
    let method = path.rsplit('/').next().unwrap_or_default();
    let removes = method.starts_with("Remove");
    (removes || ["Insert", "Write", "Put", "Push"].iter().any(|start| method.starts_with(start)), removes)
}

impl Call<'_> {
    /// Does what `path` names.
    pub fn run(self, path: &str, body: Bytes) -> Done {
        let reply = match changes(path) {
            (true, _) if self.read_only => Err(denied(read_only().reason, false)),
            (_, true) if self.append_only => {
                Err(denied("this server is append-only: nothing is removed".to_owned(), false))
            }
            _ if path.starts_with("/spfs.TagService/") || path == "/spfs.Exchange/PushTag" => self.run_tags(path, body),
            _ => self.run_content(path, body),
        };
        Done { reply, subject: self.subject.into_inner() }
    }
}
