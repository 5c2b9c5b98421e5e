use super::*;
use serde_json::json;

#[test]
fn values_fill_segments() {
    let attributes = Attributes::from_json(
        &json!({"join": {"github": {"repository": "org/app", "actor": "alice"}}}),
    )
    .unwrap();
    let template = PathTemplate::compile(
        "/ci/{{ join.github.actor }}/x-{{join.github.repository.split('/')[1]}}",
    )
    .unwrap();
    assert_eq!(
        template.render(&attributes).as_deref(),
        Ok("/ci/alice/x-app")
    );
    let template = PathTemplate::compile("/ci/{{ join.github.repository }}").unwrap();
    assert!(matches!(
        template.render(&attributes),
        Err(RenderError::Segment { .. })
    ));
    let template = PathTemplate::compile("/ci/{{ join.github.environment }}").unwrap();
    assert!(matches!(
        template.render(&attributes),
        Err(RenderError::Missing { .. })
    ));
}
