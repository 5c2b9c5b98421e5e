use super::Places;

#[test]
fn one_user_leaves_room_for_others_and_places_come_back() {
    let places = Places::new(5, 3);
    let mut of_one: Vec<_> = (0..3).map(|_| places.take_of(Some(1)).unwrap()).collect();
    assert!(places.take_of(Some(1)).is_none());
    let two = places.take_of(Some(2)).unwrap();
    let nobody = places.take_of(None).unwrap();
    assert!(places.take_of(Some(3)).is_none(), "all are taken");
    of_one.pop();
    assert!(places.take_of(Some(1)).is_some());
    drop((of_one, two, nobody));
    let taken = places.lock();
    assert!(taken.all == 0 && taken.users.is_empty());
}
