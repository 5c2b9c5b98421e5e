//! `jwt fetch`, `jwt validate`.

use std::io::Read;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest};
use serde_json::{Map, Value, json};
use terminal::Format;

use super::endpoint::{Socket, answer};

/// JWT-SVIDs as a workload gets them.
#[derive(Debug, Subcommand)]
pub(super) enum Jwt {
    /// Prints a JWT-SVID. It is a bearer secret: whoever has it is this workload.
    Fetch(Fetch),
    /// Validates a JWT-SVID as the Workload API does, and prints its claims.
    Validate(Validate),
}

#[derive(Debug, Args)]
pub(super) struct Fetch {
    /// For whom it is. Repeatable; one is better.
    #[arg(long, required = true, value_name = "AUDIENCE")]
    audience: Vec<String>,
    /// Of this identity only.
    #[arg(long, value_name = "SPIFFE ID")]
    id: Option<String>,
    #[command(flatten)]
    socket: Socket,
    /// Form of the answer; `table`: the tokens, one a line.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// For whom it must be.
    #[arg(long, value_name = "AUDIENCE")]
    audience: String,
    /// File of the token; `-`: standard input. (Not the token itself: others see arguments.)
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    #[command(flatten)]
    socket: Socket,
}

/// No token is longer; what is read is bounded.
const LONGEST: u64 = 64 * 1024;

impl Jwt {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Fetch(args) => args.run().await,
            Self::Validate(args) => args.run().await,
        }
    }
}

impl Fetch {
    async fn run(self) -> anyhow::Result<()> {
        let mut client = self.socket.connect().await?;
        let request = JwtsvidRequest {
            audience: self.audience,
            spiffe_id: self.id.unwrap_or_default(),
        };
        let svids = answer(client.fetch_jwtsvid(request))
            .await?
            .into_inner()
            .svids;
        if self.output == Format::Json {
            let svids: Vec<_> = svids
                .iter()
                .map(|svid| json!({"id": svid.spiffe_id, "hint": svid.hint, "svid": svid.svid}))
                .collect();
            return terminal::print_json(&Value::from(svids));
        }
        let tokens: Vec<_> = svids
            .iter()
            .map(|svid| terminal::plain(&svid.svid))
            .collect();
        terminal::print(&format!("{}\n", tokens.join("\n")))
    }
}

impl Validate {
    async fn run(self) -> anyhow::Result<()> {
        let mut token = String::new();
        let read = match self.file.as_str() {
            "-" => std::io::stdin().take(LONGEST).read_to_string(&mut token),
            path => std::fs::File::open(path)
                .and_then(|file| file.take(LONGEST).read_to_string(&mut token)),
        };
        read.with_context(|| format!("cannot read the token from {}", self.file))?;
        let mut client = self.socket.connect().await?;
        let request = ValidateJwtsvidRequest {
            audience: self.audience,
            svid: token.trim().to_owned(),
        };
        let call = client.validate_jwtsvid(request);
        let valid = match tokio::time::timeout(std::time::Duration::from_secs(30), call).await {
            Ok(Ok(valid)) => valid.into_inner(),
            Ok(Err(status)) => bail!("not valid: {}", terminal::plain(status.message())),
            Err(_) => bail!("no answer within 30 s"),
        };
        let claims = valid.claims.map(|claims| object(claims.fields));
        terminal::print_json(&json!({ "id": valid.spiffe_id, "claims": claims }))
    }
}

fn object(fields: std::collections::BTreeMap<String, prost_types::Value>) -> Value {
    let members = fields
        .into_iter()
        .map(|(name, value)| (name, value_of(value)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn value_of(value: prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match value.kind {
        Some(Kind::BoolValue(flag)) => Value::from(flag),
        // A whole number stays one.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Value::from(number as i64)
        }
        Some(Kind::NumberValue(number)) => Value::from(number),
        Some(Kind::StringValue(text)) => Value::from(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_of).collect(),
        Some(Kind::StructValue(members)) => object(members.fields),
        Some(Kind::NullValue(_)) | None => Value::Null,
    }
}
