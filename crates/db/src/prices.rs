//! What tokens cost, and since when; and whether, and for how much, the model may be asked at all.
use crate::prelude::*;

row! {
    /// What a model costs from then on, in micro-dollars for a million tokens. Never changed: another price is another row.
    #[expect(missing_docs, reason = "the columns say it")]
    #[derive(Eq)]
    pub struct Price {
        pub id: Uuid,
        pub model: String,
        pub effective_from: Timestamp,
        pub input_microusd: i64,
        /// Of input that the provider had at hand.
        pub cached_input_microusd: i64,
        pub output_microusd: i64,
    }
}

row! {
    /// On what terms the model is asked: the switch, and the budgets of all users together, in micro-dollars.
    #[expect(missing_docs, reason = "the columns say it")]
    #[derive(Eq)]
    pub struct Settings {
        pub enabled: bool,
        /// `None` is no limit.
        pub budget_day_microusd: Option<i64>,
        pub budget_month_microusd: Option<i64>,
        pub updated_at: Option<Timestamp>,
    }
}

sql! {
    /// The price of a model at a time.
    pub fn at(tx: &mut Tx, model: &str, time: Timestamp) -> Option<Price> {
        "select {columns} from model_prices where model = $model and effective_from <= $time
         order by effective_from desc limit 1"
    }

    /// The price of this id.
    pub fn by_id(tx: &mut Tx, id: Uuid) -> Option<Price> {
        "select {columns} from model_prices where id = $id"
    }

    /// Every price that a model had, oldest first.
    pub fn of_model(db: &Db, model: &str) -> Vec<Price> {
        "select {columns} from model_prices where model = $model order by effective_from"
    }

    /// A price from then on. `false` when the model has one from that very moment.
    pub fn add(
        tx: &mut Tx, id: Uuid, model: &str, effective_from: Timestamp, input_microusd: i64, cached_input_microusd: i64,
        output_microusd: i64,
    ) -> bool {
        "insert into model_prices (id, model, effective_from, input_microusd, cached_input_microusd, output_microusd)
         values ($id, $model, $effective_from, $input_microusd, $cached_input_microusd, $output_microusd)
         on conflict (model, effective_from) do nothing"
    }

    /// As they are.
    pub fn settings(db: &Db) -> Settings {
        "select {columns} from llm_settings where id = 'llm'"
    }

    /// As they are for who is about to ask the model.
    pub fn settings_now(tx: &mut Tx) -> Settings {
        "select {columns} from llm_settings where id = 'llm'"
    }

    /// As they are, held against others who change them until the transaction ends.
    pub fn locked_settings(tx: &mut Tx) -> Settings {
        "select {columns} from llm_settings where id = 'llm' {postgres: for update}"
    }

    /// Changes them, at once and for every instance.
    pub fn set(tx: &mut Tx, enabled: bool, budget_day_microusd: Option<i64>, budget_month_microusd: Option<i64>, now: Timestamp) {
        "update llm_settings set enabled = $enabled, budget_day_microusd = $budget_day_microusd,
             budget_month_microusd = $budget_month_microusd, updated_at = $now
         where id = 'llm'"
    }
}
