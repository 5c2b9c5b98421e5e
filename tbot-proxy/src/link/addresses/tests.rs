use std::{cell::RefCell, future::pending, io};

use super::*;

fn addresses(count: u16) -> Addresses {
    let all = (1..=count).map(|port| HostPort::parse(&format!("127.0.0.1:{port}")).unwrap());
    Addresses::new(all.collect())
}

fn away(address: &HostPort) -> LinkError {
    LinkError::Away {
        address: address.clone(),
        error: io::ErrorKind::ConnectionRefused.into(),
    }
}

#[tokio::test]
async fn each_is_tried_once_in_order_beginning_with_the_one_in_use() {
    let addresses = addresses(3);
    addresses.leave(0);
    let tried = RefCell::new(Vec::new());
    let result = addresses
        .connect::<(), _>(async |address: HostPort| {
            tried.borrow_mut().push(address.port);
            Err(away(&address))
        })
        .await;
    assert_eq!(*tried.borrow(), [2, 3, 1]);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("issuer 127.0.0.1:1:"), "{error}");
}

#[tokio::test]
async fn who_answers_is_kept() {
    let addresses = addresses(2);
    let answers = async |address: HostPort| match address.port {
        2 => Ok(address.port),
        _ => Err(away(&address)),
    };
    assert_eq!(addresses.connect(&answers).await.unwrap(), 2);
    assert_eq!(addresses.current().port, 2);
    assert_eq!(addresses.connect(&answers).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_has_its_share_of_the_time_only() {
    let addresses = addresses(2);
    let silent_first = async |address: HostPort| match address.port {
        1 => pending().await,
        port => Ok(port),
    };
    let begun = tokio::time::Instant::now();
    assert_eq!(addresses.connect(silent_first).await.unwrap(), 2);
    assert_eq!(begun.elapsed(), CONNECT_TIMEOUT / 2);
}

#[test]
fn two_calls_that_fail_at_one_address_leave_it_once() {
    let addresses = addresses(2);
    let place = addresses.place();
    addresses.leave(place);
    addresses.leave(place);
    assert_eq!(addresses.current().port, 2);
}
