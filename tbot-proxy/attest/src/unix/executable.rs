//! The file that a process runs, opened.

use std::{
    fs::{File, Metadata},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx},
    io::Errno,
};

/// An executable, open, and what its file system said of it then.
pub(super) struct Executable {
    pub(super) opened: File,
    pub(super) metadata: Metadata,
    /// The mount that it is on. Since Linux 6.8 no other has this id until the machine
    /// is started again; before 5.8 it is 0.
    pub(super) mount: u64,
}

/// `STATX_MNT_ID_UNIQUE`; a kernel without it goes by `STATX_MNT_ID`.
const MOUNT: StatxFlags = StatxFlags::MNT_ID.union(StatxFlags::from_bits_retain(0x4000));

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
        let mount = statx(&opened, "", AtFlags::EMPTY_PATH, MOUNT).map_or(0, |file| {
            match StatxFlags::from_bits_retain(file.stx_mask).intersects(MOUNT) {
                true => file.stx_mnt_id,
                false => 0,
            }
        });
        match opened.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Self {
                opened,
                metadata,
                mount,
            }),
            Ok(_) => Err(format!("/proc/{pid}/exe is not a regular file")),
            Err(error) => Err(format!("/proc/{pid}/exe: {error}")),
        }
    }

    /// What no two files of this machine share: device and inode.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.metadata.dev(), self.metadata.ino())
    }
}
