//! How an answer is settled: what is kept of it, what it cost, and whom.
use crate::{
    App, Result,
    chat::{
        answer::Answer,
        llm::{By, Failure, Usage},
        prices, quota,
        stream::Event,
        titles,
    },
};
use db::{Tx, generations::Generation, usage::Amount};

/// What a stored answer is said to be. Cut off is never passed off as finished.
pub fn status(outcome: &Result<String, Failure>, answer: &Answer) -> &'static str {
    match outcome.as_deref() {
        Ok("stopped") => "stopped",
        Ok("truncated") => "truncated",
        Ok(_) => "complete",
        Err(_) if answer.is_empty() => "failed",
        Err(_) => "truncated",
    }
}

/// Whether the provider may have begun an answer of which nothing came. One that refused has not.
pub fn was_asked(outcome: &Result<String, Failure>) -> bool {
    use Failure::{Draining, Interrupted, Refused, TimedOut, Truncated, Unavailable};
    match outcome {
        Ok(_) | Err(TimedOut | Truncated | Draining | Interrupted) => true,
        Err(Unavailable { .. } | Refused(_)) => false,
    }
}

/// What is to be stored of an answer.
pub struct Ended {
    pub answer: Answer,
    pub status: &'static str,
    /// `None` where the provider did not say.
    pub usage: Option<Usage>,
    /// Who said it, as far as that is known.
    pub by: Option<By>,
    /// Whether it may have cost something though nothing came of it.
    pub was_asked: bool,
    /// The number of its last event.
    pub seq: u64,
}

/// What clients are told of an answer that is settled.
pub fn ended(generation: &Generation, usage: Usage) -> Event {
    match (&generation.error_code, &generation.finish_reason) {
        (Some(code), _) => Event::Error(Failure::of(code)),
        (None, Some(reason)) => Event::Finish {
            reason: reason.clone(),
            usage,
        },
        (None, None) => Event::Error(Failure::Interrupted),
    }
}

/// Stores the answer, settles its reservation and writes what it cost, in the transaction that
/// finished the generation and so can only happen once.
pub async fn close(
    app: &App,
    tx: &mut Tx,
    generation: &Generation,
    ended: &Ended,
) -> Result<Usage> {
    let Ended { answer, status, .. } = ended;
    let nothing = answer.is_empty() && *status != "complete";
    let prompt = Usage {
        input: generation.prompt_tokens,
        ..Usage::default()
    };
    let (usage, source) = match ended.usage {
        Some(usage) => (usage, "provider"),
        None if nothing => (Usage::default(), "none"),
        None => (
            Usage {
                output: answer.estimated_tokens(),
                ..prompt
            },
            "estimated",
        ),
    };
    // What nobody heard of may be on the bill: budgets keep it in mind, and the user has it back.
    let (billed, source) = match source {
        "none" if ended.was_asked => (prompt, "maybe_billed"),
        source => (usage, source),
    };
    if let Some(message) = generation.message_id {
        db::conversations::settle_answer(
            tx,
            message,
            &answer.text,
            status,
            usage.input,
            usage.output,
            ended.seq as i64,
        )
        .await?;
    }
    titles::plan(app, tx, generation, ended).await?;
    // Another model may have answered for the one that was asked for.
    let by = ended.by.as_ref();
    let model = by.map_or(&*generation.model, |by| &by.model);
    let model = if app.plans.has_price(model) {
        model
    } else {
        &generation.model
    };
    let price = prices::of(tx, generation, model).await?;
    let cost = prices::cost(price.as_ref(), billed);
    let amount = |usage: Usage, microusd| Amount {
        messages: i64::from(!nothing),
        tokens: usage.input + usage.output,
        microusd,
    };
    let used = amount(usage, prices::cost(price.as_ref(), usage));
    quota::settle(tx, generation, used, amount(billed, cost)).await?;
    let provider = by
        .map(|by| by.provider)
        .or_else(|| app.llm.provider_of(&generation.model));
    let provider = match provider {
        _ if app.simulated.llm => "simulated",
        Some(provider) => provider.name(),
        None => "none",
    };
    db::usage::charge(
        tx,
        generation.id,
        Some(generation.user_id),
        provider,
        model,
        price.map(|price| price.id),
        billed.input,
        billed.cached,
        billed.output,
        billed.reasoning,
        cost,
        source,
        app.now(),
    )
    .await?;
    for (kind, n) in [("input", usage.input), ("output", usage.output)] {
        metrics::counter!("llm_tokens_total", "kind" => kind).increment(n.max(0) as u64);
    }
    metrics::counter!("llm_cost_microusd_total", "model" => model.to_owned())
        .increment(cost.max(0) as u64);
    Ok(usage)
}
