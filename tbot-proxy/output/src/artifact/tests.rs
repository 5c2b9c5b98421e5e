use std::{collections::BTreeSet, time::Duration};

use identity::{TrustBundleSet, X509Svid, testing::TestCa};

use super::{
    keystore::{KeystoreError, Password},
    *,
};

fn names(artifacts: &Artifacts) -> Vec<&str> {
    let mut names: Vec<_> = artifacts
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

fn form<'a>(formats: &'a BTreeSet<Format>, password: Option<&'a Password>) -> X509Form<'a> {
    X509Form { formats, password }
}

#[test]
fn the_files_are_what_they_are_called() {
    let (own, other) = (TestCa::new("td"), TestCa::new("other.example"));
    let svid = own.svid("/web", Duration::from_secs(3600));
    let all = TrustBundleSet::new([other.bundle(), own.bundle()]);
    let pem = BTreeSet::from([Format::Pem]);
    let set = x509(&svid, &all, &form(&pem, None)).unwrap();
    assert_eq!(
        names(&set),
        [
            "bundle.pem",
            "bundle_map.json",
            "federated/other.example.pem",
            "svid.pem",
            "svid_key.pem"
        ]
    );
    let read = |name: &str| set.get(name).unwrap();
    let again = X509Svid::from_pem(read(SVID), read(SVID_KEY)).unwrap();
    assert_eq!(again.id().as_str(), "spiffe://td/web");
    assert_eq!(read(BUNDLE), own.bundle().to_pem().as_bytes());
    assert_eq!(
        read("federated/other.example.pem"),
        other.bundle().to_pem().as_bytes()
    );
    assert_eq!(
        TrustBundleSet::from_map_json(read(BUNDLE_MAP)).unwrap(),
        all
    );
    let issued = set.issued.clone().unwrap();
    assert_eq!(
        (issued.at, issued.until, issued.id.as_str()),
        (svid.not_before(), svid.not_after(), svid.id().as_str())
    );
    let secret = svid.key_pem();
    let shown = format!("{set:?}");
    assert!(!shown.contains(secret.lines().nth(1).unwrap()), "{shown}");
}

#[test]
fn revocation_lists_are_there_when_there_are_any() {
    let ca = TestCa::new("td");
    let svid = ca.svid("/web", Duration::from_secs(3600));
    let crl = ca.revoke([svid.serial()]);
    let bundle = ca.bundle().with_crls(vec![crl.clone()]).unwrap();
    let pem = BTreeSet::from([Format::Pem]);
    let set = x509(&svid, &TrustBundleSet::new([bundle]), &form(&pem, None)).unwrap();
    let text = std::str::from_utf8(set.get(CRL).unwrap()).unwrap();
    use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
    let read = CertificateRevocationListDer::from_pem_slice(text.as_bytes()).unwrap();
    assert_eq!(read.as_ref(), crl.as_ref());
    assert!(text.lines().all(|line| line.len() <= 64));
}

#[test]
fn keystores_need_a_password() {
    let ca = TestCa::new("td");
    let svid = ca.svid("/web", Duration::from_secs(3600));
    for format in [Format::Pkcs12, Format::Jks] {
        let formats = BTreeSet::from([format]);
        let all = TrustBundleSet::new([ca.bundle()]);
        let error = x509(&svid, &all, &form(&formats, None)).unwrap_err();
        assert_eq!(error, KeystoreError::NoPassword);
    }
    let password = |text: &str| Password::new(Zeroizing::new(text.to_owned()));
    assert_eq!(
        password("12345\n").unwrap_err(),
        KeystoreError::ShortPassword
    );
    for bad in ["12345é", "123456\t", "1234\n56"] {
        assert_eq!(password(bad).unwrap_err(), KeystoreError::PasswordCharacter);
    }
    assert_eq!(password("123456\n").unwrap(), password("123456").unwrap());
    assert_eq!(format!("{:?}", password("123456").unwrap()), "Password");
}

#[test]
fn names_can_be_others() {
    let known = [SVID, SVID_KEY, BUNDLE];
    let of = |names: &[(&str, &str)]| {
        let names = names
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        FileNames::new(names, &known)
    };
    let names = of(&[(SVID, "tls/cert.pem"), (SVID_KEY, "tls/key.pem")]).unwrap();
    let set = Artifacts {
        files: vec![Artifact::new(SVID, "1"), Artifact::new(BUNDLE, "2")],
        issued: None,
    };
    let set = set.renamed(&names);
    assert_eq!(set.get("tls/cert.pem"), Some(&b"1"[..]));
    assert_eq!(set.get(BUNDLE), Some(&b"2"[..]));
    for bad in [
        (SVID, "../up"),
        (SVID, "/abs"),
        (SVID, "..data"),
        (SVID, "federated/x.pem"),
        (SVID, BUNDLE),
        ("no.pem", "x"),
    ] {
        assert!(of(&[bad]).is_err(), "{bad:?}");
    }
    // Two names may change places.
    assert!(of(&[(SVID, SVID_KEY), (SVID_KEY, SVID)]).is_ok());
}
