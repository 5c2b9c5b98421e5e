//! Any bytes as a request to the token endpoint, taken apart up to the decision: as a
//! whole body, and as the values of a form that is else in order. No answer repeats the
//! secret, and what is accepted names a workload identity.

#![no_main]

use issuer::{
    api::http::form::{Exchange, GRANT_TYPE, JOIN_TOKEN, JWT, SCOPE, WIT, X509},
    issue::Item,
};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "do-not-tell-anybody";

fn take(body: &[u8]) {
    match Exchange::parse(body) {
        Ok(exchange) => {
            assert!(!exchange.workload_identity.is_empty());
            assert_eq!(
                exchange.scope().strip_prefix(SCOPE),
                Some(exchange.workload_identity.as_str())
            );
            for request in exchange.into_call().requests {
                let _ = Item::new(request);
            }
        }
        Err(error) => assert!(!error.description.contains(SECRET), "{}", error.description),
    }
}

fuzz_target!(|data: &[u8]| {
    take(data);
    let [which, values @ ..] = data else { return };
    let mut values = values.split(|byte| *byte == 0);
    let mut next = || String::from_utf8_lossy(values.next().unwrap_or_default());
    let wanted = [JWT, X509, WIT][usize::from(which % 3)];
    let scope = format!("{SCOPE}{}", next());
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", GRANT_TYPE)
        .append_pair("subject_token_type", JOIN_TOKEN)
        .append_pair("subject_token", SECRET)
        .append_pair("requested_token_type", wanted)
        .append_pair("scope", &scope);
    match wanted {
        JWT => form.append_pair("audience", &next()),
        _ => form.append_pair("csr", &next()),
    };
    form.append_pair("ttl", &next());
    if which & 4 != 0 {
        form.append_pair(&next(), &next());
    }
    take(form.finish().as_bytes());
});
