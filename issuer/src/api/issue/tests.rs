use std::time::Duration;

use identity::{TrustBundle, TrustDomain};

use super::{are_the_same, federations, policy_within};
use crate::{
    access::changes,
    resources::{
        Kind, LabelSelector, Metadata, Resource, ResourceName, RoleSpec, Spec, SpiffeFederationSpec,
    },
    world::World,
};

const PARTNER: &str = "partner.example";

fn partner(sequence: u64) -> Resource {
    let json = format!("{{\"keys\": [], \"spiffe_sequence\": {sequence}}}");
    let trust_domain = TrustDomain::parse(PARTNER).unwrap();
    Resource {
        metadata: Metadata::named(ResourceName::parse(PARTNER).unwrap()),
        spec: Spec::SpiffeFederation(SpiffeFederationSpec {
            bundle: TrustBundle::from_spiffe_json(trust_domain, json.as_bytes()).unwrap(),
            bundle_json: json,
        }),
    }
}

#[tokio::test]
async fn a_bundle_that_is_deleted_and_made_again_is_news() {
    let world = World::new().await;
    let store = &world.issuer.store;
    world.apply(vec![partner(1)]).await;
    let told = federations(&store.catalog());
    world.token(world.start).await;
    assert!(are_the_same(&told, &federations(&store.catalog())));
    // Seen by nobody in between.
    let start = world.start;
    let again = store.write::<_, changes::ChangeError, _>(move |tx| {
        Box::pin(async move {
            changes::delete(tx, Kind::SpiffeFederation, PARTNER, 0, "test", start).await?;
            changes::apply(tx, vec![partner(2)], "test", start).await
        })
    });
    again.await.unwrap();
    let new = federations(&store.catalog());
    assert_eq!(new[0].metadata.revision, told[0].metadata.revision);
    assert!(!are_the_same(&told, &new));
}

#[tokio::test]
async fn policy_has_another_number_when_it_is_another_and_only_then() {
    let world = World::new().await;
    let store = &world.issuer.store;
    let mut seen = vec![store.catalog().policy_revision()];
    let mut look = || {
        let now = store.catalog().policy_revision();
        let is_new = !seen.contains(&now);
        seen.push(now);
        is_new
    };
    world.apply(vec![role(&[])]).await;
    assert!(look());
    world.apply(vec![partner(1)]).await;
    assert!(!look(), "bundles are told of by themselves");
    world.apply(vec![role(&["a"])]).await;
    assert!(look());
    let start = world.start;
    let deleted = store.write::<_, changes::ChangeError, _>(move |tx| {
        Box::pin(async move { changes::delete(tx, Kind::Role, "policy", 0, "test", start).await })
    });
    deleted.await.unwrap();
    assert!(look());
}

fn role(labels: &[&str]) -> Resource {
    let labels = labels
        .iter()
        .map(|label| ((*label).to_owned(), vec!["*".to_owned()]));
    Resource {
        metadata: Metadata::named(ResourceName::parse("policy").unwrap()),
        spec: Spec::Role(RoleSpec {
            workload_identity_labels: LabelSelector::new(labels).unwrap(),
            ..RoleSpec::default()
        }),
    }
}

#[test]
fn the_more_agents_there_are_the_longer_they_take_to_ask_again() {
    assert_eq!(policy_within(1), Duration::from_millis(510));
    assert_eq!(policy_within(10_000), Duration::from_millis(100_500));
}
