//! What providers gave us for the identities they know, and would have back.
use crate::prelude::*;

row! {
    /// An identity, the client of ours it was proved to, and the token given to that client, sealed.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Kept {
        pub subject: String,
        pub client_id: Option<String>,
        pub refresh_token: Option<Vec<u8>>,
    }
}

sql! {
    /// A user's identities at this provider.
    pub fn of_provider(db: &Db, user: Uuid, provider: &str) -> Vec<Kept> {
        "select {columns} from identities where user_id = $user and provider = $provider"
    }

    /// Those for which there is something to give back.
    pub fn revocable(tx: &mut Tx, user: Uuid, provider: &str) -> Vec<Kept> {
        "select {columns} from identities
         where user_id = $user and provider = $provider and refresh_token is not null"
    }

    /// One identity.
    pub fn kept_of(tx: &mut Tx, id: Uuid) -> Option<Kept> {
        "select {columns} from identities where id = $id"
    }

    /// Forgets what was given: it is good for nothing any more.
    pub fn forget_token(tx: &mut Tx, id: Uuid) {
        "update identities set refresh_token = null where id = $id"
    }
}
