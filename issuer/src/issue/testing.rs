//! What the tests of deciding share: resources out of YAML, and keys.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use identity::{Serial, SpiffeId, TrustDomain};
use policy::Attributes;
use serde_json::Value;

use super::{Ask, Asker, Wanted};
use crate::{
    access::Caller,
    authority::Keyring,
    catalog::Catalog,
    explain::SupposedIssuer,
    resources::{Resource, Spec, WorkloadIdentitySpec, wire, yaml},
    store::instances::BotInstance,
};

/// A round moment, so that lives are whole.
pub(super) fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("test.example").unwrap()
}

/// Made once: an RSA key takes a while.
pub(super) fn keyring() -> Arc<Keyring> {
    static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| {
        let issuer = SupposedIssuer::new(&trust_domain(), Vec::new(), moment());
        issuer.unwrap().into_parts().1.into()
    });
    KEYRING.clone()
}

pub(super) fn catalog(resources: &str) -> Catalog {
    let mut catalog = Catalog::default();
    for resource in yaml::read("test.yaml", resources).unwrap() {
        put(&mut catalog, &wire::from_wire(resource).unwrap());
    }
    catalog
}

fn put(catalog: &mut Catalog, resource: &Resource) {
    use prost::Message as _;
    let content = wire::to_wire(resource).encode_to_vec();
    let name = resource.metadata.name.as_str();
    catalog.put_resource(resource.kind(), name, 1, &content);
}

/// Instance `one` of bot `web` with this newest generation, which was seen long ago.
pub(super) fn instance(generation: u64) -> BotInstance {
    BotInstance {
        instance_id: INSTANCE.to_owned(),
        bot_name: "web".to_owned(),
        generation,
        key_sha256: vec![0; 32],
        joined: moment() - DAY,
        renewed: moment() - DAY,
        not_after: moment() + DAY,
        hostname: String::new(),
        agent_version: String::new(),
        join_method: "token".to_owned(),
        join_token_name: String::new(),
        newest_seen: Some(moment() - DAY),
    }
}

/// That instance with a certificate of this generation, newly connected.
pub(super) fn caller(generation: u64) -> Caller {
    Caller {
        id: SpiffeId::parse(&format!("spiffe://test.example/bot/web/{INSTANCE}")).unwrap(),
        bot_name: "web".to_owned(),
        instance_id: INSTANCE.to_owned(),
        generation,
        serial: Serial::from_bytes(&[1]),
        not_after: moment() + DAY,
        remote: None,
        connected: moment(),
        join: Attributes::new(),
    }
}

const INSTANCE: &str = "0192a000-0000-4000-8000-000000000001";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `spec` of a workload identity, in YAML.
pub(super) fn spec(spec: &str) -> WorkloadIdentitySpec {
    let text = format!(
        "kind: workload_identity\nversion: v1\nmetadata: {name}\nspec: {spec}\n",
        name = "{ name: web }"
    );
    let resource = yaml::read("test.yaml", &text).unwrap().remove(0);
    match wire::from_wire(resource).unwrap().spec {
        Spec::WorkloadIdentity(spec) => *spec,
        other => panic!("{other:?}"),
    }
}

pub(super) fn attributes(tree: &Value) -> Attributes {
    Attributes::from_json(tree).unwrap()
}

/// Bot `web`, whatever instance.
pub(super) fn asker() -> Asker {
    Asker::Supposed {
        bot_name: "web".to_owned(),
        attributes: Attributes::new(),
    }
}

/// For a JWT-SVID of `web`.
pub(super) fn ask(workload: &Value) -> Ask {
    Ask {
        workload_identity: "web".to_owned(),
        labels: None,
        wanted: Wanted::Jwt(["db".to_owned()].into()),
        ttl: None,
        workload: attributes(workload).into(),
        signatures: Arc::default(),
    }
}
