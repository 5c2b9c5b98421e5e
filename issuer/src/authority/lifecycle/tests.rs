use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

/// A store that does what it is told, and remembers every step and when it was.
struct World {
    lifecycle: Lifecycle,
    keys: Vec<StoredAuthority>,
    steps: Vec<(Duration, Step)>,
    made: usize,
}

impl World {
    fn new(lifecycle: Lifecycle) -> Self {
        let mut world = Self {
            lifecycle,
            keys: Vec::new(),
            steps: Vec::new(),
            made: 0,
        };
        world.advance(start());
        world
    }

    /// As `Rotation::start`, without a store.
    fn start(&mut self, now: SystemTime) {
        let steps = self.lifecycle.at_start(&self.keys, now);
        self.apply(steps, now);
        self.advance(now);
    }

    /// As `Rotation::advance`, without a store.
    fn advance(&mut self, now: SystemTime) {
        for pass in 0.. {
            assert!(pass < 8, "it never rests: {:?}", self.steps);
            let steps = self.lifecycle.due(&self.keys, now);
            if steps.is_empty() {
                return;
            }
            self.apply(steps, now);
        }
    }

    fn apply(&mut self, steps: Vec<Step>, now: SystemTime) {
        for step in steps {
            match &step {
                Step::Create(key_use, state) => {
                    self.made += 1;
                    self.keys.push(StoredAuthority {
                        key_id: format!("{key_use}-{}", self.made),
                        key_use: *key_use,
                        state: *state,
                        certificate: Vec::new(),
                        sealed_key: vec![1],
                        created: now,
                        activated: (*state == KeyState::Active).then_some(now),
                        retired: None,
                        not_after: now + self.lifecycle.life,
                    });
                }
                Step::Activate(id) => {
                    let key = self.key(id);
                    key.state = KeyState::Active;
                    key.retired = None;
                }
                Step::Retire(id) => {
                    let key = self.key(id);
                    key.state = KeyState::Retired;
                    key.retired = Some(now);
                }
                Step::Wipe(id) => self.key(id).sealed_key.clear(),
                Step::Remove(id) => self.keys.retain(|key| key.key_id != *id),
            }
            self.steps
                .push((now.duration_since(start()).unwrap_or_default(), step));
        }
    }

    fn key(&mut self, id: &str) -> &mut StoredAuthority {
        self.keys.iter_mut().find(|key| key.key_id == id).expect(id)
    }

    /// Runs as the issuer's task does: from one moment at which something is due to the next.
    fn run_until(&mut self, end: SystemTime, mut look: impl FnMut(&Self, SystemTime)) {
        let mut now = start();
        while now < end {
            self.advance(now);
            look(self, now);
            now = self.lifecycle.next(&self.keys, now).unwrap_or(end).max(now);
        }
    }

    fn of(&self, key_use: KeyUse, state: KeyState) -> Vec<&StoredAuthority> {
        let matches = |key: &&StoredAuthority| key.key_use == key_use && key.state == state;
        self.keys.iter().filter(matches).collect()
    }

    fn signer(&self, key_use: KeyUse) -> &StoredAuthority {
        match self.of(key_use, KeyState::Active).as_slice() {
            [one] => one,
            other => panic!("{key_use}: {other:?}"),
        }
    }
}

#[test]
fn a_new_store_has_one_key_of_each_use_that_is_on() {
    let world = World::new(Lifecycle::default());
    for key_use in [
        KeyUse::X509,
        KeyUse::JwtEs256,
        KeyUse::JwtRs256,
        KeyUse::Audit,
    ] {
        world.signer(key_use);
    }
    assert_eq!(world.keys.len(), 4);
    let with_wit = World::new(Lifecycle {
        wit: true,
        ..Lifecycle::default()
    });
    with_wit.signer(KeyUse::Wit);
    assert_eq!(with_wit.keys.len(), 5);
}

#[test]
fn fe_01_a_key_is_published_for_five_hints_and_more_before_it_signs() {
    for life in [
        LIFE_MIN,
        10 * MINUTE,
        3600 * MINUTE,
        super::super::CA_LIFE,
        LIFE_MAX,
    ] {
        let lifecycle = Lifecycle { life, wit: true };
        assert!(lifecycle.publication() >= 5 * lifecycle.refresh_hint());
        assert!(lifecycle.refresh_hint() >= Duration::from_secs(1));
        // The successor signs well before the end, whatever the life.
        assert!(
            life / 3 * 2 + lifecycle.publication() <= life / 6 * 5 + Duration::from_secs(1),
            "{life:?}"
        );
        let mut world = World::new(lifecycle);
        let mut published: std::collections::BTreeMap<String, SystemTime> = Default::default();
        world.run_until(start() + 5 * life, |world, now| {
            for key in &world.keys {
                let since = *published.entry(key.key_id.clone()).or_insert(now);
                let founding = since == start();
                if key.state == KeyState::Active && !founding {
                    assert!(
                        now >= since + 5 * lifecycle.refresh_hint(),
                        "{life:?} {key:?}"
                    );
                }
            }
        });
        assert!(published.len() > 5 * 5, "{life:?}: {}", published.len());
    }
}

#[test]
fn fe_02_a_key_stays_until_nothing_that_it_signed_is_valid() {
    let lifecycle = Lifecycle {
        wit: true,
        ..Lifecycle::default()
    };
    let mut world = World::new(lifecycle);
    // Ends of the longest-lived SVIDs, signed at the last moment at which a key was active.
    let mut last: std::collections::BTreeMap<String, SystemTime> = Default::default();
    let mut previous: Option<(SystemTime, Vec<StoredAuthority>)> = None;
    world.run_until(start() + 400 * DAY, |world, now| {
        if let Some((_, keys)) = previous.take() {
            for key in keys.iter().filter(|key| key.state == KeyState::Active) {
                let ttl = match key.key_use {
                    KeyUse::X509 => 14 * DAY,
                    _ => DAY,
                };
                last.insert(key.key_id.clone(), (now + ttl).min(key.not_after));
            }
            for key in keys.iter().filter(|key| key.key_use != KeyUse::Audit) {
                let gone = !world.keys.iter().any(|it| it.key_id == key.key_id);
                if gone {
                    assert!(last[&key.key_id] <= now, "{key:?} left too early");
                }
            }
        }
        previous = Some((now, world.keys.clone()));
    });
    let removed = world
        .steps
        .iter()
        .filter(|(_, step)| matches!(step, Step::Remove(_)));
    assert!(removed.count() >= 4 * 5);
}

#[test]
fn the_default_life_of_a_ca_is_as_documented() {
    let mut world = World::new(Lifecycle::default());
    world.run_until(start() + 80 * DAY, |_, _| {});
    let of_x509: Vec<_> = world
        .steps
        .iter()
        .filter(|(_, step)| match step {
            Step::Create(key_use, _) => *key_use == KeyUse::X509,
            Step::Activate(id) | Step::Retire(id) | Step::Remove(id) | Step::Wipe(id) => {
                id.starts_with("x509")
            }
        })
        .cloned()
        .collect();
    let (old, new) = (
        "x509-1".to_owned(),
        world.signer(KeyUse::X509).key_id.clone(),
    );
    assert_eq!(
        of_x509,
        [
            (Duration::ZERO, Step::Create(KeyUse::X509, KeyState::Active)),
            (60 * DAY, Step::Create(KeyUse::X509, KeyState::Prepared)),
            (61 * DAY, Step::Retire(old.clone())),
            (61 * DAY, Step::Activate(new)),
            (75 * DAY + SLACK, Step::Remove(old)),
        ]
    );
}

#[test]
fn there_is_always_one_signer_that_lives_long_enough_for_the_longest_svid() {
    let mut world = World::new(Lifecycle {
        wit: true,
        ..Lifecycle::default()
    });
    let mut looked = 0;
    world.run_until(start() + 1_000 * DAY, |world, now| {
        for key_use in KeyUse::ALL {
            let signer = world.signer(key_use);
            assert!(signer.not_after >= now + X509_LONGEST, "{signer:?}");
            looked += 1;
        }
    });
    assert!(looked > 100);
}

#[test]
fn an_issuer_that_was_stopped_goes_on_with_what_still_lives() {
    for (stopped, same) in [
        (59, true),
        (65, true),
        (89, true),
        (91, false),
        (1_000, false),
    ] {
        let mut world = World::new(Lifecycle::default());
        world.advance(start() + stopped * DAY);
        let signer = world.signer(KeyUse::X509);
        assert_eq!(signer.key_id == "x509-1", same, "{stopped}");
        assert_eq!(
            world.lifecycle.all_ended(
                &World::new(Lifecycle::default()).keys,
                KeyUse::X509,
                start() + stopped * DAY
            ),
            !same
        );
    }
    // With a successor prepared before it stopped, that one takes over: no new CA.
    let mut world = World::new(Lifecycle::default());
    world.advance(start() + 60 * DAY);
    let prepared = world.of(KeyUse::X509, KeyState::Prepared)[0].key_id.clone();
    world.advance(start() + 120 * DAY);
    let active: Vec<_> = world
        .steps
        .iter()
        .filter(|(_, step)| *step == Step::Activate(prepared.clone()))
        .collect();
    assert_eq!(active.len(), 1);
}

#[test]
fn a_clock_that_was_far_ahead_for_a_while_costs_nothing() {
    let mut world = World::new(Lifecycle::default());
    let first = world.signer(KeyUse::X509).key_id.clone();
    world.start(start() + 200 * DAY);
    let second = world.signer(KeyUse::X509).key_id.clone();
    assert_ne!(second, first);
    world.start(start() + DAY);
    assert_eq!(world.signer(KeyUse::X509).key_id, first);
    // And one that is behind changes nothing.
    let made = world.made;
    world.start(start() - 300 * DAY);
    assert_eq!(world.signer(KeyUse::X509).key_id, first);
    assert_eq!(world.made, made);
}

/// Each sees what the other does as due at no time but its own start.
#[test]
fn issuers_of_one_store_with_other_clocks_and_settings_do_not_undo_each_other_for_ever() {
    let mut world = World::new(Lifecycle {
        wit: true,
        ..Lifecycle::default()
    });
    let ahead = start() + 91 * DAY;
    for (round, wit) in [true, false].into_iter().cycle().take(20).enumerate() {
        world.lifecycle.wit = wit;
        let now = if wit { ahead } else { start() + DAY };
        let steps = world.steps.len();
        world.advance(now + u32::try_from(round).unwrap() * MINUTE);
        assert!(
            round < 3 || world.steps.len() == steps,
            "{round}: {:?}",
            &world.steps[steps..]
        );
    }
}

#[test]
fn of_several_active_keys_the_newest_signs() {
    let mut world = World::new(Lifecycle::default());
    let second = vec![Step::Create(KeyUse::X509, KeyState::Active)];
    world.apply(second, start() + MINUTE);
    world.advance(start() + 2 * MINUTE);
    assert_ne!(world.signer(KeyUse::X509).key_id, "x509-1");
    assert_eq!(world.key("x509-1").state, KeyState::Retired);
}

#[test]
fn what_is_switched_off_signs_no_more_and_leaves_when_its_tokens_have_ended() {
    let mut world = World::new(Lifecycle {
        wit: true,
        ..Lifecycle::default()
    });
    world.lifecycle.wit = false;
    world.start(start() + DAY);
    assert!(world.of(KeyUse::Wit, KeyState::Active).is_empty());
    assert_eq!(world.of(KeyUse::Wit, KeyState::Retired).len(), 1);
    world.advance(start() + 2 * DAY + SLACK);
    assert!(world.of(KeyUse::Wit, KeyState::Retired).is_empty());
}

#[test]
fn a_retired_audit_key_is_listed_for_good_without_its_private_part() {
    let mut world = World::new(Lifecycle::default());
    world.run_until(start() + 400 * DAY, |_, _| {});
    let retired = world.of(KeyUse::Audit, KeyState::Retired);
    assert!(retired.len() >= 5, "{retired:?}");
    assert!(retired.iter().all(|key| key.sealed_key.is_empty()));
    assert!(!world.signer(KeyUse::Audit).sealed_key.is_empty());
}

#[test]
fn an_operator_prepares_a_successor_and_it_waits_as_long_as_always() {
    let mut world = World::new(Lifecycle::default());
    let ordered = world.lifecycle.ordered(&world.keys, &[KeyUse::X509], false);
    assert_eq!(ordered, [Step::Create(KeyUse::X509, KeyState::Prepared)]);
    world.apply(ordered, start() + DAY);
    // Asked again, there is nothing to do.
    assert_eq!(
        world.lifecycle.ordered(&world.keys, &[KeyUse::X509], false),
        []
    );
    assert_eq!(
        world.lifecycle.next(&world.keys, start() + DAY),
        Some(start() + 2 * DAY)
    );
    world.advance(start() + 2 * DAY - MINUTE);
    assert_eq!(world.signer(KeyUse::X509).key_id, "x509-1");
    world.advance(start() + 2 * DAY);
    assert_ne!(world.signer(KeyUse::X509).key_id, "x509-1");
}

#[test]
fn an_operator_in_a_hurry_rotates_at_once() {
    let mut world = World::new(Lifecycle::default());
    let ordered = world.lifecycle.ordered(&world.keys, &KeyUse::ALL, true);
    world.apply(ordered, start() + DAY);
    for key_use in [
        KeyUse::X509,
        KeyUse::JwtEs256,
        KeyUse::JwtRs256,
        KeyUse::Audit,
    ] {
        assert!(world.signer(key_use).created > start(), "{key_use}");
        assert_eq!(world.of(key_use, KeyState::Retired).len(), 1);
    }
    let rest = world.steps.len();
    world.advance(start() + DAY);
    assert_eq!(world.steps.len(), rest);
}
