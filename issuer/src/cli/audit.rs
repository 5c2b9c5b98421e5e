//! `issuer audit`.

use clap::Args;
use proto::admin::v1 as pb;
use serde_json::{Value, json};

use super::{
    Target,
    output::{self, Format},
};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Go on with events as they happen.
    #[arg(long)]
    follow: bool,
    /// Only events of this name, such as spiffe.svid.issued. Repeatable.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    event: Vec<String>,
    /// Only events of this bot.
    #[arg(long, value_name = "NAME", default_value = "")]
    bot: String,
    /// Only events with this SPIFFE ID.
    #[arg(long, value_name = "SPIFFE-ID", default_value = "")]
    id: String,
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

pub(super) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    let mut admin = args.target.connect().await?;
    let request = pb::SearchAuditRequest {
        from_sequence: args.from,
        limit: args.limit,
        events: args.event,
        bot_name: args.bot,
        spiffe_id: args.id,
        follow: args.follow,
        ..Default::default()
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
        let fields: Value = serde_json::from_str(&event.fields_json)?;
        let line = match args.output {
            Format::Json => json!({
                "sequence": event.sequence,
                "time": output::time(event.time),
                "event": event.event,
                "success": event.success,
                "fields": fields,
            })
            .to_string(),
            Format::Table => table_line(&event, &fields),
        };
        output::print(&format!("{line}\n"))?;
    }
}

/// Columns of fixed width, so that lines can be followed as they come.
fn table_line(event: &pb::AuditEvent, fields: &Value) -> String {
    let text = |field: &str| output::plain(fields[field].as_str().unwrap_or_default());
    let first = |fields: &[&str]| {
        let found = fields.iter().map(|field| text(field));
        found
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    };
    let verdict = if event.success { "ok" } else { "DENIED" };
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
    let time = output::time(event.time);
    format!(
        "{:>6}  {time}  {:<26} {verdict:<6}  {about:<40} by {by:<16} {why}",
        event.sequence,
        output::plain(&event.event)
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests;
