//! Any text as a file of resources, and any bytes as a resource on the wire: what is
//! accepted is written as YAML that is read as the same, and what is not is told at a
//! place in the file.

#![no_main]

use issuer::resources::{wire, yaml};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::admin::v1 as pb;

/// As it is kept. The secret of a token is not.
fn kept(resource: &pb::Resource) -> pb::Resource {
    wire::to_wire(&wire::from_wire(resource.clone()).expect("it was read"))
}

fn comes_back(resources: &[pb::Resource]) {
    let written = yaml::write(resources);
    let again = match yaml::read("f", &written) {
        Ok(again) => again,
        Err(mistakes) => panic!("{mistakes}\n{written}"),
    };
    let [one, other] = [resources, &again].map(|list| list.iter().map(kept).collect::<Vec<_>>());
    assert_eq!(one, other, "{written}");
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        match yaml::read("f", text) {
            Ok(resources) => comes_back(&resources),
            Err(mistakes) => {
                // A line may end with a carriage return alone (YAML 1.2.2, section 5.4).
                let lines = text.split(['\r', '\n']).count() + 1;
                assert!(!mistakes.is_empty());
                for mistake in mistakes.iter() {
                    assert!((1..=lines).contains(&mistake.line), "{mistake}\n{text}");
                    assert!(
                        mistake.column >= 1 && !mistake.message.contains('\n'),
                        "{mistake}"
                    );
                }
            }
        }
    }
    if let Ok(resource) = pb::Resource::decode(data)
        && wire::from_wire(resource.clone()).is_ok()
    {
        comes_back(&[resource]);
    }
});
