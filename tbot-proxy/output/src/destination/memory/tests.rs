use super::*;
use crate::Artifact;

#[test]
fn a_set_is_there_whole_until_its_output_ends() {
    let outputs = MemoryOutputs::default();
    let set = |contents: &str| {
        Arc::new(Artifacts {
            files: vec![Artifact::new("jwt_svid", contents)],
            issued: None,
        })
    };
    let (one, other) = (
        Memory::new("one", outputs.clone()),
        Memory::new("other", outputs.clone()),
    );
    assert!(outputs.get("one").is_none());
    one.write(set("1"));
    other.write(set("other"));
    let held = outputs.get("one").unwrap();
    one.write(set("2"));
    assert_eq!(
        held.get("jwt_svid"),
        Some(&b"1"[..]),
        "a reader keeps its set"
    );
    assert_eq!(outputs.get("one").unwrap().get("jwt_svid"), Some(&b"2"[..]));
    one.remove();
    assert!(outputs.get("one").is_none());
    one.write(set("3"));
    drop(one);
    assert!(outputs.get("one").is_none());
    assert!(outputs.get("other").is_some());
}
