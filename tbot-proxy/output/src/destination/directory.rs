//! A directory whose files change together ([`FileSet`]).

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use zeroize::Zeroizing;

use super::{DestinationError, Principal, ReaderName, Written, blocking};
use crate::{
    Artifacts, FileSet, Links, Options, SetFile,
    artifact::Dated,
    file_set::{Access, Acls, FileMode, Owner, Symlinks},
};

/// Which directory, and who may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// The directory.
    pub path: PathBuf,
    /// What is done about symbolic links in its path.
    pub symlinks: Symlinks,
    /// Mode of files; 0600 if `None`.
    pub file_mode: Option<FileMode>,
    /// Mode of directories; 0700 if `None`.
    pub directory_mode: Option<FileMode>,
    /// To whom files are given.
    pub user: Option<Principal>,
    /// To which group files are given.
    pub group: Option<Principal>,
    /// Who else may read.
    pub readers: Vec<ReaderName>,
    /// What is done where the file system has no access control lists.
    pub acls: Acls,
}

impl DirectoryConfig {
    /// Ours alone, with every other setting at its default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            symlinks: Symlinks::default(),
            file_mode: None,
            directory_mode: None,
            user: None,
            group: None,
            readers: vec![],
            acls: Acls::default(),
        }
    }

    pub(super) fn options(&self) -> Result<Options, DestinationError> {
        let readers: Result<_, _> = self.readers.iter().map(ReaderName::resolve).collect();
        Ok(Options {
            links: Links::ByName,
            symlinks: self.symlinks,
            access: Access {
                file_mode: self.file_mode,
                directory_mode: self.directory_mode,
                owner: Owner {
                    uid: self.user.as_ref().map(Principal::user).transpose()?,
                    gid: self.group.as_ref().map(Principal::group).transpose()?,
                },
                readers: readers?,
                acls: self.acls,
            },
        })
    }
}

/// A directory, locked from the first write or look on.
#[derive(Debug)]
pub struct Directory {
    config: DirectoryConfig,
    /// Where nothing may be written: the storage of the bot identity.
    forbidden: Option<PathBuf>,
    set: Option<FileSet>,
}

impl Directory {
    /// Nothing is opened before the first write or look. `forbidden`: a directory that must not be it.
    pub fn new(config: DirectoryConfig, forbidden: Option<PathBuf>) -> Self {
        Self {
            config,
            forbidden,
            set: None,
        }
    }

    pub(super) async fn write(
        &mut self,
        artifacts: Arc<Artifacts>,
    ) -> Result<Written, DestinationError> {
        self.with_set(move |set| {
            let files: Vec<_> = artifacts
                .files
                .iter()
                .map(|file| SetFile {
                    name: &file.name,
                    contents: &file.contents,
                })
                .collect();
            set.replace(&files)
        })
        .await?;
        Ok(Written::InForce)
    }

    pub(super) async fn expiry(
        &mut self,
        documents: Vec<Dated>,
    ) -> Result<Option<SystemTime>, DestinationError> {
        if self.set.is_none() && !self.config.path.exists() {
            return Ok(None);
        }
        self.with_set(move |set| {
            for document in documents {
                let contents = set.read(&document.name)?.map(Zeroizing::new);
                let expires = contents.and_then(|contents| document.expires(&contents));
                if expires.is_some() {
                    return Ok(expires);
                }
            }
            Ok(None)
        })
        .await
    }

    pub(super) async fn remove(&mut self) -> Result<(), DestinationError> {
        if self.set.is_none() && !self.config.path.exists() {
            return Ok(());
        }
        self.with_set(FileSet::wipe).await
    }

    /// Does something with the set, opened if it is not or no longer in its place.
    async fn with_set<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&FileSet) -> Result<T, crate::FileSetError> + Send + 'static,
    ) -> Result<T, DestinationError> {
        let (config, forbidden) = (self.config.clone(), self.forbidden.clone());
        let set = self.set.take();
        let (set, done) = blocking(move || {
            let set = match set.filter(FileSet::is_in_place) {
                Some(set) => set,
                None => {
                    refuse_forbidden(&config.path, forbidden.as_deref())?;
                    FileSet::open(&config.path, config.options()?)?
                }
            };
            let done = act(&set)?;
            Ok((set, done))
        })
        .await?;
        self.set = Some(set);
        Ok(done)
    }
}

/// Refuses the storage of the bot identity, however its path is spelled.
pub(super) fn refuse_forbidden(
    directory: &Path,
    forbidden: Option<&Path>,
) -> Result<(), DestinationError> {
    if forbidden.is_some_and(|forbidden| is_same(directory, forbidden)) {
        return Err(DestinationError::new(format!(
            "cannot write to {}: it is the storage of the bot identity; give the output a directory of its own",
            directory.display()
        )));
    }
    Ok(())
}

/// Whether two paths, however they are spelled, lead to one directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    place(one).is_some_and(|one| Some(one) == place(other))
}
