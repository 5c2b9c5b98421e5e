use prost_types::{Struct, Value, value::Kind};
use proto::issue::v1::{Refusal, WorkloadReads};

use super::*;

fn item(bytes: usize) -> SvidRequest {
    let text = Value {
        kind: Some(Kind::StringValue("x".repeat(bytes))),
    };
    SvidRequest {
        workload_attributes: Some(Struct {
            fields: [("labels".to_owned(), text)].into(),
        }),
        ..SvidRequest::default()
    }
}

#[test]
fn every_call_is_one_that_the_issuer_reads() {
    for bytes in [0, 100, 3_000, 60_000, 900_000] {
        let mut waiting = vec![item(bytes); 1_000];
        let mut calls = 0;
        while !waiting.is_empty() {
            let rest = waiting.split_off(fitting(waiting.iter()));
            let requests = std::mem::replace(&mut waiting, rest);
            assert!(requests.len() <= BATCH_MAX);
            let call = IssueSvidsRequest { requests };
            assert!(call.encoded_len() <= ISSUE_MAX, "{bytes}");
            calls += 1;
        }
        // Not one each where they are small.
        let least = (1_000 * item(bytes).encoded_len())
            .div_ceil(ISSUE_MAX)
            .max(2);
        assert!(calls <= 2 * least, "{bytes}: {calls} calls");
    }
}

/// To the byte: what the issuer reads goes in one call, and one byte more does not.
#[test]
fn a_call_of_signatures_is_as_large_as_the_issuer_reads() {
    let signed = |bytes: usize| SvidRequest {
        image_signatures: vec![ImageSignature {
            bundle_json: vec![b'x'; bytes],
            simple_signing: Vec::new(),
        }],
        ..SvidRequest::default()
    };
    let size = |requests: &[SvidRequest]| {
        let requests = requests.to_vec();
        IssueSvidsRequest { requests }.encoded_len()
    };
    let left = ISSUE_MAX - size(&[signed(500_000), signed(500_000)]);
    for (more, fit) in [(left, 2), (left + 1, 1)] {
        let requests = [signed(500_000), signed(500_000 + more)];
        assert_eq!(size(&requests), ISSUE_MAX + more - left);
        assert_eq!(fitting(requests.iter()), fit);
    }
}

#[tokio::test]
async fn an_item_that_no_call_can_hold_is_refused_here() {
    let nowhere = crate::configuration::HostPort::parse("127.0.0.1:1").unwrap();
    let addresses = crate::link::Addresses::new(vec![nowhere]);
    let link = IssuerLink::new(addresses, identity::IdentitySource::new());
    let issuance = Issuance::over(link);
    let error = issuance.issue(item(ISSUE_MAX)).await.unwrap_err();
    let IssueError::Refused { message, reads } = error else {
        panic!("{error}");
    };
    assert_eq!(reads, Reads::All);
    assert!(message.contains("takes 1048"), "{message}");
}

/// An issuer of before said of it that it depends on nothing, so it was everybody's.
#[test]
fn what_was_not_understood_of_one_workload_is_shared_with_nobody() {
    let refused = |code: Code, reads| {
        let result = SvidResult {
            refusal: Some(Refusal {
                code: code.into(),
                message: "no".to_owned(),
            }),
            reads,
            ..SvidResult::default()
        };
        match granted(result) {
            Err(IssueError::Refused { reads, .. }) => reads,
            other => panic!("{other:?}"),
        }
    };
    let nothing = Some(WorkloadReads::default());
    assert_eq!(refused(Code::InvalidArgument, nothing.clone()), Reads::All);
    assert_eq!(refused(Code::PermissionDenied, None), Reads::All);
    assert_eq!(refused(Code::PermissionDenied, nothing), Reads::Nothing);
}
