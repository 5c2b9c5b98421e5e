use http::HeaderMap;

use super::{Context, HEADER, RequestId};

#[test]
fn a_callers_id_is_bounded_and_harmless() {
    for (text, accepted) in [
        ("a", true),
        ("0199-AF.x_y", true),
        (&"x".repeat(64), true),
        (&"x".repeat(65), false),
        ("", false),
        ("a b", false),
        ("a\nb", false),
        ("\u{1b}[31m", false),
        ("é", false),
        ("a/b", false),
    ] {
        assert_eq!(RequestId::parse(text).is_some(), accepted, "{text:?}");
    }
}

#[test]
fn what_is_not_accepted_is_replaced_and_two_are_never_the_same() {
    let mut headers = HeaderMap::new();
    let made = RequestId::of(&headers);
    assert_ne!(made, RequestId::of(&headers));
    assert_eq!(RequestId::parse(made.as_str()), Some(made));
    headers.insert(HEADER, "mine-1".parse().unwrap());
    assert_eq!(RequestId::of(&headers).as_str(), "mine-1");
    headers.insert(HEADER, "not mine".parse().unwrap());
    assert_ne!(RequestId::of(&headers).as_str(), "not mine");
}

#[test]
fn work_that_moves_to_another_task_keeps_its_request() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(RequestId::current(), None);
        let id = RequestId::generate();
        let context = Context::new(id.clone(), tracing::Span::none());
        let seen = context
            .run(async {
                let context = Context::current();
                let elsewhere = tokio::spawn(context.run(async { RequestId::current() }));
                assert_eq!(
                    tokio::spawn(async { RequestId::current() }).await.unwrap(),
                    None
                );
                elsewhere.await.unwrap()
            })
            .await;
        assert_eq!(seen, Some(id));
    });
}
