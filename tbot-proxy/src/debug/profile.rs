//! `/profile/cpu` and `/profile/heap`: with the cargo feature `profiling`.

#[cfg(feature = "profiling")]
pub(super) use with::{cpu, heap};
#[cfg(not(feature = "profiling"))]
pub(super) use without::{cpu, heap};

#[cfg(not(feature = "profiling"))]
mod without {
    use axum::{http::StatusCode, response::Response};

    use crate::debug::refusal;

    pub(in crate::debug) async fn cpu() -> Response {
        refusal(
            StatusCode::NOT_IMPLEMENTED,
            "this tbot-proxy was built without profiles: build it with `--features profiling`",
        )
    }

    pub(in crate::debug) use cpu as heap;
}

#[cfg(feature = "profiling")]
mod with {
    use std::{collections::BTreeMap, time::Duration};

    use axum::{
        extract::Query,
        http::{StatusCode, header},
        response::{IntoResponse, Response},
    };
    use serde::Deserialize;
    use tokio::sync::Mutex;

    use crate::debug::{PROFILE_MAX, refusal};

    /// Samples a second of CPU time: not in step with anything that runs at 100 Hz.
    const FREQUENCY: i32 = 99;

    /// One profile at a time: there is one timer of the process.
    static ONE: Mutex<()> = Mutex::const_new(());

    #[derive(Debug, Deserialize)]
    pub(in crate::debug) struct Wish {
        seconds: Option<u64>,
    }

    /// Folded stacks: `thread;outermost;…;innermost COUNT`.
    pub(in crate::debug) async fn cpu(Query(wish): Query<Wish>) -> Response {
        let seconds = wish.seconds.unwrap_or(10);
        if !(1..=PROFILE_MAX).contains(&seconds) {
            let why = format!("seconds: 1 to {PROFILE_MAX}");
            return refusal(StatusCode::BAD_REQUEST, why);
        }
        let Ok(_one) = ONE.try_lock() else {
            return refusal(StatusCode::CONFLICT, "another profile is being made");
        };
        match folded(Duration::from_secs(seconds)).await {
            Ok(text) => text.into_response(),
            Err(why) => refusal(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }

    async fn folded(time: Duration) -> Result<String, String> {
        // Not where an unwinder may itself hold what it needs.
        let guard = pprof::ProfilerGuardBuilder::default()
            .frequency(FREQUENCY)
            .blocklist(&["libc", "libgcc", "pthread", "vdso"])
            .build()
            .map_err(|error| error.to_string())?;
        tokio::time::sleep(time).await;
        let folded = tokio::task::spawn_blocking(move || {
            let report = guard.report().build().map_err(|error| error.to_string())?;
            let mut stacks = BTreeMap::<String, isize>::new();
            for (frames, count) in &report.data {
                let mut stack = vec![frames.thread_name.clone()];
                let symbols = frames.frames.iter().rev().flatten();
                stack.extend(symbols.map(|symbol| symbol.name().replace(';', ",")));
                *stacks.entry(stack.join(";")).or_default() += count;
            }
            let lines = stacks
                .iter()
                .map(|(stack, count)| format!("{stack} {count}\n"));
            Ok(lines.collect())
        });
        folded.await.map_err(|error| error.to_string())?
    }

    /// Live allocations by stack, in pprof's format (gzip).
    pub(in crate::debug) async fn heap() -> Response {
        let why = "the heap is not sampled: start tbot-proxy with _RJEM_MALLOC_CONF=prof:true,prof_active:true,lg_prof_sample:19";
        let Some(control) = jemalloc_pprof::PROF_CTL.as_ref() else {
            return refusal(StatusCode::NOT_IMPLEMENTED, why);
        };
        let mut control = control.lock().await;
        if !control.activated() {
            return refusal(StatusCode::NOT_IMPLEMENTED, why);
        }
        match control.dump_pprof() {
            Ok(profile) => {
                let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
                (kind, profile).into_response()
            }
            Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}
