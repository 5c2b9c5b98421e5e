//! `issuer explain`: why a bot gets an identity, or does not.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};
use config::{Document, parse_duration};
use policy::Attributes;
use proto::{admin::v1 as pb, issue::v1::ImageSignature};
use serde_json::Value;

use super::{Target, resource_files::text};
use crate::resources::yaml;

/// `issuer explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Name of the bot.
    #[arg(long, required_unless_present = "event")]
    bot: Option<String>,
    /// Name of the workload_identity.
    #[arg(long, required_unless_present = "event")]
    identity: Option<String>,
    /// YAML or JSON file of the attributes to suppose (`join: …`, `workload: …`); `-`:
    /// standard input.
    #[arg(long, value_name = "FILE")]
    attributes: Option<PathBuf>,
    /// Explain the decision of this audit event (its sequence number) as it would be
    /// now.
    #[arg(long, value_name = "SEQUENCE", conflicts_with_all = ["bot", "identity", "attributes", "audience", "ttl"])]
    event: Option<u64>,
    /// JSON file of a signature to suppose that the agent found for the image: a Sigstore
    /// bundle, or {"bundle": …, "simple_signing": BASE64}. Repeatable.
    #[arg(long, value_name = "FILE")]
    signature: Vec<PathBuf>,
    /// Kind of SVID.
    #[arg(long = "type", value_name = "TYPE", default_value = "x509")]
    kind: SvidType,
    /// Audience of a JWT-SVID. Repeatable.
    #[arg(long, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// Wanted life, as 1h.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ExplainFormat,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SvidType {
    X509,
    Jwt,
    Wit,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExplainFormat {
    Text,
    Json,
}

pub(super) async fn explain(args: ExplainArgs) -> anyhow::Result<()> {
    let kind = match args.kind {
        SvidType::X509 => "x509",
        SvidType::Jwt => "jwt",
        SvidType::Wit => "wit",
    };
    let attributes = match &args.attributes {
        Some(file) => attributes(file)?.to_json().to_string(),
        None => String::new(),
    };
    let ttl = match &args.ttl {
        Some(text) => {
            let ttl = parse_duration(text).map_err(|error| anyhow!("--ttl: {error}"))?;
            Some(prost_types::Duration {
                seconds: i64::try_from(ttl.as_secs())?,
                nanos: i32::try_from(ttl.subsec_nanos())?,
            })
        }
        None => None,
    };
    let request = pb::ExplainRequest {
        bot: args.bot.unwrap_or_default(),
        workload_identity: args.identity.unwrap_or_default(),
        attributes_json: attributes,
        svid_type: kind.to_owned(),
        audiences: args.audience,
        ttl,
        event: args.event.unwrap_or(0),
        image_signatures: signatures(&args.signature)?,
    };
    let mut admin = args.target.connect().await?;
    let answer = match admin.client().explain(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    match args.output {
        ExplainFormat::Text => terminal::print(&answer.text),
        ExplainFormat::Json => {
            let explanation: Value = serde_json::from_str(&answer.explanation_json)?;
            terminal::print_json(&explanation)
        }
    }
}

fn signatures(files: &[PathBuf]) -> anyhow::Result<Vec<ImageSignature>> {
    let read = files.iter().map(|file| {
        let name = file.display();
        let json: Value =
            serde_json::from_str(&text(file)?).map_err(|error| anyhow!("{name}: {error}"))?;
        let bundle = json.get("bundle").unwrap_or(&json).to_string();
        let simple_signing = json.get("simple_signing").and_then(Value::as_str);
        let simple_signing = STANDARD
            .decode(simple_signing.unwrap_or_default())
            .map_err(|error| anyhow!("{name}: simple_signing: {error}"))?;
        Ok(ImageSignature {
            bundle_json: bundle.into_bytes(),
            simple_signing,
        })
    });
    read.collect()
}

/// Attributes out of YAML (JSON is YAML): a tree, as `join: {github: {…}}`.
fn attributes(file: &Path) -> anyhow::Result<Attributes> {
    let name = file.display().to_string();
    let text = text(file)?;
    let documents = Document::parse_all(&name, &text).map_err(|mistakes| anyhow!(mistakes))?;
    let document = match documents.as_slice() {
        [] => return Ok(Attributes::new()),
        [document] => document,
        several => {
            return Err(anyhow!(
                "{name}: attributes are one document, here are {}",
                several.len()
            ));
        }
    };
    let tree = document.free().map_err(|mistakes| anyhow!(mistakes))?;
    Attributes::from_json(&yaml::free_to_json(tree)).map_err(|errors| anyhow!("{name}: {errors}"))
}
