//! One profile of a credentials file of AWS, which people and other tools write to as well.
//!
//! The file is a plain one, replaced by the rename of a new one: readers see it whole.
//! Other profiles in it stay as they are, comments included, unless it is to be
//! overwritten. A lock beside it (`..NAME.lock`) keeps outputs of ours from undoing each
//! other's work; other tools do not know of it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat},
    io::Errno,
};
use zeroize::Zeroizing;

use super::{DestinationError, DirectoryConfig, Written, blocking, directory::refuse_forbidden};
use crate::{Artifacts, Options, artifact::Dated, aws::profile, file_set};

/// A larger file is none of credentials.
const LONGEST: u64 = 1 << 20;

/// How long another output may have the lock: it is held for one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries to lock.
const PAUSE: Duration = Duration::from_millis(10);

/// One profile of one file.
#[derive(Debug, Clone)]
pub struct CredentialsFile {
    /// The directory, and who may read.
    pub directory: DirectoryConfig,
    /// Where nothing may be written: the storage of the bot identity.
    pub forbidden: Option<PathBuf>,
    /// Name of the file.
    pub name: String,
    /// The profile that is ours.
    pub profile: String,
    /// Whether everything else in the file goes.
    pub overwrite: bool,
}

impl CredentialsFile {
    pub(super) async fn write(
        &self,
        artifacts: Arc<Artifacts>,
    ) -> Result<Written, DestinationError> {
        let this = self.clone();
        blocking(move || {
            let ours = artifacts.files.first().map(|file| file.contents.clone());
            this.change(&ours.unwrap_or_default())
        })
        .await?;
        Ok(Written::InForce)
    }

    pub(super) async fn expiry(
        &self,
        documents: Vec<Dated>,
    ) -> Result<Option<SystemTime>, DestinationError> {
        if !self.directory.path.exists() {
            return Ok(None);
        }
        let this = self.clone();
        blocking(move || {
            let options = this.directory.options()?;
            let directory = file_set::open_directory(&this.directory.path, &options)?;
            let text = this.read(&directory, &options);
            let text = text.map_err(this.failed("read"))?;
            let mut documents = documents.iter();
            Ok(documents.find_map(|document| document.expires(text.as_bytes())))
        })
        .await
    }

    pub(super) async fn remove(&self) -> Result<(), DestinationError> {
        if !self.directory.path.exists() {
            return Ok(());
        }
        let this = self.clone();
        blocking(move || this.change(b"")).await
    }

    /// Replaces our profile by `section`.
    fn change(&self, section: &[u8]) -> Result<(), DestinationError> {
        let failed = |action| self.failed(action);
        refuse_forbidden(&self.directory.path, self.forbidden.as_deref())?;
        let options = self.directory.options()?;
        let directory = file_set::open_directory(&self.directory.path, &options)?;
        let _lock = self.lock(&directory).map_err(failed("lock"))?;
        let old = if self.overwrite {
            Zeroizing::default()
        } else {
            let old = self.read(&directory, &options);
            old.map_err(failed("read"))?
        };
        // Not before it is read: whoever had the directory until now says whose the file is.
        let dressed = options.access.dress_root(directory.as_fd());
        dressed.map_err(failed("let others read"))?;
        let section = std::str::from_utf8(section).unwrap_or_default();
        let new = Zeroizing::new(profile::merged(&old, &self.profile, section));
        let next = OsString::from(format!("..{}.next", self.name));
        match unlinkat(&directory, &next, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("replace")(error.into())),
        }
        if new.is_empty() {
            return match unlinkat(&directory, &self.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(failed("remove")(error.into())),
            };
        }
        let written = self.write_next(&directory, &next, &new, &options);
        let replaced = written.and_then(|()| {
            renameat(&directory, &next, &directory, &self.name)?;
            fsync(&directory)?;
            Ok(())
        });
        replaced.map_err(|error| {
            _ = unlinkat(&directory, &next, AtFlags::empty());
            failed("write")(error)
        })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> DestinationError + use<> {
        let path = self.directory.path.join(&self.name);
        move |error| DestinationError::new(format!("cannot {action} {}: {error}", path.display()))
    }

    fn write_next(
        &self,
        directory: &OwnedFd,
        next: &OsString,
        text: &str,
        options: &Options,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(directory, next, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(text.as_bytes())?;
        options.access.dress_file(file.as_fd())?;
        file.sync_all()
    }

    fn lock(&self, directory: &OwnedFd) -> io::Result<OwnedFd> {
        let name = OsString::from(format!("..{}.lock", self.name));
        let until = Instant::now() + PATIENCE;
        loop {
            match file_set::lock_file(directory, &name) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        return Err(io::Error::other(format!(
                            "somebody has held the lock {} for {PATIENCE:?}",
                            name.display()
                        )));
                    }
                    thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    /// What is there; nothing if there is nothing.
    fn read(&self, directory: &OwnedFd, options: &Options) -> io::Result<Zeroizing<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, &self.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Zeroizing::default()),
            Err(Errno::LOOP) => {
                return Err(io::Error::other(
                    "it is a symbolic link: name the directory that it leads to",
                ));
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        if metadata.nlink() != 1 {
            return Err(io::Error::other(
                "it is a file with another name elsewhere (a hard link): remove it, or put a copy in its place",
            ));
        }
        let (owner, ours) = (metadata.uid(), fstat(directory)?.st_uid);
        if owner != ours && Some(owner) != options.access.owner.uid {
            return Err(io::Error::other(format!(
                "it belongs to uid {owner}, and the directory to uid {ours}: remove it, or chown it if its contents are meant for that user"
            )));
        }
        let mut text = Zeroizing::default();
        file.take(LONGEST + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Err(io::Error::other(format!(
                "it is longer than {LONGEST} bytes: no file of credentials"
            )));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
