//! Labels select, and a page holds what fits a message.

use prost::Message;
use proto::admin::v1 as pb;

use super::{Issuer, admin};
use crate::behaviour::harness::block_on;

#[test]
fn labels_select_and_a_page_holds_what_fits_a_message() {
    let issuer = Issuer::start();
    // Some 100 KiB each.
    let values: Vec<_> = (0..40)
        .map(|n| format!("v{n}-{}", "x".repeat(60)))
        .collect();
    let keys: Vec<_> = (0..40)
        .map(|key| format!("k{key}: [{}]", values.join(", ")))
        .collect();
    let spec = format!(
        "spec: {{allow: {{workload_identity_labels: {{{}}}}}}}",
        keys.join(", ")
    );
    let many: Vec<_> = (0..60)
        .map(|n| {
            let parity = if n % 2 == 0 { "even" } else { "odd" };
            format!(
                "kind: role\nversion: v1\nmetadata: {{name: r{n:02}, labels: {{parity: {parity}, n: '{n}'}}}}\n{spec}\n"
            )
        })
        .collect();
    for part in many.chunks(20) {
        issuer.apply(&part.join("---\n"));
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let found = issuer.json(&[&["get", "role"][..], arguments].concat());
        let found = found.as_array().unwrap().iter();
        found
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all: Vec<_> = (0..60).map(|n| format!("r{n:02}")).collect();
    assert_eq!(names(&[]), all);
    assert_eq!(names(&["-l", "parity=even"]).len(), 30);
    assert_eq!(names(&["-l", "parity=even,n=4", "-l", "n=5"]), ["r04"]);
    assert_eq!(names(&["-l", "n"]).len(), 60);
    assert_eq!(names(&["-l", "none=x"]).len(), 0);
    let told = issuer.fails(&["get", "role/r00", "-l", "n=0"]);
    assert!(told.contains("without a NAME"), "{told}");
    let pages = block_on(async {
        // With the bounds that clients have by themselves: 4 MiB.
        let mut client = admin(&issuer).await;
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let request = pb::GetResourcesRequest {
                kind: "role".to_owned(),
                after: after.clone(),
                ..Default::default()
            };
            let page = client.get_resources(request).await.unwrap().into_inner();
            let last = page.resources.last().unwrap().metadata.clone().unwrap();
            after = last.name;
            let more = page.more;
            pages.push((page.resources.len(), page.encoded_len()));
            if !more {
                return pages;
            }
        }
    });
    assert!(pages.len() > 1, "{pages:?}");
    assert_eq!(pages.iter().map(|(count, _)| count).sum::<usize>(), 60);
    assert!(pages.iter().all(|(_, size)| *size < 3_200_000), "{pages:?}");
}
