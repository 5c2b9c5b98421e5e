use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::{Serial, SpiffeId};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{KEYS_MAX, Limit, Limits, Weight};
use crate::{access::Caller, config::LimitSettings};

fn caller(bot: &str, instance: &str) -> Caller {
    Caller {
        id: SpiffeId::parse(&format!("spiffe://test.example/bot/{bot}/{instance}")).unwrap(),
        bot_name: bot.to_owned(),
        instance_id: instance.to_owned(),
        generation: 1,
        serial: Serial::from_bytes(&[1]),
        not_after: SystemTime::now(),
        remote: None,
        connected: SystemTime::now(),
        join: Default::default(),
    }
}

fn limits(settings: LimitSettings) -> Arc<Limits> {
    let limits = Arc::new(Limits::default());
    limits.set(settings);
    limits
}

const SMALL: LimitSettings = LimitSettings {
    issue_per_second_per_bot: 10,
    issue_burst_per_bot: 30,
    issue_per_second_per_instance: 10,
    issue_burst_per_instance: 20,
    calls_per_instance: 2,
    streams_per_instance: 1,
};

fn granted(limits: &Arc<Limits>, caller: &Caller, now: Instant) -> usize {
    (0..1000)
        .take_while(|_| limits.admit(caller, Weight::Call, now).is_ok())
        .count()
}

#[test]
fn a_burst_then_the_rate_and_nobody_pays_for_another() {
    let limits = limits(SMALL);
    let now = Instant::now();
    let (one, two, other) = (caller("a", "1"), caller("a", "2"), caller("b", "1"));
    assert_eq!(granted(&limits, &one, now), 20);
    let refused = limits.admit(&one, Weight::Call, now).err().unwrap();
    assert_eq!(refused.limit, Limit::Instance);
    assert_eq!(refused.wait, Duration::from_millis(100));
    // What is left of its bot's.
    assert_eq!(granted(&limits, &two, now), 10);
    let refused = limits.admit(&two, Weight::Call, now).err().unwrap();
    assert_eq!(refused.limit, Limit::Bot);
    assert_eq!(granted(&limits, &other, now), 20);
    // Half a second gives five.
    let later = now + Duration::from_millis(500);
    assert_eq!(granted(&limits, &one, later), 5);
    let much_later = now + Duration::from_secs(3600);
    assert_eq!(granted(&limits, &one, much_later), 20);
}

#[test]
fn a_refused_call_costs_nothing() {
    let limits = limits(SMALL);
    let now = Instant::now();
    let one = caller("a", "1");
    assert_eq!(granted(&limits, &one, now), 20);
    for _ in 0..100 {
        assert!(limits.admit(&one, Weight::Call, now).is_err());
    }
    let later = now + Duration::from_millis(100);
    assert_eq!(granted(&limits, &one, later), 1);
}

#[test]
fn a_large_batch_is_let_in_and_leaves_a_debt() {
    let limits = limits(SMALL);
    let now = Instant::now();
    let one = caller("a", "1");
    let slot = limits.admit(&one, Weight::Call, now).unwrap();
    limits.charge(&one, 99, now).unwrap();
    drop(slot);
    let refused = limits.admit(&one, Weight::Call, now).err().unwrap();
    // 100 charged and one wanted, less the burst of 20, at ten a second.
    assert_eq!(refused.wait, Duration::from_millis(8100));
    assert!(limits.charge(&one, 1, now).is_err());
    assert!(limits.admit(&one, Weight::Light, now).is_ok());
}

#[test]
fn calls_and_streams_under_way_are_bounded_and_given_back() {
    let limits = limits(SMALL);
    let now = Instant::now();
    let one = caller("a", "1");
    let first = limits.admit(&one, Weight::Call, now).unwrap();
    let _second = limits.admit(&one, Weight::Light, now).unwrap();
    let refused = limits.admit(&one, Weight::Light, now).err().unwrap();
    assert_eq!(refused.limit, Limit::Calls);
    let stream = limits.admit(&one, Weight::Stream, now).unwrap();
    let refused = limits.admit(&one, Weight::Stream, now).err().unwrap();
    assert_eq!(refused.limit, Limit::Streams);
    drop((first, stream));
    let _again = limits.admit(&one, Weight::Call, now).unwrap();
    let _stream = limits.admit(&one, Weight::Stream, now).unwrap();
    assert!(limits.admit(&caller("a", "2"), Weight::Light, now).is_ok());
}

#[test]
fn places_of_who_is_gone_are_forgotten_and_callers_are_bounded() {
    let limits = limits(SMALL);
    let now = Instant::now();
    for number in 0..KEYS_MAX + 10 {
        let caller = caller(&format!("bot-{number}"), "1");
        drop(limits.admit(&caller, Weight::Call, now).unwrap());
    }
    {
        let state = limits.lock();
        assert!(state.under_way.is_empty());
        assert_eq!(state.bots.0.len(), KEYS_MAX);
        assert_eq!(state.instances.0.len(), KEYS_MAX);
    }
    // Once their buckets are full again, the next new one forgets them all.
    let later = now + Duration::from_secs(10);
    drop(limits.admit(&caller("new", "1"), Weight::Call, later));
    assert_eq!(limits.lock().bots.0.len(), 1);
}

#[test]
fn the_answer_says_which_limit_and_when_to_come_back() {
    let limits = limits(SMALL);
    let now = Instant::now();
    let one = caller("a", "1");
    assert_eq!(granted(&limits, &one, now), 20);
    let status = limits
        .admit(&one, Weight::Call, now)
        .err()
        .unwrap()
        .status();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("10 SVIDs a second"), "{status}");
    assert!(
        status
            .message()
            .contains("limits.issue_per_second_per_instance"),
        "{status}"
    );
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_millis(100)));
}
