use proptest::prelude::*;

use super::*;

fn sensitive(pattern: &str, name: &str) -> bool {
    matches(pattern.as_bytes(), name.as_bytes(), Case::Sensitive)
}

#[test]
fn patterns_match_as_documented() {
    for (pattern, name, matched) in [
        ("*", "anything", true),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("?", "", false),
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h*llo", "heeeello", true),
        ("h[ae]llo", "hallo", true),
        ("h[ae]llo", "hillo", false),
        ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[!e]llo", "hallo", false),
        ("h[!e]llo", "h!llo", true),
        ("h[a-b]llo", "hbllo", true),
        ("h[b-a]llo", "hallo", true),
        ("h[a-b]llo", "hcllo", false),
        ("a[b-]", "a", false),
        // A range up to the bracket, which then does not close.
        ("a[b-]", "a^", true),
        ("[\\]]", "]", true),
        ("[\\-x]", "-", true),
        ("[]", "a", false),
        ("[^]", "a", true),
        ("[abc", "b", true),
        ("[abc", "d", false),
        ("[", "[", false),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("a\\", "a\\", true),
        ("a\\", "a", false),
        ("sess:*:user", "sess:a:user:b:user", true),
        ("*a*b*c*", "xaxbxcx", true),
        ("*a*b*c*", "xcxbxax", false),
        ("H*", "hello", false),
    ] {
        assert_eq!(sensitive(pattern, name), matched, "{pattern:?} {name:?}");
    }
}

#[test]
fn letters_are_folded_where_case_does_not_matter() {
    for (pattern, name, matched) in [
        ("MAXMEM*", "maxmemory", true),
        ("max[A-N]*", "maxmemory", true),
        ("max[a-l]*", "maxMemory", false),
        ("[M]", "m", true),
        ("\\M", "m", true),
    ] {
        let insensitive = matches(pattern.as_bytes(), name.as_bytes(), Case::Insensitive);
        assert_eq!(insensitive, matched, "{pattern:?} {name:?}");
    }
}

#[test]
fn many_stars_take_no_longer_than_a_product() {
    // Going back to each star would take longer than anybody waits.
    let pattern = "a*".repeat(2000) + "b";
    assert!(!sensitive(&pattern, &"a".repeat(4000)));
}

/// By the definition: a star is nothing, or a byte and a star.
fn brute_force(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => {
            brute_force(rest, name) || !name.is_empty() && brute_force(pattern, &name[1..])
        }
        (_, []) => false,
        ([b'?', rest @ ..], [_, others @ ..]) => brute_force(rest, others),
        ([b'[', b'^', class @ ..], [byte, others @ ..]) => {
            let (bytes, rest) = expanded(class);
            !bytes.contains(byte) && brute_force(rest, others)
        }
        ([b'[', class @ ..], [byte, others @ ..]) => {
            let (bytes, rest) = expanded(class);
            bytes.contains(byte) && brute_force(rest, others)
        }
        ([b'\\', literal, rest @ ..], [byte, others @ ..])
        | ([literal, rest @ ..], [byte, others @ ..]) => {
            literal == byte && brute_force(rest, others)
        }
    }
}

/// All bytes of a class, and what stands behind it.
fn expanded(mut class: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut bytes = Vec::new();
    loop {
        class = match class {
            [] => return (bytes, class),
            [b'\\', literal, rest @ ..] => {
                bytes.push(*literal);
                rest
            }
            [b']', rest @ ..] => return (bytes, rest),
            [a, b'-', b, rest @ ..] => {
                bytes.extend(*a.min(b)..=*a.max(b));
                rest
            }
            [literal, rest @ ..] => {
                bytes.push(*literal);
                rest
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn agrees_with_brute_force(pattern in "[ab*?\\[\\]^\\\\-]{0,10}", name in "[ab\\[^-]{0,10}") {
        prop_assert_eq!(sensitive(&pattern, &name), brute_force(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn takes_any_bytes(pattern: Vec<u8>, name: Vec<u8>) {
        matches(&pattern, &name, Case::Sensitive);
        matches(&pattern, &name, Case::Insensitive);
    }
}
