//! What customers see.
use super::*;

struct Browser<'a> {
    bank: &'a Bank,
    http: reqwest::Client,
}

impl<'a> Browser<'a> {
    fn new(bank: &'a Bank) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        Self {
            bank,
            http: client.build().unwrap(),
        }
    }

    async fn open(&self, url: &str) -> String {
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Where it goes from there, and what it shows.
    async fn send(&self, url: &str, form: &[(&str, &str)]) -> (String, String) {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let answer = self.http.post(url).body(form).send().await.unwrap();
        let to = answer
            .headers()
            .get("location")
            .map_or("", |to| to.to_str().unwrap())
            .to_owned();
        (to, answer.text().await.unwrap())
    }

    async fn session(&self, more: &[(&str, &str)]) -> Value {
        self.bank
            .post("checkout/sessions", &[&session_form()[..], more].concat())
            .await
    }
}

const CARD: [(&str, &str); 4] = [
    ("email", "ann@example.com"),
    ("expires", "12 / 34"),
    ("cvc", "123"),
    ("name", "Ann <b>Example</b>"),
];

fn card(number: &str) -> Vec<(&str, &str)> {
    [&CARD[..], &[("number", number)]].concat()
}

#[tokio::test]
async fn who_pays_goes_back_with_the_session_s_id() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let session = browser.session(&[]).await;
    let url = words(&session["url"]);

    let page = browser.open(url).await;
    let (to, _) = browser.send(url, &card("4242 4242 4242 4242")).await;

    assert!(
        page.contains("Simulated") && page.contains("$29.00") && page.contains("Subscribe to Pro")
    );
    assert_eq!(
        to,
        format!("http://app.example/done?session_id={}", id(&session))
    );
    assert!(browser.open(url).await.contains("This is paid"));
    assert_eq!(
        bank.get("subscriptions").await["data"][0]["status"],
        "active"
    );
}

#[tokio::test]
async fn a_declined_card_buys_nothing_and_another_may_be_tried() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let url = words(&browser.session(&[]).await["url"]).to_owned();

    for (number, says) in [
        ("4000000000000002", "Your card was declined."),
        ("4000000000000341", "Your card was declined."),
        ("4000000000009995", "insufficient funds"),
        ("4111111111111111", "used a non test card"),
        ("4242424242424241", "card number is incorrect"),
    ] {
        let (to, page) = browser.send(&url, &card(number)).await;
        assert!(to.is_empty() && page.contains(says), "{number}");
        assert!(
            !page.contains("<b>Example</b>"),
            "what was typed is not markup"
        );
    }
    let (_, past) = browser
        .send(
            &url,
            &[
                ("expires", "10/26"),
                ("number", "4242424242424242"),
                ("cvc", "123"),
                ("name", "A"),
                ("email", "a@example.com"),
            ],
        )
        .await;
    assert!(past.contains("in the past"));
    assert_eq!(bank.get("customers").await["data"], json!([]));
    assert_eq!(bank.told_types(), [""; 0]);

    let (to, _) = browser.send(&url, &card("5555 5555 5555 4444")).await;
    assert!(to.starts_with("http://app.example/done"));
}

#[tokio::test]
async fn a_bank_that_asks_is_answered_either_way() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let url = words(&browser.session(&[]).await["url"]).to_owned();
    let confirm = format!("{url}/confirm");

    let (_, asked) = browser.send(&url, &card("4000 0025 0000 3155")).await;
    let (_, denied) = browser.send(&confirm, &[("answer", "no")]).await;
    let (nowhere, _) = browser.send(&confirm, &[("answer", "yes")]).await;
    browser.send(&url, &card("4000 0025 0000 3155")).await;
    let (to, _) = browser.send(&confirm, &[("answer", "yes")]).await;

    assert!(asked.contains("Is it you who pays?") && asked.contains("3155"));
    assert!(denied.contains("unable to authenticate"));
    assert_eq!(nowhere, "", "an answer that nobody waits for buys nothing");
    assert!(to.starts_with("http://app.example/done"));
}

#[tokio::test]
async fn a_code_is_taken_off_and_a_trial_is_free() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let url = words(&browser.session(&[]).await["url"]).to_owned();
    let trial = words(
        &browser
            .session(&[("subscription_data[trial_period_days]", "7")])
            .await["url"],
    )
    .to_owned();

    let (_, wrong) = browser
        .send(&format!("{url}/promotion"), &[("code", "nothing")])
        .await;
    browser
        .send(&format!("{url}/promotion"), &[("code", "welcome20")])
        .await;
    let off = browser.open(&url).await;
    browser.send(&url, &card("4242424242424242")).await;
    let free = browser.open(&trial).await;
    browser.send(&trial, &card("4242424242424242")).await;

    assert!(wrong.contains("This code is invalid."));
    assert!(off.contains("20% off") && off.contains("$23.20"));
    assert!(
        free.contains("7 days free") && free.contains("Then $29.00 every month, from 27 Nov 2026")
    );
    let sessions = bank.get("checkout/sessions").await;
    let of = |at: usize| {
        (
            &sessions["data"][at]["amount_total"],
            &sessions["data"][at]["payment_status"],
        )
    };
    assert_eq!(
        (of(0), of(1)),
        (
            (&json!(0), &json!("no_payment_required")),
            (&json!(2320), &json!("paid"))
        )
    );
}

#[tokio::test]
async fn a_customer_changes_cancels_and_stays_in_the_portal() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let subscription = bank.subscriber("pm_card_visa", &[]).await;
    let form = [
        ("customer", words(&subscription["customer"])),
        ("return_url", "http://app.example/account"),
    ];
    let url = words(&bank.post("billing_portal/sessions", &form).await["url"]).to_owned();
    let of = [("subscription", words(&subscription["id"]))];

    let page = browser.open(&url).await;
    let (_, preview) = browser
        .send(
            &format!("{url}/preview"),
            &[&of[..], &[("price", "price_standard")]].concat(),
        )
        .await;
    browser
        .send(
            &format!("{url}/change"),
            &[&of[..], &[("price", "price_standard")]].concat(),
        )
        .await;
    let changed = bank.subscription(&subscription).await;
    let (_, left) = browser.send(&format!("{url}/cancel"), &of).await;
    let leaving = bank.subscription(&subscription).await;
    browser.send(&format!("{url}/resume"), &of).await;
    let stays = bank.subscription(&subscription).await;
    let (_, refused) = browser
        .send(&format!("{url}/card"), &card("4000000000000002"))
        .await;
    let (_, kept) = browser
        .send(&format!("{url}/card"), &card("5555555555554444"))
        .await;

    assert!(page.contains("Return to") && page.contains("Renews on 20 Dec 2026"));
    assert!(preview.contains("Kept for your next invoice") && preview.contains("$20.00"));
    assert_eq!(changed["items"]["data"][0]["price"]["id"], "price_standard");
    assert!(left.contains("Available until 20 Dec 2026"));
    assert_eq!(
        (
            &leaving["cancel_at_period_end"],
            &stays["cancel_at_period_end"]
        ),
        (&json!(true), &json!(false))
    );
    assert!(refused.contains("Your card was declined.") && kept.contains("Mastercard •••• 4444"));
}

#[tokio::test]
async fn the_portal_touches_nobody_else_s_subscription() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let (mine, other) = (
        bank.subscriber("pm_card_visa", &[]).await,
        bank.subscriber("pm_card_visa", &[]).await,
    );
    let url = words(
        &bank
            .post(
                "billing_portal/sessions",
                &[("customer", words(&mine["customer"]))],
            )
            .await["url"],
    )
    .to_owned();

    for act in ["cancel", "resume", "change", "preview"] {
        browser
            .send(
                &format!("{url}/{act}"),
                &[
                    ("subscription", words(&other["id"])),
                    ("price", "price_standard"),
                ],
            )
            .await;
    }

    assert_eq!(bank.subscription(&other).await, other);
}

#[tokio::test]
async fn an_open_invoice_is_paid_on_its_page_where_the_bank_can_be_told() {
    let bank = Bank::new().await;
    let browser = Browser::new(&bank);
    let subscription = bank.subscriber("pm_card_authenticationRequired", &[]).await;
    let invoice = bank
        .get(&format!(
            "invoices/{}",
            words(&subscription["latest_invoice"])
        ))
        .await;
    let url = words(&invoice["hosted_invoice_url"]);

    let page = browser.open(url).await;
    let (_, paid) = browser.send(url, &[]).await;

    assert_eq!(
        (&subscription["status"], &invoice["status"]),
        (&json!("incomplete"), &json!("open"))
    );
    assert!(
        bank.told_types()
            .contains(&"invoice.payment_action_required".to_owned())
    );
    assert!(page.contains("Pay $29.00 with Visa •••• 3184"));
    assert!(paid.contains("Paid. Thank you."));
    assert_eq!(bank.subscription(&subscription).await["status"], "active");
}

#[tokio::test]
async fn an_address_of_nothing_says_so() {
    let bank = Bank::new().await;

    for path in ["pay/cs_test_none", "portal/bps_none", "pay/invoice/in_none"] {
        let answer = http()
            .get(format!("{}/{path}", bank.world.stripe_url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404);
        assert!(
            answer
                .text()
                .await
                .unwrap()
                .contains("There is nothing here")
        );
    }
}
