//! Whose account a provider's word opens: the table, whole, and what has to hold in all of it.
use crate::auth::linking::{
    Caller, Coming, Decision, Facts, Refusal,
    Word::{self, Authoritative, Nothing, Unverified, Verified},
    decide,
};
use uuid::Uuid;

const ME: Uuid = Uuid::from_u128(1);
const KNOWN: Uuid = Uuid::from_u128(2);
const OWNER: Uuid = Uuid::from_u128(3);
const CLAIMANT: Uuid = Uuid::from_u128(4);

const ANYTHING: &[Word] = &[Nothing, Unverified, Verified, Authoritative];
const UNPROVED: &[Word] = &[Nothing, Unverified];
const PROVED: &[Word] = &[Verified, Authoritative];

const NOBODY: &[Option<Uuid>] = &[None];
const ANOTHER: &[Option<Uuid>] = &[Some(OWNER)];
const NOBODY_ELSE: &[Option<Uuid>] = &[None, Some(ME)];
const SOMEBODY: &[Option<Uuid>] = &[Some(CLAIMANT)];
/// As owners, of a sign-in and of a link; as claimants.
const WHOEVER: &[Option<Uuid>] = &[None, Some(OWNER)];
const WHOEVER_OR_ME: &[Option<Uuid>] = &[None, Some(ME), Some(OWNER)];
const EITHER: &[Option<Uuid>] = &[None, Some(CLAIMANT)];

/// What is wanted, what is said, whose the identity is, who owns and who claims the address.
type Row = (
    Coming,
    &'static [Word],
    Option<Uuid>,
    &'static [Option<Uuid>],
    &'static [Option<Uuid>],
    Decision,
);

const PROVE: Decision = Decision::Refuse(Refusal::ProveAccount);
const ANOTHERS: Decision = Decision::Refuse(Refusal::Anothers);

fn of_arrivals(coming: Coming, non_authoritative: Decision) -> [Row; 6] {
    let create = |address| Decision::Create { address };
    let (entered, added) = (Decision::Enter(KNOWN), Decision::AddUnasked(OWNER));
    let adopted = Decision::Adopt(CLAIMANT);
    [
        (coming, ANYTHING, Some(KNOWN), WHOEVER, EITHER, entered),
        (coming, UNPROVED, None, WHOEVER, EITHER, create(false)),
        (coming, &[Authoritative], None, ANOTHER, EITHER, added),
        (
            coming,
            &[Verified],
            None,
            ANOTHER,
            EITHER,
            non_authoritative,
        ),
        (coming, PROVED, None, NOBODY, SOMEBODY, adopted),
        (coming, PROVED, None, NOBODY, NOBODY, create(true)),
    ]
}

fn of_links(is_anonymous: bool, has_address: bool, beside_an_account: Decision) -> [Row; 5] {
    let coming = Coming::Link(Caller {
        id: ME,
        is_anonymous,
        has_address,
    });
    let (entered, with) = (Decision::Enter(ME), add(!has_address));
    let (known, whoever) = (Some(KNOWN), WHOEVER_OR_ME);
    [
        (coming, ANYTHING, known, whoever, EITHER, ANOTHERS),
        (coming, ANYTHING, Some(ME), whoever, EITHER, entered),
        (coming, UNPROVED, None, whoever, EITHER, add(false)),
        (coming, PROVED, None, ANOTHER, EITHER, beside_an_account),
        (coming, PROVED, None, NOBODY_ELSE, EITHER, with),
    ]
}

fn add(address: bool) -> Decision {
    Decision::Add { user: ME, address }
}

/// Every case with its decision.
fn table() -> Vec<(Facts, Decision)> {
    let rows = [
        of_arrivals(Coming::SignIn, PROVE).to_vec(),
        of_arrivals(Coming::Bearer, Decision::Create { address: false }).to_vec(),
        of_links(true, false, PROVE).to_vec(),
        of_links(false, false, add(false)).to_vec(),
        of_links(false, true, add(false)).to_vec(),
    ];
    let mut cases = vec![];
    for (coming, words, known, owners, claimants, decision) in rows.concat() {
        for &word in words {
            for &owner in owners {
                for &claimant in claimants {
                    let facts = Facts {
                        coming,
                        word,
                        known,
                        owner,
                        claimant,
                    };
                    cases.push((facts, decision));
                }
            }
        }
    }
    cases
}

#[test]
fn every_case_is_decided_as_the_table_says() {
    let cases = table();

    for (facts, decision) in &cases {
        assert_eq!(decide(facts), *decision, "{facts:?}");
    }
    // Two that arrive, three that link: words, then whose the identity is, owners, claimants.
    assert_eq!(cases.len(), 2 * 4 * 2 * 2 * 2 + 3 * 4 * 3 * 3 * 2);
    for (n, (facts, _)) in cases.iter().enumerate() {
        let again = cases[..n].iter().any(|(other, _)| other == facts);
        assert!(!again, "twice in the table: {facts:?}");
    }
}

/// Invariant 10; T3, T6, T9, T11: somebody's account is opened to who did not prove it by nothing but
/// the word of who runs the mailbox, and to nobody who says so alone.
#[test]
fn a_word_opens_no_account_that_it_does_not_vouch_for() {
    for (facts, _) in table() {
        let opened = match decide(&facts) {
            Decision::AddUnasked(user) => Some((user, Authoritative)),
            Decision::Adopt(user) => Some((user, Verified)),
            _ => None,
        };
        if let Some((user, least)) = opened {
            assert!(facts.word >= least, "{facts:?}");
            assert!([facts.owner, facts.claimant].contains(&Some(user)));
        }
    }
}

/// Invariant 4: of two who hold one address, one would be a stranger.
#[test]
fn nobody_is_given_an_address_that_somebody_proved_or_that_nobody_did() {
    for (facts, _) in table() {
        let (given, to) = match decide(&facts) {
            Decision::Create { address } => (address, None),
            Decision::Add { user, address } => (address, Some(user)),
            Decision::Adopt(_) => (true, None),
            _ => (false, None),
        };
        if given {
            assert!(facts.word >= Verified, "{facts:?}");
            assert!(facts.owner.is_none() || facts.owner == to, "{facts:?}");
        }
    }
}

/// T12: whose the identity is decides before anything that came with the request.
#[test]
fn an_identity_that_is_somebodys_leads_to_nobody_else() {
    for (facts, _) in table().into_iter().filter(|(f, _)| f.known.is_some()) {
        match (decide(&facts), facts.coming) {
            (Decision::Enter(user), _) => assert_eq!(Some(user), facts.known),
            (Decision::Refuse(Refusal::Anothers), Coming::Link(_)) => {}
            (decision, _) => panic!("{decision:?} of {facts:?}"),
        }
    }
}
