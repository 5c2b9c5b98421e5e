use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{Messages, Shared};

fn counting() -> (Arc<Shared<String, Bytes>>, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let shared = Shared::new(move |text: &String| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from(text.clone()))
    });
    (shared, made)
}

#[test]
fn one_context_is_encoded_once_and_kept_by_nobody_but_its_users() {
    let (shared, made) = counting();
    let context = Arc::new("a".to_owned());
    let one = shared.of(&context).unwrap();
    let two = shared.of(&context).unwrap();
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(made.load(Ordering::Relaxed), 1);
    let weak = Arc::downgrade(&one);
    drop((one, two));
    assert!(weak.upgrade().is_none());
    // A new context may have the address of one that is gone.
    for text in ["b", "c"] {
        let context = Arc::new(text.to_owned());
        assert_eq!(**shared.of(&context).unwrap(), *text.as_bytes());
    }
}

#[tokio::test]
async fn equal_states_in_a_row_are_one_message() {
    let (shared, _) = counting();
    let states = ["a", "a", "b", "b", "a"].map(|text| Ok(Arc::new(text.to_owned())));
    let messages = Messages::new(stream::iter(states).boxed(), &shared);
    let sent: Vec<_> = messages.map(|message| message.unwrap()).collect().await;
    assert_eq!(sent, ["a", "b", "a"]);
}
