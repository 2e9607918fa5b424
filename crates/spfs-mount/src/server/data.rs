//! The content of files, for where overlayfs cannot take it from the payloads itself.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::protocol::{DATA_REPLY_MAX, OUT_HEADER};
use super::{Answer, Fetch, Outcome, Reply, Wanted};
use crate::redirect::redirect;
use crate::view::NodeId;

/// Payloads that are kept open: the kernel reads large files piece by piece, and never says that it opens or closes one.
const OPEN: usize = 64;

/// The payloads, by one thread.
pub(super) struct Data<'a> {
    payloads: BorrowedFd<'a>,
    fetch: Option<&'a dyn Fetch>,
    open: RefCell<Vec<Option<(NodeId, OwnedFd)>>>,
}

impl<'a> Data<'a> {
    /// Data from the directory `payloads`; what is not there is fetched first, if it can be.
    pub fn new(payloads: BorrowedFd<'a>, fetch: Option<&'a dyn Fetch>) -> Self {
        Data { payloads, fetch, open: RefCell::new((0..OPEN).map(|_| None).collect()) }
    }

    /// Answers with the (offset, length) of the file `id`, whose content is what `what` says.
    pub fn read(
        &self,
        id: NodeId,
        size: u64,
        what: &dyn Fn() -> Option<Wanted>,
        (offset, length): (u64, u32),
        reply: &mut Reply,
    ) -> Outcome {
        let wanted = size.saturating_sub(offset).min(length.into()).min((DATA_REPLY_MAX - OUT_HEADER) as u64) as usize;
        let mut open = self.open.borrow_mut();
        let place = &mut open[id as usize % OPEN];
        if place.as_ref().is_none_or(|(held, _)| *held != id) {
            *place = Some((id, self.payload(&what().ok_or(Errno::IO)?)?));
        }
        let Some((_, payload)) = place else { return Err(Errno::IO) };
        let buffer = reply.room(wanted);
        let mut done = 0;
        while done < wanted {
            match rustix::io::pread(&*payload, &mut buffer[done..], offset + done as u64) {
                // It was cut short after it was opened.
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Errno::IO),
            }
        }
        Ok(Answer::Sent)
    }

    /// A payload, open. One that is missing, or not as long as it should be, is an I/O error of the file that has it.
    fn payload(&self, wanted: &Wanted) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let path = redirect(&wanted.digest);
        let open = || rustix::fs::openat(self.payloads, &path[1..], flags, Mode::empty());
        let file = match (open(), self.fetch) {
            (Err(Errno::NOENT), Some(fetch)) if fetch.fetch(wanted) => open(),
            (result, _) => result,
        };
        let file = file.map_err(|_| Errno::IO)?;
        let length = rustix::fs::fstat(&file)?.st_size;
        if length as u64 == wanted.size { Ok(file) } else { Err(Errno::IO) }
    }
}
