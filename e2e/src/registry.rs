use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{Podman, Process, eventually_some, run};

/// A registry of images: Debian's `docker-registry` (CNCF Distribution), over TLS with a
/// certificate of an authority of its own, for whoever has the password.
#[derive(Debug)]
pub struct Registry {
    // First, so that it is stopped before its folder goes.
    process: Process,
    folder: TempDir,
    host: String,
}

/// Where libraries take a registry on 127.0.0.1 for one in the clear, they do not here.
const ADDRESS: &str = "127.0.0.2";
const LOGIN: &str = "tester:secret";
/// bcrypt of the password.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl Registry {
    /// Starts one. None if it cannot run here; says so.
    pub fn start() -> Option<Self> {
        for (program, given) in [
            ("docker-registry", "--version"),
            (&*path(&peers().join("bin/node")), "--version"),
        ] {
            if Command::new(program).arg(given).output().is_err() {
                eprintln!("SKIPPED: {program} is not installed (`make peers` does it)");
                return None;
            }
        }
        let folder = TempDir::new().expect("temporary directory");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("file of the registry");
        };
        let authority_key = KeyPair::generate().expect("key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Without a name of its own it is that of the server, which OpenSSL then takes for
        // its own issuer.
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "authority of the registry");
        let certificate = authority.self_signed(&authority_key).expect("CA");
        fs::create_dir(folder.path().join("authority")).expect("folder");
        write("authority/ca.crt", &certificate.pem());
        let key = KeyPair::generate().expect("key");
        let server = CertificateParams::new([ADDRESS.to_owned()]).expect("address");
        let server = server.signed_by(&key, &rcgen::Issuer::new(authority, authority_key));
        write("server.crt", &server.expect("certificate").pem());
        write("server.key", &key.serialize_pem());
        write("htpasswd", HTPASSWD);
        let home = path(folder.path());
        write(
            "config.yml",
            &format!(
                "version: 0.1\nlog: {{ level: info, accesslog: {{ disabled: true }} }}\n\
                 storage: {{ filesystem: {{ rootdirectory: {home}/data }} }}\n\
                 auth: {{ htpasswd: {{ realm: test, path: {home}/htpasswd }} }}\n\
                 http: {{ addr: \"{ADDRESS}:0\", secret: none, \
                 tls: {{ certificate: {home}/server.crt, key: {home}/server.key }} }}\n"
            ),
        );
        // As `docker login` writes it; the Base64 of LOGIN.
        let login = format!("{{\"auths\":{{\"HOST\":{{\"auth\":\"{LOGIN_BASE64}\"}}}}}}");
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(folder.path().join("config.yml"));
        let process = Process::spawn(&mut serve, &folder.path().join("registry.log"));
        let host = eventually_some("the registry listens", || {
            let log = process.log();
            let (_, after) = log.split_once("listening on ")?;
            Some(after.split_once(", tls")?.0.to_owned())
        });
        write("config.json", &login.replace("HOST", &host));
        Some(Self {
            process,
            folder,
            host,
        })
    }

    /// Its address: host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The network in which it is.
    pub fn network(&self) -> &str {
        ADDRESS
    }

    /// The certificate (PEM) of its authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority/ca.crt")
    }

    /// A `config.json` of Docker with its password.
    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    /// Ends it, as an outage would.
    pub fn end(&mut self) {
        self.process.kill();
    }

    /// Pushes Podman's image to these repositories, and pulls it from there in place of
    /// the one that was made here: its digest is that of the registry then.
    #[track_caller]
    pub fn take<const N: usize>(&self, podman: &Podman, repositories: [&str; N]) -> [Image; N] {
        let authority = format!("--cert-dir={}/authority", path(self.folder.path()));
        let login = format!("--creds={LOGIN}");
        let names = repositories.map(|repository| format!("{}/{repository}:1", self.host));
        for name in &names {
            podman.run(&["push", "-q", &authority, &login, Podman::IMAGE, name]);
        }
        podman.run(&["rmi", Podman::IMAGE]);
        names.map(|name| {
            podman.run(&["pull", "-q", &authority, &login, &name]);
            let digest = podman.run(&["image", "inspect", "--format={{.Digest}}", &name]);
            Image { name, digest }
        })
    }

    /// Has an image signed, as cosign 2 keeps signatures: under a tag of its digest.
    #[track_caller]
    pub fn sign(&self, image: &Image, key: &SigningKey) {
        self.peer("sign", image, key, &[]);
    }

    /// Has a statement about an image signed, with so many bytes of predicate: a bundle
    /// that refers to the image.
    #[track_caller]
    pub fn attest(&self, image: &Image, key: &SigningKey, predicate_type: &str, bytes: usize) {
        self.peer("attest", image, key, &[predicate_type, &bytes.to_string()]);
    }

    #[track_caller]
    fn peer(&self, what: &str, image: &Image, key: &SigningKey, more: &[&str]) {
        let file = self.folder.path().join("signing.key");
        fs::write(&file, key.0.serialize_pem()).expect("key");
        let (repository, _) = image.name.rsplit_once(':').expect("a tag");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/sigstore.mjs");
        let mut node = Command::new(peers().join("bin/node"));
        node.args([script, what, repository, &image.digest, &path(&file)])
            .args(more)
            .env("PEERS", peers())
            .env("LOGIN", LOGIN)
            .env("NODE_EXTRA_CA_CERTS", self.authority());
        run(&mut node);
    }
}

/// The Base64 of [`LOGIN`].
const LOGIN_BASE64: &str = "dGVzdGVyOnNlY3JldA==";

/// An image in a registry.
#[derive(Debug, Clone)]
pub struct Image {
    /// Registry, repository and tag.
    pub name: String,
    /// Of its manifest: `sha256:…`.
    pub digest: String,
}

/// Who signs images.
#[derive(Debug)]
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// A new one: ECDSA on P-256, as cosign makes them.
    pub fn generate() -> Self {
        Self(KeyPair::generate().expect("key"))
    }

    /// The public key (PEM).
    pub fn public(&self) -> String {
        self.0.public_key_pem()
    }
}

/// Where `make peers` installs clients and tools of others.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
