//! `svid list`, `svid show`, `svid watch`, `bundle show`.

use std::time::SystemTime;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use identity::certificates_pem;
use proto::workload::{
    JwtBundlesRequest, X509BundlesRequest, X509svid, X509svidRequest, X509svidResponse,
};
use serde_json::{Map, Value, json};
use terminal::Format;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::endpoint::{Socket, answer, told};
use crate::state::rfc3339;

/// Shows X509-SVIDs as a workload gets them; keys are never shown.
#[derive(Debug, Subcommand)]
pub(super) enum Svid {
    /// One line for each X509-SVID of this process.
    List(List),
    /// All that is in the X509-SVIDs of this process, with the certificates.
    Show(Show),
    /// A line for each change, until interrupted.
    Watch(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    socket: Socket,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only this one.
    id: Option<String>,
    #[command(flatten)]
    list: List,
}

/// Trust bundles as a workload gets them.
#[derive(Debug, Args)]
pub(super) struct BundleShow {
    /// Only of this trust domain.
    trust_domain: Option<String>,
    /// The keys for JWT-SVIDs, as JWK sets, instead of the certificates for X509-SVIDs.
    #[arg(long)]
    jwt: bool,
    #[command(flatten)]
    socket: Socket,
    /// Form of the answer; `table`: PEM, or JSON with --jwt.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Svid {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => {
                let message = first(&args.socket).await?;
                match args.output {
                    Format::Json => terminal::print_json(&listed(&message)?),
                    Format::Table => {
                        let rows = message.svids.iter().map(row).collect::<Result<_, _>>()?;
                        terminal::print_table(&["SPIFFE ID", "HINT", "EXPIRES", "SERIAL"], rows)
                    }
                }
            }
            Self::Show(args) => show(&args).await,
            Self::Watch(args) => watch(&args).await,
        }
    }
}

async fn first(socket: &Socket) -> anyhow::Result<X509svidResponse> {
    let mut client = socket.connect().await?;
    let mut stream = answer(client.fetch_x509svid(X509svidRequest {}))
        .await?
        .into_inner();
    answer(stream.message())
        .await?
        .ok_or_else(|| anyhow!("the stream ended without an answer"))
}

async fn show(args: &Show) -> anyhow::Result<()> {
    let message = first(&args.list.socket).await?;
    let is_wanted = |svid: &&X509svid| args.id.as_ref().is_none_or(|id| svid.spiffe_id == *id);
    let wanted: Vec<_> = message.svids.iter().filter(is_wanted).collect();
    if let (true, Some(id)) = (wanted.is_empty(), &args.id) {
        let held: Vec<_> = message
            .svids
            .iter()
            .map(|svid| svid.spiffe_id.as_str())
            .collect();
        bail!(
            "this process has no X509-SVID of {id}; it has {}",
            terminal::plain(&held.join(", "))
        );
    }
    let described = wanted.iter().map(|svid| described(svid));
    let described = described.collect::<anyhow::Result<Vec<_>>>()?;
    if args.list.output == Format::Json {
        return terminal::print_json(&Value::from(described));
    }
    for value in described {
        let Value::Object(members) = value else {
            continue;
        };
        let mut pem = String::new();
        for (name, value) in &members {
            match (name.as_str(), value) {
                ("pem", Value::String(text)) => pem.clone_from(text),
                (_, Value::String(text)) => {
                    terminal::print(&format!("{name:<16} {}\n", terminal::plain(text)))?;
                }
                (_, value) => {
                    let value = terminal::plain(&value.to_string());
                    terminal::print(&format!("{name:<16} {value}\n"))?;
                }
            }
        }
        terminal::print(&pem)?;
    }
    Ok(())
}

async fn watch(args: &List) -> anyhow::Result<()> {
    let mut client = args.socket.connect().await?;
    let mut stream = answer(client.fetch_x509svid(X509svidRequest {}))
        .await?
        .into_inner();
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => bail!("the stream ended"),
            Err(status) => return Err(told(&status)),
        };
        let now = rfc3339(SystemTime::now());
        if args.output == Format::Json {
            let mut line = listed(&message)?;
            line["time"] = Value::from(now);
            terminal::print(&format!("{line}\n"))?;
            continue;
        }
        for svid in &message.svids {
            let [id, _, expires, serial] = row(svid)?.try_into().unwrap_or_default();
            let id = terminal::plain(&id);
            terminal::print(&format!("{now} {id} expires {expires} serial {serial}\n"))?;
        }
    }
}

fn listed(message: &X509svidResponse) -> anyhow::Result<Value> {
    let svids = message.svids.iter().map(|svid| {
        let [id, hint, expires, serial] = row(svid)?.try_into().unwrap_or_default();
        anyhow::Ok(json!({ "id": id, "hint": hint, "expires": expires, "serial": serial }))
    });
    let mut federated: Vec<_> = message.federated_bundles.keys().collect();
    federated.sort();
    Ok(json!({
        "svids": svids.collect::<Result<Vec<_>, _>>()?,
        "federated": federated,
    }))
}

/// Id, hint, expiry, serial number.
fn row(svid: &X509svid) -> anyhow::Result<Vec<String>> {
    let chain = certificates(&svid.x509_svid)?;
    let leaf = leaf(&chain)?;
    Ok(vec![
        svid.spiffe_id.clone(),
        svid.hint.clone(),
        time(leaf.validity().not_after.timestamp()),
        hex::encode(leaf.raw_serial()),
    ])
}

fn described(svid: &X509svid) -> anyhow::Result<Value> {
    let chain = certificates(&svid.x509_svid)?;
    let leaf = leaf(&chain)?;
    let names: Vec<_> = leaf
        .subject_alternative_name()?
        .map(|names| names.value.general_names.iter().map(shown).collect())
        .unwrap_or_default();
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("id", json!(svid.spiffe_id));
    add("hint", json!(svid.hint));
    add("subject", json!(leaf.subject().to_string()));
    add("issuer", json!(leaf.issuer().to_string()));
    add("serial", json!(hex::encode(leaf.raw_serial())));
    add(
        "not_before",
        json!(time(leaf.validity().not_before.timestamp())),
    );
    add(
        "not_after",
        json!(time(leaf.validity().not_after.timestamp())),
    );
    add("names", json!(names));
    add("certificates", json!(chain.len()));
    add("pem", json!(certificates_pem(&chain)));
    Ok(Value::Object(members))
}

fn shown(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::IPAddress(bytes) => {
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => format!("IP:{}", std::net::Ipv4Addr::from(v4)),
                (_, Ok(v6)) => format!("IP:{}", std::net::Ipv6Addr::from(v6)),
                _ => format!("IP:{}", hex::encode(bytes)),
            }
        }
        other => other.to_string(),
    }
}

/// Takes concatenated DER apart (WA-13, WA-15).
fn certificates(mut der: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der)
            .map_err(|error| anyhow!("the answer holds no certificates: {error}"))?;
        let (certificate, after) = der.split_at(der.len() - rest.len());
        all.push(certificate);
        der = after;
    }
    Ok(all)
}

fn leaf<'a>(chain: &[&'a [u8]]) -> anyhow::Result<X509Certificate<'a>> {
    let leaf = chain
        .first()
        .ok_or_else(|| anyhow!("an SVID without a certificate"))?;
    Ok(X509Certificate::from_der(leaf)?.1)
}

fn time(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

impl BundleShow {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let bundles = match self.jwt {
            true => self.jwt_bundles().await?,
            false => self.x509_bundles().await?,
        };
        let is_wanted = |id: &str| {
            let name = id.strip_prefix("spiffe://").unwrap_or(id);
            let wanted = self.trust_domain.as_deref();
            wanted.is_none_or(|wanted| wanted.strip_prefix("spiffe://").unwrap_or(wanted) == name)
        };
        let known: Vec<_> = bundles.keys().cloned().collect();
        let bundles: Map<_, _> = bundles
            .into_iter()
            .filter(|(id, _)| is_wanted(id))
            .collect();
        if let (true, Some(wanted)) = (bundles.is_empty(), &self.trust_domain) {
            bail!(
                "no trust bundle of {wanted} is known here; known are {}",
                terminal::plain(&known.join(", "))
            );
        }
        if self.jwt || self.output == Format::Json {
            return terminal::print_json(&Value::Object(bundles));
        }
        for (id, pem) in &bundles {
            let pem = pem.as_str().unwrap_or_default();
            terminal::print(&format!("# {}\n{pem}", terminal::plain(id)))?;
        }
        Ok(())
    }

    async fn x509_bundles(&self) -> anyhow::Result<Map<String, Value>> {
        let mut client = self.socket.connect().await?;
        let stream = answer(client.fetch_x509_bundles(X509BundlesRequest {})).await?;
        let message = answer(stream.into_inner().message())
            .await?
            .unwrap_or_default();
        let bundles = message
            .bundles
            .iter()
            .map(|(id, der)| anyhow::Ok((id.clone(), json!(certificates_pem(certificates(der)?)))));
        let mut bundles: Vec<_> = bundles.collect::<Result<_, _>>()?;
        bundles.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(bundles.into_iter().collect())
    }

    async fn jwt_bundles(&self) -> anyhow::Result<Map<String, Value>> {
        let mut client = self.socket.connect().await?;
        let stream = answer(client.fetch_jwt_bundles(JwtBundlesRequest {})).await?;
        let message = answer(stream.into_inner().message())
            .await?
            .unwrap_or_default();
        let bundles = message
            .bundles
            .iter()
            .map(|(id, jwks)| anyhow::Ok((id.clone(), serde_json::from_slice(jwks)?)));
        let mut bundles: Vec<(String, Value)> = bundles.collect::<Result<_, _>>()?;
        bundles.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(bundles.into_iter().collect())
    }
}
