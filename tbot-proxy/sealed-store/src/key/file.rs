//! A key in a file.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::{KeyBytes, KeyError, generate, told};

/// File systems in memory (statfs(2)): tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Longest content: 64 digits and a line end.
const LONGEST: u64 = 66;

/// `store`: a directory with what was sealed under it.
pub(super) fn key(path: &Path, store: Option<&Path>) -> Result<KeyBytes, KeyError> {
    let failed = |why: String| KeyError::File {
        path: path.to_owned(),
        why,
    };
    match File::open(path) {
        Ok(file) => read(file).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(store) = store
                && !is_in_memory(path)
            {
                return Err(KeyError::Missing {
                    path: path.to_owned(),
                    store: store.to_owned(),
                });
            }
            create(path, &generate()?).map_err(|error| failed(told(&error)))?;
            // Another agent may have been first: what is there counts.
            File::open(path)
                .map_err(|error| told(&error))
                .and_then(read)
                .map_err(failed)
        }
        Err(error) => Err(failed(told(&error))),
    }
}

fn read(file: File) -> Result<KeyBytes, String> {
    let metadata = file.metadata().map_err(|error| told(&error))?;
    let ours = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || ![0, ours].contains(&metadata.uid()) {
        return Err("others may read or change it: it must be a file of this user (or of root) with mode 0600".to_owned());
    }
    let mut text = Zeroizing::new(String::with_capacity(128));
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| told(&error))?;
    let digits = text.trim_end();
    let mut key = KeyBytes::default();
    let decoded = hex::decode_to_slice(digits, key.as_mut_slice());
    if decoded.is_err() || text.len() as u64 > LONGEST {
        return Err(
            "it is no key: 64 hexadecimal digits are (`openssl rand -hex 32` prints one), or remove it and one is made".to_owned(),
        );
    }
    Ok(key)
}

/// Whole, or not at all; what is there already stays.
fn create(path: &Path, key: &KeyBytes) -> io::Result<()> {
    let digits = Zeroizing::new(hex::encode(key.as_slice()));
    let folder = folder_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let next = folder.join(format!(".sealing-key.{}.tmp", std::process::id()));
    _ = fs::remove_file(&next);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&next)?;
    let linked = file
        .write_all(digits.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .and_then(|()| match fs::hard_link(&next, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => {
                if linked.is_ok() {
                    tracing::info!(path = %path.display(), "a key for the sealed store was made");
                }
                linked
            }
        });
    fs::remove_file(&next)?;
    linked?;
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether what is there goes with a reboot, so that it is no wonder that it is not there.
fn is_in_memory(path: &Path) -> bool {
    let there = folder_of(path).ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("."));
    rustix::fs::statfs(there).is_ok_and(|system| IN_MEMORY.contains(&system.f_type.cast_unsigned()))
}
