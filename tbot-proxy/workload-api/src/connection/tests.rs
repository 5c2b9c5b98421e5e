use super::{exchange::exchange, *};
use crate::{service, testing::TestBackend};

/// There are thousands of both.
#[test]
fn connections_and_streams_are_small() {
    type Session = service::Session<TestBackend>;
    fn size<S, R, A, P, F>(_: impl Fn(S, R, A, P) -> F) -> usize {
        size_of::<F>()
    }
    let connection = size_of::<Connection<Stream, Session>>();
    assert!(connection <= 2048, "a connection: {connection} bytes");
    let stream = size(exchange::<Session>);
    assert!(stream <= 320, "a stream: {stream} bytes");
}
