use super::*;

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

#[test]
fn operations_are_handed_out_when_they_were_due_and_never_early() {
    on_one_thread(async {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_millis(2));
        let until = start + Duration::from_millis(40);
        let announcer = schedule.clone();
        let pacer = tokio::task::spawn_local(async move { announcer.announce(until, 1).await });
        let pace = Pace::Open(schedule.clone());
        for k in 0..20 {
            let due = pace.next().await;
            assert_eq!(due, start + Duration::from_millis(2 * k));
            assert!(Instant::now() >= due, "operation {k} was handed out early");
        }
        pacer.await.unwrap().unwrap();
        assert_eq!(
            pace.next().await,
            until,
            "the last wake-up lies outside of the window"
        );
        assert_eq!(schedule.untaken(start, until), 0);
    });
}

#[test]
fn what_no_worker_took_is_known() {
    on_one_thread(async {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_millis(1));
        let until = start + Duration::from_millis(10);
        schedule.announce(until, 0).await.unwrap();
        assert_eq!(schedule.untaken(start, until), 10);
        let pace = Pace::Open(schedule.clone());
        assert_eq!(pace.next().await, start);
        assert_eq!(schedule.untaken(start, until), 9);
        assert_eq!(schedule.untaken(start + Duration::from_millis(4), until), 6);
    });
}
