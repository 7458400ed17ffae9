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
        /// The id that a client gave it.
        pub client_id: Option<String>,
        /// How often what is shown of it changed.
        pub version: i64,
        pub archived_at: Option<Timestamp>,
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
        /// The number of the last event that the words hold; of a settled answer, of its last event.
        pub seq: i64,
        /// The id that a client gave it.
        pub client_id: Option<String>,
        pub created_at: Timestamp,
    }
}

row! {
    /// The first question of a conversation and an answer to it.
    #[expect(missing_docs, reason = "the columns say it")]
    pub struct Opening {
        pub conversation_id: Uuid,
        pub user_id: Uuid,
        pub title: Option<String>,
        pub question: String,
        pub answer: String,
    }
}

sql! {
    /// The opening that this answer is of; `None` where its question was not the first.
    pub fn opening(db: &Db, answer: Uuid) -> Option<Opening> {
        "select c.id as conversation_id, c.user_id, c.title, q.content as question, a.content as answer
         from messages a join messages q on q.id = a.parent_id join conversations c on c.id = a.conversation_id
         where a.id = $answer and q.parent_id is null"
    }

    /// The same, as the transaction sees it.
    pub fn opened_by(tx: &mut Tx, answer: Uuid) -> Option<Opening> {
        "select c.id as conversation_id, c.user_id, c.title, q.content as question, a.content as answer
         from messages a join messages q on q.id = a.parent_id join conversations c on c.id = a.conversation_id
         where a.id = $answer and q.parent_id is null"
    }

    /// Makes a conversation. `false` when one of its ids is taken.
    pub fn create(
        tx: &mut Tx, id: Uuid, user: Uuid, title: Option<&str>, assistant: &str, client_id: Option<&str>, now: Timestamp,
    ) -> bool {
        "insert into conversations (id, user_id, title, assistant, client_id, created_at, updated_at)
         values ($id, $user, $title, $assistant, $client_id, $now, $now) on conflict do nothing"
    }

    /// The user's conversation of this id; another user's is as absent as none.
    pub fn of_user(db: &Db, user: Uuid, id: Uuid) -> Option<Conversation> {
        "select {columns} from conversations where id = $id and user_id = $user"
    }

    /// The user's conversation to which a client gave this id.
    pub fn of_client(db: &Db, user: Uuid, client_id: &str) -> Option<Conversation> {
        "select {columns} from conversations where client_id = $client_id and user_id = $user"
    }

    /// One page of a user's conversations, all, the archived ones or the others, newest first; start with
    /// `Uuid::max()`, go on with the last id.
    pub fn page(db: &Db, user: Uuid, archived: Option<bool>, before: Uuid, limit: i64) -> Vec<Conversation> {
        "select {columns} from conversations
         where user_id = $user and id < $before and ($archived is null or (archived_at is not null) = $archived)
         order by id desc limit $limit"
    }

    /// One page of those in whose messages all these words are, or whose title is like this, newest
    /// first. `words` is plain text on PostgreSQL, on SQLite an expression of its full-text search.
    pub fn search(db: &Db, user: Uuid, words: &str, title: &str, before: Uuid, limit: i64) -> Vec<Conversation> {
        "select {columns} from conversations
         where user_id = $user and id < $before and (lower(title) like $title escape '~' or id in (
             {postgres: select conversation_id from messages m join conversations c on c.id = m.conversation_id
              where c.user_id = $user and status <> 'streaming' and to_tsvector('simple', content) @@ plainto_tsquery('simple', $words)}
             {sqlite: select conversation_id from messages_search s join searched_messages on number = s.rowid
              join messages m on m.id = message_id where messages_search match $words}))
         order by id desc limit $limit"
    }

    /// Changes what is given. `false` when the user has none of this id, or not in this version.
    pub fn update(
        tx: &mut Tx, user: Uuid, id: Uuid, title: Option<&str>, archive: Option<bool>, active_leaf: Option<Uuid>,
        version: Option<i64>, now: Timestamp,
    ) -> bool {
        "update conversations
         set title = coalesce($title, title), active_leaf = coalesce($active_leaf, active_leaf), version = version + 1,
             archived_at = case when $archive is null then archived_at when $archive then coalesce(archived_at, $now) end,
             updated_at = $now
         where id = $id and user_id = $user and ($version is null or version = $version)"
    }

    /// Gives a title that nobody chose in the meantime.
    pub fn entitle(tx: &mut Tx, id: Uuid, title: &str, instead_of: &str) -> bool {
        "update conversations set title = $title where id = $id and title = $instead_of"
    }

    /// Holds it: until the transaction ends, nothing is asked in it.
    pub fn hold(tx: &mut Tx, user: Uuid, id: Uuid) -> Option<Conversation> {
        "select {columns} from conversations where id = $id and user_id = $user {postgres: for update}"
    }

    /// Deletes it with its messages. Hold it and its generations first. `false` when the user has none of this id.
    pub fn delete(tx: &mut Tx, user: Uuid, id: Uuid) -> bool {
        "delete from conversations where id = $id and user_id = $user"
    }

    /// Moves the shown branch on.
    pub fn advance(tx: &mut Tx, id: Uuid, leaf: Uuid, now: Timestamp) {
        "update conversations set active_leaf = $leaf, version = version + 1, archived_at = null, updated_at = $now
         where id = $id"
    }

    /// Adds a question. `false` when a client gave its id to another.
    pub fn ask(
        tx: &mut Tx, id: Uuid, conversation: Uuid, parent: Option<Uuid>, content: &str, client_id: Option<&str>, now: Timestamp,
    ) -> bool {
        "insert into messages (id, conversation_id, parent_id, role, content, status, client_id, created_at)
         values ($id, $conversation, $parent, 'user', $content, 'complete', $client_id, $now) on conflict do nothing"
    }

    /// Adds the place of an answer that is being made.
    pub fn place_answer(tx: &mut Tx, id: Uuid, conversation: Uuid, parent: Uuid, model: &str, now: Timestamp) {
        "insert into messages (id, conversation_id, parent_id, role, content, status, model, created_at)
         values ($id, $conversation, $parent, 'assistant', '', 'streaming', $model, $now)"
    }

    /// Keeps what has come so far of an answer that is being made.
    pub fn checkpoint(tx: &mut Tx, id: Uuid, content: &str, seq: i64) {
        "update messages set content = $content, seq = $seq where id = $id and status = 'streaming'"
    }

    /// Completes an answer, one way or another.
    pub fn settle_answer(
        tx: &mut Tx, id: Uuid, content: &str, status: &str, input_tokens: i64, output_tokens: i64, seq: i64,
    ) {
        "update messages set content = $content, status = $status, input_tokens = $input_tokens,
                             output_tokens = $output_tokens, seq = $seq
         where id = $id and status = 'streaming'"
    }

    /// The message of this id.
    pub fn message(db: &Db, id: Uuid) -> Option<Message> {
        "select {columns} from messages where id = $id"
    }

    /// The message of a conversation that has this id, by us or by a client.
    pub fn message_of(db: &Db, conversation: Uuid, id: Option<Uuid>, client_id: &str) -> Option<Message> {
        "select {columns} from messages where conversation_id = $conversation and (id = $id or client_id = $client_id) limit 1"
    }

    /// A message and those before it on its branch, newest first.
    pub fn branch(db: &Db, leaf: Uuid, limit: i64) -> Vec<Message> {
        "with recursive branch (branch_id, next_id, depth) as (
             select id, parent_id, cast(1 as bigint) from messages where id = $leaf
             union all
             select m.id, m.parent_id, b.depth + 1 from messages m join branch b on m.id = b.next_id where b.depth < $limit
         )
         select {columns} from messages join branch on branch_id = id order by depth"
    }

    /// One page of messages, oldest first; start with `Uuid::nil()`, go on with the last id.
    pub fn messages(db: &Db, conversation: Uuid, after: Uuid, limit: i64) -> Vec<Message> {
        "select {columns} from messages where conversation_id = $conversation and id > $after order by id limit $limit"
    }
}
