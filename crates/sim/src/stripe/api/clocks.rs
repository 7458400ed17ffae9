use serde_json::Value;

use crate::dice::fresh;
use crate::stripe::books::Books;
use crate::stripe::call::Call;
use crate::stripe::life::time;
use crate::stripe::refusal::{Refusal, Result};
use crate::stripe::state::{Show, TestClock};

pub fn create(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&["frozen_time", "name"])?;
    let Some(frozen_at) = call.params.int("frozen_time")? else {
        return Err(Refusal::missing("frozen_time"));
    };
    let clock = TestClock {
        id: fresh("clock", 24),
        created: books.now,
        name: call.params.owned("name"),
        frozen_at,
    };
    let shown = clock.show(&call.version);
    books.add(clock, "test_helpers.test_clock.created", books.now);
    Ok(shown)
}

pub fn retrieve(books: &mut Books, call: &Call) -> Result<Value> {
    Ok(books
        .find::<TestClock>(call.id(), "id")?
        .show(&call.version))
}

pub fn list(books: &mut Books, call: &Call) -> Result<Value> {
    books.list(call, books.test_clocks.iter())
}

/// Everything that this brings has happened when it is answered: the clock is never `advancing`.
pub fn advance(books: &mut Books, call: &Call) -> Result<Value> {
    call.params.only(&["frozen_time"])?;
    let Some(frozen_at) = call.params.int("frozen_time")? else {
        return Err(Refusal::missing("frozen_time"));
    };
    if frozen_at <= books.find::<TestClock>(call.id(), "id")?.frozen_at {
        return Err(Refusal::invalid(
            "frozen_time",
            "Test clocks can only be advanced into the future.",
        ));
    }
    books.edit::<TestClock>(call.id(), |clock| clock.frozen_at = frozen_at);
    time::catch_up(books);
    if let Some(clock) = books.get::<TestClock>(call.id()).cloned() {
        books.tell("test_helpers.test_clock.ready", frozen_at, clock);
    }
    retrieve(books, call)
}
