/// A row: the struct, how to read it on both engines, and `{columns}` for the statements that return it.
macro_rules! row {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $fvis:vis $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $ty),* }

        impl $crate::statement::Columns for $name {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
}

/// Declares statements as typed functions.
///
/// The first argument says where it runs: `db: &Db` reads, `tx: &mut Tx` takes part in a
/// transaction. The return type says the shape: nothing, `bool` (touched a row), `u64`,
/// `Option<Row>`, `Vec<Row>`, `One<(tuple)>`, `Row`. `$name` binds the argument of that name,
/// `{columns}` lists the columns of the returned row, `{postgres: …}` and `{sqlite: …}` hold what
/// only one engine should see. Misspelt and unused arguments do not compile; everything else is
/// checked on both engines by `check::verify`.
macro_rules! sql {
    () => {};

    ($(#[$meta:meta])* $vis:vis fn $name:ident($on:ident : &Db $(, $arg:ident : $ty:ty)* $(,)?)
        $(-> $shape:ident $(<$row:ty>)?)? { $text:literal } $($rest:tt)*) => {
        $(#[$meta])*
        $vis async fn $name($on: &$crate::Db, $($arg: $ty),*) -> $crate::Result<sql!(@ret $($shape $(<$row>)?)?)> {
            sql!(@statement $name true [$($arg: $ty),*] [$($shape $(<$row>)?)?] $text);
            let call = STATEMENT.on_db($on)$(.bind($arg))*;
            sql!(@run call $($shape $(<$row>)?)?)
        }
        sql! { $($rest)* }
    };

    ($(#[$meta:meta])* $vis:vis fn $name:ident($on:ident : &mut Tx $(, $arg:ident : $ty:ty)* $(,)?)
        $(-> $shape:ident $(<$row:ty>)?)? { $text:literal } $($rest:tt)*) => {
        $(#[$meta])*
        $vis async fn $name($on: &mut $crate::Tx, $($arg: $ty),*) -> $crate::Result<sql!(@ret $($shape $(<$row>)?)?)> {
            sql!(@statement $name false [$($arg: $ty),*] [$($shape $(<$row>)?)?] $text);
            let call = STATEMENT.on_tx($on)$(.bind($arg))*;
            sql!(@run call $($shape $(<$row>)?)?)
        }
        sql! { $($rest)* }
    };

    (@ret) => { () };
    (@ret $shape:ident $(<$row:ty>)?) => { $shape $(<$row>)? };

    (@run $call:ident) => { $call.affected().await.map(drop) };
    (@run $call:ident u64) => { $call.affected().await };
    (@run $call:ident bool) => { $call.affected().await.map(|n| n > 0) };
    (@run $call:ident Option<$row:ty>) => { $call.optional::<$row>().await };
    (@run $call:ident Vec<$row:ty>) => { $call.all::<$row>().await };
    (@run $call:ident One<$row:ty>) => { $call.one::<$row>().await };
    (@run $call:ident $row:ident) => { $call.one::<$row>().await };

    (@decode) => { $crate::check::Decode::NONE };
    (@decode u64) => { $crate::check::Decode::NONE };
    (@decode bool) => { $crate::check::Decode::NONE };
    (@decode $shape:ident <$row:ty>) => { $crate::check::Decode::of::<$row>() };
    (@decode $row:ident) => { $crate::check::Decode::of::<$row>() };

    (@columns) => { &[] };
    (@columns u64) => { &[] };
    (@columns bool) => { &[] };
    (@columns $shape:ident <$row:ty>) => { <$row as $crate::statement::Columns>::COLUMNS };
    (@columns $row:ident) => { <$row as $crate::statement::Columns>::COLUMNS };

    (@statement $name:ident $reads:literal [$($arg:ident : $ty:ty),*] [$($ret:tt)*] $text:literal) => {
        const NAMES: &[&str] = &[$(stringify!($arg)),*];
        const COLUMNS: &[&str] = sql!(@columns $($ret)*);
        static STATEMENT: $crate::statement::Statement = $crate::statement::Statement {
            name: concat!(module_path!(), "::", stringify!($name)),
            postgres: sql!(@expand $crate::statement::Dialect::Postgres, $text),
            sqlite: sql!(@expand $crate::statement::Dialect::Sqlite, $text),
            reads: $reads,
            params: || (vec![$(<$ty as sqlx::Type<sqlx::Postgres>>::type_info()),*], NAMES.len()),
            decode: sql!(@decode $($ret)*),
        };
        inventory::submit!($crate::statement::Registered(&STATEMENT));
    };

    (@expand $dialect:expr, $text:literal) => {{
        const LEN: usize = $crate::statement::expand::<0>($text, NAMES, COLUMNS, $dialect).1;
        const BYTES: [u8; LEN] = $crate::statement::expand::<LEN>($text, NAMES, COLUMNS, $dialect).0;
        match std::str::from_utf8(&BYTES) {
            Ok(sql) => sql,
            Err(_) => panic!("a statement is UTF-8"),
        }
    }};
}
