//! Keystores that Java and OpenSSL open: `keytool` lists them, a Java program does mutual
//! TLS with nothing else.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use identity::{TrustBundleSet, testing::TestCa};
use output::artifact::{Format, X509Form, keystore::Password, x509};
use zeroize::Zeroizing;

const PASSWORD: &str = "pass word;1";

/// For a short life on a busy machine.
const JVM: [&str; 2] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// Mutual TLS with itself; prints whom the server saw.
const PROGRAM: &str = r#"
import java.io.*; import java.security.*; import java.security.cert.*; import java.util.*;
import javax.net.ssl.*;
class Mutual {
    static KeyStore load(String type, String path, char[] password) throws Exception {
        KeyStore store = KeyStore.getInstance(type);
        try (InputStream in = new FileInputStream(path)) { store.load(in, password); }
        return store;
    }
    public static void main(String[] arguments) throws Exception {
        char[] password = new BufferedReader(new InputStreamReader(System.in, "UTF-8")).readLine().toCharArray();
        for (int at = 0; at < arguments.length; at += 3)
            speak(arguments[at], arguments[at + 1], arguments[at + 2], password);
    }
    static void speak(String type, String own, String others, char[] password) throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(load(type, own, password), password);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(load(type, others, password));
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory()
            .createServerSocket(0, 1, java.net.InetAddress.getLoopbackAddress());
        server.setNeedClientAuth(true);
        // A client that fails is an error here, not silence.
        server.setSoTimeout(60_000);
        Thread client = new Thread(() -> {
            try (SSLSocket socket = (SSLSocket) context.getSocketFactory()
                    .createSocket(server.getInetAddress(), server.getLocalPort())) {
                socket.getOutputStream().write(7);
                socket.getInputStream().read();
            } catch (Exception error) { error.printStackTrace(); }
        });
        client.start();
        try (SSLSocket socket = (SSLSocket) server.accept()) {
            if (socket.getInputStream().read() != 7) throw new IOException("nothing came");
            java.security.cert.Certificate[] chain = socket.getSession().getPeerCertificates();
            Object name = new ArrayList<>(((X509Certificate) chain[0]).getSubjectAlternativeNames()).get(0).get(1);
            System.out.println(name + " " + chain.length + " " + socket.getSession().getProtocol());
            socket.getOutputStream().write(7);
        }
        client.join();
    }
}
"#;

struct Stores {
    home: tempfile::TempDir,
    leaf: Vec<u8>,
}

impl Stores {
    /// An SVID under an intermediate, its own and another trust domain.
    fn write() -> Self {
        let (root, other) = (TestCa::new("td.example"), TestCa::new("other.example"));
        let svid = root.intermediate().svid("/java", Duration::from_secs(3600));
        let password = Password::new(Zeroizing::new(format!("{PASSWORD}\n"))).unwrap();
        let formats = BTreeSet::from([Format::Pem, Format::Pkcs12, Format::Jks]);
        let form = X509Form {
            formats: &formats,
            password: Some(&password),
        };
        let bundles = TrustBundleSet::new([root.bundle(), other.bundle()]);
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("federated")).unwrap();
        for file in x509(&svid, &bundles, &form).unwrap().files {
            fs::write(home.path().join(&file.name), &*file.contents).unwrap();
        }
        fs::write(home.path().join("password"), PASSWORD).unwrap();
        fs::write(home.path().join("Mutual.java"), PROGRAM).unwrap();
        Self {
            leaf: svid.chain()[0].to_vec(),
            home,
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }
}

fn succeeded(output: Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}{err}");
    out
}

fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()));
    if !found {
        eprintln!("SKIPPED: there is no {program} (Debian package default-jdk-headless)");
    }
    found
}

#[test]
fn keytool_lists_keys_and_trust() {
    if !has("keytool") {
        return;
    }
    let stores = Stores::write();
    let list = |kind: &str, name: &str, file: &str| {
        let keytool = Command::new("keytool")
            .args(JVM.map(|option| format!("-J{option}")))
            .args(["-list", "-v", "-storetype", kind])
            .args(["-keystore", &stores.path(name), "-storepass:file", file])
            .output();
        keytool.unwrap()
    };
    let password = stores.path("password");
    for (kind, extension) in [("PKCS12", "p12"), ("JKS", "jks")] {
        let keys = succeeded(list(kind, &format!("svid.{extension}"), &password));
        assert!(keys.contains("Alias name: svid"), "{keys}");
        assert!(keys.contains("Entry type: PrivateKeyEntry"), "{keys}");
        assert!(keys.contains("Certificate chain length: 2"), "{keys}");
        assert!(keys.contains("URIName: spiffe://td.example/java"), "{keys}");
        for (name, alias) in [
            (format!("truststore.{extension}"), "td.example-0"),
            (
                format!("federated/other.example.{extension}"),
                "other.example-0",
            ),
        ] {
            let trust = succeeded(list(kind, &name, &password));
            assert!(trust.contains("Your keystore contains 1 entry"), "{trust}");
            assert!(trust.contains(&format!("Alias name: {alias}")), "{trust}");
            assert!(trust.contains("Entry type: trustedCertEntry"), "{trust}");
        }
        let wrong = stores.path("wrong");
        fs::write(&wrong, "another password").unwrap();
        let refused = list(kind, &format!("svid.{extension}"), &wrong);
        assert!(!refused.status.success(), "{kind} opens with any password");
    }
}

#[test]
fn a_java_program_does_mutual_tls_with_them() {
    if !has("java") || !has("javac") {
        return;
    }
    let stores = Stores::write();
    let mut command = Command::new("java");
    command
        .args(JVM)
        .arg(stores.path("Mutual.java"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (kind, extension) in [("PKCS12", "p12"), ("JKS", "jks")] {
        command
            .args([kind, &stores.path(&format!("svid.{extension}"))])
            .arg(stores.path(&format!("truststore.{extension}")));
    }
    let mut java = command.spawn().unwrap();
    let mut input = java.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, format!("{PASSWORD}\n").as_bytes()).unwrap();
    drop(input);
    let seen = succeeded(java.wait_with_output().unwrap());
    let one = "spiffe://td.example/java 2 TLSv1.3\n";
    assert_eq!(seen, one.repeat(2));
}

#[test]
fn openssl_reads_the_pkcs12_stores() {
    let stores = Stores::write();
    let read = |name: &str, more: &[&str]| {
        let openssl = Command::new("openssl")
            .args(["pkcs12", "-nodes", "-in", &stores.path(name), "-passin"])
            .arg(format!("file:{}", stores.path("password")))
            .args(more)
            .output();
        succeeded(openssl.unwrap())
    };
    let leaf = read("svid.p12", &["-clcerts", "-nokeys"]);
    assert_eq!(pem_body(&leaf, "CERTIFICATE"), stores.leaf);
    let key = read("svid.p12", &["-nocerts"]);
    let ours = fs::read_to_string(stores.path("svid_key.pem")).unwrap();
    assert_eq!(
        pem_body(&key, "PRIVATE KEY"),
        pem_body(&ours, "PRIVATE KEY")
    );
    let trust = read("truststore.p12", &["-nokeys"]);
    let root = fs::read_to_string(stores.path("bundle.pem")).unwrap();
    assert_eq!(
        pem_body(&trust, "CERTIFICATE"),
        pem_body(&root, "CERTIFICATE")
    );
    let info = Command::new("openssl")
        .args([
            "pkcs12",
            "-info",
            "-noout",
            "-in",
            &stores.path("svid.p12"),
            "-passin",
        ])
        .arg(format!("file:{}", stores.path("password")))
        .output()
        .unwrap();
    let info = String::from_utf8_lossy(&info.stderr).into_owned();
    assert!(
        info.contains("MAC: sha256") && info.contains("AES-256-CBC"),
        "{info}"
    );
    assert!(Path::new(&stores.path("svid.p12")).exists());
}

/// DER of the first section of this label.
fn pem_body(text: &str, label: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let begin = format!("-----BEGIN {label}-----");
    let body = text
        .split(&begin)
        .nth(1)
        .unwrap_or_else(|| panic!("no {label} in {text}"));
    let body = body.split("-----END").next().unwrap();
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).unwrap()
}
