use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{FIRST_SWEEP, Messages, Shared};

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

/// 2,000 streams over a change: each state is encoded once, and all hand on its bytes.
#[test]
fn two_thousand_streams_share_one_encoding_over_a_change() {
    let (shared, made) = counting();
    let states = ["a", "b", "c"].map(|text| Arc::new(text.to_owned()));
    let mut streams: Vec<_> = (0..2000)
        .map(|_| Messages::new(stream::iter(states.clone().map(Ok)).boxed(), &shared))
        .collect();
    for (count, state) in states.iter().enumerate() {
        let bytes: Vec<Bytes> = streams
            .iter_mut()
            .map(|stream| stream.next().now_or_never().unwrap().unwrap().unwrap())
            .collect();
        assert!(bytes.iter().all(|it| it.as_ptr() == bytes[0].as_ptr()));
        assert_eq!(bytes[0], **state);
        assert_eq!(made.load(Ordering::Relaxed), count + 1);
    }
}

#[test]
fn those_who_ask_at_once_for_the_same_wait_for_one_encoding() {
    let (shared, made) = counting();
    let context = Arc::new("a".to_owned());
    let all_at_once = Barrier::new(8);
    let made_of = thread::scope(|scope| {
        let asks = || {
            all_at_once.wait();
            shared.of(&context).unwrap()
        };
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(asks)).collect();
        let made_of = asking.into_iter().map(|it| it.join().unwrap());
        made_of.collect::<Vec<_>>()
    });
    assert!(made_of.iter().all(|it| Arc::ptr_eq(it, &made_of[0])));
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_long_in_the_making_keeps_nobody_else_waiting() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let (begin, begun) = mpsc::channel();
    let shared = Shared::new(move |text: &String| {
        if text == "long" {
            begin.send(()).unwrap();
            let waited = may_go_on.lock().unwrap();
            waited.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        Ok(Bytes::from(text.clone()))
    });
    let (long, short) = (Arc::new("long".to_owned()), Arc::new("short".to_owned()));
    let (of_long, of_short) = (shared.clone(), shared.clone());
    let making = thread::spawn(move || of_long.of(&long).unwrap());
    begun.recv().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(of_short.of(&short).unwrap()));
    let short = told.recv_timeout(Duration::from_secs(30));
    go_on.send(()).unwrap();
    assert_eq!(**short.expect("it waited for another one"), *b"short");
    assert_eq!(**making.join().unwrap(), *b"long");
}

#[test]
fn contexts_that_are_gone_are_forgotten() {
    let (shared, _) = counting();
    let all: Vec<_> = (0..1000)
        .map(|number| Arc::new(number.to_string()))
        .collect();
    let swept = || shared.slots.read().unwrap().sweep_at;
    let mut sweeps = vec![swept()];
    for context in &all {
        drop(shared.of(context).unwrap());
        if sweeps.last() != Some(&swept()) {
            sweeps.push(swept());
        }
    }
    assert_eq!(sweeps, [32, 64, 128, 256, 512, 1024], "few sweeps");
    drop(all);
    for number in 0..10_000 {
        drop(shared.of(&Arc::new(number.to_string())).unwrap());
        let slots = shared.slots.read().unwrap();
        assert!(slots.by_address.len() <= 1024);
    }
    let slots = shared.slots.read().unwrap();
    assert!(slots.by_address.len() <= FIRST_SWEEP);
}
