use std::path::Path;

use sealed_store::{KeySource, TpmAddress};

use super::{head, parse};

/// The file with this line.
fn with(line: &str) -> String {
    let service = "services:\n  - { type: workload-identity-x509, name: a, selector: { name: w }, destination: { type: directory, path: /o } }\n";
    let head = head().replace("{ type: memory }", "{ type: directory, path: /s }");
    format!("{head}{line}\n{service}")
}

#[test]
fn each_kind_of_key_is_read() {
    let tpm = |address: &str, pcrs: &[u8]| KeySource::Tpm {
        address: address.parse::<TpmAddress>().unwrap(),
        pcrs: pcrs.to_vec(),
    };
    for (key, expected) in [
        ("type: keyring", KeySource::Keyring),
        ("type: file, path: /k", KeySource::File("/k".into())),
        ("type: tpm", tpm("/dev/tpmrm0", &[])),
        (
            "type: tpm, address: \"tcp://127.0.0.1:1\", pcrs: [7, 0, 7]",
            tpm("tcp://127.0.0.1:1", &[0, 7]),
        ),
    ] {
        let read = parse(&with(&format!("sealed_store: {{ key: {{ {key} }} }}")));
        let store = read.unwrap().sealed_store.unwrap();
        assert_eq!(store.key, expected);
        assert_eq!(store.path, Path::new("/s/sealed"));
    }
    assert!(parse(&with("")).unwrap().sealed_store.is_none());
}

#[test]
fn a_sealed_store_has_its_mistakes() {
    for (line, expected) in [
        ("sealed_store: {}", "5:15: missing key `key`"),
        (
            "sealed_store: { key: { type: kms } }",
            "5:30: `type`: `kms` is not known: file, keyring or tpm",
        ),
        (
            "sealed_store: { key: { type: file } }",
            "5:22: missing key `path`",
        ),
        (
            "sealed_store: { key: { type: tpm, pcrs: [24] } }",
            "5:42: `pcrs`: `24` is no PCR: 0 to 23",
        ),
        (
            "sealed_store: { key: { type: tpm, address: tpm } }",
            "5:44: `address`: `tpm` is no TPM: write /dev/tpmrm0 or tcp://host:port",
        ),
        (
            "sealed_store: { path: /d, key: { type: file, path: /d/k } }",
            "5:32: `key`: the key lies beside what it seals: put it on another disk, or in memory (/run)",
        ),
    ] {
        let told = parse(&with(line)).unwrap_err();
        assert_eq!(told, format!("a.yaml:{expected}"), "{line}");
    }
    let memory = with("sealed_store: { key: { type: keyring } }")
        .replace("{ type: directory, path: /s }", "{ type: memory }");
    let told = parse(&memory).unwrap_err();
    assert!(told.contains("needs `storage` in a directory"), "{told}");
}
