//! A store with real keys: a file, the kernel's keyring, and a TPM (swtpm), which tpm2-tools
//! speak with too.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sealed_store::{KeyError, KeySource, SealedStore, StoreError, TpmAddress};

/// A folder with room for a store and its key.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("sealed")
    }

    fn by_file(&self, key: &str) -> KeySource {
        KeySource::File(self.0.path().join(key))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.store().join(name)
    }
}

fn open(place: &Place, source: &KeySource) -> SealedStore {
    SealedStore::open(&place.store(), source).unwrap()
}

fn names(store: &SealedStore) -> Vec<String> {
    let entries = store.contents().unwrap().entries;
    entries.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn what_was_put_is_there_after_a_restart_and_not_in_the_clear() {
    let place = Place::new();
    let key = place.by_file("key");
    let store = open(&place, &key);
    let secret = b"-----BEGIN PRIVATE KEY-----".repeat(100);
    store.put("one", b"first").unwrap();
    store.put("one", &secret).unwrap();
    store.put("two", b"").unwrap();
    store.put("three", b"3").unwrap();
    store.remove("three").unwrap();
    store.remove("three").unwrap();
    drop(store);
    let contents = open(&place, &key).contents().unwrap();
    let [(one, first), (two, second)] = contents.entries.as_slice() else {
        panic!("{contents:?}");
    };
    assert_eq!((one.as_str(), two.as_str()), ("one", "two"));
    assert!(**first == secret && second.is_empty());
    for file in fs::read_dir(place.store()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"PRIVATE"), "{path:?}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path:?}");
    }
}

#[test]
fn what_was_changed_cut_short_or_moved_is_no_entry_and_leaves() {
    let place = Place::new();
    let key = place.by_file("key");
    let store = open(&place, &key);
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 6] = [
        ("empty", |bytes| bytes.clear()),
        ("short", |bytes| bytes.truncate(30)),
        ("cut", |bytes| _ = bytes.pop()),
        ("grown", |bytes| bytes.push(0)),
        ("flipped", |bytes| bytes[40] ^= 1),
        ("nonce", |bytes| bytes[15] ^= 1),
    ];
    for (name, harm) in harms {
        store.put(name, &[7; 100]).unwrap();
        let path = place.file(&format!("{name}.sealed"));
        let mut bytes = fs::read(&path).unwrap();
        harm(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    store.put("moved", b"here").unwrap();
    fs::rename(place.file("moved.sealed"), place.file("there.sealed")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.file("link.sealed")).unwrap();
    fs::write(place.file("left.tmp"), "by a crash").unwrap();
    store.put("good", b"good").unwrap();
    let contents = store.contents().unwrap();
    assert_eq!(contents.damaged.len(), harms.len() + 2, "{contents:?}");
    assert_eq!(contents.entries.len(), 1);
    assert_eq!(names(&store), ["good"], "and they are gone");
    assert!(store.contents().unwrap().damaged.is_empty());
    assert!(!place.file("left.tmp").exists() && Path::new("/etc/passwd").exists());
}

#[test]
fn another_key_reads_nothing() {
    let place = Place::new();
    open(&place, &place.by_file("key"))
        .put("one", b"1")
        .unwrap();
    let elsewhere = Place::new();
    let other = elsewhere.by_file("other");
    drop(open(&elsewhere, &other));
    let store = open(&place, &other);
    let contents = store.contents().unwrap();
    assert_eq!((contents.of_another_key, contents.entries.len()), (1, 0));
    assert!(contents.damaged.is_empty());
    assert!(!place.file("one.sealed").exists());
}

/// As of a disk that is not mounted yet. The build is on a disk, and `/dev/shm` is in memory.
#[test]
fn a_key_that_is_missing_is_made_anew_only_where_it_goes_with_a_reboot() {
    let on = |folder: &str| {
        let place = Place(tempfile::tempdir_in(folder).unwrap());
        let key = place.by_file("keys/of/tbot");
        let store = open(&place, &key);
        store.put("one", b"1").unwrap();
        drop(store);
        let KeySource::File(path) = &key else {
            unreachable!()
        };
        let kept = fs::read(path).unwrap();
        fs::remove_dir_all(place.0.path().join("keys")).unwrap();
        (SealedStore::open(&place.store(), &key), kept, place, key)
    };
    let (store, _, _place, _) = on("/dev/shm");
    assert_eq!(store.unwrap().contents().unwrap().of_another_key, 1);

    let (store, kept, place, key) = on(env!("CARGO_TARGET_TMPDIR"));
    let error = store.unwrap_err();
    assert!(
        matches!(error, StoreError::Key(KeyError::Missing { .. })),
        "{error}"
    );
    assert!(!place.0.path().join("keys").exists());
    assert!(place.file("one.sealed").exists());
    // It is mounted.
    let KeySource::File(path) = &key else {
        unreachable!()
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, kept).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(names(&open(&place, &key)), ["one"]);
}

#[test]
fn a_store_is_for_one_process_and_for_one_user() {
    let place = Place::new();
    let key = place.by_file("key");
    let store = open(&place, &key);
    let refused = SealedStore::open(&place.store(), &key).unwrap_err();
    assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
    drop(store);
    fs::set_permissions(place.store(), fs::Permissions::from_mode(0o750)).unwrap();
    let refused = SealedStore::open(&place.store(), &key).unwrap_err();
    assert!(refused.to_string().contains("mode 0700"), "{refused}");
}

#[test]
fn names_lead_nowhere_else() {
    let place = Place::new();
    let store = open(&place, &place.by_file("key"));
    for name in ["", "..", "a/b", "a.b", "ä", &"x".repeat(129)] {
        let refused = store.put(name, b"1").unwrap_err();
        assert!(matches!(refused, StoreError::Name(_)), "{name}: {refused}");
    }
}

#[test]
fn a_key_in_the_kernels_keyring_outlives_the_process_that_made_it() {
    // In a process of its own session, as a service is after a restart.
    if std::env::var_os("SEALED_STORE").is_some() {
        return;
    }
    let place = Place::new();
    let run = |step: &str| {
        // A session keyring without that of the user in it, as services of systemd have.
        let script = "import ctypes, os, sys; ctypes.CDLL(None).syscall(250, 1, None); os.execv(sys.argv[1], sys.argv[1:])";
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command.arg(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "one_step_with_the_keyring",
            "--ignored",
            "--nocapture",
        ]);
        command.env("SEALED_STORE", place.store()).env("STEP", step);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), told)
    };
    let (done, told) = run("put");
    if told.contains("keyctl(2) is often forbidden") {
        eprintln!("SKIPPED: this kernel gives no keyring: {told}");
        return;
    }
    assert!(done, "{told}");
    let (done, told) = run("look");
    assert!(done && told.contains("found: [\"one\"]"), "{told}");
}

#[test]
#[ignore = "a part of another test"]
fn one_step_with_the_keyring() {
    let directory = PathBuf::from(std::env::var_os("SEALED_STORE").unwrap());
    let store = SealedStore::open(&directory, &KeySource::Keyring);
    let store = store.unwrap_or_else(|error| panic!("{error}"));
    match std::env::var("STEP").unwrap().as_str() {
        "put" => store.put("one", b"1").unwrap(),
        _ => println!("found: {:?}", names(&store)),
    }
}

/// A TPM that nobody else has.
struct Tpm {
    process: Child,
    port: u16,
    state: tempfile::TempDir,
}

impl Tpm {
    /// `None`, loudly, without swtpm.
    fn start() -> Option<Self> {
        let state = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            // tpm2-tools find the control channel at the port after that of the TPM.
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            if port == u16::MAX || TcpListener::bind(("127.0.0.1", port + 1)).is_err() {
                continue;
            }
            let spawned = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .args(["--tpmstate", &format!("dir={}", state.path().display())])
                .args([
                    "--server",
                    &format!("type=tcp,port={port},bindaddr=127.0.0.1"),
                ])
                .args([
                    "--ctrl",
                    &format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1),
                ])
                .stderr(Stdio::null())
                .spawn();
            let Ok(process) = spawned else {
                eprintln!("SKIPPED: no swtpm: `make test` installs it");
                return None;
            };
            let mut tpm = Self {
                process,
                port,
                state: tempfile::tempdir().unwrap(),
            };
            let deadline = Instant::now() + Duration::from_secs(30);
            while tpm.process.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if TcpStream::connect(("127.0.0.1", port + 1)).is_ok() {
                    tpm.state = state;
                    return Some(tpm);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("swtpm does not start");
    }

    fn source(&self, pcrs: &[u8]) -> KeySource {
        KeySource::Tpm {
            address: TpmAddress::Tcp(format!("127.0.0.1:{}", self.port)),
            pcrs: pcrs.to_vec(),
        }
    }

    /// A command of tpm2-tools.
    fn tool(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(arguments[0])
            .args(&arguments[1..])
            .env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:host=127.0.0.1,port={}", self.port),
            )
            .current_dir(self.state.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        output.stdout
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
fn a_tpm_gives_the_key_to_this_machine_and_to_no_other() {
    let (Some(tpm), Some(other)) = (Tpm::start(), Tpm::start()) else {
        return;
    };
    let place = Place::new();
    open(&place, &tpm.source(&[])).put("one", b"1").unwrap();
    // More often than a TPM has room for, if something were left in it.
    for _ in 0..6 {
        assert_eq!(names(&open(&place, &tpm.source(&[]))), ["one"]);
    }
    let contents = open(&place, &other.source(&[])).contents().unwrap();
    assert_eq!((contents.of_another_key, contents.entries.len()), (1, 0));
}

#[test]
fn a_tpm_gives_the_key_while_the_pcrs_are_as_they_were() {
    let Some(tpm) = Tpm::start() else { return };
    let place = Place::new();
    open(&place, &tpm.source(&[7, 16]))
        .put("one", b"1")
        .unwrap();
    assert_eq!(names(&open(&place, &tpm.source(&[7, 16]))), ["one"]);
    let digest = "11".repeat(32);
    tpm.tool(&["tpm2_pcrextend", &format!("10:sha256={digest}")]);
    assert_eq!(names(&open(&place, &tpm.source(&[7, 16]))), ["one"]);
    tpm.tool(&["tpm2_pcrextend", &format!("16:sha256={digest}")]);
    let store = open(&place, &tpm.source(&[7, 16]));
    let contents = store.contents().unwrap();
    assert_eq!((contents.of_another_key, contents.entries.len()), (1, 0));
    store.put("two", b"2").unwrap();
    drop(store);
    // PCRs that are not named any more, and a file that is none: a new key.
    let contents = open(&place, &tpm.source(&[])).contents().unwrap();
    assert_eq!((contents.of_another_key, contents.entries.len()), (1, 0));
    fs::write(place.file("key.tpm"), [0; 40]).unwrap();
    open(&place, &tpm.source(&[])).put("three", b"3").unwrap();
    assert_eq!(names(&open(&place, &tpm.source(&[]))), ["three"]);
}

#[test]
fn tpm2_tools_find_in_the_tpm_what_we_sealed() {
    let Some(tpm) = Tpm::start() else { return };
    let place = Place::new();
    open(&place, &tpm.source(&[])).put("one", b"1").unwrap();
    let sealed = fs::read(place.file("key.tpm")).unwrap();
    let private = 2 + usize::from(u16::from_be_bytes([sealed[0], sealed[1]]));
    let file = |name: &str| tpm.state.path().join(name);
    fs::write(file("key.priv"), &sealed[..private]).unwrap();
    fs::write(file("key.pub"), &sealed[private..]).unwrap();
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let primary = [
        "-C",
        "o",
        "-g",
        "sha256",
        "-G",
        "ecc256:null:aes128cfb",
        "-a",
        attributes,
    ];
    tpm.tool(&[&["tpm2_createprimary", "-c", "primary.ctx"], &primary[..]].concat());
    tpm.tool(&["tpm2_flushcontext", "-t"]);
    let load = [
        "-C",
        "primary.ctx",
        "-r",
        "key.priv",
        "-u",
        "key.pub",
        "-c",
        "key.ctx",
    ];
    tpm.tool(&[&["tpm2_load"], &load[..]].concat());
    tpm.tool(&["tpm2_flushcontext", "-t"]);
    let key = tpm.tool(&["tpm2_unseal", "-c", "key.ctx"]);
    let digits = hex::encode(&key);
    let KeySource::File(path) = place.by_file("key") else {
        unreachable!()
    };
    fs::write(&path, digits).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(names(&open(&place, &place.by_file("key"))), ["one"]);
}

#[test]
fn a_tpm_that_is_not_there_is_told() {
    let place = Place::new();
    let source = KeySource::Tpm {
        address: TpmAddress::Device("/dev/tpm-none".into()),
        pcrs: vec![],
    };
    let refused = SealedStore::open(&place.store(), &source).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("/dev/tpm-none") && refused.contains("No such file"),
        "{refused}"
    );
}
