//! Whose account a provider's word opens: every case, decided by facts alone, so that a table can hold
//! all of them. Known takeovers are cases that somebody had not thought of.
use uuid::Uuid;

/// What is known when somebody comes with a provider's word for who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub coming: Coming,
    pub word: Word,
    /// Whose the identity is already.
    pub known: Option<Uuid>,
    /// Who proved here to own the address.
    pub owner: Option<Uuid>,
    /// Who claims it, proved nothing, and was never let in.
    pub claimant: Option<Uuid>,
}

/// What they want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    SignIn,
    /// To be answered, this once: nobody looks at a page.
    Bearer,
    /// To have the identity added to the account they are signed in to.
    Link(Caller),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub id: Uuid,
    pub is_anonymous: bool,
    pub has_address: bool,
}

/// What the provider says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    Nothing,
    /// That they say so.
    Unverified,
    /// That they once showed it.
    Verified,
    /// That it is theirs now: the provider runs the mailbox.
    Authoritative,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is this user's identity.
    Enter(Uuid),
    /// It becomes this user's too, who asked; with `address`, so does the address.
    Add {
        user: Uuid,
        address: bool,
    },
    /// It becomes this user's too, who did not ask and hears of it by mail.
    AddUnasked(Uuid),
    /// It becomes this user's, and nothing stays of what somebody did or said in their name.
    Adopt(Uuid),
    /// It becomes a new user's; with `address`, so does the address.
    Create {
        address: bool,
    },
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is another user's.
    Anothers,
    /// There is an account with this address: they have to be let in by that first.
    ProveAccount,
}

pub fn decide(facts: &Facts) -> Decision {
    match (facts.coming, facts.known) {
        (Coming::Link(caller), Some(known)) if known != caller.id => {
            Decision::Refuse(Refusal::Anothers)
        }
        (_, Some(known)) => Decision::Enter(known),
        (Coming::Link(caller), None) => link(facts, caller),
        (Coming::SignIn | Coming::Bearer, None) => arrive(facts),
    }
}

/// Who links has shown both, this account and that identity: the address decides nothing but whether
/// it comes along.
fn link(facts: &Facts, caller: Caller) -> Decision {
    let verified = facts.word >= Word::Verified;
    let of_another = verified && facts.owner.is_some_and(|owner| owner != caller.id);
    // Nobody knows yet who they are: here is where they find that they were here before.
    if of_another && caller.is_anonymous {
        return Decision::Refuse(Refusal::ProveAccount);
    }
    Decision::Add {
        user: caller.id,
        address: verified && !of_another && !caller.has_address,
    }
}

fn arrive(facts: &Facts) -> Decision {
    match (facts.word, facts.owner, facts.claimant) {
        (Word::Nothing | Word::Unverified, ..) => Decision::Create { address: false },
        (Word::Authoritative, Some(owner), _) => Decision::AddUnasked(owner),
        (Word::Verified, Some(_), _) if facts.coming == Coming::Bearer => {
            Decision::Create { address: false }
        }
        (Word::Verified, Some(_), _) => Decision::Refuse(Refusal::ProveAccount),
        (_, None, Some(claimant)) => Decision::Adopt(claimant),
        (_, None, None) => Decision::Create { address: true },
    }
}
