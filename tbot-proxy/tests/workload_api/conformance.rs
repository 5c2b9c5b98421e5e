//! Every norm that a client can see, asked of the agent with this process as the workload.

use std::time::Duration;

use loadtest::conformance::{self, Outcome, Plan, SHOWN_BY_A_HEALTHY_SERVER};

use crate::rig::{Rig, workload_identity};

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_keeps_every_norm_that_a_client_can_see() {
    let both = workload_identity("a", "/a", "") + &workload_identity("b", "/b", "");
    let rig = Rig::start(&both, "{ labels: { app: [app] } }");
    let plan = Plan {
        endpoint: format!("unix://{}", rig.socket().display())
            .parse()
            .unwrap(),
        timeout: Duration::from_secs(60),
        watch: Duration::from_secs(60),
    };
    // Something to tell while the suite waits for it.
    let changes = async {
        for number in 0.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            tokio::task::block_in_place(|| {
                rig.apply(&format!(
                    "kind: workload_identity\nversion: v1\n\
                     metadata: {{ name: a, labels: {{ app: app }} }}\n\
                     spec: {{ spiffe: {{ id: /a, hint: number-{number} }} }}\n"
                ));
            });
        }
    };
    let report = tokio::select! {
        report = conformance::run(&plan) => report.unwrap(),
        () = changes => unreachable!(),
    };
    assert_eq!(report.broken().count(), 0, "{report}");
    for norm in SHOWN_BY_A_HEALTHY_SERVER.iter().chain(&["WE-03", "WA-28"]) {
        let outcome = report.outcome(norm);
        assert_eq!(outcome, Some(&Outcome::Kept), "{norm}\n{report}");
    }
}
