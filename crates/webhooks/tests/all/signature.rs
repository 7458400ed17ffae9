use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::prelude::*;
use webhooks::Refused;
use webhooks::signature::{sign, verify};
use webhooks::stripe;

use crate::fixtures;

const NOW: i64 = 1_795_000_000;
const BODY: &[u8] = br#"{"id":"evt_1"}"#;
const SECRETS: &[&str] = &["whsec_current"];

/// `hex` of a genuine signature at `at`.
fn v1(secret: &str, at: i64) -> String {
    let header = sign(BODY, secret, at);
    header.split_once("v1=").unwrap().1.to_owned()
}

fn verify_header(header: &str) -> Result<usize, Refused> {
    verify(BODY, Some(header), SECRETS, NOW, 300)
}

fn malformed(header: &str) -> bool {
    matches!(verify_header(header), Err(Refused::MalformedHeader(_)))
}

#[test]
fn inv_2_every_stripe_vector_gets_its_recommended_verdict() {
    let vectors = fixtures::json("stripe-signatures.json");
    for vector in vectors["vectors"].as_array().unwrap() {
        let body = BASE64_STANDARD
            .decode(fixtures::text(vector, "body_base64"))
            .unwrap();
        let secrets: Vec<&str> = vector["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|secret| secret.as_str().unwrap())
            .collect();

        let verified = stripe::verify(
            &body,
            vector["header"].as_str(),
            &secrets,
            vector["now"].as_i64().unwrap(),
            vector["tolerance"].as_i64().unwrap(),
        );
        let verdict = match verified {
            Err(_) => "reject",
            // Genuine, but of nothing: the vectors count that with the signatures.
            Ok(_) if body.is_empty() && stripe::read(&body).is_err() => "reject",
            Ok(_) => match stripe::read(&body).map(|event| event.change) {
                Err(_) => "reject-parse",
                Ok(stripe::Change::Thin { .. }) => "accept-thin",
                Ok(_) => "accept",
            },
        };

        assert_eq!(
            verdict,
            fixtures::text(vector, "recommended"),
            "{}",
            vector["id"]
        );
    }
}

#[test]
fn the_tolerance_holds_both_ways_to_the_second() {
    let at = |t| verify_header(&sign(BODY, SECRETS[0], t));

    assert_eq!(at(NOW - 300), Ok(0));
    assert_eq!(at(NOW - 301), Err(Refused::TooOld { age_s: 301 }));
    assert_eq!(at(NOW + 300), Ok(0));
    assert_eq!(at(NOW + 301), Err(Refused::FromTheFuture { ahead_s: 301 }));
}

#[test]
fn a_forged_signature_is_never_called_old() {
    let header = sign(BODY, "whsec_other", NOW - 9_999);

    assert_eq!(verify_header(&header), Err(Refused::WrongSignature));
}

#[test]
fn the_matching_secret_is_told_so_that_old_ones_can_be_retired() {
    let secrets = ["whsec_new", "", "whsec_old"];

    for (i, secret) in [(0, "whsec_new"), (2, "whsec_old")] {
        let header = sign(BODY, secret, NOW);
        assert_eq!(verify(BODY, Some(&header), &secrets, NOW, 300), Ok(i));
    }
}

#[test]
fn a_retired_secret_stops_working() {
    let header = sign(BODY, "whsec_old", NOW);

    assert_eq!(verify_header(&header), Err(Refused::WrongSignature));
}

#[test]
fn without_a_real_secret_nothing_is_configured() {
    for secrets in [&[][..], &[""], &["", " \t\n"]] {
        let header = sign(BODY, secrets.last().unwrap_or(&""), NOW);
        let verified = verify(BODY, Some(&header), secrets, NOW, 300);
        assert_eq!(verified, Err(Refused::NotConfigured), "{secrets:?}");
    }
}

#[test]
fn a_blank_secret_beside_a_real_one_never_matches() {
    let header = sign(BODY, " ", NOW);

    assert_eq!(
        verify(BODY, Some(&header), &["whsec_current", " "], NOW, 300),
        Err(Refused::WrongSignature)
    );
}

#[test]
fn an_absent_header_is_missing() {
    assert_eq!(
        verify(BODY, None, SECRETS, NOW, 300),
        Err(Refused::MissingHeader)
    );
}

#[test]
fn a_header_may_have_4_kib_and_no_byte_more() {
    let good = sign(BODY, SECRETS[0], NOW);
    let padded = |length: usize| format!("{good},x={}", "x".repeat(length - good.len() - 3));

    assert_eq!(verify_header(&padded(4096)), Ok(0));
    assert!(malformed(&padded(4097)));
}

#[test]
fn a_header_may_have_32_signatures_and_no_more() {
    let good = sign(BODY, SECRETS[0], NOW);
    let and_others = |n: usize| format!("{good}{}", ",v1=0".repeat(n));

    assert_eq!(verify_header(&and_others(31)), Ok(0));
    assert!(malformed(&and_others(32)));
}

#[test]
fn a_time_is_plain_digits() {
    let v1 = v1(SECRETS[0], NOW);
    for t in [
        "+1795000000",
        "1795000000.0",
        "1_795_000_000",
        "١",
        "01795000000",
        "9999999999999",
    ] {
        assert!(malformed(&format!("t={t},v1={v1}")), "{t}");
    }
}

#[test]
fn a_part_has_exactly_one_equals_sign() {
    let good = sign(BODY, SECRETS[0], NOW);
    for extra in ["", "foo", "foo=bar=", "v0==", "v1=a=b"] {
        assert!(malformed(&format!("{good},{extra}")), "{extra}");
    }
}

#[test]
fn what_cannot_be_a_signature_is_malformed_rather_than_wrong() {
    let v1 = v1(SECRETS[0], NOW);

    assert!(malformed(&format!("t={NOW},v1={}", v1.to_uppercase())));
    assert!(malformed(&format!("t={NOW},v1={}", &v1[1..])));
    assert!(malformed(&format!("t={NOW},v1={v1}0")));
}

#[test]
fn the_end_of_time_is_in_the_future_and_not_an_overflow() {
    let header = sign(BODY, SECRETS[0], NOW);
    let ahead_s = i64::MAX;

    assert_eq!(
        verify(BODY, Some(&header), SECRETS, i64::MIN, 300),
        Err(Refused::FromTheFuture { ahead_s })
    );
}

#[test]
fn keys_are_matched_to_the_letter() {
    let v1 = v1(SECRETS[0], NOW);

    assert!(malformed(&format!("t={NOW},V1={v1}")));
    assert!(malformed(&format!("T={NOW},v1={v1}")));
    assert!(malformed(&format!("t={NOW}, v1={v1}")));
}

#[test]
fn each_refusal_has_its_own_code_and_one_line_of_advice() {
    let refusals = [
        Refused::NotConfigured,
        Refused::MissingHeader,
        Refused::MalformedHeader("no t"),
        Refused::TooOld { age_s: 301 },
        Refused::FromTheFuture { ahead_s: 301 },
        Refused::WrongSignature,
        Refused::WrongAuthorization,
    ];
    let mut codes: Vec<_> = refusals.iter().map(Refused::code).collect();
    codes.sort_unstable();
    codes.dedup();

    assert_eq!(codes.len(), refusals.len());
    assert!(
        refusals
            .iter()
            .all(|r| r.to_string().contains(": ") && !r.to_string().contains('\n'))
    );
}

proptest! {
    #[test]
    fn what_is_signed_verifies(body: Vec<u8>, secret in "\\S{1,80}", at in 0..=999_999_999_999_i64) {
        let header = sign(&body, &secret, at);

        prop_assert_eq!(verify(&body, Some(&header), &[&secret], at, 0), Ok(0));
    }

    #[test]
    fn one_flipped_bit_of_the_body_refuses(
        mut body in prop::collection::vec(any::<u8>(), 1..200),
        at: prop::sample::Index,
        bit in 0..8,
    ) {
        let header = sign(&body, SECRETS[0], NOW);
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;

        prop_assert_eq!(
            verify(&body, Some(&header), SECRETS, NOW, 300),
            Err(Refused::WrongSignature)
        );
    }

    #[test]
    fn one_other_character_in_the_header_refuses(at: prop::sample::Index, other in "[ -~]") {
        let mut header = sign(BODY, SECRETS[0], NOW);
        let at = at.index(header.len());
        prop_assume!(header[at..=at] != other);
        header.replace_range(at..=at, &other);

        prop_assert!(verify_header(&header).is_err());
    }

    #[test]
    fn no_header_and_no_clock_panics(
        header in prop_oneof![any::<String>(), "(t|v1|v0)=[0-9a-f+. -]{0,70}(,(t|v1)=[0-9a-f]{0,64}){0,4}"],
        now: i64,
        tolerance_s: i64,
    ) {
        prop_assert!(verify(BODY, Some(&header), SECRETS, now, tolerance_s).is_err());
    }

    #[test]
    fn no_clock_panics_on_a_genuine_signature(at in 0..=999_999_999_999_i64, now: i64, tolerance_s: i64) {
        let off_s = i128::from(now).abs_diff(i128::from(at));
        let fresh = i128::try_from(off_s).is_ok_and(|off_s| off_s <= i128::from(tolerance_s));

        let verified = verify(BODY, Some(&sign(BODY, SECRETS[0], at)), SECRETS, now, tolerance_s);

        prop_assert_eq!(verified.is_ok(), fresh);
    }
}
