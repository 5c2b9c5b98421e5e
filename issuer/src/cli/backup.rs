//! `issuer backup` and `issuer restore`: they work on the store itself, not through a
//! running issuer.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use clap::Args;

use super::store_args::StoreArgs;
use crate::{
    service::KEY_FILE,
    store::{DataDirectory, Database, FILE, Store, backup, restore},
};

/// Arguments of `issuer backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where the backup is written, with mode 0600; it must not be there yet.
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let (data_dir, database) = args.store.resolve()?;
    // While this is held, no issuer begins to write where none does.
    let mut unused = None;
    let database = match database {
        Some(database) => database,
        None => {
            let file = data_dir.join(FILE);
            if !file.is_file() {
                anyhow::bail!("there is no store in {data_dir:?}: name its --data-dir");
            }
            unused = DataDirectory::lock_if_unused(&data_dir)?;
            Database::sqlite(file)
        }
    };
    let mut part = args.file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    if args.file.exists() {
        anyhow::bail!("{:?} is there already: choose another name", args.file);
    }
    let header = match write(&database, unused.is_none(), &part).await {
        Ok(header) => header,
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
    };
    // Never the name of a backup on what is not a whole one.
    std::fs::rename(&part, &args.file)
        .with_context(|| format!("the backup cannot be named {:?}", args.file))?;
    sync_parent(&args.file).context("the backup's directory cannot be written to disk")?;
    println!(
        "backed up {database}: trust domain {}, {} audit events",
        header.trust_domain, header.audit_sequence
    );
    println!(
        "the key that opens its private keys is NOT in it: keep {KEY_FILE} (or your --key-file) as well, elsewhere"
    );
    Ok(())
}

async fn write(database: &Database, served: bool, part: &Path) -> anyhow::Result<backup::Header> {
    // What a backup that was killed has left. Never written into: it may be a link, or
    // open to others.
    let _ = std::fs::remove_file(part);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(part)
        .with_context(|| format!("{part:?} cannot be made"))?;
    let mut to = BufWriter::new(file);
    let header = backup::write(database, served, &mut to, SystemTime::now()).await?;
    to.flush().and_then(|()| to.get_ref().sync_all())?;
    Ok(header)
}

fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// Arguments of `issuer restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A backup that `issuer backup` made.
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    let (data_dir, database) = args.store.resolve()?;
    let directory = DataDirectory::open(&data_dir)?;
    let database = database.unwrap_or_else(|| Database::sqlite(directory.file(FILE)));
    let store = Store::open(&database).await?;
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    let restored = restore::restore(&store, &args.file, &user, SystemTime::now()).await;
    store.close().await;
    let restored = restored?;
    println!(
        "restored into {database}: trust domain {}, {} rows, {} audit events",
        restored.header.trust_domain, restored.rows, restored.header.audit_sequence
    );
    println!(
        "trust bundle sequence {}; join tokens are not restored: make new ones",
        restored.bundle_sequence
    );
    let key_file = directory.file(KEY_FILE);
    if !key_file.exists() {
        println!(
            "put the key that opens its private keys at {} (mode 0600), or name it with --key-file",
            key_file.display()
        );
    }
    Ok(())
}
