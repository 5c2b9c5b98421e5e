//! What each type of output writes, and what is done after a change.

use std::{fs, process::Command, time::SystemTime};

use e2e::{Agent, Issuer, eventually, run};
use identity::{JwtSvid, Leeway, TrustBundleSet};

use super::{output, ready};

#[test]
fn a_token_is_written_validated_with_the_bundle_map_and_renewed() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (jwt, map) = (home.path().join("jwt"), home.path().join("map"));
    let agent = Agent::start(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-jwt",
                "token",
                &jwt,
                "audiences: [db, web], file_names: { jwt_svid: token }",
            ),
            output("spiffe-bundle-map", "bundles", &map, ""),
        ],
    );
    let read = || fs::read_to_string(jwt.join("token")).unwrap();
    let first = read();
    let bundles = TrustBundleSet::from_map_json(&fs::read(map.join("bundle_map.json")).unwrap());
    let bundles = bundles.unwrap();
    for audience in ["db", "web"] {
        let now = SystemTime::now();
        let svid = JwtSvid::validate(&first, audience, &bundles, now, Leeway::default());
        assert_eq!(svid.unwrap().id().as_str(), "spiffe://e2e.example/app");
    }
    assert!(
        JwtSvid::validate(&first, "x", &bundles, SystemTime::now(), Leeway::default()).is_err()
    );
    agent.renew();
    eventually("the token is another one", || read() != first);
    assert!(!agent.log().contains(&first), "a token is in the log");
}

#[test]
fn keystores_names_readers_and_hooks() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let (out, ran) = (home.path().join("out"), home.path().join("ran"));
    let password = home.path().join("password");
    fs::write(&password, "changeit\n").unwrap();
    let script = format!(
        "cat \\\"$0/tls.crt\\\" > {0}.next && mv {0}.next {0}",
        ran.display()
    );
    let service = output(
        "workload-identity-x509",
        "files",
        &out,
        &format!(
            "formats: [pem, pkcs12], keystore_password: {{ file: {} }}, \
             file_names: {{ svid.pem: tls.crt, svid_key.pem: tls.key }}, \
             hooks: [{{ command: [sh, -c, \"{script}\", {}], timeout: 20s }}]",
            password.display(),
            out.display()
        ),
    );
    let service = service.replace(
        " }, formats",
        ", file_mode: \"0400\", readers: [{ user: root }], acls: required }, formats",
    );
    let agent = Agent::start(&issuer, &token, &[service]);
    let certificate = fs::read(out.join("tls.crt")).unwrap();
    assert_eq!(
        fs::read(&ran).unwrap(),
        certificate,
        "the hook saw the new set"
    );
    assert!(out.join("tls.key").exists() && !out.join("svid.pem").exists());
    let info = run(Command::new("openssl")
        .args(["pkcs12", "-nokeys", "-passin", "pass:changeit", "-in"])
        .arg(out.join("svid.p12")));
    assert!(info.contains("BEGIN CERTIFICATE"), "{info}");
    agent.renew();
    eventually("the hook runs after each change", || {
        let now = fs::read(&ran).unwrap();
        now != certificate && now == fs::read(out.join("tls.crt")).unwrap()
    });
    let hooks = "tbot_output_hooks_total{service=\"files\",result=\"success\"}";
    assert!(agent.metric(hooks).unwrap() >= 2.0);
}

#[test]
fn a_hook_that_fails_is_a_warning_and_an_output_that_cannot_be_made_degrades_alone() {
    let issuer = Issuer::start();
    let token = issuer.register("app");
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("no-password");
    let agent = Agent::start_without_waiting(
        &issuer,
        &token,
        &[
            output(
                "workload-identity-x509",
                "hooked",
                &home.path().join("a"),
                "hooks: [{ command: [sh, -c, \"echo what the hook printed >&2; exit 7\"] }, { signal: HUP, pid_file: /no/such/pid }]",
            ),
            output(
                "workload-identity-x509",
                "locked",
                &home.path().join("b"),
                &format!("formats: [jks], keystore_password: {{ file: {} }}", missing.display()),
            ),
            "type: workload-identity-x509, name: memory, selector: { name: app }, destination: { type: memory }".to_owned(),
        ],
    );
    eventually(
        "one warns, one waits for its password, one is ready",
        || {
            let warned = ready(&agent, "hooked").is_some_and(|body| {
                body.contains("exit status: 7") && body.contains("/no/such/pid")
            });
            let locked = agent.get("/readyz/locked").is_some_and(|(status, body)| {
                status == 503 && body.contains("keystore_password") && body.contains("no-password")
            });
            warned && locked && ready(&agent, "memory").is_some()
        },
    );
    assert!(home.path().join("a/svid.pem").exists());
    // Everybody on the machine may ask for these.
    for path in ["/readyz", "/readyz/hooked", "/status"] {
        let (_, body) = agent.get(path).unwrap();
        assert!(!body.contains("hook printed"), "{path}: {body}");
    }
    assert!(agent.log().contains("what the hook printed"));
    fs::write(&missing, "changeit").unwrap();
    agent.renew();
    agent.wait();
    assert!(home.path().join("b/svid.jks").exists());
}
