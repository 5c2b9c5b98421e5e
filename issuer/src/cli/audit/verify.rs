//! `issuer audit verify`: of a running issuer, of a database, of exported lines.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use identity::Jwk;
use serde_json::{Map, Value, json};
use terminal::Format;

use super::read;
use crate::{
    audit::{
        chain::{AuditKeys, Checkpoint, Fault, Hash, START, Verified, Verifier},
        lines::{Line, check_code},
    },
    cli::Target,
    store::{Database, audit::offline::Offline},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// From this number on [default: the first].
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// Up to this number [default: the newest].
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// Not of a running issuer, but of this: its database (issuer.db, or postgres://…),
    /// or JSON lines of an export or a sink (several files: the oldest first). Nothing is
    /// written.
    #[arg(long, value_name = "DATABASE|FILE")]
    offline: Vec<String>,
    /// Trust only the audit keys in this file: a JWK, a JWK set, or what
    /// `issuer audit checkpoint` printed [default: those that come with the trail].
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere (`issuer audit checkpoint`): finds a trail that
    /// was replaced as a whole. Repeatable.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<()> {
    let mut check = Check::new(&args)?;
    match args.offline.as_slice() {
        [] => check.running(&args.target).await?,
        [url] if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            check.database(&Database::postgres(url)?).await?;
        }
        [file] if is_sqlite(Path::new(file))? => {
            check.database(&Database::sqlite(file)).await?;
        }
        files => {
            for file in files {
                check.lines(Path::new(file))?;
            }
        }
    }
    let outcome = check.finish()?;
    match args.output {
        Format::Json => terminal::print_json(&outcome.json()),
        Format::Table => terminal::print(&outcome.text()),
    }
}

/// A walk under way.
struct Check {
    from: Option<u64>,
    to: Option<u64>,
    /// Keys that came from elsewhere.
    keys: AuditKeys,
    /// Whether only those count.
    pinned: bool,
    kept: Vec<Checkpoint>,
    verifier: Option<Verifier>,
    /// Of lines that are skipped: number and link of the newest.
    skipped: Option<(u64, Hash)>,
    /// What is walked is all there is, so its end must be signed.
    to_the_end: bool,
    /// Checkpoints whose key nobody gave.
    without_key: u64,
    /// What was granted without a record.
    not_durable: u64,
    own_keys: bool,
}

/// How it ended.
struct Outcome {
    verified: Verified,
    notes: Vec<String>,
}

impl Check {
    fn new(args: &VerifyArgs) -> anyhow::Result<Self> {
        if let (Some(from), Some(to)) = (args.from, args.to)
            && to < from
        {
            bail!("--to {to} is before --from {from}");
        }
        let mut keys = AuditKeys::default();
        if let Some(file) = &args.public_key {
            for key in public_keys(file)? {
                keys.add(key);
            }
        }
        let mut kept = Vec::new();
        for file in &args.checkpoint {
            let (signed, signers) = kept_checkpoints(file)?;
            kept.extend(signed);
            signers.into_iter().for_each(|key| keys.add(key));
        }
        Ok(Self {
            from: args.from,
            to: args.to,
            keys,
            pinned: args.public_key.is_some(),
            kept,
            verifier: None,
            skipped: None,
            to_the_end: false,
            without_key: 0,
            not_durable: 0,
            own_keys: false,
        })
    }

    async fn running(&mut self, target: &Target) -> anyhow::Result<()> {
        let mut admin = target.connect().await?;
        let now = read::now(&mut admin).await?;
        let (from, to) = self.range(now.sequence)?;
        self.begin(from - 1, read::link(&mut admin, from - 1).await?)?;
        self.take_head(now.keys, now.head, to)?;
        read::trail(&mut admin, from, to, |line| self.take(line)).await
    }

    async fn database(&mut self, database: &Database) -> anyhow::Result<()> {
        let mut offline = Offline::open(database).await?;
        let (newest, head) = offline.head().await?;
        let (from, to) = self.range(newest)?;
        self.begin(from - 1, offline.link(from - 1).await?)?;
        self.take_head(offline.keys().await?, head, to)?;
        let mut next = from;
        // Also what stands behind the head, where nothing may be.
        let end = self.to.unwrap_or(u64::MAX);
        loop {
            let page = offline.page(next, end).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            // One a record at most.
            let signed = offline.checkpoints(next, last.sequence).await?;
            let mut signed = signed.into_iter().peekable();
            next = last.sequence + 1;
            for (record, is_found) in page {
                let sequence = record.sequence;
                self.take(Line::Record(record))?;
                if !is_found {
                    return Err(tampered(Fault::Hidden { sequence }));
                }
                while let Some(now) = signed.next_if(|next| next.head.sequence <= sequence) {
                    self.take(Line::Checkpoint(now))?;
                }
            }
        }
        // Those of records that are not there.
        let signed = offline.checkpoints(next, to).await?;
        let mut signed = signed.into_iter();
        signed.try_for_each(|checkpoint| self.take(Line::Checkpoint(checkpoint)))
    }

    fn lines(&mut self, path: &Path) -> anyhow::Result<()> {
        let unreadable =
            |error: &dyn std::fmt::Display| anyhow!("{} cannot be read ({error})", path.display());
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        for (number, text) in BufReader::new(file).lines().enumerate() {
            let text = text.map_err(|error| unreadable(&error))?;
            if text.is_empty() {
                continue;
            }
            let foreign = |why| {
                let number = number + 1;
                anyhow!(
                    "{}:{number}: this line is no part of a trail ({why})",
                    path.display()
                )
            };
            self.take(Line::parse(&text).map_err(foreign)?)?;
            check_code(&text).map_err(foreign)?;
        }
        Ok(())
    }

    fn range(&mut self, newest: u64) -> anyhow::Result<(u64, u64)> {
        self.to_the_end = self.to.is_none();
        let (from, to) = (self.from.unwrap_or(1), self.to.unwrap_or(newest));
        if to > newest || from > newest.max(1) {
            bail!("there are {newest} records, not {}", to.max(from));
        }
        Ok((from, to))
    }

    fn begin(&mut self, before: u64, link: Hash) -> anyhow::Result<()> {
        let keys = self.keys.clone();
        let verifier = match before {
            0 => Verifier::from_start(keys),
            _ => Verifier::after(keys, before, link),
        };
        self.start(verifier)
    }

    fn start(&mut self, mut verifier: Verifier) -> anyhow::Result<()> {
        for kept in &self.kept {
            if self.to.is_none_or(|to| kept.head.sequence <= to) {
                verifier.checkpoint(kept).map_err(tampered)?;
            }
        }
        self.verifier = Some(verifier);
        Ok(())
    }

    fn take_head(
        &mut self,
        keys: Vec<Jwk>,
        head: Option<Checkpoint>,
        to: u64,
    ) -> anyhow::Result<()> {
        for key in keys {
            self.take(Line::Key(key))?;
        }
        match head {
            Some(head) if head.head.sequence <= to => self.take(Line::Checkpoint(head)),
            _ => Ok(()),
        }
    }

    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Export(export) if self.verifier.is_none() => {
                self.skipped = Some((export.first - 1, export.previous));
                Ok(())
            }
            Line::Export(_) => Ok(()),
            Line::NotDurable(_) => {
                self.not_durable += 1;
                Ok(())
            }
            Line::Key(key) if self.pinned => {
                drop(key);
                Ok(())
            }
            Line::Key(key) => {
                self.own_keys = true;
                match &mut self.verifier {
                    Some(verifier) => verifier.trust(key),
                    None => self.keys.add(key),
                }
                Ok(())
            }
            Line::Record(record) => {
                if self.to.is_some_and(|to| record.sequence > to) {
                    return Ok(());
                }
                if self.verifier.is_none() {
                    if self.from.is_some_and(|from| record.sequence < from) {
                        self.skipped = Some((record.sequence, record.hash));
                        return Ok(());
                    }
                    match self.skipped {
                        Some((before, link)) => self.begin(before, link)?,
                        None if record.sequence == 1 => self.begin(0, START)?,
                        None => self.start(Verifier::from_anywhere(self.keys.clone()))?,
                    }
                }
                let verifier = self.verifier.as_mut().context("no walk has begun")?;
                verifier
                    .record(&record.record(), &record.hash)
                    .map_err(tampered)
            }
            Line::Checkpoint(checkpoint) => {
                let Some(verifier) = &mut self.verifier else {
                    return Ok(());
                };
                if self.to.is_some_and(|to| checkpoint.head.sequence > to) {
                    return Ok(());
                }
                if !self.to_the_end && !self.pinned && !verifier.knows_signer(&checkpoint) {
                    self.without_key += 1;
                    return Ok(());
                }
                verifier.checkpoint(&checkpoint).map_err(tampered)
            }
        }
    }

    fn finish(self) -> anyhow::Result<Outcome> {
        let verifier = match self.verifier {
            Some(verifier) => verifier,
            None if !self.kept.is_empty() => {
                let mut verifier = Verifier::from_start(self.keys);
                for kept in &self.kept {
                    verifier.checkpoint(kept).map_err(tampered)?;
                }
                verifier
            }
            None => bail!("there is no record to verify"),
        };
        let verified = verifier.finish(self.to_the_end).map_err(tampered)?;
        if let Some(to) = self.to
            && verified.last < to
        {
            let (first, last) = (verified.last + 1, to);
            return Err(tampered(Fault::CutTail { first, last }));
        }
        let mut notes = Vec::new();
        if verified.first_on_trust {
            notes.push(format!(
                "what comes before record {} was not checked",
                verified.first
            ));
        }
        if self.without_key > 0 {
            notes.push(format!(
                "{} checkpoints were not checked: their audit key is not there, give --public-key",
                self.without_key
            ));
        }
        if self.not_durable > 0 {
            notes.push(format!(
                "{} decisions are here that the store could not record (not_durable): no link proves them",
                self.not_durable
            ));
        }
        if verified.signed_to < verified.last {
            notes.push(format!(
                "records {} to {} have no signed checkpoint behind them: only that they fit each other was checked",
                verified.signed_to.max(verified.first - 1) + 1,
                verified.last
            ));
        }
        if self.own_keys {
            notes.push(
                "the audit keys came with the trail: whoever could replace both is found only with a checkpoint kept elsewhere (`issuer audit checkpoint`)"
                    .to_owned(),
            );
        }
        Ok(Outcome { verified, notes })
    }
}

impl Outcome {
    fn text(&self) -> String {
        let verified = &self.verified;
        let mut text = match verified.last {
            0 => "there is no record yet\n".to_owned(),
            _ => format!(
                "records {} to {} are as they were recorded\ncheckpoints   {}, signed up to record {}\nnewest link   {}\n",
                verified.first,
                verified.last,
                verified.checkpoints,
                verified.signed_to,
                hex::encode(verified.hash)
            ),
        };
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        let verified = &self.verified;
        json!({
            "verified": true,
            "first": verified.first,
            "last": verified.last,
            "hash": hex::encode(verified.hash),
            "checkpoints": verified.checkpoints,
            "signed_to": verified.signed_to,
            "repeated": verified.repeated,
            "notes": self.notes,
        })
    }
}

fn tampered(fault: Fault) -> anyhow::Error {
    anyhow!("the audit trail is not as it was recorded: {fault}")
}

fn is_sqlite(path: &Path) -> anyhow::Result<bool> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let read = || {
        let mut begin = Vec::new();
        File::open(path)?
            .take(MAGIC.len() as u64)
            .read_to_end(&mut begin)?;
        Ok::<_, std::io::Error>(begin == MAGIC)
    };
    read().map_err(|error| anyhow!("{} cannot be read ({error})", path.display()))
}

/// A JWK, a JWK set, or lines with audit keys.
fn public_keys(path: &Path) -> anyhow::Result<Vec<Jwk>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow!("{} cannot be read ({error})", path.display()))?;
    let mut keys = Vec::new();
    if let Ok(members) = serde_json::from_str::<Map<String, Value>>(&text) {
        let several = members.get("keys").and_then(Value::as_array);
        let several = several.into_iter().flatten().filter_map(Value::as_object);
        keys.extend(several.filter_map(Jwk::from_members));
        keys.extend(Jwk::from_members(&members));
    }
    for line in text.lines().filter_map(|line| Line::parse(line).ok()) {
        if let Line::Key(key) = line {
            keys.push(key);
        }
    }
    match keys.is_empty() {
        false => Ok(keys),
        true => bail!(
            "{} holds no audit key: a JWK, a JWK set, or what `issuer audit checkpoint` prints",
            path.display()
        ),
    }
}

fn kept_checkpoints(path: &Path) -> anyhow::Result<(Vec<Checkpoint>, Vec<Jwk>)> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow!("{} cannot be read ({error})", path.display()))?;
    let (mut checkpoints, mut keys) = (Vec::new(), Vec::new());
    for (number, text) in text.lines().enumerate() {
        match Line::parse(text) {
            Ok(Line::Checkpoint(checkpoint)) => checkpoints.push(checkpoint),
            Ok(Line::Key(key)) => keys.push(key),
            Ok(_) => {}
            Err(why) => bail!("{}:{}: {why}", path.display(), number + 1),
        }
    }
    match checkpoints.is_empty() {
        false => Ok((checkpoints, keys)),
        true => bail!(
            "{} holds no checkpoint: keep what `issuer audit checkpoint` prints",
            path.display()
        ),
    }
}
