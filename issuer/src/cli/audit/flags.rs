//! The flags of `issuer serve` that are about the audit trail.

use std::path::PathBuf;

use clap::Args;

use crate::config::AuditGiven;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditFlags {
    /// Write every audit record to this file, too (JSON lines, rotated at 100 MiB).
    #[arg(long, env = "ISSUER_AUDIT_FILE", value_name = "FILE")]
    audit_file: Option<PathBuf>,
    /// Write every audit record to standard output, too (JSON lines).
    #[arg(
        long,
        env = "ISSUER_AUDIT_STDOUT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    audit_stdout: Option<bool>,
    /// Send every audit record to this OpenTelemetry collector, too (OTLP over gRPC):
    /// http://127.0.0.1:4317, or https://… with --audit-otlp-ca.
    #[arg(long, env = "ISSUER_AUDIT_OTLP", value_name = "URL")]
    audit_otlp: Option<String>,
    /// Certificates (PEM) of which one has signed the collector's.
    #[arg(long, env = "ISSUER_AUDIT_OTLP_CA", value_name = "FILE")]
    audit_otlp_ca: Option<PathBuf>,
    /// Give SVIDs even while the store cannot record it. Weakens the audit trail: read
    /// the guide first.
    #[arg(
        long,
        env = "ISSUER_AUDIT_BEST_EFFORT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    audit_best_effort: Option<bool>,
}

impl AuditFlags {
    pub(in crate::cli) fn given(self) -> AuditGiven {
        AuditGiven {
            file: self.audit_file,
            stdout: self.audit_stdout,
            otlp: self.audit_otlp,
            otlp_ca_file: self.audit_otlp_ca,
            best_effort: self.audit_best_effort,
            ..AuditGiven::default()
        }
    }
}
