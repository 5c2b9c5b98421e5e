//! A small outbound HTTP client for calls whose answers are small: bounded in time
//! and size, without redirects, over TCP, TLS with given roots, or a Unix socket.
