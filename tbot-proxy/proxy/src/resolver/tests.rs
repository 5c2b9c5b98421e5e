use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::{AT_ONCE, JOINED_FOR, Resolver};

const ADDR: &str = "192.0.2.1:80";

fn addrs() -> Vec<SocketAddr> {
    vec![ADDR.parse().unwrap()]
}

/// Threads for blocking calls are few: who takes them all is noticed.
fn few_threads() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(AT_ONCE + 1).enable_time();
    builder.build().unwrap()
}

/// A resolver that does not answer until the sender is dropped, and a count of its calls.
fn dead() -> (Resolver, Arc<AtomicUsize>, mpsc::Sender<()>) {
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let resolver = Resolver::with(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = held.lock().unwrap().recv();
        Ok(addrs())
    });
    (resolver, calls, hold)
}

#[test]
fn a_dead_resolver_of_one_service_leaves_threads_to_the_others() {
    let runtime = few_threads();
    let (dead, calls, hold) = dead();
    runtime.block_on(async {
        // Names of their own, so that none joins another, and each gives up.
        let mut given_up = JoinSet::new();
        let dead = Arc::new(dead);
        for number in 0..100 {
            let dead = Arc::clone(&dead);
            given_up.spawn(async move {
                let name = format!("name-{number}.example");
                timeout(Duration::from_millis(50), dead.resolve(&name, 80)).await
            });
        }
        while let Some(given_up) = given_up.join_next().await {
            assert!(given_up.unwrap().is_err());
        }
        let live = Resolver::with(|_, _| Ok(addrs()));
        let found = timeout(Duration::from_secs(30), live.resolve("other.example", 80));
        let found = found.await.expect("no thread is left for another service");
        assert_eq!(*found.unwrap(), *addrs());
        // What was begun has been given a thread, if not yet called.
        while calls.load(Ordering::SeqCst) < AT_ONCE {
            yield_now().await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), AT_ONCE);
        // Those that have returned make room again.
        drop(hold);
        dead.resolve("late.example", 80).await.unwrap();
    });
}

#[test]
fn who_wants_the_same_name_at_the_same_time_shares_one_look_up() {
    let runtime = few_threads();
    let (dead, calls, hold) = dead();
    runtime.block_on(async {
        let dead = Arc::new(dead);
        let mut waiting = JoinSet::new();
        for _ in 0..50 {
            let dead = Arc::clone(&dead);
            waiting.spawn(async move { dead.resolve("same.example", 80).await });
        }
        while calls.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        assert!(waiting.try_join_next().is_none());
        drop(hold);
        while let Some(found) = waiting.join_next().await {
            assert_eq!(*found.unwrap().unwrap(), *addrs());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        // Nothing is kept: the next asks again.
        dead.resolve("same.example", 80).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn one_that_hangs_is_not_waited_for_by_those_who_come_later() {
    let runtime = few_threads();
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let calls = AtomicUsize::new(0);
    let resolver = Resolver::with(move |_, _| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = held.lock().unwrap().recv();
        }
        Ok(addrs())
    });
    runtime.block_on(async {
        let first = timeout(JOINED_FOR, resolver.resolve("a.example", 80));
        assert!(first.await.is_err());
        // It began some time after the clock of `first` did.
        tokio::time::sleep(JOINED_FOR).await;
        let second = timeout(Duration::from_secs(30), resolver.resolve("a.example", 80));
        assert_eq!(*second.await.unwrap().unwrap(), *addrs());
        drop(hold);
    });
}

#[test]
fn an_error_reaches_all_as_it_is() {
    let runtime = few_threads();
    runtime.block_on(async {
        const EMFILE: i32 = 24;
        let short = Resolver::with(|_, _| Err(io::Error::from_raw_os_error(EMFILE)));
        let error = short.resolve("a.example", 80).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EMFILE));
        let unknown = Resolver::with(|_, _| Err(io::Error::other("name not known")));
        let error = unknown.resolve("a.example", 80).await.unwrap_err();
        assert_eq!(error.to_string(), "name not known");
        let buggy = Resolver::with(|_, _| panic!("a bug"));
        buggy.resolve("a.example", 80).await.unwrap_err();
        let localhost = Resolver::default().resolve("localhost", 80).await.unwrap();
        assert!(localhost.iter().all(|addr| addr.ip().is_loopback()));
    });
}

/// An IP address is dialled without it.
#[tokio::test]
async fn addresses_are_not_looked_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let six = tokio::net::TcpListener::bind("[::1]:0").await;
    let resolver = Resolver::with(|host, _| panic!("{host} was looked up"));
    for listener in [Some(listener), six.ok()].into_iter().flatten() {
        let addr = listener.local_addr().unwrap().into();
        let limit = Duration::from_secs(30);
        crate::dial::dial(&addr, limit, &resolver).await.unwrap();
    }
}
