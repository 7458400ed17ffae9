use super::*;

/// Everything of a list, page by page.
async fn pages(test: &Test, person: &Person, path: &str, limit: usize) -> Vec<Value> {
    let mut all = vec![];
    let mut cursor = String::new();
    loop {
        let page = test
            .get(&person.token, &format!("{path}?limit={limit}{cursor}"))
            .await
            .json();
        let data = page["data"].as_array().unwrap();
        assert!((1..=limit).contains(&data.len()), "{page}");
        all.extend(data.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

both_engines! {
    async fn conversations_come_newest_first_page_by_page(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);

        test.ask(&bob, "Not Ada's").await;
        let mut made = vec![];
        for n in 0..6 {
            made.push(test.ask(&ada, &format!("Question {n}")).await.json()["conversationId"].as_str().unwrap().to_owned());
        }
        made.reverse();

        // Also where the last page is full.
        for limit in [1, 2, 3, 4, 100] {
            assert_eq!(ids(&pages(&test, &ada, "/api/conversations", limit).await), made, "{limit}");
        }
        let refused = [("limit=0", "limit"), ("limit=101", "limit"), ("cursor=x", "cursor")];
        for (query, field) in refused {
            let answer = test.get(&ada.token, &format!("/api/conversations?{query}")).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["errors"][0]["field"]), (400, &json!(field)));
        }
    }

    async fn messages_come_oldest_first_page_by_page(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let conversation = test.ask(&ada, "Question 0").await.json()["conversationId"].clone();
        for n in 1..3 {
            test.post(&ada.token, CHAT, json!({"message": format!("Question {n}"), "conversationId": conversation})).await;
        }

        let path = format!("/api/conversations/{}/messages", conversation.as_str().unwrap());
        let (one_by_one, at_once) = (pages(&test, &ada, &path, 2).await, test.messages(&ada, &conversation).await);
        assert_eq!(one_by_one, at_once);
        let roles: Vec<_> = at_once.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "assistant"]);
        assert!(at_once.windows(2).all(|pair| pair[1]["parent_id"] == pair[0]["id"]));
    }

    async fn a_deleted_conversation_is_gone_and_what_it_cost_is_not(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let answer = test.ask(&ada, "Hello").await.json();
        let path = format!("/api/conversations/{}", answer["conversationId"].as_str().unwrap());
        let (counted, ledger) = (test.counted(&ada).await, test.ledger(&ada).await);

        assert_eq!(test.call(Method::DELETE, &ada.token, &path, Value::Null).await.status, 204);

        assert_eq!(test.call(Method::DELETE, &ada.token, &path, Value::Null).await.refusal(), (404, "not_found".into()));
        assert_eq!(test.get(&ada.token, &path).await.status, 404);
        assert_eq!(test.get(&ada.token, &format!("{path}/messages")).await.status, 404);
        let go_on = test.post(&ada.token, CHAT, json!({"message": "Hello", "conversationId": answer["conversationId"]})).await;
        assert_eq!(go_on.status, 404);
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), (counted, ledger));
        assert!(ledger.2 > 0);
    }

    async fn anothers_conversation_can_be_neither_read_renamed_nor_deleted(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        let id = test.ask(&ada, "A secret").await.json()["conversationId"].clone();
        let path = format!("/api/conversations/{}", id.as_str().unwrap());

        let answers = [
            test.get(&bob.token, &path).await,
            test.get(&bob.token, &format!("{path}/messages")).await,
            test.call(Method::PATCH, &bob.token, &path, json!({"title": "Mine"})).await,
            test.call(Method::DELETE, &bob.token, &path, Value::Null).await,
            test.get(&bob.token, "/api/conversations/not-an-id").await,
        ];

        for answer in answers {
            assert_eq!(answer.refusal(), (404, "not_found".into()));
        }
        assert_eq!(test.get(&ada.token, &path).await.json()["title"], "A secret");
        assert_eq!(test.conversations(&bob).await, Vec::<Value>::new());
    }

    async fn a_title_is_made_of_the_first_words_and_can_be_changed(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let id = test.ask(&ada, &"🦀 ".repeat(100)).await.json()["conversationId"].clone();
        let path = format!("/api/conversations/{}", id.as_str().unwrap());
        let rename = async |title: &str| test.call(Method::PATCH, &ada.token, &path, json!({"title": title})).await;

        let made = test.get(&ada.token, &path).await.json();
        let renamed = rename("  Crabs  ").await.json();

        assert_eq!(made["title"], format!("{}…", ["🦀"; 30].join(" ")));
        assert_eq!((keys(&renamed), &renamed["title"]), (vec!["active_leaf", "archived_at", "assistant", "client_id", "created_at", "id", "title", "updated_at", "version"], &json!("Crabs")));
        for wrong in [" ".to_owned(), "x".repeat(201), "a\0b".into()] {
            assert_eq!(rename(&wrong).await.refusal(), (400, "validation_failed".into()));
        }
        assert_eq!(test.get(&ada.token, &path).await.json()["title"], "Crabs");
    }
}
