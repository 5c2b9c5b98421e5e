//! A Secret of Kubernetes is kept whole, by its owner, and never set back, against a stand-in for
//! the API server (`kubernetes/fake_api.rs`) which the real `kubectl` takes for one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, atomic::Ordering},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::testing::TestCa;
use output::{
    Artifact, Artifacts, Destination, Written,
    artifact::{Dated, DatedForm, Issued},
    destination::kubernetes::{
        EXPIRES_AT, ISSUED_AT, KubernetesSecret, SPIFFE_ID, SecretConfig, Shape,
    },
};
use serde_json::Value;

mod fake_api;

use fake_api::FakeApi;

const HOUR: Duration = Duration::from_secs(3600);

/// Some time ago, whatever number is added to it.
static BEGIN: LazyLock<SystemTime> = LazyLock::new(|| SystemTime::now() - HOUR / 2);

struct Cluster {
    api: FakeApi,
    kubeconfig: PathBuf,
    _home: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let api = FakeApi::default();
        Self {
            kubeconfig: api.start(home.path()).await,
            api,
            _home: home,
        }
    }

    fn config(&self) -> SecretConfig {
        SecretConfig {
            name: "web".to_owned(),
            namespace: None,
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            shape: Shape::Tls,
            kubeconfig: Some(self.kubeconfig.clone()),
            context: None,
            force: false,
        }
    }

    fn replica(&self) -> Destination {
        destination(self.config())
    }

    /// Decoded data of the Secret.
    fn data(&self) -> BTreeMap<String, String> {
        let secret = self.api.get("web").unwrap();
        let data = secret["data"].as_object().unwrap().iter();
        let text = |value: &Value| {
            let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        data.map(|(key, value)| (key.clone(), text(value)))
            .collect()
    }
}

fn destination(config: SecretConfig) -> Destination {
    Destination::KubernetesSecret(Box::new(KubernetesSecret::new(config)))
}

/// A set that was issued this many seconds after some moment before, good for an hour.
fn set(number: u64, more: &[&str]) -> Arc<Artifacts> {
    set_of("spiffe://td/web", number, HOUR, more)
}

/// So many seconds after that moment.
fn text(number: u64) -> String {
    let at = time::OffsetDateTime::from(*BEGIN + Duration::from_secs(number));
    let at = at.replace_nanosecond(0).unwrap();
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

fn set_of(id: &str, number: u64, life: Duration, more: &[&str]) -> Arc<Artifacts> {
    let names = ["svid.pem", "svid_key.pem", "bundle.pem"]
        .iter()
        .chain(more);
    Arc::new(Artifacts {
        files: names
            .map(|name| Artifact::new(*name, format!("{name} {number}")))
            .collect(),
        issued: Some(Issued {
            at: *BEGIN + Duration::from_secs(number),
            until: *BEGIN + Duration::from_secs(number) + life,
            id: id.to_owned(),
        }),
    })
}

fn keys(data: &BTreeMap<String, String>) -> Vec<&str> {
    data.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_secret_is_created_whole_changed_and_its_old_keys_go() {
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    let first = set(1, &["federated/other.example.pem"]);
    assert_eq!(replica.write(first).await.unwrap(), Written::InForce);
    let data = cluster.data();
    assert_eq!(
        keys(&data),
        [
            "ca.crt",
            "federated.other.example.pem",
            "tls.crt",
            "tls.key"
        ]
    );
    assert_eq!(data["tls.key"], "svid_key.pem 1");
    let secret = cluster.api.get("web").unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(secret["metadata"]["labels"]["app"], "web");
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!(annotations[ISSUED_AT], text(1));
    assert_eq!(annotations[EXPIRES_AT], text(3601));
    assert_eq!(annotations[SPIFFE_ID], "spiffe://td/web");
    let managed = secret["metadata"]["managedFields"].as_array().unwrap();
    let owners: Vec<_> = managed
        .iter()
        .map(|m| (&m["manager"], &m["operation"]))
        .collect();
    assert_eq!(owners, [(&"tbot-proxy".into(), &"Apply".into())]);

    // What others add stays; a bundle that is no longer federated goes.
    cluster.api.edit("web", "kubectl-edit", |secret| {
        secret["data"]["theirs"] = "eA==".into();
        secret["metadata"]["labels"]["team"] = "a".into();
    });
    replica.write(set(2, &[])).await.unwrap();
    let data = cluster.data();
    assert_eq!(keys(&data), ["ca.crt", "theirs", "tls.crt", "tls.key"]);
    assert_eq!(data["tls.crt"], "svid.pem 2");
    assert_eq!(
        cluster.api.get("web").unwrap()["metadata"]["labels"]["team"],
        "a"
    );

    // The same set again changes nothing.
    let before = cluster.api.changes.load(Ordering::Relaxed);
    replica.write(set(2, &[])).await.unwrap();
    cluster.replica().write(set(2, &[])).await.unwrap();
    assert_eq!(cluster.api.changes.load(Ordering::Relaxed), before);

    // Deleted by somebody: back at the next look.
    cluster.api.delete("web");
    replica.write(set(2, &[])).await.unwrap();
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 2");
}

#[tokio::test]
async fn an_older_set_never_replaces_a_newer_one() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.replica(), cluster.replica());
    a.write(set(5, &[])).await.unwrap();
    let Written::NewerIsThere(why) = b.write(set(4, &[])).await.unwrap() else {
        panic!("the older set is in force");
    };
    assert!(
        why.contains("apps/web") && why.contains("issued later"),
        "{why}"
    );
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 5");
    b.write(set(6, &[])).await.unwrap();
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 6");
    // Of the same moment, but with other trust bundles: the newer word.
    a.write(set(6, &["federated/x.pem"])).await.unwrap();
    assert!(cluster.data().contains_key("federated.x.pem"));
}

#[tokio::test]
async fn a_set_from_the_future_does_not_freeze_the_secret() {
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    replica.write(set(1, &[])).await.unwrap();
    cluster.api.edit("web", "tbot-proxy", |secret| {
        secret["metadata"]["annotations"][ISSUED_AT] = "9000-01-01T00:00:00Z".into();
    });
    assert_eq!(replica.write(set(2, &[])).await.unwrap(), Written::InForce);
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 2");
}

/// The newer one stays only while it is of use: it is the same identity's, has not expired,
/// and is all there.
#[tokio::test]
async fn a_newer_set_that_is_of_no_use_is_replaced() {
    let web = "spiffe://td/web";
    let other = set_of("spiffe://td/other", 9, HOUR, &[]);
    let expired = set_of(web, 9, HOUR / 4, &[]);
    for newer in [other, expired] {
        let cluster = Cluster::start().await;
        cluster.replica().write(newer).await.unwrap();
        let written = cluster.replica().write(set(1, &[])).await.unwrap();
        assert_eq!(written, Written::InForce);
        assert_eq!(cluster.data()["tls.crt"], "svid.pem 1");
    }
    let cluster = Cluster::start().await;
    cluster.replica().write(set(9, &[])).await.unwrap();
    cluster.api.edit("web", "kubectl", |secret| {
        secret["data"].as_object_mut().unwrap().remove("ca.crt");
    });
    let written = cluster.replica().write(set(1, &[])).await.unwrap();
    assert_eq!(written, Written::InForce);
    assert_eq!(cluster.data()["ca.crt"], "bundle.pem 1");
}

/// What failed once is not taken for done.
#[tokio::test]
async fn a_removal_that_failed_is_tried_again() {
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    replica.write(set(1, &[])).await.unwrap();
    cluster.api.forbids.store(true, Ordering::Relaxed);
    replica.remove().await.unwrap_err();
    cluster.api.forbids.store(false, Ordering::Relaxed);
    assert!(cluster.api.get("web").is_some());
    replica.remove().await.unwrap();
    assert!(cluster.api.get("web").is_none());
}

/// A kubeconfig may name a program that gives the credentials.
#[tokio::test]
async fn a_program_of_the_kubeconfig_that_hangs_holds_nobody_else_up() {
    let cluster = Cluster::start().await;
    let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let (before, after) = text.split_once("user: { token:").unwrap();
    let (_, after) = after.split_once('}').unwrap();
    let started = cluster.kubeconfig.with_extension("started");
    let hangs = format!(
        "{before}user: {{ exec: {{ apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['-c', 'echo $$ >> {}; exec sleep 1000'] }} }}{after}",
        started.display()
    );
    std::fs::write(&cluster.kubeconfig, hangs).unwrap();
    let mut replica = cluster.replica();
    let write = tokio::spawn(async move {
        // The second one waits for the same program.
        let first = replica.write(set(1, &[])).await;
        (first, replica.write(set(1, &[])).await)
    });
    // This test has one thread: a program that is waited for on it would hold it.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !started.exists() {
        assert!(std::time::Instant::now() < until, "the program is not run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::pause();
    while !write.is_finished() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let (first, second) = write.await.unwrap();
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
    let programs = std::fs::read_to_string(started).unwrap();
    let [program] = programs.lines().collect::<Vec<_>>()[..] else {
        panic!("one at a time: {programs}");
    };
    let ended = Command::new("kill").arg(program).status().unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn an_address_or_token_that_changed_is_used_at_the_next_write() {
    let cluster = Cluster::start().await;
    let good = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let (before, after) = good.split_once("127.0.0.1:").unwrap();
    let (_, after) = after.split_once('\'').unwrap();
    for bad in [
        format!("{before}127.0.0.1:1'{after}"),
        good.replace("token: ", "token: old-"),
    ] {
        std::fs::write(&cluster.kubeconfig, bad).unwrap();
        let mut replica = cluster.replica();
        replica.write(set(1, &[])).await.unwrap_err();
        std::fs::write(&cluster.kubeconfig, &good).unwrap();
        replica.write(set(1, &[])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_first_between_look_and_write_is_seen() {
    let cluster = Cluster::start().await;
    // Between the look that finds nothing and the creation, a newer one is created.
    let newer = cluster.config();
    *cluster.api.before_change.lock().unwrap() = Some(Box::new(move |_| {
        std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime
                    .block_on(destination(newer).write(set(9, &[])))
                    .unwrap()
            });
            assert_eq!(write.join().unwrap(), Written::InForce);
        });
    }));
    let mut replica = cluster.replica();
    let written = replica.write(set(8, &[])).await.unwrap();
    assert!(matches!(written, Written::NewerIsThere(_)), "{written:?}");
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 9");

    // Between a look and an apply.
    *cluster.api.before_change.lock().unwrap() = Some(Box::new(|api: &FakeApi| {
        api.edit("web", "tbot-proxy", |secret| {
            secret["metadata"]["annotations"][ISSUED_AT] = text(20).into();
        });
    }));
    let written = replica.write(set(10, &[])).await.unwrap();
    assert!(matches!(written, Written::NewerIsThere(_)), "{written:?}");
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replicas_end_with_the_newest_set_and_never_go_back() {
    let cluster = Cluster::start().await;
    let replicas: Vec<_> = (0..6_u64)
        .map(|replica| {
            let mut destination = cluster.replica();
            let api = cluster.api.clone();
            tokio::spawn(async move {
                let mut seen = String::new();
                for round in 0..20 {
                    // A conflict that does not end is an error, tried again later.
                    while destination
                        .write(set(round * 6 + replica, &[]))
                        .await
                        .is_err()
                    {
                        tokio::task::yield_now().await;
                    }
                    let secret = api.get("web").unwrap();
                    let at = secret["metadata"]["annotations"][ISSUED_AT]
                        .as_str()
                        .unwrap();
                    assert!(at >= seen.as_str(), "{at} after {seen}");
                    seen = at.to_owned();
                    let number = |key: &str| {
                        let value = STANDARD
                            .decode(secret["data"][key].as_str().unwrap())
                            .unwrap();
                        String::from_utf8(value)
                            .unwrap()
                            .rsplit(' ')
                            .next()
                            .unwrap()
                            .to_owned()
                    };
                    assert_eq!(number("tls.crt"), number("tls.key"), "a mixed set");
                }
            })
        })
        .collect();
    for replica in replicas {
        replica.await.unwrap();
    }
    assert_eq!(cluster.data()["tls.key"], "svid_key.pem 119");
}

#[tokio::test]
async fn a_key_of_somebody_else_is_a_conflict_until_it_is_forced() {
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    replica.write(set(1, &[])).await.unwrap();
    cluster.api.edit("web", "kubectl-edit", |secret| {
        secret["data"]["tls.key"] = "dGhlaXJz".into();
    });
    let error = replica.write(set(2, &[])).await.unwrap_err().to_string();
    assert!(
        error.contains("Secret apps/web: ") && error.contains("kubectl-edit"),
        "{error}"
    );
    assert!(error.contains("force: true"), "{error}");
    assert_eq!(cluster.data()["tls.key"], "theirs");
    assert_eq!(
        cluster.data()["tls.crt"],
        "svid.pem 1",
        "nothing of the set is there alone"
    );
    let mut forcing = destination(SecretConfig {
        force: true,
        ..cluster.config()
    });
    forcing.write(set(2, &[])).await.unwrap();
    assert_eq!(cluster.data()["tls.key"], "svid_key.pem 2");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    replica.write(set(1, &[])).await.unwrap();
    let mut opaque = destination(SecretConfig {
        shape: Shape::Opaque,
        ..cluster.config()
    });
    let error = opaque.write(set(2, &[])).await.unwrap_err().to_string();
    assert!(
        error.contains("type kubernetes.io/tls") && error.contains("delete it"),
        "{error}"
    );
    cluster.api.forbids.store(true, Ordering::Relaxed);
    let error = replica.write(set(2, &[])).await.unwrap_err().to_string();
    assert!(
        error.contains("cannot patch") && error.contains("service account"),
        "{error}"
    );
    assert!(!error.contains("svid_key.pem 2"));
    cluster.api.forbids.store(false, Ordering::Relaxed);
    replica.write(set(2, &[])).await.unwrap();

    // Nobody answers: what was written is there still.
    assert!(!opaque.write(set(3, &[])).await.unwrap_err().is_away());
    let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let port = text
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    let nobody = cluster.kubeconfig.with_extension("nobody");
    std::fs::write(&nobody, text.replace(port, "1")).unwrap();
    let config = SecretConfig {
        kubeconfig: Some(nobody),
        ..cluster.config()
    };
    let error = destination(config).write(set(3, &[])).await.unwrap_err();
    assert!(error.is_away(), "{error}");

    let missing = SecretConfig {
        kubeconfig: Some(Path::new("/no/such/kubeconfig").to_owned()),
        ..cluster.config()
    };
    let error = destination(missing).write(set(1, &[])).await.unwrap_err();
    assert!(
        error.to_string().contains("Kubernetes cannot be found"),
        "{error}"
    );
}

#[tokio::test]
async fn only_what_this_replica_wrote_is_removed() {
    let cluster = Cluster::start().await;
    let (mut a, mut b) = (cluster.replica(), cluster.replica());
    a.write(set(1, &[])).await.unwrap();
    b.write(set(2, &[])).await.unwrap();
    a.remove().await.unwrap();
    assert_eq!(
        cluster.data()["tls.crt"],
        "svid.pem 2",
        "it is another replica's"
    );
    b.remove().await.unwrap();
    assert!(cluster.api.get("web").is_none());
    b.remove().await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_process_wrote_says_when_it_expires_and_is_removed() {
    let cluster = Cluster::start().await;
    let svid = TestCa::new("td").svid("/web", Duration::from_secs(3600));
    let chain = || vec![Dated::new("svid.pem", DatedForm::ChainPem)];
    let mut later = cluster.replica();
    assert_eq!(later.expiry(chain()).await.unwrap(), None, "none is there");
    let set = Arc::new(Artifacts {
        files: vec![
            Artifact::new("svid.pem", svid.chain_pem()),
            Artifact::new("svid_key.pem", svid.key_pem().as_bytes()),
        ],
        issued: Some(Issued {
            at: svid.not_before(),
            until: svid.not_after(),
            id: svid.id().to_string(),
        }),
    });
    cluster.replica().write(set.clone()).await.unwrap();
    assert_eq!(later.expiry(chain()).await.unwrap(), Some(svid.not_after()));
    // Somebody else writes to it in between: it is another one.
    cluster.api.edit("web", "kubectl", |secret| {
        secret["data"]["tls.crt"] = STANDARD.encode("mine").into();
    });
    later.remove().await.unwrap();
    assert_eq!(cluster.data()["tls.crt"], "mine");
    assert_eq!(later.expiry(chain()).await.unwrap(), None);
    cluster.api.delete("web");

    cluster.replica().write(set).await.unwrap();
    assert!(later.expiry(chain()).await.unwrap().is_some());
    later.remove().await.unwrap();
    assert!(cluster.api.get("web").is_none());
}

/// The version that `make peers` installs, else one on this machine.
fn kubectl() -> Option<PathBuf> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/bin/kubectl");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = [peers]
        .into_iter()
        .chain(std::env::split_paths(&path).map(|directory| directory.join("kubectl")))
        .find(|kubectl| kubectl.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no kubectl: make peers");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_it_and_its_server_side_apply_conflicts() {
    let Some(kubectl) = kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    let mut replica = cluster.replica();
    replica.write(set(1, &[])).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(&kubectl)
            .args(arguments)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .env("HOME", home.path())
            .output()
            .unwrap()
    };
    let shown = run(&[
        "get",
        "secret",
        "web",
        "-o",
        "jsonpath={.type} {.data.tls\\.crt}",
    ]);
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    let expected = format!("kubernetes.io/tls {}", STANDARD.encode("svid.pem 1"));
    assert_eq!(String::from_utf8_lossy(&shown.stdout), expected);

    let manifest = home.path().join("theirs.json");
    let theirs = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "web", "namespace": "apps" },
        "data": { "tls.crt": "eA==", "tls.key": "eA==" },
    });
    std::fs::write(&manifest, theirs.to_string()).unwrap();
    let path = manifest.display().to_string();
    let apply = ["apply", "--server-side", "--validate=false", "-f", &path];
    let refused = run(&apply);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("conflict with \"tbot-proxy\""),
        "{said}"
    );
    assert_eq!(cluster.data()["tls.crt"], "svid.pem 1");
    let forced = [&apply[..], &["--force-conflicts"]].concat();
    assert!(run(&forced).status.success());
    let error = replica.write(set(2, &[])).await.unwrap_err().to_string();
    assert!(error.contains("conflict with \"kubectl\""), "{error}");
}
