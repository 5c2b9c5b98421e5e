use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use serde_json::json;

use super::{ConnectionRecord, rfc3339};
use crate::{CloseReason, Direction};

#[test]
fn a_record_is_one_flat_object_with_units_in_its_names() {
    let record = ConnectionRecord {
        connection_id: "0191".into(),
        service: "web".into(),
        direction: Direction::Inbound,
        client_addr: Some("[::1]:7".parse().unwrap()),
        server_addr: Some("unix:///run/app.sock".parse().unwrap()),
        local_id: Some(SpiffeId::parse("spiffe://td/web").unwrap()),
        local_serial: Some("01".into()),
        peer_id: None,
        peer_serial: None,
        peer_expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        rule: None,
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        duration: Duration::from_micros(1_500_999),
        bytes_in: 3,
        bytes_out: 4,
        tls_version: Some("TLSv1_3"),
        resumed: true,
        reason: CloseReason::PeerNotAllowed,
        detail: Some("no allow rule matches".into()),
    };
    assert_eq!(
        serde_json::to_value(&record).unwrap(),
        json!({
            "connection_id": "0191",
            "service": "web",
            "direction": "inbound",
            "client_addr": "[::1]:7",
            "server_addr": "unix:///run/app.sock",
            "local_id": "spiffe://td/web",
            "local_serial": "01",
            "peer_id": null,
            "peer_serial": null,
            "peer_expires": "2027-01-15T08:00:00Z",
            "rule": null,
            "started": "2023-11-14T22:13:20.25Z",
            "duration_ms": 1500,
            "bytes_in": 3,
            "bytes_out": 4,
            "tls_version": "TLSv1_3",
            "resumed": true,
            "reason": "peer_not_allowed",
            "detail": "no allow rule matches",
        })
    );
}

#[test]
fn every_moment_has_a_spelling() {
    let epoch = SystemTime::UNIX_EPOCH;
    assert_eq!(
        rfc3339(epoch - Duration::from_secs(1)),
        "1969-12-31T23:59:59Z"
    );
    assert_eq!(
        rfc3339(epoch + Duration::from_secs(300_000_000_000)),
        "9999-12-31T23:59:59Z"
    );
}
