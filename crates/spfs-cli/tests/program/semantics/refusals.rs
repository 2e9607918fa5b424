//! What a read-only runtime refuses: every change, with `EROFS`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::place::{Place, errno, lstat, python};

/// Nothing can be changed, by anyone.
pub fn everything_is_refused(place: &Place) {
    let (file, new, dir) = (place.at("equal/a"), place.at("equal/new"), place.at("empty/in/side"));
    let system = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    let refused: [(&str, io::Result<()>); 15] = [
        ("writing", OpenOptions::new().append(true).open(&file).map(drop)),
        ("cutting", OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
        ("creating", File::create_new(&new).map(drop)),
        ("removing", fs::remove_file(&file)),
        ("renaming", fs::rename(&file, &new)),
        ("linking", fs::hard_link(&file, &new)),
        ("a symlink", symlink("x", &new)),
        ("a directory", fs::create_dir(&new)),
        ("removing a directory", fs::remove_dir(&dir)),
        ("a mode", fs::set_permissions(&file, fs::Permissions::from_mode(0o600))),
        ("an owner", chown(&file, Some(lstat(&file).uid()), None)),
        ("a time", File::open(&file).unwrap().set_modified(std::time::SystemTime::now())),
        ("an attribute", system(rustix::fs::setxattr(&file, "user.mine", b"x", XattrFlags::empty()))),
        ("a fifo", system(rustix::fs::mknodat(CWD, &new, FileType::Fifo, Mode::RUSR, 0))),
        ("access", system(rustix::fs::accessat(CWD, &file, Access::WRITE_OK, AtFlags::EACCESS))),
    ];
    for (what, result) in refused {
        assert_eq!(errno(result), Errno::ROFS, "{what}");
    }
    let code = "import mmap, sys
file = open(sys.argv[1], 'rb')
try: mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)
except PermissionError: sys.exit()
sys.exit('a file that is open for reading was mapped for writing')";
    python(code, &[&file]);
}
