use std::path::Path;

use clap::Parser;

use super::Debug;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Debug,
}

/// As where `TBOT_CONFIG` names a configuration for all commands.
#[test]
fn a_socket_counts_more_than_a_configuration() {
    let line = "agent log-level -c /nowhere/tbot-proxy.yaml --socket /run/debug.sock";
    let Debug::LogLevel(level) = Line::try_parse_from(line.split(' ')).unwrap().command else {
        panic!("another command");
    };
    assert_eq!(level.socket.path().unwrap(), Path::new("/run/debug.sock"));
}
