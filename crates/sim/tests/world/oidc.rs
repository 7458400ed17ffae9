//! Providers to sign in with, as a client of theirs meets them.
use super::world;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Response, StatusCode, Url};
use serde_json::{Value, json};
use sim::World;
use std::collections::HashMap;

const BACK: &str = "http://127.0.0.1:9/callback";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn http() -> reqwest::Client {
    let client = reqwest::Client::builder()
        .no_proxy()
        .user_agent("sim's tests");
    client
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

async fn authorize(world: &World, provider: &str, more: &[(&str, &str)]) -> Response {
    let usual = [
        ("client_id", "ours"),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", "openid email"),
        ("state", "the state"),
        ("nonce", "the nonce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let asked: HashMap<_, _> = usual.iter().chain(more).copied().collect();
    let url = format!("{}/authorize", world.oidc().issuer(provider));
    http()
        .get(Url::parse_with_params(&url, asked).unwrap())
        .send()
        .await
        .unwrap()
}

/// What the answer carries back to the client.
fn carried(answer: &Response) -> HashMap<String, String> {
    assert_eq!(answer.status(), StatusCode::FOUND);
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(BACK), "{location}");
    Url::parse(location)
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect()
}

async fn redeem(world: &World, provider: &str, code: &str, more: &[(&str, &str)]) -> Value {
    let usual = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", BACK),
        ("client_id", "ours"),
        ("client_secret", "secret"),
        ("code_verifier", VERIFIER),
    ];
    let given: HashMap<_, _> = usual.iter().chain(more).copied().collect();
    let body = Url::parse_with_params("http://x", given).unwrap();
    let url = format!("{}/token", world.oidc().issuer(provider));
    let request = http()
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded");
    request
        .body(body.query().unwrap().to_owned())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

fn claims(token: &Value) -> Value {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn who_says_who_they_are_is_signed_in_once() {
    let world = world().await;
    let back = carried(
        &authorize(
            &world,
            "google",
            &[("login_hint", "Ada.Lovelace@Example.com")],
        )
        .await,
    );

    let tokens = redeem(&world, "google", &back["code"], &[]).await;
    let again = redeem(&world, "google", &back["code"], &[]).await;

    assert_eq!(
        (&*back["state"], &back["iss"]),
        ("the state", &world.oidc().issuer("google"))
    );
    let claims = claims(&tokens["id_token"]);
    assert_eq!(claims["iss"], json!(back["iss"]));
    assert_eq!(
        (&claims["aud"], &claims["nonce"]),
        (&json!("ours"), &json!("the nonce"))
    );
    assert_eq!(
        (&claims["email"], &claims["name"]),
        (&json!("ada.lovelace@example.com"), &json!("Ada Lovelace"))
    );
    assert_eq!(claims["hd"], "example.com");
    assert_eq!(again, json!({"error": "invalid_grant"}));
}

#[tokio::test]
async fn a_wrong_verifier_a_missing_secret_and_another_client_get_nothing() {
    let world = world().await;
    for (wrong, error) in [
        (("code_verifier", CHALLENGE), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (("client_id", "another"), "invalid_grant"),
        (
            ("redirect_uri", "http://127.0.0.1:9/elsewhere"),
            "invalid_grant",
        ),
        (("client_secret", ""), "invalid_client"),
    ] {
        let back =
            carried(&authorize(&world, "google", &[("login_hint", "ada@example.com")]).await);
        let answer = redeem(&world, "google", &back["code"], &[wrong]).await;
        assert_eq!(answer, json!({ "error": error }), "{wrong:?}");
    }
}

#[tokio::test]
async fn the_page_asks_and_can_be_left() {
    let world = world().await;

    let page = authorize(&world, "google", &[("client_id", "<b>")])
        .await
        .text()
        .await
        .unwrap();
    let left = carried(&authorize(&world, "google", &[("cancel", "1")]).await);

    assert!(
        page.contains("Sign in with Google")
            && page.contains("&lt;b>".replace('>', "&gt;").as_str())
    );
    assert!(!page.contains("<b>"));
    assert!(
        page.contains(CHALLENGE),
        "what was asked comes back with the answer"
    );
    assert_eq!((&*left["error"], left.get("code")), ("access_denied", None));
}

#[tokio::test]
async fn apple_posts_and_says_a_name_once() {
    let world = world().await;
    let asked = [
        ("login_hint", "ada@example.com"),
        ("scope", "name email"),
        ("response_mode", "form_post"),
    ];

    let refused = authorize(&world, "apple", &asked[..2]).await;
    let first = authorize(&world, "apple", &asked)
        .await
        .text()
        .await
        .unwrap();
    let second = authorize(&world, "apple", &asked)
        .await
        .text()
        .await
        .unwrap();

    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(first.contains("method=\"post\"") && first.contains(BACK));
    assert!(first.contains("firstName"));
    assert!(second.contains("name=\"code\"") && !second.contains("firstName"));
}

#[tokio::test]
async fn apple_posts_from_the_same_site_whatever_this_machine_is_called() {
    let world = world().await;
    let asked = [
        ("login_hint", "ada@example.com"),
        ("response_mode", "form_post"),
        ("redirect_uri", "http://localhost:9/callback"),
    ];

    let moved = authorize(&world, "apple", &asked).await;

    let to = moved.headers()["location"].to_str().unwrap();
    let here = world
        .oidc()
        .issuer("apple")
        .replace("127.0.0.1", "localhost");
    assert_eq!(moved.status(), StatusCode::FOUND);
    assert!(
        to.starts_with(&format!("{here}/authorize?")) && to.contains("login_hint"),
        "{to}"
    );
    let page = http().get(to).send().await.unwrap();
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("http://localhost:9/callback")
    );
    let got = authorize(&world, "google", &[asked[0], asked[2]]).await;
    assert!(
        got.headers()["location"]
            .to_str()
            .unwrap()
            .starts_with("http://localhost:9/")
    );
}

#[tokio::test]
async fn replit_has_public_clients_with_proof() {
    let world = world().await;
    let asked = [
        ("login_hint", "ada@example.com"),
        ("scope", "openid email offline_access"),
    ];

    let back = carried(&authorize(&world, "replit", &asked).await);
    let tokens = redeem(&world, "replit", &back["code"], &[("client_secret", "")]).await;

    assert_eq!(claims(&tokens["id_token"])["first_name"], "Ada");
    let again = [
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
        ("client_secret", ""),
    ];
    assert!(redeem(&world, "replit", "", &again).await["access_token"].is_string());
    let without = [("login_hint", "ada@example.com"), ("code_challenge", "")];
    assert_eq!(
        authorize(&world, "replit", &without).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn what_is_said_of_someone_takes_the_place_of_the_usual() {
    let world = world().await;
    world.oidc().tell_time(|| 1_795_000_000);
    world.oidc().say_of(
        "ada@example.com",
        json!({"email_verified": false, "hd": null, "sub": "another"}),
    );

    let claims = claims(
        &world
            .oidc()
            .id_token("google", "ours", None, "Ada@example.com")
            .into(),
    );

    assert_eq!(
        (&claims["email_verified"], &claims["sub"]),
        (&json!(false), &json!("another"))
    );
    assert_eq!((claims.get("hd"), claims.get("nonce")), (None, None));
    assert_eq!(
        (&claims["iat"], &claims["exp"]),
        (&json!(1_795_000_000), &json!(1_795_003_600))
    );
}

#[tokio::test]
async fn github_says_by_its_api_who_somebody_is() {
    let world = world().await;
    let github = world.oidc().github_url();
    let asked = [
        ("client_id", "ours"),
        ("redirect_uri", BACK),
        ("state", "s"),
        ("login", "ada@example.com"),
    ];
    let url = Url::parse_with_params(&format!("{github}/login/oauth/authorize"), asked).unwrap();
    let back = carried(&http().get(url).send().await.unwrap());

    let given = [
        ("client_id", "ours"),
        ("client_secret", "secret"),
        ("code", &back["code"]),
        ("redirect_uri", BACK),
    ];
    let body = Url::parse_with_params("http://x", given)
        .unwrap()
        .query()
        .unwrap()
        .to_owned();
    let request = http()
        .post(format!("{github}/login/oauth/access_token"))
        .header("accept", "application/json");
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    let tokens: Value = request.send().await.unwrap().json().await.unwrap();
    let ask = async |path: &str| -> Value {
        let token = tokens["access_token"].as_str().unwrap();
        http()
            .get(format!("{github}{path}"))
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };

    assert!(ask("/user").await["id"].is_u64());
    assert_eq!(
        ask("/user/emails").await[1],
        json!({"email": "ada@example.com", "primary": true, "verified": true, "visibility": "private"})
    );
}

#[tokio::test]
async fn what_an_app_got_beside_its_token_is_exchanged_and_a_provider_can_be_down() {
    let world = world().await;
    let apples = |client: &str| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "ES256", "kid": "1"}));
        format!(
            "{head}.{}.",
            part(json!({"iss": "1", "aud": "1", "sub": client}))
        )
    };
    let secret = apples("ours");
    let code = world
        .oidc()
        .authorization_code("apple", "ours", "Ada@example.com");
    let more = [
        ("redirect_uri", ""),
        ("code_verifier", ""),
        ("client_secret", secret.as_str()),
    ];

    world.oidc().fail(1);
    let down = redeem(&world, "apple", &code, &more).await;
    let tokens = redeem(&world, "apple", &code, &more).await;

    assert_eq!(down, json!({"error": "temporarily_unavailable"}));
    assert_eq!(claims(&tokens["id_token"])["email"], "ada@example.com");
    assert!(tokens["refresh_token"].is_string());
}
