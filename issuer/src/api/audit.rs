//! The audit trail, as the admin API serves it.

use std::time::SystemTime;

use proto::admin::v1 as pb;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{admin::unavailable, drained, timestamp};
use crate::{
    audit::{chain::Checkpoint, lines::Recorded},
    service::Issuer,
    store::{
        StoreError,
        audit::{self, checkpoints, search, search::Filter},
        from_millis,
    },
};

/// Records (or checkpoints) that are read at once.
const PAGE: u32 = 256;

/// Sends the records that are asked for; with `follow` until the caller goes away or
/// the issuer drains.
pub(super) async fn search(
    issuer: &Issuer,
    request: pb::SearchAuditRequest,
    mut draining: watch::Receiver<bool>,
    send: &mpsc::Sender<Result<pb::AuditEvent, Status>>,
) -> Result<(), Status> {
    let follow = request.follow;
    let mut left = match request.limit {
        0 => u64::MAX,
        limit => limit,
    };
    let mut from = request.from_sequence.max(1);
    let mut filter = filter(request)?;
    let mut changes = issuer.store.changes();
    let mut known = 0;
    loop {
        changes.mark_unchanged();
        // What is committed may not be told by `changes` yet, though somebody was told
        // already (by `head`) that it is there.
        let newest = async {
            let mut connection = issuer.store.read().await?;
            audit::last_sequence(&mut connection).await
        };
        let newest = newest.await.map_err(unavailable)?;
        filter.to = Some(newest);
        if newest < known {
            // The database has lost its newest commits: their numbers come again.
            from = from.min(newest + 1);
        }
        known = newest;
        while from <= newest {
            let page = async {
                let mut connection = issuer.store.read().await?;
                search::read(&mut connection, &filter, from, PAGE).await
            };
            let records = page.await.map_err(unavailable)?;
            from = match records.last() {
                Some(last) if records.len() == PAGE as usize => last.sequence + 1,
                _ => newest + 1,
            };
            for record in records {
                if send.send(Ok(audit_event(record))).await.is_err() {
                    return Ok(());
                }
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = send.closed() => return Ok(()),
            () = drained(&mut draining) => {
                return Err(Status::unavailable("the issuer is stopping"));
            }
        }
    }
}

/// Sends the kept checkpoints that are asked for.
pub(super) async fn list_checkpoints(
    issuer: &Issuer,
    request: pb::ListAuditCheckpointsRequest,
    send: &mpsc::Sender<Result<pb::AuditCheckpoint, Status>>,
) -> Result<(), Status> {
    let mut from = request.from_sequence;
    let to = match request.to_sequence {
        0 => u64::MAX,
        to => to,
    };
    loop {
        let page = async {
            let mut connection = issuer.store.read().await?;
            checkpoints::read(&mut connection, from, to, PAGE).await
        };
        let page = page.await.map_err(unavailable)?;
        let Some(last) = page.last().map(|checkpoint| checkpoint.head.sequence) else {
            return Ok(());
        };
        for checkpoint in page {
            if send.send(Ok(audit_checkpoint(checkpoint))).await.is_err() {
                return Ok(());
            }
        }
        from = last + 1;
    }
}

/// How long the trail is now, and the keys to verify it with.
pub(super) async fn head(issuer: &Issuer) -> Result<pb::GetAuditHeadResponse, StoreError> {
    let mut connection = issuer.store.read().await?;
    let (sequence, head) = checkpoints::newest(&mut connection).await?;
    let keys = checkpoints::keys(&mut connection).await?;
    Ok(pb::GetAuditHeadResponse {
        head: head.map(audit_checkpoint),
        keys: keys
            .iter()
            .map(|key| pb::AuditKey {
                key_id: key.thumbprint(),
                public_jwk_json: serde_json::json!(key.members()).to_string().into_bytes(),
            })
            .collect(),
        sequence,
    })
}

fn filter(request: pb::SearchAuditRequest) -> Result<Filter, Status> {
    let moment = |what: &str, timestamp: Option<prost_types::Timestamp>| {
        timestamp
            .map(SystemTime::try_from)
            .transpose()
            .map_err(|_| Status::invalid_argument(format!("{what} is no moment")))
    };
    Ok(Filter {
        to: None,
        after: moment("after", request.after)?,
        before: moment("before", request.before)?,
        events: request.events,
        bot_name: request.bot_name,
        spiffe_id: request.spiffe_id,
        serial: request.serial,
        success: request.success,
    })
}

fn audit_event(record: Recorded) -> pb::AuditEvent {
    pb::AuditEvent {
        sequence: record.sequence,
        time: Some(timestamp(from_millis(record.time_ms))),
        event: record.event,
        success: record.success,
        fields_json: record.fields,
        hash: record.hash.to_vec(),
    }
}

fn audit_checkpoint(checkpoint: Checkpoint) -> pb::AuditCheckpoint {
    pb::AuditCheckpoint {
        trust_domain: checkpoint.head.trust_domain,
        sequence: checkpoint.head.sequence,
        hash: checkpoint.head.hash.to_vec(),
        time: Some(timestamp(from_millis(checkpoint.head.time_ms))),
        key_id: checkpoint.key_id,
        signature: checkpoint.signature,
    }
}
