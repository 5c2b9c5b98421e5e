use crate::{admin::v1 as admin, join::v1::TokenEvidence};

const SECRET: &str = "a-token-of-at-least-32-characters-in-all";

fn metadata() -> Option<admin::Metadata> {
    Some(admin::Metadata {
        name: SECRET.to_owned(),
        ..Default::default()
    })
}

#[test]
fn no_debug_form_shows_a_token() {
    let token = admin::Resource {
        metadata: metadata(),
        spec: Some(admin::resource::Spec::Token(admin::TokenSpec {
            join_method: "token".to_owned(),
            bot_name: "b".to_owned(),
        })),
    };
    let kindless = admin::Resource {
        metadata: metadata(),
        spec: None,
    };
    let shown = [
        format!("{:?}", metadata()),
        format!("{token:?}"),
        format!("{kindless:?}"),
        format!(
            "{:?}",
            admin::ApplyResourcesRequest {
                resources: vec![token.clone()],
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            admin::AppliedResource {
                resource: Some(token),
                outcome: 0,
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            admin::DeleteResourceRequest {
                kind: "token".to_owned(),
                name: SECRET.to_owned(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            admin::GetResourcesRequest {
                kind: "Token".to_owned(),
                name: SECRET.to_owned(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            admin::AddBotResponse {
                token: SECRET.to_owned(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            TokenEvidence {
                token: SECRET.to_owned(),
            }
        ),
    ];
    for text in shown {
        assert!(!text.contains(SECRET), "{text}");
        assert!(text.contains("[redacted]"), "{text}");
    }
}

#[test]
fn names_of_other_kinds_are_shown() {
    let bot = admin::Resource {
        metadata: metadata(),
        spec: Some(admin::resource::Spec::Bot(admin::BotSpec::default())),
    };
    assert!(format!("{bot:?}").contains(SECRET));
    let request = admin::DeleteResourceRequest {
        kind: "role".to_owned(),
        name: SECRET.to_owned(),
        ..Default::default()
    };
    assert!(format!("{request:?}").contains(SECRET));
}
