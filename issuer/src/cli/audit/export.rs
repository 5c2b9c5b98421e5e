//! `issuer audit export` and `issuer audit checkpoint`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::SystemTime,
};

use anyhow::{Context, bail};
use clap::Args;
use proto::admin::v1 as pb;

use super::{read, time::moment};
use crate::{
    audit::lines::{Export, Line},
    cli::{Target, client::Admin},
};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// From the first event at or after this moment on: 2026-11-21T20:53:01Z, or how long
    /// ago, as 2h [default: everything].
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "from")]
    after: Option<SystemTime>,
    /// From this number on.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// Up to this number [default: the newest].
    #[arg(long, value_name = "SEQUENCE")]
    to: Option<u64>,
    /// Where to; - is standard output. A file that is there is not overwritten.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: ExportArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let now = read::now(&mut admin).await?;
    let head = now
        .head
        .context("the audit trail was never signed: start the issuer once more")?;
    let to = args.to.unwrap_or(head.head.sequence);
    if to > head.head.sequence {
        bail!("there are {} records, not {to}", head.head.sequence);
    }
    let first = match args.after {
        None => args.from.max(1),
        Some(after) => first_after(&mut admin, after).await?.unwrap_or(to + 1),
    };
    let mut out = Output::open(&args.output)?;
    out.line(&Line::Export(Export {
        trust_domain: head.head.trust_domain.clone(),
        first,
        previous: read::link(&mut admin, first - 1).await?,
        last: to,
    }))?;
    for key in now.keys {
        out.line(&Line::Key(key))?;
    }
    let (mut records, mut checkpoint) = (0_u64, 0);
    read::trail(&mut admin, first, to, |line| {
        match &line {
            Line::Record(_) => records += 1,
            Line::Checkpoint(signed) => checkpoint = signed.head.sequence,
            Line::Key(_) | Line::Export(_) | Line::NotDurable(_) => {}
        }
        out.line(&line)
    })
    .await?;
    if head.head.sequence == to && checkpoint < to {
        out.line(&Line::Checkpoint(head))?;
    }
    out.finish()?;
    if records != (to + 1).saturating_sub(first) {
        bail!(
            "the audit trail lacks records: {records} were exported of {first} to {to}; `issuer audit verify` names them"
        );
    }
    Ok(())
}

async fn first_after(admin: &mut Admin, after: SystemTime) -> anyhow::Result<Option<u64>> {
    let request = pb::SearchAuditRequest {
        after: Some(after.into()),
        limit: 1,
        ..Default::default()
    };
    let mut events = match admin.client().search_audit(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    match events.message().await {
        Ok(event) => Ok(event.map(|event| event.sequence)),
        Err(status) => Err(admin.failed(status)),
    }
}

/// A new file of this user alone, or standard output.
struct Output {
    to: Box<dyn Write>,
    file: Option<File>,
}

impl Output {
    fn open(path: &PathBuf) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self {
                to: Box::new(BufWriter::new(io::stdout())),
                file: None,
            });
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                anyhow::anyhow!(
                    "{} cannot be made ({error}): name a file that is not there yet with --output",
                    path.display()
                )
            })?;
        Ok(Self {
            to: Box::new(BufWriter::new(file.try_clone()?)),
            file: Some(file),
        })
    }

    fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        written(writeln!(self.to, "{}", line.to_json()))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        written(self.to.flush())?;
        match self.file {
            Some(file) => written(file.sync_all()),
            None => Ok(()),
        }
    }
}

/// A reader that has gone away ends the program quietly, as it ends any filter.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => bail!("the export could not be written ({error})"),
        Ok(()) => Ok(()),
    }
}

#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    #[command(flatten)]
    target: Target,
}

/// The audit keys and the newest signed head, as lines.
pub(super) async fn checkpoint(args: CheckpointArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let now = read::now(&mut admin).await?;
    let head = now
        .head
        .context("the audit trail was never signed: start the issuer once more")?;
    let signer = |key: &identity::Jwk| key.thumbprint() == head.key_id;
    let key = now.keys.into_iter().find(signer);
    let key = key.with_context(|| format!("the audit key {:?} is not there", head.key_id))?;
    for line in [Line::Key(key), Line::Checkpoint(head)] {
        terminal::print(&format!("{}\n", line.to_json()))?;
    }
    Ok(())
}
