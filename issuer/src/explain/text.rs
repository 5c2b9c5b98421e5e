//! An explanation for a person.

use std::fmt;

use policy::{RuleTrace, Trace};
use serde_json::Value;

use super::Explanation;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bot, identity) = (&self.bot, &self.workload_identity);
        match (&self.svid, self.reason) {
            (Some(svid), _) => {
                let id = svid["spiffe_id"].as_str().unwrap_or_default();
                writeln!(
                    f,
                    "GRANTED: bot {bot} gets workload_identity {identity} as {id}"
                )?;
            }
            (None, reason) => {
                let reason = reason.unwrap_or_default();
                writeln!(
                    f,
                    "REFUSED ({reason}): bot {bot} does not get workload_identity {identity}"
                )?;
            }
        }
        if let Some(error) = &self.error {
            writeln!(f, "  {error}")?;
        }
        self.steps(f)?;
        self.rules(f)?;
        self.templates(f)?;
        writeln!(f, "\nattributes")?;
        for known in &self.attributes {
            let trust = if known.verified {
                "verified"
            } else {
                "asserted"
            };
            writeln!(f, "  {} = {} ({trust})", known.attribute, known.value)?;
        }
        if let Some(Value::Object(svid)) = &self.svid {
            writeln!(f, "\nSVID")?;
            for (name, value) in svid {
                match value {
                    Value::String(text) => writeln!(f, "  {name}: {text}")?,
                    _ => writeln!(f, "  {name}: {value}")?,
                }
            }
        }
        Ok(())
    }
}

impl Explanation {
    fn steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsteps")?;
        for step in &self.steps {
            let mark = if step.passed { "ok" } else { "NO" };
            writeln!(f, "  {mark} {:<10} {}", step.step, step.told)?;
        }
        Ok(())
    }

    fn rules(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        writeln!(f, "\nrules")?;
        for rule in &rules.rules {
            write_rule(f, rule)?;
        }
        Ok(())
    }

    fn templates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.templates.is_empty() {
            return Ok(());
        }
        writeln!(f, "\ntemplates")?;
        for template in &self.templates {
            let trace = &template.trace;
            write!(f, "  {}: {}", template.field, trace.template)?;
            match (&trace.value, &trace.error) {
                (_, Some(error)) => writeln!(f, "  -> ERROR {error}")?,
                (Some(value), _) if *value != trace.template => writeln!(f, "  -> {value}")?,
                _ => writeln!(f)?,
            }
            for part in &trace.parts {
                write_part(f, part, 2)?;
            }
        }
        Ok(())
    }
}

fn write_rule(f: &mut fmt::Formatter<'_>, rule: &RuleTrace) -> fmt::Result {
    let told = if rule.matched {
        "matches"
    } else {
        "does not match"
    };
    writeln!(f, "  {} {told}: {}", rule.rule, rule.expression)?;
    if let Some(error) = &rule.error {
        writeln!(f, "    ERROR {error}")?;
    }
    write_part(f, &rule.trace, 2)
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &Trace, depth: usize) -> fmt::Result {
    let indent = depth * 2;
    write!(f, "{:indent$}{} = ", "", part.expression)?;
    match (&part.value, &part.error) {
        (Some(value), Some(error)) => writeln!(f, "{value}: {error}")?,
        (Some(value), None) => writeln!(f, "{value}")?,
        (None, Some(error)) => writeln!(f, "ERROR {error}")?,
        (None, None) => writeln!(f, "(not evaluated)")?,
    }
    for inner in &part.parts {
        write_part(f, inner, depth + 1)?;
    }
    Ok(())
}
