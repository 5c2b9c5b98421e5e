use super::*;

const TD_CHARSET: &str = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
const SEGMENT_CHARSET: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

fn refused(text: &str) -> IdError {
    match SpiffeId::parse(text) {
        Ok(id) => panic!("{text:?} was accepted as {id}"),
        Err(error) => error,
    }
}

#[test]
fn id_01_scheme_is_spiffe() {
    for text in [
        "http://example.org/a",
        "spiffee://example.org/a",
        "example.org/a",
        "spiffe:/example.org/a",
        "spiffe:example.org",
        "SPIFFE://example.org/a",
        "Spiffe://example.org/a",
        " spiffe://example.org/a",
        "//example.org/a",
    ] {
        assert!(matches!(refused(text), IdError::Scheme { .. }), "{text}");
    }
    assert_eq!(refused(""), IdError::Empty);
}

#[test]
fn id_02_trust_domain_is_not_empty() {
    for text in ["spiffe:///a", "spiffe://", "spiffe:////"] {
        assert!(
            matches!(refused(text), IdError::NoTrustDomain { .. }),
            "{text}"
        );
    }
    assert!(matches!(
        TrustDomain::parse(""),
        Err(IdError::NoTrustDomain { .. })
    ));
}

#[test]
fn id_03_no_query() {
    for (text, at) in [
        ("spiffe://example.org/a?b", 22),
        ("spiffe://example.org/a?", 22),
        ("spiffe://example.org?", 20),
        ("spiffe://example.org?a=/b", 20),
    ] {
        assert!(
            matches!(refused(text), IdError::Query { position, .. } if position == at),
            "{text}"
        );
    }
}

#[test]
fn id_04_no_fragment() {
    for (text, at) in [
        ("spiffe://example.org/a#b", 22),
        ("spiffe://example.org/a#", 22),
        ("spiffe://example.org#", 20),
    ] {
        assert!(
            matches!(refused(text), IdError::Fragment { position, .. } if position == at),
            "{text}"
        );
    }
}

#[test]
fn id_05_no_userinfo() {
    for (text, at) in [
        ("spiffe://u@td/a", 10),
        ("spiffe://@td/a", 9),
        ("spiffe://td@/a", 11),
    ] {
        assert!(
            matches!(refused(text), IdError::UserInfo { position, .. } if position == at),
            "{text}"
        );
    }
    // A password's colon is found first; refused it is.
    assert!(matches!(refused("spiffe://u:p@td/a"), IdError::Port { .. }));
}

#[test]
fn id_06_no_port() {
    for text in [
        "spiffe://td:80",
        "spiffe://td:",
        "spiffe://td:80/a",
        "spiffe://td:/a",
    ] {
        assert!(
            matches!(refused(text), IdError::Port { position: 11, .. }),
            "{text}"
        );
    }
}

#[test]
fn id_07_trust_domain_is_lowercase() {
    for (text, at) in [
        ("spiffe://Example.org/a", 9),
        ("spiffe://examplE.org/a", 15),
        ("spiffe://example.orG", 19),
    ] {
        assert!(
            matches!(refused(text), IdError::UpperCase { position, .. } if position == at),
            "{text}"
        );
    }
    assert!(matches!(
        TrustDomain::parse("eXample.org"),
        Err(IdError::UpperCase {
            position: 1,
            byte: Byte(b'X'),
            ..
        })
    ));
}

#[test]
fn id_08_trust_domain_charset_over_all_bytes() {
    for byte in 0..=255 {
        // Bytes from 0x80 come as the UTF-8 of U+0080 to U+00FF: text cannot hold them bare.
        let char = char::from(byte);
        for text in [
            format!("spiffe://{char}/p"),
            format!("spiffe://{char}b/p"),
            format!("spiffe://a{char}b/p"),
            format!("spiffe://a{char}/p"),
            format!("spiffe://a{char}"),
        ] {
            // A slash ends the trust domain: what is left decides.
            let expected = if byte == b'/' {
                text == "spiffe://a/b/p"
            } else {
                TD_CHARSET.contains(char)
            };
            assert_eq!(SpiffeId::parse(&text).is_ok(), expected, "{text:?}");
        }
        let name = format!("a{char}b");
        assert_eq!(
            TrustDomain::parse(&name).is_ok(),
            TD_CHARSET.contains(char),
            "{name:?}"
        );
    }
    for name in ["a~b", "[::1]", "ex ample", "exämple.org", "a\0b", "日本"] {
        assert!(TrustDomain::parse(name).is_err(), "{name:?}");
    }
}

#[test]
fn id_09_no_percent_encoding_in_trust_domain() {
    for text in ["spiffe://ex%61mple.org/a", "spiffe://%65/a", "spiffe://a%"] {
        assert!(
            matches!(refused(text), IdError::PercentEncoding { .. }),
            "{text}"
        );
    }
}

#[test]
fn id_10_trust_domain_is_not_read_as_host() {
    for name in [
        "1.2.3.4",
        "-.-",
        "a_b",
        "a..b",
        ".",
        "-",
        "_",
        "01.02",
        "localhost.",
    ] {
        let id = SpiffeId::parse(&format!("spiffe://{name}/x")).expect(name);
        assert_eq!(id.trust_domain_name(), name);
        assert_eq!(id.trust_domain().as_str(), name);
    }
    assert_ne!(
        SpiffeId::parse("spiffe://01.2.3.4/x"),
        SpiffeId::parse("spiffe://1.2.3.4/x")
    );
    assert!(TrustDomain::parse("[::1]").is_err());
}

#[test]
fn id_11_no_percent_encoding_in_path() {
    for (text, at) in [
        ("spiffe://td/%61", 12),
        ("spiffe://td/a%2Fb", 13),
        ("spiffe://td/%2e%2e", 12),
        ("spiffe://td/%", 12),
    ] {
        assert!(
            matches!(refused(text), IdError::PercentEncoding { position, .. } if position == at),
            "{text}"
        );
    }
}

#[test]
fn id_12_no_empty_and_no_dot_segments() {
    for (text, at) in [
        ("spiffe://td//a", 12),
        ("spiffe://td/a//b", 14),
        ("spiffe://td//", 12),
    ] {
        assert!(
            matches!(refused(text), IdError::EmptySegment { position, .. } if position == at),
            "{text}: {:?}",
            refused(text)
        );
    }
    for (text, at) in [
        ("spiffe://td/.", 12),
        ("spiffe://td/./a", 12),
        ("spiffe://td/a/..", 14),
        ("spiffe://td/a/../b", 14),
    ] {
        assert!(
            matches!(refused(text), IdError::DotSegment { position, .. } if position == at),
            "{text}"
        );
    }
    for path in ["/...", "/.a", "/a.", "/..a", "/a..", "/....", "/.-_"] {
        let text = format!("spiffe://td{path}");
        assert_eq!(SpiffeId::parse(&text).expect(path).path(), path);
    }
}

#[test]
fn id_13_no_trailing_slash() {
    for text in ["spiffe://td/", "spiffe://td/a/", "spiffe://td/a/b/"] {
        assert!(
            matches!(refused(text), IdError::TrailingSlash { .. }),
            "{text}"
        );
    }
}

#[test]
fn id_14_segment_charset_over_all_bytes() {
    for byte in 0..=255 {
        let char = char::from(byte);
        for text in [
            format!("spiffe://td/{char}b"),
            format!("spiffe://td/a{char}b"),
            format!("spiffe://td/a/b{char}"),
            format!("spiffe://td/a{char}b/c"),
        ] {
            let expected = if byte == b'/' {
                // Between two segments it is a separator; at an end it is one too many.
                text == "spiffe://td/a/b" || text == "spiffe://td/a/b/c"
            } else {
                SEGMENT_CHARSET.contains(char)
            };
            assert_eq!(SpiffeId::parse(&text).is_ok(), expected, "{text:?}");
        }
    }
}

#[test]
fn id_15_ids_of_2048_bytes_are_supported() {
    let text = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES - 12));
    assert_eq!(text.len(), 2048);
    let id = SpiffeId::parse(&text).expect("2048 bytes");
    assert_eq!(id.as_str(), text);
    assert_eq!(SpiffeId::new(&id.trust_domain(), id.path()), Ok(id));
}

#[test]
fn id_16_ids_of_2049_bytes_are_refused() {
    let td = TrustDomain::parse("td").expect("td");
    let path = format!("/{}", "a".repeat(MAX_ID_BYTES - 11));
    let error = IdError::TooLong { bytes: 2049 };
    assert_eq!(refused(&format!("spiffe://td{path}")), error);
    assert_eq!(SpiffeId::new(&td, &path), Err(error));
}

#[test]
fn id_17_trust_domain_has_at_most_255_bytes() {
    let (longest, too_long) = ("d".repeat(255), "d".repeat(256));
    assert!(TrustDomain::parse(&longest).is_ok());
    let id = SpiffeId::parse(&format!("spiffe://{longest}/a")).expect("255 bytes");
    assert_eq!(
        (id.trust_domain_name(), id.path()),
        (longest.as_str(), "/a")
    );
    let error = IdError::TrustDomainTooLong { bytes: 256 };
    assert_eq!(TrustDomain::parse(&too_long), Err(error.clone()));
    assert_eq!(refused(&format!("spiffe://{too_long}/a")), error);
}

#[test]
fn id_18_paths_compare_by_case() {
    let (upper, lower) = (
        SpiffeId::parse("spiffe://td/A").expect("A"),
        SpiffeId::parse("spiffe://td/a").expect("a"),
    );
    assert_ne!(upper, lower);
    // Scheme and trust domain have only one case that parses, so bytes decide for them too.
    assert!(SpiffeId::parse("SPIFFE://td/a").is_err());
    assert!(SpiffeId::parse("spiffe://TD/a").is_err());
}

#[test]
fn parts_are_those_of_the_text() {
    for (text, td, path, segments) in [
        ("spiffe://td", "td", "", vec![]),
        ("spiffe://td/a", "td", "/a", vec!["a"]),
        (
            "spiffe://example.org/ns/default/sa/web",
            "example.org",
            "/ns/default/sa/web",
            vec!["ns", "default", "sa", "web"],
        ),
    ] {
        let id = SpiffeId::parse(text).expect(text);
        assert_eq!(id.to_string(), text);
        assert_eq!(id.trust_domain_name(), td);
        assert_eq!(id.path(), path);
        assert_eq!(id.segments().collect::<Vec<_>>(), segments);
        assert_eq!(id.is_trust_domain(), path.is_empty());
        assert_eq!(SpiffeId::new(&id.trust_domain(), path), Ok(id.clone()));
        assert_eq!(id.trust_domain().id().as_str(), format!("spiffe://{td}"));
        assert_eq!(text.parse(), Ok(id));
    }
}

#[test]
fn joined_path_begins_with_a_slash() {
    let td = TrustDomain::parse("td").expect("td");
    assert!(matches!(
        SpiffeId::new(&td, "a"),
        Err(IdError::PathStart { .. })
    ));
    assert!(SpiffeId::new(&td, "/a/").is_err());
}

#[test]
fn trust_domain_is_not_an_id() {
    let error = TrustDomain::parse("spiffe://example.org").expect_err("an id");
    assert_eq!(
        error.to_string(),
        "a trust domain is wanted, not an id: leave \"spiffe://\" off \"example.org\""
    );
    assert!(TrustDomain::parse("example.org/a").is_err());
}

#[test]
fn errors_name_byte_position_and_remedy() {
    for (text, message) in [
        (
            "spiffe://Example.org/a",
            "\"spiffe://Example.org/a\" has the upper-case 'E' (0x45) in its trust domain at byte 9: write the trust domain in lower case",
        ),
        (
            "spiffe://td/a b",
            "\"spiffe://td/a b\" has 0x20 in its path at byte 13: use only a-z, A-Z, 0-9, '.', '-' and '_' between slashes",
        ),
        (
            "spiffe://td/a/",
            "\"spiffe://td/a/\" ends with a slash: remove it",
        ),
    ] {
        assert_eq!(refused(text).to_string(), message);
    }
    // Hostile text neither floods the log nor carries control characters into it.
    let shown = refused(&format!("spiffe://td/\n\u{1b}[31m{}", "x".repeat(1000))).to_string();
    assert!(
        shown.len() < 400 && !shown.contains(['\n', '\u{1b}']),
        "{shown:?}"
    );
}
