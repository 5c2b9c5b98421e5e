//! SIGTERM: calls under way end, streams end, the store is closed whole, exit 0.

use rcgen::KeyPair;

use super::harness::{Issuer, block_on, csr, serial, signal, try_issue, x509};

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
        let request = x509("app", &csr(&KeyPair::generate().unwrap()), None);
        let config = bot.tls();
        let load = futures_util::future::join_all((0..4).map(|_| async {
            let mut serials = Vec::new();
            // A refused connection ends the load, as a refused call does.
            while let Ok(grant) = try_issue(&issuer.address, config.clone(), request.clone()).await
            {
                serials.push(serial(&grant));
                if serials.len() == 5 {
                    signal("TERM", issuer.process.id());
                }
            }
            serials
        }));
        let issued = load.await.concat();
        assert!(issued.len() >= 5, "{issued:?}");
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
