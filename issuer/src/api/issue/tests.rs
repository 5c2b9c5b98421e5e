use identity::{TrustBundle, TrustDomain};

use super::{are_the_same, federations};
use crate::{
    access::changes,
    resources::{Kind, Metadata, Resource, ResourceName, Spec, SpiffeFederationSpec},
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
