use super::*;
use crate::chat::quota::{DAY, MONTH, Period};
use crate::chat::tokens::estimate;
use db::{billing::Grant, usage::Window};

const LLM: &str = "/api/admin/llm";
/// Of everyone's plan and of the standard one, in `plans.toml`.
const STANDARD_COST: i64 = 5_000_000;
const STANDARD_MESSAGES_OF_4O: i64 = 200;

impl Test {
    /// Gives a plan, or takes what there was.
    async fn plan(&self, person: &Person, plan: Option<&str>) {
        let grants: Vec<_> = plan
            .into_iter()
            .map(|plan| Grant {
                user_id: person.id.parse().unwrap(),
                entitlement: plan.into(),
                source: "manual".into(),
                source_ref: person.id.clone(),
                starts_at: self.app.now(),
                ends_at: None,
                revoked_at: None,
                reason: None,
                in_grace: false,
                will_renew: false,
                kind: "promo".into(),
            })
            .collect();
        let (mut tx, now) = (self.app.db.begin().await.unwrap(), self.app.now());
        db::billing::replace_grants(&mut tx, "manual", &person.id, &grants, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn settings(&self, change: Value) -> Value {
        let changed = self
            .call(Method::PUT, &self.service_key(), LLM, change)
            .await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        changed.json()
    }

    async fn window(&self, subject: &str, model: &str, start: Timestamp) -> Option<Window> {
        let windows = db::usage::windows(&self.app.db, subject, start)
            .await
            .unwrap();
        windows.into_iter().find(|window| window.model == model)
    }

    async fn use_up_model(&self, person: &Person, model: &str, messages: i64) {
        let (subject, start) = (
            format!("user:{}", person.id),
            Period::of(self.app.now()).start,
        );
        let used = Amount {
            messages,
            ..Amount::default()
        };
        let mut tx = self.app.db.begin().await.unwrap();
        db::usage::open(&mut tx, &subject, model, start, used)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn price(&self, model: &str, input: i64, output: i64) {
        let (mut tx, id) = (self.app.db.begin().await.unwrap(), uuid::Uuid::now_v7());
        let added = db::prices::add(&mut tx, id, model, self.app.now(), input, input, output).await;
        assert!(added.unwrap());
        tx.commit().await.unwrap();
    }

    async fn charges(&self, person: &Person) -> Vec<db::usage::Charge> {
        let (user, zero) = (person.id.parse().unwrap(), Timestamp::from_unix(0));
        db::usage::charges_of_user(&self.app.db, user, zero, uuid::Uuid::nil(), 100)
            .await
            .unwrap()
    }

    async fn spending(&self, query: &str) -> Value {
        let path = format!("/api/admin/usage?{query}");
        let answer = self.get(&self.service_key(), &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn usage_said(input: i64, output: i64) -> Step {
    said(&json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}}))
}

both_engines! {
    async fn a_plan_limits_what_it_costs_and_cuts_the_answer_to_what_is_left(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.plan(&ada, Some("standard")).await;
        // A tenth of a thousandth of a dollar: 200 tokens of prompt and 100 of output, or so.
        test.use_up(&ada, "cost", STANDARD_COST - 100).await;

        let answer = test.ask(&ada, "Hello").await;

        assert_eq!(answer.status, 200);
        let allowed = test.llm().calls()[0].body["max_tokens"].as_i64().unwrap();
        assert!((64..200).contains(&allowed), "{allowed}");
        let usage = test.get(&ada.token, "/api/usage").await.json();
        assert!(usage["cost"]["used"].as_i64().unwrap() <= STANDARD_COST, "{usage}");
        assert_eq!(usage["cost"]["reserved"], 0);

        test.use_up(&ada, "cost", 90).await;
        let refused = test.ask(&ada, "Hello").await;
        assert_eq!((refused.refusal(), &refused.json()["quota"]), ((402, "quota_exceeded".into()), &json!("cost")));
        assert_eq!(test.llm().count(), 1);
    }

    async fn a_plan_limits_one_model_besides(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.plan(&ada, Some("standard")).await;
        test.use_up_model(&ada, "gpt-4o", STANDARD_MESSAGES_OF_4O - 2).await;
        let of_4o = || question_with(json!({"model": "gpt-4o"}));

        let asked = join_all((0..6).map(|_| test.complete(&ada, of_4o()))).await;

        assert_eq!(asked.iter().filter(|answer| answer.status == 200).count(), 2);
        assert!(asked.iter().all(|answer| answer.status == 200 || answer.refusal() == (429, "insufficient_quota".into())));
        let native = test.post(&ada.token, "/api/conversations", json!({})).await.json();
        let path = format!("/api/conversations/{}/messages", native["id"].as_str().unwrap());
        let refused = test.post(&ada.token, &path, json!({"content": "Hello", "model": "gpt-4o"})).await;
        assert_eq!((refused.refusal(), &refused.json()["model"]), ((402, "quota_exceeded".into()), &json!("gpt-4o")));
        assert_eq!(test.complete(&ada, question("Hello")).await.status, 200, "other models are as they were");
        assert_eq!(test.counted(&ada).await[..2], [3, 0]);
        let usage = test.get(&ada.token, "/api/usage").await.json();
        let models = usage["models"].as_array().unwrap();
        assert_eq!(models.iter().map(|model| &model["model"]).collect::<Vec<_>>(), ["gpt-4o", "gpt-4o-mini"]);
        assert_eq!(models[0]["limits"]["messages"], json!({"used": 200, "reserved": 0, "limit": 200, "remaining": 0}));
        assert_eq!((&models[0]["messages"], &models[1]["messages"], &models[1]["limits"]), (&json!(2), &json!(1), &Value::Null));
    }

    async fn what_was_asked_before_a_model_was_limited_counts(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.plan(&ada, Some("pro")).await;
        for _ in 0..2 {
            assert_eq!(test.complete(&ada, question_with(json!({"model": "gpt-4o"}))).await.status, 200);
        }

        test.plan(&ada, Some("standard")).await;
        let before = test.get(&ada.token, "/api/usage").await.json();
        test.complete(&ada, question_with(json!({"model": "gpt-4o"}))).await;

        assert_eq!(before["models"][0]["limits"]["messages"]["used"], 2);
        let after = test.get(&ada.token, "/api/usage").await.json();
        assert_eq!(after["models"][0]["limits"]["messages"]["used"], 3);
    }

    /// Invariant 43.
    async fn a_plan_that_changes_meanwhile_leaves_nothing_set_aside(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.plan(&ada, Some("standard")).await;
        test.llm().script([words(["One"], [Step::Hang])]);
        let asked = question_with(json!({"model": "gpt-4o", "stream": true}));
        let mut response = test.open(&ada, COMPLETIONS, asked).await;
        read_to(response.body_mut(), "One").await;
        let (subject, start) = (format!("user:{}", ada.id), Period::of(test.app.now()).start);
        assert_eq!(test.window(&subject, "gpt-4o", start).await.unwrap().messages_reserved, 1);

        test.plan(&ada, None).await;
        test.app.streams.stop_all();
        test.settled().await;

        for model in ["", "gpt-4o"] {
            let window = test.window(&subject, model, start).await.unwrap();
            assert_eq!((window.messages_used, window.reserved()), (1, Amount::default()), "{model}");
        }
        assert_eq!(test.complete(&ada, question_with(json!({"model": "gpt-4o"}))).await.refusal(), (403, "model_not_in_plan".into()));
    }

    /// Invariant 41.
    async fn an_answer_costs_what_it_did_when_it_was_asked_for(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.llm().script([words(["One"], [usage_said(1_000, 100), Step::Hang])]);
        let mut response = test.open(&ada, COMPLETIONS, question_with(json!({"stream": true}))).await;
        read_to(response.body_mut(), "One").await;

        test.later(Duration::from_secs(1));
        test.price("gpt-4o-mini", 1_500_000, 6_000_000).await;
        test.app.streams.stop_all();
        test.settled().await;
        test.llm().script([words(["Two"], [finish("stop"), usage_said(1_000, 100), done()])]);
        test.complete(&ada, question("Hello")).await;

        let charges = test.charges(&ada).await;
        assert_eq!(charges.len(), 2);
        assert_eq!((charges[1].cost_microusd, charges[1].input_tokens), (2_100, 1_000));
        assert_ne!(charges[0].price_id, charges[1].price_id);
        // From the ledger alone, the cost is what it was.
        let prices = db::prices::of_model(&test.app.db, "gpt-4o-mini").await.unwrap();
        for charge in charges {
            let price = prices.iter().find(|price| Some(price.id) == charge.price_id).unwrap();
            let fresh = charge.input_tokens - charge.cached_tokens;
            let millionths = fresh * price.input_microusd + charge.cached_tokens * price.cached_input_microusd + charge.output_tokens * price.output_microusd;
            assert_eq!(charge.cost_microusd, (millionths + 999_999) / 1_000_000);
        }
    }

    async fn cached_input_is_charged_as_such(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let usage = json!({"prompt_tokens": 2_000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 1_000}, "completion_tokens_details": {"reasoning_tokens": 400}});
        test.llm().script([words(["One"], [finish("stop"), said(&json!({"choices": [], "usage": usage})), done()])]);

        test.complete(&ada, question("Hello")).await;

        let charge = test.charges(&ada).await.remove(0);
        assert_eq!((charge.cached_tokens, charge.reasoning_tokens), (1_000, 400));
        assert_eq!(charge.cost_microusd, 150 + 75 + 300);
        assert_eq!(test.counted(&ada).await[2], 2_500, "tokens are tokens");
    }

    async fn a_price_is_written_down_when_it_changes_and_not_again(engine: Engine) {
        let test = Test::new(engine).await;
        let first = db::prices::of_model(&test.app.db, "gpt-4o").await.unwrap();

        let there = test.beside(&[]).await;
        assert_eq!(db::prices::of_model(&test.app.db, "gpt-4o").await.unwrap(), first);

        test.later(Duration::from_secs(1));
        test.price("gpt-4o", 1, 2).await;
        test.later(Duration::from_secs(1));
        crate::chat::prices::keep(&test.app.db, there.app.plans.prices(), test.app.now()).await.unwrap();

        let of_4o: Vec<_> = db::prices::of_model(&test.app.db, "gpt-4o").await.unwrap();
        assert_eq!(of_4o.iter().map(|price| price.input_microusd).collect::<Vec<_>>(), [2_500_000, 1, 2_500_000]);
        assert!(first.contains(&of_4o[0]), "what was is as it was");
    }

    /// Invariant 2, of everyone together.
    async fn everyone_together_is_never_promised_more_than_the_budget(engine: Engine) {
        let here = Test::new(engine).await;
        let there = here.beside(&[]).await;
        let (ada, bob) = (here.sign_up(ADA).await, here.sign_up(BOB).await);
        // Two answers of the usual length, and one that is cut short.
        const BUDGET: i64 = 1_500;
        here.settings(json!({"budget_day_microusd": BUDGET})).await;
        for test in [&here, &there] {
            test.llm().script((0..12).map(|_| Reply::hang()));
        }

        let asked = join_all((0..12).map(|n| {
            let (test, person) = ([&here, &there][n % 2], [&ada, &bob][n / 2 % 2]);
            test.open(person, COMPLETIONS, question_with(json!({"stream": true})))
        })).await;

        let day = Period::day_of(here.app.now()).start;
        let window = here.window(DAY, "", day).await.unwrap();
        assert!(window.cost_used == 0 && window.cost_reserved <= BUDGET, "{window:?}");
        let admitted = asked.iter().filter(|response| response.status() == 200).count();
        assert!(asked.iter().all(|response| [200, 503].contains(&response.status().as_u16())));
        assert!((2..=4).contains(&admitted) && here.under_way().await == admitted, "{admitted}");
        drop(asked);
        here.settled().await;
        there.settled().await;
        let window = here.window(DAY, "", day).await.unwrap();
        assert_eq!((window.messages_reserved, window.tokens_reserved, window.cost_reserved), (0, 0, 0));
    }

    async fn a_budget_that_is_used_up_refuses_until_the_day_is_over(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.settings(json!({"budget_day_microusd": 20})).await;

        let native = test.ask(&ada, "Hello").await;
        let openai = test.complete(&ada, question("Hello")).await;

        // 09:30 it is.
        let until_midnight = (14 * 3_600 + 30 * 60).to_string();
        assert_eq!((native.refusal(), native.header("retry-after")), ((503, "llm_unavailable".into()), &*until_midnight));
        assert_eq!((openai.refusal(), openai.header("x-should-retry")), ((503, "llm_unavailable".into()), "false"));
        test.is_untouched(&ada, [0; 4]).await;
        test.settings(json!({"budget_day_microusd": null})).await;
        assert_eq!(test.ask(&ada, "Hello").await.status, 200);
    }

    async fn a_budget_counts_what_was_spent_and_set_aside_before_it(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.ask(&ada, "Hello").await;
        let (_, _, spent) = test.ledger(&ada).await;
        test.llm().script([words(["One"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "And now?", "stream": true})).await;
        read_to(response.body_mut(), "event: delta").await;

        let settings = test.settings(json!({"budget_month_microusd": 1_000_000})).await;

        assert_eq!((&settings["month"]["spent_microusd"], &settings["month"]["budget_microusd"]), (&json!(spent), &json!(1_000_000)));
        assert!(settings["day"]["reserved_microusd"].as_i64().unwrap() > 600, "{settings}");
        test.app.streams.stop_all();
        test.settled().await;
        let (_, _, spent) = test.ledger(&ada).await;
        let (day, month) = (Period::day_of(test.app.now()).start, Period::of(test.app.now()).start);
        for (subject, start) in [(DAY, day), (MONTH, month)] {
            let window = test.window(subject, "", start).await.unwrap();
            assert_eq!((window.cost_used, window.cost_reserved), (spent, 0), "{subject}");
        }
    }

    /// Invariant 43.
    async fn a_budget_is_settled_on_the_day_and_in_the_month_it_was_asked_in(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        test.settings(json!({"budget_day_microusd": 1_000_000})).await;
        let (day, month) = (Period::day_of(test.app.now()), Period::of(test.app.now()));
        test.llm().script([words(["One"], [Step::Hang])]);
        let mut response = test.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(response.body_mut(), "event: delta").await;

        test.later(Duration::from_secs(11 * 86_400));
        test.app.streams.stop_all();
        test.settled().await;

        for (subject, start) in [(DAY, day.start), (MONTH, month.start)] {
            let window = test.window(subject, "", start).await.unwrap();
            assert!(window.cost_used > 0 && window.cost_reserved == 0, "{window:?}");
        }
        assert_eq!(test.window(MONTH, "", month.end).await, None);
        assert_eq!(test.window(DAY, "", Period::day_of(test.app.now()).start).await, None);
    }

    /// The provider was asked, and nobody knows what it did: the user pays nothing, the budget keeps the question in mind.
    async fn what_may_have_been_billed_counts_for_the_budget_and_not_for_the_user(engine: Engine) {
        let test = impatient(engine).await;
        let ada = test.sign_up(ADA).await;
        test.settings(json!({"budget_day_microusd": 1_000_000})).await;
        test.llm().script([Reply::hang()]);

        let failed = test.ask(&ada, "Hello").await;

        assert_eq!(failed.refusal(), (504, "llm_timeout".into()));
        let charge = test.charges(&ada).await.remove(0);
        assert_eq!((charge.usage_source.as_str(), charge.output_tokens), ("maybe_billed", 0));
        assert!(charge.input_tokens > 0 && charge.cost_microusd > 0, "{charge:?}");
        assert_eq!((test.counted(&ada).await, test.ledger(&ada).await), ([0; 4], (0, 0, 0)));
        let window = test.window(DAY, "", Period::day_of(test.app.now()).start).await.unwrap();
        assert_eq!((window.messages_used, window.cost_used, window.cost_reserved), (0, charge.cost_microusd, 0));
        let total = &test.spending("by=model").await["total"];
        assert_eq!((&total["answers"], &total["maybe_microusd"]), (&json!(0), &json!(charge.cost_microusd)));

        test.llm().script([refusal(400, "invalid", &[])]);
        test.ask(&ada, "Hello").await;
        assert_eq!(test.charges(&ada).await[1].usage_source, "none", "who refuses bills nothing");
    }

    /// Invariant 37.
    async fn the_switch_counts_at_once_on_every_instance_and_lets_answers_finish(engine: Engine) {
        let here = Test::new(engine).await;
        let there = here.beside(&[]).await;
        let ada = here.sign_up(ADA).await;
        let ann = here.sign_up_admin("ann@example.com").await;
        here.llm().script([words(["One"], [Step::Hang])]);
        let mut running = here.open(&ada, CHAT, json!({"message": "Hello", "stream": true})).await;
        read_to(running.body_mut(), "event: delta").await;
        let conversations = here.conversations(&ada).await.len();

        let off = here.call(Method::PUT, &ann.token, LLM, json!({"enabled": false})).await;

        assert_eq!((off.status.as_u16(), &off.json()["enabled"]), (200, &json!(false)));
        for test in [&here, &there] {
            let refused = test.ask(&ada, "Hello").await;
            assert_eq!((refused.refusal(), refused.header("retry-after")), ((503, "llm_unavailable".into()), "60"));
        }
        let openai = there.complete(&ada, question("Hello")).await;
        assert_eq!((openai.refusal(), openai.header("x-should-retry")), ((503, "llm_unavailable".into()), "false"));
        assert_eq!((here.llm().count(), there.llm().count(), here.conversations(&ada).await.len()), (1, 0, conversations));
        assert_eq!((here.counted(&ada).await[..2].to_vec(), here.under_way().await), (vec![0, 1], 1), "what runs goes on");
        let event = db::audit::page(&here.app.db, None, 1).await.unwrap().remove(0);
        assert_eq!((event.action.as_str(), &event.detail["after"]["enabled"]), ("llm_settings_changed", &json!(false)));
        assert_eq!(here.get(&ada.token, LLM).await.refusal(), (403, "not_admin".into()));

        here.app.streams.stop_all();
        read_to(running.body_mut(), "event: finish").await;
        there.settings(json!({"enabled": true})).await;
        assert_eq!(here.ask(&ada, "Hello").await.status, 200);
    }

    async fn settings_that_cannot_be_change_nothing(engine: Engine) {
        let test = Test::new(engine).await;
        let key = test.service_key();

        for change in [json!({"budget_day_microusd": -1}), json!({"budget_month_microusd": "much"}), json!({"enabled": 1}), json!({}), json!({"enabled": null, "budget_day_microusd": 1.5})] {
            let refused = test.call(Method::PUT, &key, LLM, change.clone()).await;
            assert!(refused.status == 400, "{change}: {}", refused.text());
        }

        let settings = test.get(&key, LLM).await.json();
        assert_eq!((&settings["enabled"], &settings["updated_at"], &settings["day"]["budget_microusd"]), (&json!(true), &Value::Null, &Value::Null));
    }

    async fn the_ledger_is_added_up_by_day_model_and_user(engine: Engine) {
        let test = Test::new(engine).await;
        let (ada, bob) = (test.sign_up(ADA).await, test.sign_up(BOB).await);
        test.plan(&bob, Some("pro")).await;
        test.ask(&ada, "Hello").await;
        test.later(Duration::from_secs(15 * 3_600));
        let (ada, bob) = (test.sign_in_again(&ada.email).await, test.sign_in_again(&bob.email).await);
        test.ask(&ada, "Hello").await;
        test.complete(&bob, question_with(json!({"model": "gpt-4o"}))).await;
        let (ada_spent, bob_spent) = (test.ledger(&ada).await.2, test.ledger(&bob).await.2);

        let (days, models, users) = (test.spending("").await, test.spending("by=model").await, test.spending("by=user").await);

        let row = |sums: &Value, key: &str| {
            let row = sums["data"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}: {sums}"));
            (row["answers"].as_i64().unwrap(), row["cost_microusd"].as_i64().unwrap())
        };
        assert_eq!((row(&days, "2026-11-20").0, row(&days, "2026-11-21").0), (1, 2));
        assert_eq!((row(&models, "gpt-4o-mini"), row(&models, "gpt-4o")), ((2, ada_spent), (1, bob_spent)));
        assert_eq!((row(&users, &ada.id), row(&users, &bob.id)), ((2, ada_spent), (1, bob_spent)));
        for sums in [&days, &models, &users] {
            assert_eq!(sums["total"]["cost_microusd"], ada_spent + bob_spent);
        }
        let one_day = test.spending("from=2026-11-20&to=2026-11-21").await;
        assert_eq!((one_day["data"].as_array().unwrap().len(), &one_day["total"]["answers"]), (1, &json!(1)));
        for query in ["from=yesterday", "from=2026-11-21&to=2026-11-20", "by=hour"] {
            let refused = test.get(&test.service_key(), &format!("/api/admin/usage?{query}")).await;
            assert_eq!(refused.refusal(), (400, "validation_failed".into()), "{query}");
        }
    }

    async fn openais_clients_read_what_is_left_in_headers(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;

        let whole = test.complete(&ada, question("Hello")).await;
        let streamed = test.complete(&ada, question_with(json!({"stream": true}))).await;

        // To the first of December, from the 20th of November, 09:30.
        let reset = format!("{}h{}m0s", 10 * 24 + 14, 30);
        for (answer, left) in [(&whole, "99"), (&streamed, "98")] {
            assert_eq!(["limit", "remaining", "reset"].map(|what| answer.header(&format!("x-ratelimit-{what}-requests"))), ["100", left, &reset]);
            assert_eq!((answer.header("x-ratelimit-limit-tokens"), answer.header("x-ratelimit-reset-tokens")), ("100000", &*reset));
            let tokens: i64 = answer.header("x-ratelimit-remaining-tokens").parse().unwrap();
            assert!((90_000..100_000).contains(&tokens), "{tokens}");
        }
        test.use_up(&ada, "messages", 98).await;
        let refused = test.complete(&ada, question("Hello")).await;
        assert_eq!((refused.refusal(), refused.header("x-should-retry")), ((429, "insufficient_quota".into()), "false"));
        assert_eq!((refused.header("x-ratelimit-remaining-requests"), refused.header("x-ratelimit-reset-requests")), ("0", &*reset));
    }

    /// Invariant 42.
    async fn an_estimate_is_never_less_than_what_the_provider_counts(engine: Engine) {
        let test = Test::new(engine).await;
        let ada = test.sign_up(ADA).await;
        let corpus = [
            "Hello", "How do I sleep better?", "a b c d e f g h i j", "1 2 3 4 5, 6; 7!", "Straße, Čeština, naïve café",
            "最近よく眠れません。どうすればいいですか", "👩‍👩‍👧 🎉🎉", "fn main() { println!(\"{}\", 1 + 1); }", "x\n\n\n  y", "-", "Привет, как дела?",
        ];

        for text in corpus {
            let answer = test.ask(&ada, text).await.json();
            let usage = &answer["usage"];
            let generation = db::generations::of_message(&test.app.db, answer["messageId"].as_str().unwrap().parse().unwrap()).await.unwrap().unwrap();
            assert!(generation.prompt_tokens >= usage["prompt_tokens"].as_i64().unwrap(), "{text}: {} < {usage}", generation.prompt_tokens);
            let said = estimate(answer["response"].as_str().unwrap());
            assert!(said >= usage["completion_tokens"].as_i64().unwrap(), "{text}: {said} < {usage}");
        }

        let charges = test.charges(&ada).await;
        assert!(charges.len() == corpus.len() && charges.iter().all(|charge| charge.usage_source == "provider"), "{charges:?}");
    }
}
