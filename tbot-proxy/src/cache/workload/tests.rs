use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;

/// Can be read as often as it is let.
struct Slow {
    may_read: Arc<Semaphore>,
    read: Arc<AtomicU64>,
}

impl Witness for Slow {
    fn attest(&self) -> BoxFuture<'_, Result<Option<Arc<Value>>, Unknown>> {
        Box::pin(async {
            self.may_read.acquire().await.unwrap().forget();
            self.read.fetch_add(1, Ordering::Relaxed);
            Ok(Some(Arc::new(json!({ "unix": { "uid": 7 } }))))
        })
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn whom_an_earlier_reading_serves_does_not_wait_for_one_that_goes_on() {
    let (may_read, read) = (Arc::new(Semaphore::new(1)), Arc::<AtomicU64>::default());
    let workload = Workload::new(Slow {
        may_read: may_read.clone(),
        read: read.clone(),
    });
    let long_ago = Instant::now();
    let first = workload.attested_since(long_ago).await.unwrap();
    let now = Instant::now();
    let mut anew = Box::pin(workload.attested_since(now));
    let mut also_anew = Box::pin(workload.attested_since(now));
    assert!((&mut anew).now_or_never().is_none());
    assert!((&mut also_anew).now_or_never().is_none());
    let known = workload.attested_since(long_ago).now_or_never();
    assert_eq!(known.expect("it waited").unwrap().at, first.at);
    may_read.add_permits(1);
    let (anew, also_anew) = (anew.await.unwrap(), also_anew.await.unwrap());
    assert!(anew.at >= now && anew.at == also_anew.at);
    assert_eq!(read.load(Ordering::Relaxed), 2, "one for both");
    // What has not changed is kept once.
    assert!(Arc::ptr_eq(
        &first.workload.unwrap(),
        &anew.workload.unwrap()
    ));
}
