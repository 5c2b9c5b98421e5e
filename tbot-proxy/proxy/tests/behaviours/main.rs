//! Behaviours of the proxy, one file each, over real sockets and with real peers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod backend_down_and_back;
mod drain_under_load;
mod emfile_and_recovery;
mod garbage_costs_others_nothing;
mod half_close_in_both_directions;
mod handshake_stall_and_flood;
mod idle_timeout;
mod lease_ends_on_expiry;
mod max_connections_queue;
mod metrics_of_a_service;
mod no_identity_yet;
mod one_line_a_connection;
mod openssl_and_curl;
mod policy_flip_between_full_and_resumed_handshake;
mod policy_update_cuts_only_the_refused;
mod port_in_use_is_a_clear_error;
mod rotation_under_live_connections;
mod trust_withdrawn_cuts;
mod unauthorized_peer_refused_on_both_sides_with_a_record;
mod unix_socket_listen_and_dial;
