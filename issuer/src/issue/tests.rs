//! What happens when the world changes between a decision and its record.

use std::{sync::Arc, time::SystemTime};

use super::{Asker, Batch, Document, Outcome, Settled, keep, settle, take_apart};
use crate::{
    access::Denial,
    resources::{
        LockSpec, LockTarget, Metadata, ResourceName, RoleSpec, Spec, WorkloadIdentitySpec,
    },
    world::{World, caller, key, name, request_for, resource},
};

/// A batch for `web` that was decided and signed, and is not recorded yet.
struct Decided {
    world: World,
    batch: Arc<Batch>,
    settled: Arc<Settled>,
}

impl Decided {
    async fn new() -> Self {
        let world = World::new().await;
        let now = world.start;
        let secret = world.token(now).await;
        let grant = world.join(&secret, &key(now), now).await.unwrap();
        // The first use of a certificate is a change too; here it is over.
        world.issue(&caller(&grant, now), now).await.unwrap();
        let asker = Asker::Bot(Arc::new(caller(&grant, now)));
        let items = take_apart(vec![request_for("web")]).await.unwrap();
        let batch = Arc::new(Batch::new(&world.issuer, asker, items, now));
        let catalog = world.issuer.store.catalog();
        let settled = Arc::new(settle(batch.clone(), catalog).await.unwrap());
        assert_eq!(settled.outcomes()[0].grants.len(), 1);
        Self {
            world,
            batch,
            settled,
        }
    }

    async fn keep(&self) -> Outcome {
        let now = SystemTime::now();
        let kept = keep(
            &self.world.issuer,
            self.batch.clone(),
            self.settled.clone(),
            now,
        );
        kept.await.unwrap().outcomes()[0].clone()
    }

    async fn is_kept_as_it_was(&self) {
        let outcome = self.keep().await;
        let signed = Self::leaf(&self.settled.outcomes()[0]);
        assert_eq!(Self::leaf(&outcome), signed);
        assert_eq!(self.recorded().await, [true]);
    }

    fn leaf(outcome: &Outcome) -> Vec<u8> {
        match &outcome.grants[0].document {
            Document::X509 { leaf, .. } => leaf.certificate.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether each recorded decision of the batch was a success.
    async fn recorded(&self) -> Vec<bool> {
        let events = self.world.events("spiffe.svid.issued").await;
        // The first is the one before the batch.
        events[1..].iter().map(|event| event.success).collect()
    }
}

#[tokio::test]
async fn nothing_that_changed_leaves_the_decision_and_its_document_as_they_are() {
    let decided = Decided::new().await;
    decided.is_kept_as_it_was().await;
}

#[tokio::test]
async fn a_change_that_does_not_matter_leaves_the_document_as_it_is() {
    let decided = Decided::new().await;
    let mut other = resource(WorkloadIdentitySpec::at("/other").unwrap().into());
    other.metadata = Metadata::named(ResourceName::parse("other").unwrap());
    decided.world.apply(vec![other]).await;
    decided.is_kept_as_it_was().await;
}

#[tokio::test]
async fn a_lock_between_decision_and_record_wins() {
    for target in [
        LockTarget::Bot(name()),
        LockTarget::Role(name()),
        LockTarget::WorkloadIdentity(name()),
        LockTarget::SpiffeId("spiffe://test.example/web".to_owned()),
    ] {
        let decided = Decided::new().await;
        let lock = LockSpec {
            target: target.clone(),
            message: "stolen".to_owned(),
        };
        decided.world.apply(vec![resource(Spec::Lock(lock))]).await;
        let outcome = decided.keep().await;
        let refused = outcome.refused.unwrap();
        let expected = match target {
            LockTarget::Bot(_) => Denial::Locked,
            _ => Denial::LockedIdentity,
        };
        assert_eq!(refused.denial, expected, "{target:?}");
        assert!(outcome.grants.is_empty());
        assert_eq!(decided.recorded().await, [false], "{target:?}");
    }
}

#[tokio::test]
async fn a_role_that_is_taken_away_between_decision_and_record_is_away() {
    let decided = Decided::new().await;
    let role = resource(Spec::Role(RoleSpec::default()));
    decided.world.apply(vec![role]).await;
    let outcome = decided.keep().await;
    assert_eq!(outcome.refused.unwrap().denial, Denial::NoRole);
    assert_eq!(decided.recorded().await, [false]);
}

#[tokio::test]
async fn a_path_that_changed_between_decision_and_record_is_signed_anew() {
    let decided = Decided::new().await;
    let moved = resource(WorkloadIdentitySpec::at("/moved").unwrap().into());
    decided.world.apply(vec![moved]).await;
    let outcome = decided.keep().await;
    let grant = &outcome.grants[0];
    assert_eq!(
        grant.approved.rendered.id.as_str(),
        "spiffe://test.example/moved"
    );
    assert_ne!(
        Decided::leaf(&outcome),
        Decided::leaf(&decided.settled.outcomes()[0])
    );
    assert_eq!(decided.recorded().await, [true]);
}
