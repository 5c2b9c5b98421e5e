//! SIGTERM: calls under way end, streams end, the store is closed whole, exit 0.

use super::harness::{Issuer, block_on};

#[test]
fn an_idle_issuer_stops_at_once_and_leaves_one_file_of_state() {
    let mut issuer = Issuer::start();
    issuer.register("app");
    assert!(issuer.terminate().success());
    issuer.log.wait_for("stopped");
    let data = issuer.data_dir();
    assert!(!data.join("admin.sock").exists());
    // The write-ahead log is folded into the database.
    assert!(!data.join("issuer.db-wal").exists());
    issuer.restart();
    assert_eq!(issuer.json(&["get", "role"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_drain_under_load_answers_or_refuses_each_call_and_exits_0() {
    let mut issuer = Issuer::start();
    block_on(async {
        let bot = issuer.joined("app").await;
        let mut issued = Vec::new();
        let load = futures_util::future::join_all((0..4).map(|_| async {
            let mut serials = Vec::new();
            loop {
                match issuer.issue(&bot, "app").await {
                    Ok(grant) => serials.push(grant.serial_number),
                    Err(_) => return serials,
                }
                if serials.len() == 5 {
                    super::harness::signal("TERM", issuer.process.id());
                }
            }
        }));
        // A refused connection ends the load: `issue` unwraps its connection, so
        // the error is looked at from outside.
        let load = std::panic::AssertUnwindSafe(load);
        if let Ok(serials) = futures_util::FutureExt::catch_unwind(load).await {
            issued.extend(serials.into_iter().flatten());
        }
        assert!(issuer.process.wait().unwrap().success());
        issuer.restart();
        let recorded = issuer.audit();
        for serial in &issued {
            assert!(
                recorded
                    .iter()
                    .any(|event| event["fields"]["serial_number"] == serial.as_str()),
                "{serial} was issued and is not recorded"
            );
        }
    });
}
