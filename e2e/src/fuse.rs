use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen,
    Request,
};
use tempfile::TempDir;

const NAME: &str = "file";
const INODE: u64 = 2;
/// How long the kernel may keep what it is told.
const KEPT: Duration = Duration::from_secs(1);

/// A file on a FUSE file system of this process, executable for all. Unmounted when
/// dropped.
#[derive(Debug)]
pub struct FuseFile {
    // First: what is held must be let go before the end.
    held: Held,
    _session: BackgroundSession,
    directory: TempDir,
}

impl FuseFile {
    /// Mounts one with this file in it; `None`, said aloud: that needs root and /dev/fuse.
    #[track_caller]
    pub fn mount(contents: Vec<u8>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("SKIPPED: FUSE needs root and /dev/fuse");
            return None;
        }
        let directory = TempDir::new().expect("temporary directory");
        let held = Held::default();
        let files = OneFile {
            contents,
            held: held.clone(),
        };
        let session = fuser::spawn_mount(files, directory.path(), &Config::default());
        Some(Self {
            held,
            _session: session.expect("a mount of FUSE"),
            directory,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    /// Whoever opens the file waits from now on, until this is dropped.
    pub fn hang(&self) {
        self.held.set(true);
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        self.held.set(false);
        // Whoever has the file open still, or waits for it, meets the end of it: a plain
        // unmount would be refused, and the mount would stay.
        let unmounted = std::process::Command::new("umount")
            .args(["--force", "--lazy"])
            .arg(self.directory.path())
            .status();
        if !matches!(&unmounted, Ok(status) if status.success()) {
            eprintln!("{} stays mounted", self.directory.path().display());
        }
    }
}

/// Whether the file system hangs.
#[derive(Debug, Clone, Default)]
struct Held(Arc<(Mutex<bool>, Condvar)>);

impl Held {
    fn set(&self, held: bool) {
        let (now, changed) = &*self.0;
        *now.lock().unwrap_or_else(PoisonError::into_inner) = held;
        changed.notify_all();
    }

    fn wait(&self) {
        let (now, changed) = &*self.0;
        let now = now.lock().unwrap_or_else(PoisonError::into_inner);
        let _now = changed.wait_while(now, |held| *held);
    }
}

struct OneFile {
    contents: Vec<u8>,
    held: Held,
}

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match inode.0 {
            1 => (FileType::Directory, 0),
            INODE => (FileType::RegularFile, self.contents.len() as u64),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.attributes(INodeNo(INODE));
        match found.filter(|_| parent == INodeNo::ROOT && name == NAME) {
            Some(attributes) => reply.entry(&KEPT, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&KEPT, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.held.wait();
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = (offset as usize).min(self.contents.len());
        let end = (start + size as usize).min(self.contents.len());
        reply.data(&self.contents[start..end]);
    }
}
