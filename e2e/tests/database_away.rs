//! PostgreSQL goes away, or freezes, under load: every refusal is UNAVAILABLE, nothing leaves without its record, and
//! when the database is back so is the issuer, without a restart.

use std::collections::HashSet;

use e2e::{IssueLoad, Issuer, Postgres, eventually, one_call};

struct World {
    postgres: Postgres,
    issuer: Issuer,
    load: IssueLoad,
}

impl World {
    fn start() -> Self {
        let postgres = Postgres::start();
        let url = postgres.create_database("issuer");
        let issuer = Issuer::start_with(&["--database", &url]);
        issuer.register("app");
        assert_eq!(one_call(&issuer), None);
        let load = IssueLoad::start(&issuer, 8, &["--timeout=30s"]);
        Self {
            postgres,
            issuer,
            load,
        }
    }

    fn wait_until_it_refuses(&self) {
        eventually("the issuer says that it cannot answer", || {
            let answer = one_call(&self.issuer);
            if let Some((kind, why)) = &answer {
                assert_eq!(kind, "unavailable", "{why}");
            }
            answer.is_some()
        });
        let (is_ready, told) = self.issuer.ready();
        assert!(!is_ready && told.contains("\"store\""), "{told}");
    }

    fn wait_until_it_recovers(&self) {
        eventually("the issuer says that it works", || self.issuer.ready().0);
        eventually("the issuer issues again", || {
            one_call(&self.issuer).is_none()
        });
        self.load.wait_for_more(16);
    }

    fn end(mut self) {
        let (errors, received) = self.load.stop();
        println!("{} SVIDs, failures seen: {errors:?}", received.len());
        let kinds: Vec<_> = errors.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["unavailable"]);
        assert!(self.issuer.process().is_running());
        self.issuer.verify_audit();
        let recorded: HashSet<_> = self.issuer.issued("app").into_iter().collect();
        for serial in &received {
            assert!(
                recorded.contains(serial),
                "{serial} left and is not recorded"
            );
        }
    }
}

#[test]
fn a_crash_of_postgresql_is_unavailable_and_then_over() {
    let mut world = World::start();
    for _ in 0..3 {
        world.postgres.crash();
        world.wait_until_it_refuses();
        world.postgres.restart();
        world.wait_until_it_recovers();
    }
    world.end();
}

#[test]
fn a_frozen_postgresql_is_unavailable_and_then_over() {
    let world = World::start();
    world.postgres.freeze();
    // Whatever waits, waits no longer than one does.
    world.wait_until_it_refuses();
    world.wait_until_it_refuses();
    world.postgres.thaw();
    world.wait_until_it_recovers();
    world.end();
}
