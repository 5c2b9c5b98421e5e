//! Any bytes as requests of Envoy's secret discovery, one after the other on a stream:
//! none is a panic, and what is answered once is not answered again.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use workload_api::{X509Context, sds, testing::TestBackend};

static CONTEXT: LazyLock<Arc<X509Context>> = LazyLock::new(|| {
    let backend = TestBackend::new("one.example", &[("/a", ""), ("/b", "")]);
    Arc::new(backend.context())
});

fuzz_target!(|input: (bool, Vec<&[u8]>)| {
    let (is_delta, requests) = input;
    sds::try_requests(&CONTEXT, &requests, is_delta);
});
