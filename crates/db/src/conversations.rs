//! Conversations and their messages.
use crate::prelude::*;

row! {
    /// One conversation of one user.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Conversation {
        pub id: Uuid,
        pub user_id: Uuid,
        pub title: Option<String>,
        pub assistant: String,
        /// The newest message of the branch that is shown.
        pub active_leaf: Option<Uuid>,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
    }
}

row! {
    /// One message. A question's status is `complete`; an answer's says how it came out.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Message {
        pub id: Uuid,
        pub conversation_id: Uuid,
        pub parent_id: Option<Uuid>,
        pub role: String,
        pub content: String,
        pub status: String,
        pub model: Option<String>,
        pub input_tokens: Option<i64>,
        pub output_tokens: Option<i64>,
        pub created_at: Timestamp,
    }
}

sql! {
    /// Makes a conversation. `false` when the id is taken.
    pub fn create(tx: &mut Tx, id: Uuid, user: Uuid, title: Option<&str>, assistant: &str, now: Timestamp) -> bool {
        "insert into conversations (id, user_id, title, assistant, created_at, updated_at)
         values ($id, $user, $title, $assistant, $now, $now) on conflict (id) do nothing"
    }

    /// The user's conversation of this id; another user's is as absent as none.
    pub fn of_user(db: &Db, user: Uuid, id: Uuid) -> Option<Conversation> {
        "select {columns} from conversations where id = $id and user_id = $user"
    }

    /// One page of a user's conversations, newest first; start with `Uuid::max()`, go on with the last id.
    pub fn page(db: &Db, user: Uuid, before: Uuid, limit: i64) -> Vec<Conversation> {
        "select {columns} from conversations where user_id = $user and id < $before order by id desc limit $limit"
    }

    /// Renames it. `false` when the user has none of this id.
    pub fn rename(tx: &mut Tx, user: Uuid, id: Uuid, title: &str, now: Timestamp) -> bool {
        "update conversations set title = $title, updated_at = $now where id = $id and user_id = $user"
    }

    /// Deletes it with its messages. `false` when the user has none of this id.
    pub fn delete(tx: &mut Tx, user: Uuid, id: Uuid) -> bool {
        "delete from conversations where id = $id and user_id = $user"
    }

    /// Moves the shown branch on.
    pub fn advance(tx: &mut Tx, id: Uuid, leaf: Uuid, now: Timestamp) {
        "update conversations set active_leaf = $leaf, updated_at = $now where id = $id"
    }

    /// Adds a question.
    pub fn ask(tx: &mut Tx, id: Uuid, conversation: Uuid, parent: Option<Uuid>, content: &str, now: Timestamp) {
        "insert into messages (id, conversation_id, parent_id, role, content, status, created_at)
         values ($id, $conversation, $parent, 'user', $content, 'complete', $now)"
    }

    /// Adds the place of an answer that is being made.
    pub fn place_answer(tx: &mut Tx, id: Uuid, conversation: Uuid, parent: Uuid, model: &str, now: Timestamp) {
        "insert into messages (id, conversation_id, parent_id, role, content, status, model, created_at)
         values ($id, $conversation, $parent, 'assistant', '', 'streaming', $model, $now)"
    }

    /// Keeps what has come so far of an answer that is being made.
    pub fn checkpoint(tx: &mut Tx, id: Uuid, content: &str) {
        "update messages set content = $content where id = $id and status = 'streaming'"
    }

    /// Completes an answer, one way or another.
    pub fn settle_answer(tx: &mut Tx, id: Uuid, content: &str, status: &str, input_tokens: i64, output_tokens: i64) {
        "update messages set content = $content, status = $status, input_tokens = $input_tokens, output_tokens = $output_tokens
         where id = $id and status = 'streaming'"
    }

    /// The message of this id.
    pub fn message(db: &Db, id: Uuid) -> Option<Message> {
        "select {columns} from messages where id = $id"
    }

    /// One page of messages, oldest first; start with `Uuid::nil()`, go on with the last id.
    pub fn messages(db: &Db, conversation: Uuid, after: Uuid, limit: i64) -> Vec<Message> {
        "select {columns} from messages where conversation_id = $conversation and id > $after order by id limit $limit"
    }

    /// The newest messages of a conversation, newest first.
    pub fn newest_messages(db: &Db, conversation: Uuid, limit: i64) -> Vec<Message> {
        "select {columns} from messages where conversation_id = $conversation order by id desc limit $limit"
    }
}
