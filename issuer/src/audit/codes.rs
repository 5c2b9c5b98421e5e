//! Codes of events: shorter than names, and the same for every version, for whoever
//! sorts a stream of them. Those that Teleport has are Teleport's (facts 1.8); the
//! others begin with `TBI`. The last letter says how it went: `I` done or granted,
//! `E` refused.

/// Names with the code's stem, without the last letter.
pub const CODES: [(&str, &str); 33] = [
    ("bot.join", "TJ001"),
    ("bot.create", "TB001"),
    ("bot.update", "TB002"),
    ("bot.delete", "TB003"),
    ("spiffe.svid.issued", "TSPIFFE000"),
    ("spiffe.federation.create", "TSPIFFE001"),
    ("spiffe.federation.delete", "TSPIFFE002"),
    ("workload_identity.create", "WID001"),
    ("workload_identity.update", "WID002"),
    ("workload_identity.delete", "WID003"),
    ("bot.renew", "TBI001"),
    ("bot.watch", "TBI002"),
    ("connect", "TBI003"),
    ("bot_instance.delete", "TBI004"),
    ("spiffe.federation.update", "TBI005"),
    ("issuer.start", "TBI007"),
    ("resource.apply", "TBI010"),
    ("admin.connect", "TBI011"),
    ("renew.order", "TBI012"),
    ("role.create", "TBI020"),
    ("role.update", "TBI021"),
    ("role.delete", "TBI022"),
    ("token.create", "TBI023"),
    ("token.update", "TBI024"),
    ("token.delete", "TBI025"),
    ("lock.create", "TBI026"),
    ("lock.update", "TBI027"),
    ("lock.delete", "TBI028"),
    ("authority.create", "TBI030"),
    ("authority.activate", "TBI031"),
    ("authority.retire", "TBI032"),
    ("authority.remove", "TBI033"),
    ("store.restore", "TBI040"),
];

/// The code of an event; `None`: an event of a newer version.
pub fn code(event: &str, success: bool) -> Option<String> {
    let (_, stem) = CODES.iter().find(|(name, _)| *name == event)?;
    let end = if success { 'I' } else { 'E' };
    Some(format!("{stem}{end}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CODES, code};

    #[test]
    fn a_code_says_one_thing() {
        let names: HashSet<_> = CODES.iter().map(|(name, _)| name).collect();
        let codes: HashSet<_> = CODES.iter().map(|(_, code)| code).collect();
        assert_eq!((names.len(), codes.len()), (CODES.len(), CODES.len()));
    }

    /// What a function turns its variants into, as its source says.
    fn names_in(source: &str, function: &str) -> Vec<String> {
        let begin = source.find(function).unwrap();
        let body = &source[begin..];
        let body = &body[..body.find("\n    }\n").unwrap()];
        let arms = body.split("=> \"").skip(1);
        arms.map(|arm| arm.split('"').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_event_has_a_code_and_every_code_an_event() {
        let events = names_in(include_str!("../audit.rs"), "pub fn as_str");
        assert!(events.len() > 30, "{events:?}");
        for event in &events {
            assert!(code(event, true).is_some(), "{event} has no code");
        }
        for (name, _) in CODES {
            assert!(
                events.iter().any(|event| event == name),
                "there is no {name}"
            );
        }
    }

    #[test]
    fn the_reference_lists_every_event_code_and_reason() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/audit.md");
        let reference = std::fs::read_to_string(path).unwrap();
        for (name, code) in CODES {
            let row = format!("| `{name}` | `{code}` |");
            assert!(reference.contains(&row), "no row {row}");
        }
        for reason in names_in(include_str!("../access.rs"), "pub fn as_str") {
            let row = format!("| `{reason}` |");
            assert!(reference.contains(&row), "no row {row}");
        }
    }

    #[test]
    fn codes_of_the_original_are_the_original_s() {
        assert_eq!(code("bot.join", true).as_deref(), Some("TJ001I"));
        assert_eq!(code("bot.join", false).as_deref(), Some("TJ001E"));
        assert_eq!(
            code("spiffe.svid.issued", true).as_deref(),
            Some("TSPIFFE000I")
        );
        assert_eq!(code("something.new", true), None);
    }
}
