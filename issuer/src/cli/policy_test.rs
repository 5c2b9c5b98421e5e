//! `issuer test`: table tests of policy, for CI.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::anyhow;
use clap::Args;
use identity::TrustDomain;
use proto::admin::v1 as pb;
use serde_json::{Value, json};
use terminal::Format;

use super::{
    Target,
    client::Admin,
    resource_files::{Files, text},
};
use crate::explain::{Case, Difference, Suite, SupposedIssuer};

/// `issuer test`. Exit status 1 if a test fails.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Files of tests.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Ask the running issuer, even if a file names resources.
    #[arg(long)]
    live: bool,
    /// Form of the answer.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

/// Who answers.
enum Answers {
    Files(Box<SupposedIssuer>),
    Issuer(Admin),
}

/// What became of a test.
struct Outcome {
    file: String,
    name: String,
    differences: Vec<Difference>,
    error: Option<String>,
}

impl Outcome {
    fn passed(&self) -> bool {
        self.differences.is_empty() && self.error.is_none()
    }
}

pub(super) async fn test(args: TestArgs) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let text = text(file)?;
        let suite = Suite::read(&name, &text).map_err(|mistakes| anyhow!(mistakes))?;
        let mut answers = answers(&args, file, &suite).await?;
        for case in &suite.cases {
            outcomes.push(run(&mut answers, &name, case).await);
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    match args.output {
        Format::Table => terminal::print(&report(&outcomes))?,
        Format::Json => terminal::print_json(&Value::Array(outcomes.iter().map(shown).collect()))?,
    }
    match failed {
        0 => Ok(()),
        _ => Err(anyhow!("{failed} of {} tests failed", outcomes.len())),
    }
}

async fn answers(args: &TestArgs, file: &Path, suite: &Suite) -> anyhow::Result<Answers> {
    if args.live || suite.resources.is_empty() {
        return Ok(Answers::Issuer(args.target.connect().await?));
    }
    let beside = file.parent().unwrap_or(Path::new(""));
    let paths = suite.resources.iter().map(|path| beside.join(path));
    let files = Files {
        file: paths.collect(),
        recursive: false,
    };
    let resources = files.resources()?;
    let trust_domain = match &suite.trust_domain {
        Some(trust_domain) => trust_domain.clone(),
        None => TrustDomain::parse("example.org")?,
    };
    let issuer = SupposedIssuer::new(&trust_domain, resources, SystemTime::now())?;
    Ok(Answers::Files(Box::new(issuer)))
}

async fn run(answers: &mut Answers, file: &str, case: &Case) -> Outcome {
    let explanation = match answers {
        Answers::Files(issuer) => {
            let explanation = issuer.explain(&case.question, SystemTime::now());
            serde_json::to_value(explanation).map_err(|error| error.to_string())
        }
        Answers::Issuer(admin) => ask(admin, case).await,
    };
    let (differences, error) = match &explanation {
        Ok(explanation) => {
            let differences = case.differences(explanation);
            let why = explanation["error"].as_str().map(str::to_owned);
            // Why it was refused helps where it should not have been.
            let why = why.filter(|_| !differences.is_empty());
            (differences, why)
        }
        Err(error) => (Vec::new(), Some(error.clone())),
    };
    Outcome {
        file: file.to_owned(),
        name: case.name.clone(),
        differences,
        error,
    }
}

async fn ask(admin: &mut Admin, case: &Case) -> Result<Value, String> {
    let question = &case.question;
    let request = pb::ExplainRequest {
        bot: question.bot.clone(),
        workload_identity: question.workload_identity.clone(),
        attributes_json: question.attributes.to_json().to_string(),
        svid_type: question.kind.as_str().to_owned(),
        audiences: question.audiences.clone(),
        ttl: question.ttl,
        event: 0,
        image_signatures: Vec::new(),
    };
    match admin.client().explain(request).await {
        Ok(answer) => serde_json::from_str(&answer.into_inner().explanation_json)
            .map_err(|error| error.to_string()),
        Err(status) => Err(admin.failed(status).to_string()),
    }
}

fn report(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut file = "";
    for outcome in outcomes {
        if outcome.file != file {
            file = &outcome.file;
            text.push_str(&format!("{file}\n"));
        }
        let mark = if outcome.passed() { "ok    " } else { "FAILED" };
        text.push_str(&format!("  {mark} {}\n", outcome.name));
        for difference in &outcome.differences {
            let field = difference.field;
            text.push_str(&format!(
                "    - {field}: {}\n",
                told(field, &difference.expected)
            ));
            text.push_str(&format!(
                "    + {field}: {}\n",
                told(field, &difference.actual)
            ));
        }
        if let Some(error) = &outcome.error {
            text.push_str(&format!("      {error}\n"));
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    let passed = outcomes.len() - failed;
    text.push_str(&format!("{passed} passed, {failed} failed\n"));
    text
}

fn told(field: &str, value: &Value) -> String {
    match value {
        Value::Null if field == "refused" => "(granted)".to_owned(),
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn shown(outcome: &Outcome) -> Value {
    let differences = outcome.differences.iter().map(|difference| {
        json!({
            "field": difference.field,
            "expected": difference.expected,
            "actual": difference.actual,
        })
    });
    json!({
        "file": outcome.file,
        "name": outcome.name,
        "passed": outcome.passed(),
        "differences": differences.collect::<Vec<_>>(),
        "error": outcome.error,
    })
}
