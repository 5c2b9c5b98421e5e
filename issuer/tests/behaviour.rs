//! Behaviour of the real `issuer` program, one file per behaviour, spoken to
//! over TLS and over its admin socket as agents and operators do.
//!
//! One test program and not one per file: linking it once is most of the time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod behaviour {
    pub(crate) mod harness;

    mod admin_socket_refuses_other_users;
    mod apply_is_all_or_nothing;
    mod audit_best_effort;
    mod audit_is_gapless_over_kill;
    #[cfg(feature = "otlp")]
    mod audit_otlp;
    mod audit_search;
    mod audit_sinks;
    mod audit_verify;
    mod authority_rotates;
    mod backup;
    mod bad_input;
    mod copied_identity_is_locked;
    mod drain;
    mod explain;
    mod failed_joins_are_bounded;
    mod health_and_reflection;
    mod issue;
    mod issue_by_policy;
    #[cfg(feature = "sigstore")]
    mod issue_by_signatures;
    mod join_by_token;
    mod limits_are_per_caller;
    mod noise_costs_nothing;
    mod openssl_verifies;
    mod peers_accept_what_is_signed;
    mod readiness_and_metrics;
    mod reload;
    mod request_ids;
    mod resources;
    mod secrets_reach_nothing;
    mod shared_database;
    mod store_failure_refuses;
    mod token_exchange;
    mod watch;
}
