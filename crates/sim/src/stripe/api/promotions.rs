use serde_json::Value;

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::promotion::Off;
use crate::stripe::state::{Coupon, PromotionCode, Show};

pub fn create_coupon(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "amount_off",
        "currency",
        "duration",
        "duration_in_months",
        "id",
        "metadata",
        "name",
        "percent_off",
    ])?;
    let percent = params
        .text("percent_off")
        .and_then(|percent| percent.parse::<f64>().ok());
    let off = match (percent, params.int("amount_off")?) {
        (Some(percent), None) if percent > 0.0 && percent <= 100.0 => Off::Percent(percent),
        (None, Some(amount)) => Off::Amount(amount, params.required("currency")?.to_lowercase()),
        _ => {
            return Err(Refusal::not_now(
                Some("parameter_missing"),
                "You must pass exactly one of percent_off and amount_off.",
            ));
        }
    };
    let coupon = Coupon {
        id: params
            .owned("id")
            .unwrap_or_else(|| fresh("", 8).trim_start_matches('_').to_owned()),
        created: books.now,
        name: params.owned("name"),
        off,
        duration: params
            .word("duration", Coupon::DURATIONS)?
            .unwrap_or("once"),
        months: params
            .int("duration_in_months")?
            .and_then(|months| u32::try_from(months).ok()),
        metadata: params.metadata(),
    };
    let shown = coupon.show(&call.version);
    books.add(coupon, "coupon.created", books.now);
    Ok(shown)
}

/// Since clover the coupon is within `promotion`.
pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    let params = &call.params;
    params.only(&[
        "active",
        "code",
        "coupon",
        "customer",
        "expires_at",
        "max_redemptions",
        "metadata",
        "promotion",
        "restrictions",
    ])?;
    let within = params.inside("promotion");
    let coupon = match within.text("coupon") {
        Some(coupon) => coupon,
        None => params.required("coupon")?,
    };
    let code = PromotionCode {
        id: fresh("promo", 24),
        created: books.now,
        code: params
            .owned("code")
            .unwrap_or_else(|| fresh("", 8).trim_start_matches('_').to_uppercase()),
        coupon: books.find::<Coupon>(coupon, "coupon")?.clone(),
        is_active: params.flag("active")?.unwrap_or(true),
        times_redeemed: 0,
        metadata: params.metadata(),
    };
    let shown = code.show(&call.version);
    books.add(code, "promotion_code.created", books.now);
    Ok(shown)
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&[
        "active",
        "code",
        "coupon",
        "created",
        "customer",
        "ending_before",
        "limit",
        "starting_after",
    ])?;
    let (active, code, coupon) = (
        call.params.flag("active")?,
        call.params.text("code"),
        call.params.text("coupon"),
    );
    let holds = |promotion: &&PromotionCode| {
        active.is_none_or(|active| promotion.is_active == active)
            && code.is_none_or(|code| promotion.code.eq_ignore_ascii_case(code))
            && coupon.is_none_or(|coupon| promotion.coupon.id == coupon)
    };
    books.list(call, books.promotion_codes.iter().filter(holds))
}
