use std::{fs, path::Path, time::Duration};

use identity::testing::TestCa;

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".."))
        .collect();
    names.sort();
    names
}

#[test]
fn the_files_are_what_they_are_called() {
    let home = tempfile::tempdir().unwrap();
    let files = FileSet::open(home.path(), Links::ByName).unwrap();
    let (own, other) = (TestCa::new("td"), TestCa::new("other.example"));
    let svid = own.svid("/web", Duration::from_secs(3600));
    let all = TrustBundleSet::new([other.bundle(), own.bundle()]);
    write_x509(&files, &svid, &all).unwrap();
    assert_eq!(
        names(home.path()),
        [
            "bundle.pem",
            "bundle_map.json",
            "federated",
            "svid.pem",
            "svid_key.pem"
        ]
    );
    let read = |name: &str| fs::read(home.path().join(name)).unwrap();
    let again = X509Svid::from_pem(&read("svid.pem"), &read("svid_key.pem")).unwrap();
    assert_eq!(again.id().as_str(), "spiffe://td/web");
    assert_eq!(read("bundle.pem"), own.bundle().to_pem().into_bytes());
    assert_eq!(
        read("federated/other.example.pem"),
        other.bundle().to_pem().into_bytes()
    );
    assert_eq!(
        TrustBundleSet::from_map_json(&read("bundle_map.json")).unwrap(),
        all
    );

    // A trust domain that is no longer trusted leaves no file.
    write_x509(&files, &svid, &TrustBundleSet::new([own.bundle()])).unwrap();
    assert_eq!(
        names(home.path()),
        ["bundle.pem", "bundle_map.json", "svid.pem", "svid_key.pem"]
    );
}
