//! The OpenSSL command line as a peer.
#![allow(dead_code)]

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use identity::{TrustBundle, X509Svid};

/// Runs `openssl`; input is empty.
pub(crate) fn openssl<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("/usr/bin/openssl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed (apt-get install openssl)")
}

/// Standard output and error, for looking into and for messages.
pub(crate) fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// PEM files of an SVID and a bundle in a directory of their own.
pub(crate) struct Files {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
}

impl Files {
    pub(crate) fn new(svid: &X509Svid, bundle: &TrustBundle) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            chain: write("svid.pem", &svid.chain_pem()),
            key: write("svid_key.pem", &svid.key_pem()),
            bundle: write("bundle.pem", &bundle.to_pem()),
            dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
