//! Decisions over time, with the clock handed in.

use std::time::{Duration, SystemTime};

use super::{Denial, SUCCESSION_GRACE};
use crate::{
    join::{BotGrant, INSTANCE_MEMORY},
    world::{TTL, World, caller, denial, key},
};

#[tokio::test]
async fn a_certificate_older_than_the_newest_but_one_gets_nothing_and_locks() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first = world.join(&secret, &key(now), now).await.unwrap();
    let first = caller(&first, now);
    let second = world.renew(&first, now).await.unwrap();
    // The same agent's connection from before the renewal goes on.
    world.issue(&first, now).await.unwrap();
    world.renew(&caller(&second, now), now).await.unwrap();
    let refused = world.issue(&first, now).await;
    assert_eq!(denial(refused), Some(Denial::CopiedIdentity));
    let reason = world.locked_reason(&first).await.unwrap();
    assert!(reason.contains("generation 1 was presented"), "{reason}");
    let denied = world.events("spiffe.svid.issued").await;
    let denied = denied.last().unwrap();
    assert!(!denied.success && denied.fields.contains("copied_identity"));
    let lock = world.events("lock.create").await;
    assert_eq!(lock[0].sequence, denied.sequence + 1);
}

#[tokio::test]
async fn a_certificate_whose_successor_is_in_use_gets_nothing_on_new_connections() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first = world.join(&secret, &key(now), now).await.unwrap();
    let old = caller(&first, now);
    let second_key = key(now);
    let second = world.renew_with(&old, &second_key, now).await.unwrap();
    let late = now + 2 * SUCCESSION_GRACE;
    // The successor was never presented: the answer may have been lost.
    world.issue(&caller(&first, late), late).await.unwrap();
    world.issue(&caller(&second, late), late).await.unwrap();
    // A connection from before that, and one within the grace, are the agent's own.
    let later = late + 2 * SUCCESSION_GRACE;
    world.issue(&old, later).await.unwrap();
    let within = caller(&first, late + SUCCESSION_GRACE / 2);
    world.issue(&within, later).await.unwrap();
    let refused = world.issue(&caller(&first, later), later).await;
    assert_eq!(denial(refused), Some(Denial::SupersededCertificate));
    assert_eq!(world.locked_reason(&old).await, None);
    // An agent that lost the newest with its disk still has the key, and recovers.
    let restarted = caller(&first, later);
    let repeated = world.renew_with(&restarted, &second_key, later).await;
    let repeated = repeated.unwrap();
    assert!(repeated.repeated);
    world.issue(&caller(&repeated, later), later).await.unwrap();
    // A copy has not.
    let refused = world.renew(&caller(&first, later), later).await;
    assert_eq!(denial(refused), Some(Denial::CopiedIdentity));
    assert!(world.locked_reason(&old).await.is_some());
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_repeated_by_the_holder_of_its_key_alone() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first_key = key(now);
    let first = world.join(&secret, &first_key, now).await.unwrap();
    let later = now + Duration::from_secs(5);
    let again = world.join(&secret, &first_key, later).await.unwrap();
    assert_eq!(again.instance.instance_id, first.instance.instance_id);
    assert_eq!(again.instance.generation, 1);
    assert_ne!(again.leaf.serial, first.leaf.serial);
    let joins = world.events("bot.join").await;
    assert!(!joins[0].fields.contains("repeated"));
    assert!(joins[1].success && joins[1].fields.contains(r#""repeated":true"#));

    let refused = world.join(&secret, &key(now), later).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken));
    let refused = world.join(&secret, &first_key, now + 2 * TTL).await;
    assert_eq!(
        denial(refused),
        Some(Denial::UsedToken),
        "after the token's end"
    );
    world.renew(&caller(&again, later), later).await.unwrap();
    let refused = world.join(&secret, &first_key, later).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken), "after a renewal");
}

#[tokio::test]
async fn a_locked_instance_is_not_joined_again() {
    let world = World::new().await;
    let now = world.start;
    let secret = world.token(now).await;
    let first_key = key(now);
    let first = world.join(&secret, &first_key, now).await.unwrap();
    lock(&world, &first, now).await;
    let refused = world.join(&secret, &first_key, now).await;
    assert_eq!(denial(refused), Some(Denial::UsedToken));
}

#[tokio::test]
async fn an_ended_instance_is_forgotten_with_a_record_and_a_locked_one_is_kept() {
    let world = World::new().await;
    let now = world.start;
    let mut ended = Vec::new();
    for _ in 0..2 {
        let secret = world.token(now).await;
        ended.push(world.join(&secret, &key(now), now).await.unwrap());
    }
    lock(&world, &ended[0], now).await;
    let late = now + TTL + INSTANCE_MEMORY + Duration::from_secs(1);
    let secret = world.token(late).await;
    world.join(&secret, &key(late), late).await.unwrap();
    let removed = world.events("bot_instance.delete").await;
    assert_eq!(removed.len(), 1);
    assert!(removed[0].fields.contains(&ended[1].instance.instance_id));
    assert!(world.locked_reason(&caller(&ended[0], now)).await.is_some());
}

async fn lock(world: &World, grant: &BotGrant, now: SystemTime) {
    let id = grant.instance.instance_id.clone();
    world
        .issuer
        .store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { super::lock_instance(tx, "web", &id, "test", now).await })
        })
        .await
        .unwrap();
}
