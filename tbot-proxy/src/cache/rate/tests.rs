use super::*;

#[tokio::test(start_paused = true)]
async fn a_user_has_a_burst_and_then_so_many_a_second_and_others_have_theirs() {
    let rate = Rate::default();
    for _ in 0..BURST {
        rate.take(User::from_uid(1)).unwrap();
    }
    assert_eq!(rate.take(User::from_uid(1)), Err(REFILL));
    rate.take(User::from_uid(2)).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let had = (0..BURST)
        .filter(|_| rate.take(User::from_uid(1)).is_ok())
        .count();
    assert_eq!(had, 50);
    // Whose bucket is full needs no place.
    tokio::time::advance(Duration::from_secs(60)).await;
    for uid in 0..10 * USERS {
        rate.take(User::from_uid(u32::try_from(uid).unwrap()))
            .unwrap();
        tokio::time::advance(REFILL).await;
    }
    assert!(rate.full_again.lock().unwrap().len() <= USERS);
}
