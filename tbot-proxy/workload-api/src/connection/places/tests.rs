use super::{Full, Peer, Places};

#[test]
fn one_peer_leaves_room_for_others_and_places_come_back() {
    let places = Places::new(5, 3);
    let take = |uid| places.take(Some(Peer::User(uid)));
    let mut of_one: Vec<_> = (0..3).map(|_| take(1).unwrap()).collect();
    assert_eq!(take(1).unwrap_err(), Full::ForPeer(3));
    let two = take(2).unwrap();
    let nobody = places.take(None).unwrap();
    assert_eq!(take(3).unwrap_err(), Full::ForAll(5));
    of_one.pop();
    assert!(take(1).is_ok());
    drop((of_one, two, nobody));
    let taken = places.lock();
    assert!(taken.all == 0 && taken.peers.is_empty());
}

#[test]
fn addresses_that_one_host_may_choose_from_are_one_peer() {
    let host = |address: &str| Peer::host(address.parse().unwrap());
    for (one, other) in [
        ("127.0.0.1", "127.1.2.3"),
        ("127.0.0.1", "::1"),
        ("127.0.0.1", "::ffff:127.0.0.9"),
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("2001:db8::1", "2001:db8::ffff:0:0:1"),
    ] {
        assert_eq!(host(one), host(other));
    }
    for (one, other) in [
        ("10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "2001:db8:0:1::1"),
    ] {
        assert_ne!(host(one), host(other));
    }
}
