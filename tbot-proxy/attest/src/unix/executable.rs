//! The file that a process runs, opened.

use std::{
    fs::{File, Metadata},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

/// An executable, open, and what its file system said of it then.
pub(super) struct Executable {
    pub(super) opened: File,
    pub(super) metadata: Metadata,
}

impl Executable {
    /// Opens `exe` below `/proc/PID`: the file that runs, not what is at its path.
    pub(super) fn open(directory: impl AsFd, pid: u32) -> Result<Self, String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat(directory, "exe", flags, Mode::empty()).map_err(|error| {
            let what = match error {
                Errno::ACCESS | Errno::PERM => {
                    "; the agent must run as the same user, or have CAP_SYS_PTRACE (and \
                     CAP_DAC_READ_SEARCH for programs that it may not read)"
                }
                Errno::NOENT => "; it is a thread of the kernel, or has ended",
                _ => "",
            };
            format!("/proc/{pid}/exe cannot be opened: {error}{what}")
        })?;
        let opened = File::from(opened);
        match opened.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Self { opened, metadata }),
            Ok(_) => Err(format!("/proc/{pid}/exe is not a regular file")),
            Err(error) => Err(format!("/proc/{pid}/exe: {error}")),
        }
    }

    /// What no two files of this machine share: device and inode.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.metadata.dev(), self.metadata.ino())
    }
}
