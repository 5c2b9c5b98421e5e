//! What the issuer answers, as lines of a trail.

use anyhow::Context;
use identity::Jwk;
use proto::admin::v1 as pb;

use crate::{
    audit::{
        chain::{Checkpoint, Hash, Head},
        lines::{Line, Recorded},
    },
    cli::client::Admin,
};

/// A record.
pub(super) fn recorded(event: pb::AuditEvent) -> anyhow::Result<Recorded> {
    Ok(Recorded {
        sequence: event.sequence,
        time_ms: milliseconds(event.time),
        event: event.event,
        success: event.success,
        fields: event.fields_json,
        hash: hash(&event.hash)?,
    })
}

/// A signed head.
pub(super) fn checkpoint(checkpoint: pb::AuditCheckpoint) -> anyhow::Result<Checkpoint> {
    Ok(Checkpoint {
        head: Head {
            trust_domain: checkpoint.trust_domain,
            sequence: checkpoint.sequence,
            hash: hash(&checkpoint.hash)?,
            time_ms: milliseconds(checkpoint.time),
        },
        key_id: checkpoint.key_id,
        signature: checkpoint.signature,
    })
}

/// How long the trail of a running issuer is now.
pub(super) struct Now {
    /// The signed head, if it was ever signed.
    pub(super) head: Option<Checkpoint>,
    /// The audit keys.
    pub(super) keys: Vec<Jwk>,
    /// Number of the newest record.
    pub(super) sequence: u64,
}

/// Asks a running issuer.
pub(super) async fn now(admin: &mut Admin) -> anyhow::Result<Now> {
    let answer = match admin
        .client()
        .get_audit_head(pb::GetAuditHeadRequest {})
        .await
    {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    let key = |key: pb::AuditKey| {
        let members = serde_json::from_slice(&key.public_jwk_json).ok();
        members
            .as_ref()
            .and_then(Jwk::from_members)
            .context("the issuer answered with an audit key that is no JWK")
    };
    Ok(Now {
        head: answer.head.map(checkpoint).transpose()?,
        keys: answer.keys.into_iter().map(key).collect::<Result<_, _>>()?,
        sequence: answer.sequence,
    })
}

/// The records `from` to `to` of a running issuer with the kept checkpoints among them,
/// each behind its record, handed to `take` in order.
pub(super) async fn trail(
    admin: &mut Admin,
    from: u64,
    to: u64,
    mut take: impl FnMut(Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if to < from {
        return Ok(());
    }
    let request = pb::ListAuditCheckpointsRequest {
        from_sequence: from,
        to_sequence: to,
    };
    let mut checkpoints = match admin.client().list_audit_checkpoints(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    let request = pb::SearchAuditRequest {
        from_sequence: from,
        limit: to - from + 1,
        ..Default::default()
    };
    let mut records = match admin.client().search_audit(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err(admin.failed(status)),
    };
    let mut next = checkpoints
        .message()
        .await
        .map_err(|status| admin.failed(status))?;
    loop {
        let record = match records.message().await {
            Ok(Some(record)) => recorded(record)?,
            Ok(None) => break,
            Err(status) => return Err(admin.failed(status)),
        };
        // Of two records of which one was removed, the next may be beyond.
        let sequence = record.sequence;
        if sequence > to {
            break;
        }
        take(Line::Record(record))?;
        while let Some(signed) = next.take_if(|next| next.sequence <= sequence) {
            take(Line::Checkpoint(checkpoint(signed)?))?;
            next = checkpoints
                .message()
                .await
                .map_err(|status| admin.failed(status))?;
        }
    }
    // Those of records that are not there.
    while let Some(signed) = next {
        take(Line::Checkpoint(checkpoint(signed)?))?;
        next = checkpoints
            .message()
            .await
            .map_err(|status| admin.failed(status))?;
    }
    Ok(())
}

/// The link of one record of a running issuer; of record 0 that before all.
pub(super) async fn link(admin: &mut Admin, sequence: u64) -> anyhow::Result<Hash> {
    let mut link = None;
    if sequence == 0 {
        return Ok(crate::audit::chain::START);
    }
    trail(admin, sequence, sequence, |line| {
        if let Line::Record(record) = line
            && record.sequence == sequence
        {
            link = Some(record.hash);
        }
        Ok(())
    })
    .await?;
    link.with_context(|| {
        format!("record {sequence} is missing in the audit trail: `issuer audit verify` says more")
    })
}

fn hash(bytes: &[u8]) -> anyhow::Result<Hash> {
    Hash::try_from(bytes).with_context(|| {
        format!(
            "a hash has 32 bytes, the issuer answered with {}",
            bytes.len()
        )
    })
}

fn milliseconds(time: Option<prost_types::Timestamp>) -> i64 {
    let time = time.unwrap_or_default();
    time.seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(time.nanos / 1_000_000))
}
