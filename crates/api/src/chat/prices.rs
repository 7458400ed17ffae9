//! What an answer costs: in integers, at the price that held when it was asked for.
use super::llm::Usage;
use crate::{Result, billing::plans};
use db::{Db, Timestamp, Tx, generations::Generation, prices::Price};
use uuid::Uuid;

/// Writes down the prices that are not the last of their models. Those before stay what they were.
pub async fn keep<'a>(
    db: &Db,
    prices: impl Iterator<Item = (&'a str, plans::Price)>,
    now: Timestamp,
) -> Result<(), db::Error> {
    let figures = |known: &Price| {
        [
            known.input_microusd,
            known.cached_input_microusd,
            known.output_microusd,
        ]
    };
    let mut changed = vec![];
    for (model, price) in prices {
        let now = [price.input, price.cached(), price.output].map(i64::from);
        let known = db::prices::of_model(db, model).await?;
        if known.last().map(figures) != Some(now) {
            changed.push((model, now));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    for (model, [input, cached, output]) in changed {
        db::prices::add(&mut tx, Uuid::now_v7(), model, now, input, cached, output).await?;
        tracing::info!(model, input, cached, output, "a price counts from now on");
    }
    tx.commit().await
}

/// The price at which an answer is charged: of the model that was asked, the one pinned then; of
/// another that answered in its place, the one of that time.
pub async fn of(tx: &mut Tx, generation: &Generation, model: &str) -> Result<Option<Price>> {
    Ok(match generation.price_id {
        Some(id) if model == generation.model => db::prices::by_id(tx, id).await?,
        None if model == generation.model => None,
        _ => db::prices::at(tx, model, generation.created_at).await?,
    })
}

/// Micro-dollars, rounded up: never free for being small. Without a price it is nothing.
pub fn cost(price: Option<&Price>, usage: Usage) -> i64 {
    let Some(price) = price else { return 0 };
    let cached = usage.cached.clamp(0, usage.input);
    let millionths = times(usage.input - cached, price.input_microusd)
        + times(cached, price.cached_input_microusd)
        + times(usage.output, price.output_microusd);
    ((millionths + MILLION - 1) / MILLION) as i64
}

/// Tokens of output that so many micro-dollars pay for after a prompt that nothing is known to be
/// cached of; below 0 when they do not even pay for that.
pub fn affordable_output(price: Option<&Price>, prompt: i64, microusd: i64) -> i64 {
    let Some(price) = price else { return i64::MAX };
    let left = i128::from(microusd) * MILLION - times(prompt, price.input_microusd);
    match price.output_microusd {
        _ if left < 0 => -1,
        0 => i64::MAX,
        output => (left / i128::from(output)).min(i64::MAX.into()) as i64,
    }
}

/// What is set aside for an answer: its most, with nothing cached.
pub fn most(price: Option<&Price>, prompt: i64, output: i64) -> i64 {
    let usage = Usage {
        input: prompt,
        output,
        ..Usage::default()
    };
    cost(price, usage)
}

const MILLION: i128 = 1_000_000;

fn times(tokens: i64, price: i64) -> i128 {
    i128::from(tokens) * i128::from(price)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(input: i64, cached: i64, output: i64) -> Price {
        Price {
            id: Uuid::nil(),
            model: "m".into(),
            effective_from: Timestamp::from_unix(0),
            input_microusd: input,
            cached_input_microusd: cached,
            output_microusd: output,
        }
    }

    fn usage(input: i64, cached: i64, output: i64) -> Usage {
        Usage {
            input,
            output,
            cached,
            reasoning: 0,
        }
    }

    /// Invariant 41.
    #[test]
    fn a_cost_is_in_integers_and_rounded_up() {
        let mini = price(150_000, 75_000, 600_000);
        assert_eq!(cost(Some(&mini), usage(0, 0, 0)), 0);
        assert_eq!(cost(Some(&mini), usage(1, 0, 0)), 1);
        assert_eq!(cost(Some(&mini), usage(1_000_000, 0, 1_000_000)), 750_000);
        assert_eq!(cost(Some(&mini), usage(1_000_000, 1_000_000, 0)), 75_000);
        assert_eq!(
            cost(Some(&mini), usage(10, 1_000_000, 0)),
            1,
            "no more is cached than was said"
        );
        let most = i64::from(u32::MAX);
        assert_eq!(
            cost(Some(&price(most, 0, 0)), usage(most, 0, 0)),
            18_446_744_065_120
        );
        assert_eq!(cost(None, usage(1_000, 0, 1_000)), 0);
    }

    proptest! {
        #[test]
        fn what_is_affordable_is_paid_for_and_one_token_more_is_not(
            input in 0..20_000_000i64, output in 1..80_000_000i64, prompt in 0..200_000i64, left in 0..100_000_000i64,
        ) {
            let price = price(input, input / 2, output);
            let affordable = affordable_output(Some(&price), prompt, left);
            if affordable < 0 {
                prop_assert!(most(Some(&price), prompt, 0) > left);
            } else {
                prop_assert!(most(Some(&price), prompt, affordable) <= left);
                prop_assert!(most(Some(&price), prompt, affordable + 1) > left);
            }
        }
    }
}
