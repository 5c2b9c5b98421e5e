use std::time::SystemTime;

use super::next_generation;
use crate::{
    access::{Denial, Refusal},
    authority::SubjectKey,
    store::instances::BotInstance,
};

fn instance(generation: u64, key: &SubjectKey) -> BotInstance {
    let now = SystemTime::now();
    BotInstance {
        instance_id: "i".to_owned(),
        bot_name: "b".to_owned(),
        generation,
        key_sha256: key.sha256().to_vec(),
        joined: now,
        renewed: now,
        not_after: now,
        hostname: String::new(),
        agent_version: String::new(),
        join_method: "token".to_owned(),
        join_token_name: String::new(),
        newest_seen: None,
    }
}

#[test]
fn generations_count_up_repeat_for_the_same_key_and_betray_copies() {
    let newest_key = SubjectKey::from_own_key(b"newest");
    let other_key = SubjectKey::from_own_key(b"other");
    let instance = instance(5, &newest_key);
    for (presented, key, expected) in [
        (5, &other_key, Ok(6)),
        // Else a copy could not be told from a repetition.
        (5, &newest_key, Err(Denial::InvalidCsr)),
        (4, &newest_key, Ok(5)),
        (4, &other_key, Err(Denial::CopiedIdentity)),
        (3, &newest_key, Err(Denial::CopiedIdentity)),
        (0, &other_key, Err(Denial::CopiedIdentity)),
        (6, &other_key, Err(Denial::UnknownGeneration)),
        (u64::MAX, &newest_key, Err(Denial::UnknownGeneration)),
    ] {
        let got = next_generation(presented, &instance, key).map_err(|refusal| match refusal {
            Refusal::Denied { denial, .. } => denial,
            Refusal::Store(error) => panic!("{error}"),
        });
        assert_eq!(got, expected, "presented {presented}");
    }
}
