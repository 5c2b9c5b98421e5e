//! `issuer audit search`.

use std::time::SystemTime;

use clap::Args;
use proto::admin::v1 as pb;
use serde_json::Value;
use terminal::Format;

use super::{read, time::moment};
use crate::{
    audit::lines::{Line, Recorded, time_text},
    cli::Target,
};

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// Go on with events as they happen.
    #[arg(long)]
    follow: bool,
    /// Only events of this name, such as spiffe.svid.issued, or that begin so, such as
    /// spiffe.*. Repeatable.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    event: Vec<String>,
    /// Only events of this bot.
    #[arg(long, value_name = "NAME", default_value = "")]
    bot: String,
    /// Only events with this SPIFFE ID.
    #[arg(long, value_name = "SPIFFE-ID", default_value = "")]
    id: String,
    /// Only events of the document with this serial number (hexadecimal, with or without
    /// colons) or jti.
    #[arg(long, value_name = "SERIAL", default_value = "")]
    serial: String,
    /// Only events since this moment: 2026-11-21T20:53:01Z, or how long ago, as 2h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    after: Option<SystemTime>,
    /// Only events before this moment.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "follow")]
    before: Option<SystemTime>,
    /// Only what was refused.
    #[arg(long, conflicts_with = "granted")]
    failed: bool,
    /// Only what was granted, or done.
    #[arg(long)]
    granted: bool,
    /// From this number on.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// At most so many.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    limit: u64,
    /// Form of the answer; json has one event a line.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: SearchArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::SearchAuditRequest {
        from_sequence: args.from,
        limit: args.limit,
        events: args.event,
        bot_name: args.bot,
        spiffe_id: args.id,
        follow: args.follow,
        after: args.after.map(Into::into),
        before: args.before.map(Into::into),
        serial: args.serial,
        success: (args.failed || args.granted).then_some(args.granted),
    };
    let mut events = match admin.client().search_audit(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(status) => return Err(admin.failed(status)),
        };
        let record = read::recorded(event)?;
        let line = match args.output {
            Format::Json => Line::Record(record).to_json(),
            Format::Table => table_line(&record),
        };
        terminal::print(&format!("{line}\n"))?;
    }
}

/// Columns of fixed width, so that lines can be followed as they come.
fn table_line(record: &Recorded) -> String {
    let fields: Value = serde_json::from_str(&record.fields).unwrap_or_default();
    let text = |field: &str| terminal::plain(fields[field].as_str().unwrap_or_default());
    let first = |fields: &[&str]| {
        let found = fields.iter().map(|field| text(field));
        found
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    };
    let verdict = if record.success { "ok" } else { "DENIED" };
    let about = first(&[
        "spiffe_id",
        "workload_identity",
        "name",
        "bot_instance_id",
        "bot_name",
        "trust_domain",
    ]);
    let by = first(&["user", "bot_name", "remote_address"]);
    let why = match (text("reason"), text("error")) {
        (reason, _) if reason.is_empty() => text("lock_reason"),
        (reason, error) => format!("{reason}: {error}"),
    };
    let time = time_text(record.time_ms);
    // To the second: `2026-11-21T20:53:01Z`.
    let time = time
        .split_once('.')
        .map_or(time.clone(), |(seconds, _)| format!("{seconds}Z"));
    format!(
        "{:>6}  {time}  {:<26} {verdict:<6}  {about:<40} by {by:<16} {why}",
        record.sequence,
        terminal::plain(&record.event)
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests;
