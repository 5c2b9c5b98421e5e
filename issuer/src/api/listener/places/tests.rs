use std::{future::poll_fn, net::SocketAddr, time::Instant};

use futures_util::FutureExt;

use super::{FILES_MIN, Limits, Place, Places, Rarely, TELL_EVERY};

const SMALL: Limits = Limits {
    total: 8,
    strangers: 4,
    per_source: 2,
};

fn source(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 1))
}

async fn take(places: &mut Places, number: u8) -> Option<Place> {
    let permit = places.room().await.unwrap();
    places.take(source(number), permit)
}

fn is_cut(place: &mut Place) -> bool {
    poll_fn(|context| place.poll_cut(context))
        .now_or_never()
        .is_some()
}

#[test]
fn limits_leave_files_for_the_rest() {
    assert_eq!(Limits::for_files(FILES_MIN as u64 - 1), None);
    for (files, total, strangers) in [
        (128, 64, 32),
        (1024, 960, 480),
        (20_000, 4096, 1024),
        (u64::MAX, 4096, 1024),
    ] {
        let limits = Limits::for_files(files).unwrap();
        assert_eq!((limits.total, limits.strangers), (total, strangers));
        assert_eq!(limits.per_source, strangers / 2);
    }
}

#[tokio::test]
async fn a_source_is_bounded_until_its_peers_are_proven_or_gone() {
    let mut places = Places::new(SMALL);
    let mut first = take(&mut places, 1).await.unwrap();
    let second = take(&mut places, 1).await.unwrap();
    assert!(take(&mut places, 1).await.is_none());
    first.proven();
    let third = take(&mut places, 1).await.unwrap();
    assert!(take(&mut places, 1).await.is_none());
    drop(second);
    assert!(take(&mut places, 1).await.is_some());
    drop((first, third));
    let strangers = places.strangers.lock().unwrap();
    assert!(strangers.open.is_empty() && strangers.sources.is_empty());
}

#[tokio::test]
async fn the_oldest_stranger_makes_room_and_bots_do_not() {
    let mut places = Places::new(SMALL);
    let mut bot = take(&mut places, 1).await.unwrap();
    bot.proven();
    let mut held = Vec::new();
    for number in [1, 1, 2, 2] {
        held.push(take(&mut places, number).await.unwrap());
    }
    assert!(!held.iter_mut().any(is_cut));
    let mut honest = take(&mut places, 3).await.unwrap();
    let cut: Vec<_> = held.iter_mut().map(is_cut).collect();
    assert_eq!(cut, [true, false, false, false]);
    assert!(!is_cut(&mut bot) && !is_cut(&mut honest));
    // Cut or not, its room is taken until it has gone.
    assert_eq!(places.room.available_permits(), SMALL.total - 6);
    drop(held);
    assert_eq!(places.room.available_permits(), SMALL.total - 2);
}

#[test]
fn a_line_is_logged_rarely_and_says_how_often_it_happened() {
    let mut rarely = Rarely::default();
    let now = Instant::now();
    assert_eq!(rarely.now(now), Some(1));
    assert_eq!(rarely.now(now), None);
    assert_eq!(rarely.now(now + TELL_EVERY), Some(2));
}
