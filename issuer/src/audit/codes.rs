//! Codes of events: shorter than names, and the same for every version, for whoever
//! sorts a stream of them. Those that Teleport has are Teleport's (facts 1.8); the
//! others begin with `TBI`. The last letter says how it went: `I` done or granted,
//! `E` refused.

/// Names with the code's stem, without the last letter.
pub const CODES: [(&str, &str); 36] = [
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
    ("sigstore_policy.create", "TSSP001"),
    ("sigstore_policy.update", "TSSP002"),
    ("sigstore_policy.delete", "TSSP003"),
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
mod tests;
