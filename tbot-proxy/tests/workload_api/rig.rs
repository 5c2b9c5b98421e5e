//! An issuer, an agent with a Workload API, and clients of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use e2e::{Agent, Issuer};
use identity::{SpiffeId, TrustDomain, X509Svid};
use proto::workload::{JwtsvidRequest, X509svidRequest, X509svidResponse};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::{Status, Streaming};
pub(crate) use workload_api::client::Client;
use workload_api::client::Endpoint;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) agent: Agent,
    pub(crate) issuer: Issuer,
    home: tempfile::TempDir,
}

impl Rig {
    /// `resources`: of the bot `app`, whose role `app` lets it have what is labelled
    /// `app: app`. `selector` as in a configuration.
    pub(crate) fn start(resources: &str, selector: &str) -> Self {
        Self::start_with(resources, selector, "")
    }

    /// As [`Self::start`], with more keys of the service.
    pub(crate) fn start_with(resources: &str, selector: &str, more: &str) -> Self {
        Self::start_with_services(resources, selector, more, |_| vec![])
    }

    /// As [`Self::start_with`], with more services, which may use the folder.
    pub(crate) fn start_with_services(
        resources: &str,
        selector: &str,
        more: &str,
        beside: impl Fn(&Path) -> Vec<String>,
    ) -> Self {
        let issuer = Issuer::start();
        let home = tempfile::tempdir().unwrap();
        // Other users connect too.
        let public = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(home.path(), public).unwrap();
        apply(&issuer, home.path(), ROLE);
        apply(&issuer, home.path(), resources);
        let token = issuer.token("app", &[]);
        let socket = home.path().join("wl.sock");
        let service = format!(
            "type: workload-identity-api, name: api, selector: {selector}, listen: \"unix://{}\"{more}",
            socket.display()
        );
        let services: Vec<_> = beside(home.path()).into_iter().chain([service]).collect();
        let agent = Agent::start(&issuer, &token, &services);
        Self {
            agent,
            issuer,
            home,
        }
    }

    pub(crate) fn apply(&self, resources: &str) {
        apply(&self.issuer, self.home.path(), resources);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("wl.sock")
    }

    /// A client over a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        client(self.socket()).await
    }

    /// How many SVIDs of this type were issued so far.
    pub(crate) fn issued(&self, r#type: &str) -> usize {
        let audit = self.issuer.audit();
        let issued = |event: &&serde_json::Value| {
            event["event"] == "spiffe.svid.issued"
                && event["success"] == true
                && event["fields"]["svid_type"] == r#type
                && event["fields"]["workload_identity"].is_string()
        };
        audit.iter().filter(issued).count()
    }

    /// What a process of another user gets: the SPIFFE ID of its first X509-SVID, or a code.
    pub(crate) fn as_user(&self, uid: u32) -> String {
        use std::os::unix::process::CommandExt;
        let output = Command::new(self.client_of_others())
            .args([
                "--exact",
                "workload_decides::client_as_another_user",
                "--ignored",
                "--nocapture",
            ])
            .env("SPIFFE_ENDPOINT_SOCKET", self.socket())
            .uid(uid)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer = text.lines().find_map(|line| line.strip_prefix("answer: "));
        answer
            .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
            .to_owned()
    }

    /// This program where others may run it.
    pub(crate) fn client_of_others(&self) -> PathBuf {
        let program = self.home.path().join("client");
        if !program.exists() {
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        }
        program
    }
}

const ROLE: &str = "kind: role\nversion: v1\nmetadata: { name: app }\n\
     spec: { allow: { workload_identity_labels: { app: [app] } } }\n";

fn apply(issuer: &Issuer, home: &Path, resources: &str) {
    let file = home.join("resources.yaml");
    std::fs::write(&file, resources).unwrap();
    issuer.run(&["apply", "-f", file.to_str().unwrap()]);
}

/// A workload identity `name` that the bot may have; `spec` beside the id.
pub(crate) fn workload_identity(name: &str, id: &str, more: &str) -> String {
    format!(
        "---\nkind: workload_identity\nversion: v1\nmetadata: {{ name: {name}, labels: {{ app: app }} }}\n\
         spec: {{ spiffe: {{ id: \"{id}\" }}{more} }}\n"
    )
}

/// A client over a connection of its own.
pub(crate) async fn client(socket: PathBuf) -> Client {
    soon(Endpoint::Unix(socket).client()).await.unwrap()
}

/// What comes of it, within a minute.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, event).await;
    came.expect("it never came")
}

pub(crate) async fn x509(client: &mut Client) -> Result<Streaming<X509svidResponse>, Status> {
    let stream = client.fetch_x509svid(X509svidRequest {}).await?;
    Ok(stream.into_inner())
}

/// The next message of a stream.
pub(crate) async fn next(
    stream: &mut Streaming<X509svidResponse>,
) -> Result<X509svidResponse, Status> {
    let message = soon(stream.message()).await?;
    Ok(message.expect("a stream of the Workload API never ends with OK"))
}

/// The first message of a new stream.
pub(crate) async fn fetch(client: &mut Client) -> Result<X509svidResponse, Status> {
    next(&mut soon(x509(client)).await?).await
}

/// The first SVID, verified as one with its key.
pub(crate) fn svid(message: &X509svidResponse) -> X509Svid {
    let svid = message.svids.first().unwrap();
    let mut chain = Vec::new();
    let mut rest = svid.x509_svid.as_slice();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).unwrap();
        chain.push(CertificateDer::from(
            rest[..rest.len() - after.len()].to_vec(),
        ));
        rest = after;
    }
    let key = PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone());
    X509Svid::new(chain, key.into()).unwrap()
}

/// How many CA certificates the own bundle has.
pub(crate) fn authorities(message: &X509svidResponse) -> usize {
    let mut rest = message.svids.first().unwrap().bundle.as_slice();
    let mut count = 0;
    while !rest.is_empty() {
        (rest, _) = X509Certificate::from_der(rest).unwrap();
        count += 1;
    }
    count
}

pub(crate) async fn jwt(client: &mut Client, audience: &str) -> Result<String, Status> {
    let request = JwtsvidRequest {
        audience: vec![audience.to_owned()],
        spiffe_id: String::new(),
    };
    let answer = soon(client.fetch_jwtsvid(request)).await?.into_inner();
    Ok(answer.svids.into_iter().next().unwrap().svid)
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::parse(e2e::TRUST_DOMAIN).unwrap(), path).unwrap()
}
