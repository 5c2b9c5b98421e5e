//! Identities for the agents: joined by tokens that the issuer's admin socket gives out, or kept from
//! an earlier run.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use hyper_util::rt::TokioIo;
use proto::{
    admin::v1::{AddBotRequest, GetStatusRequest, admin_service_client::AdminServiceClient},
    join::v1::{
        AgentInfo, JoinRequest, TokenEvidence, join_request::Evidence,
        join_service_client::JoinServiceClient,
    },
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor, pem::PemObject,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::{channel_over, wanted::Pattern};
use crate::{
    address::Address,
    certs::write_file,
    client_tls::{Cipher, ClientTls, Group, Material, Resume, read_anchors, read_chain, read_key},
    run::within,
    stream::Stream,
};

/// Where the agents' identities come from.
#[derive(Debug)]
pub struct Enrolment {
    /// Admin socket of the issuer: whoever has no identity joins with a token from there.
    pub admin_socket: Option<PathBuf>,
    /// Name of the bot; `{n}` is the agent's number.
    pub bot: Pattern,
    /// Roles that the bot gets.
    pub roles: Vec<String>,
    /// Directory where identities are kept: `agent-N.pem`, `agent-N.key` and `ca.pem`.
    pub identities: Option<PathBuf>,
    /// Key exchange.
    pub group: Group,
    /// Cipher suite.
    pub cipher: Cipher,
}

/// A bot certificate with its key.
#[derive(Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Enrolment {
    /// TLS for `count` agents of the issuer at `target`.
    pub fn agents(
        &self,
        target: &Address,
        count: usize,
        timeout: Duration,
    ) -> anyhow::Result<Vec<ClientTls>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            let mut office = None;
            let mut agents = Vec::with_capacity(count);
            for number in 0..count {
                if let Some(kept) = self.kept(number)? {
                    agents.push(kept);
                    continue;
                }
                let office = match &mut office {
                    Some(office) => office,
                    None => office.insert(self.office(target, timeout).await?),
                };
                let identity = office
                    .join(&self.bot.with(number as u64), &self.roles)
                    .await
                    .with_context(|| format!("agent {number} cannot join"))?;
                self.keep(number, &identity, &office.ca_pem)?;
                agents.push(self.tls(office.anchors.clone(), Some(identity))?);
            }
            Ok(agents)
        })
    }

    /// The identity that an earlier run left.
    fn kept(&self, number: usize) -> anyhow::Result<Option<ClientTls>> {
        let Some(directory) = &self.identities else {
            return Ok(None);
        };
        let cert = directory.join(format!("agent-{number}.pem"));
        if !cert.exists() {
            return Ok(None);
        }
        let identity = Identity {
            chain: read_chain(&cert)?,
            key: read_key(&cert.with_extension("key"))?,
        };
        let anchors = read_anchors(&directory.join("ca.pem"))?;
        self.tls(anchors, Some(identity)).map(Some)
    }

    fn keep(&self, number: usize, identity: &Identity, ca_pem: &str) -> anyhow::Result<()> {
        let Some(directory) = &self.identities else {
            return Ok(());
        };
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let chain: String = identity
            .chain
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        let key = pem("PRIVATE KEY", identity.key.secret_der());
        let file = |name: String| directory.join(name);
        write_file(&file("ca.pem".to_owned()), ca_pem.as_bytes(), 0o644)?;
        write_file(&file(format!("agent-{number}.key")), key.as_bytes(), 0o600)?;
        write_file(
            &file(format!("agent-{number}.pem")),
            chain.as_bytes(),
            0o644,
        )
    }

    fn tls(
        &self,
        anchors: Vec<TrustAnchor<'static>>,
        identity: Option<Identity>,
    ) -> anyhow::Result<ClientTls> {
        let expect_id = match &identity {
            Some(identity) => Some(format!(
                "spiffe://{}/issuer",
                trust_domain(&identity.chain)?
            )),
            None => None,
        };
        ClientTls::new(Material {
            anchors,
            identity: identity.map(|identity| (identity.chain, identity.key)),
            server_name: None,
            expect_id,
            resume: Resume::Never,
            group: self.group,
            cipher: self.cipher,
            alpn: vec![b"h2".to_vec()],
        })
    }

    async fn office(&self, target: &Address, timeout: Duration) -> anyhow::Result<Office> {
        let Some(socket) = &self.admin_socket else {
            bail!(
                "there are fewer identities than --connections: name --admin-socket, so that more can join"
            );
        };
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://admin.socket")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("--admin-socket {}: no issuer answers", socket.display()))?;
        let mut admin = AdminServiceClient::new(channel);
        let status = admin
            .get_status(GetStatusRequest {})
            .await
            .with_context(|| format!("--admin-socket {}", socket.display()))?
            .into_inner();
        let certificates = CertificateDer::pem_slice_iter(status.ca_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the issuer's CA is no PEM")?;
        let anchors = certificates
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .context("the issuer's CA is not usable")?;
        let tls = self.tls(anchors.clone(), None)?;
        let stream = within(timeout, Stream::open(target, Some(tls.for_worker())))
            .await
            .with_context(|| format!("cannot connect to the issuer at {target}"))?;
        Ok(Office {
            admin,
            join: JoinServiceClient::new(channel_over(stream).await?),
            anchors,
            ca_pem: status.ca_pem,
        })
    }
}

/// Where agents become bots.
struct Office {
    admin: AdminServiceClient<Channel>,
    join: JoinServiceClient<Channel>,
    anchors: Vec<TrustAnchor<'static>>,
    ca_pem: String,
}

impl Office {
    async fn join(&mut self, bot: &str, roles: &[String]) -> anyhow::Result<Identity> {
        let request = AddBotRequest {
            name: bot.to_owned(),
            roles: roles.to_vec(),
            token_ttl: None,
        };
        let token = self.admin.add_bot(request).await?.into_inner().token;
        let key = KeyPair::generate().context("cannot make a key")?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let request = JoinRequest {
            csr_der: csr.der().to_vec(),
            agent: Some(AgentInfo {
                hostname: "loadtest".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            evidence: Some(Evidence::Token(TokenEvidence { token })),
        };
        let answer = self.join.join(request).await?.into_inner();
        let chain = answer.certificate.context("no certificate")?.chain_der;
        ensure!(!chain.is_empty(), "no certificate");
        Ok(Identity {
            chain: chain.into_iter().map(CertificateDer::from).collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

/// The trust domain of a bot certificate.
fn trust_domain(chain: &[CertificateDer<'_>]) -> anyhow::Result<String> {
    let leaf = chain.first().context("no certificate")?;
    let leaf =
        webpki::EndEntityCert::try_from(leaf).context("the bot certificate is not usable")?;
    let id = leaf
        .valid_uri_names()
        .next()
        .context("the bot certificate has no SPIFFE ID")?;
    let rest = id.strip_prefix("spiffe://").unwrap_or_default();
    Ok(rest.split('/').next().unwrap_or_default().to_owned())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
