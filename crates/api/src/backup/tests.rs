use super::{
    file::{self, Form},
    place::{Place, PlaceUrl},
    restore::{self, Restored},
    take::{self, Made, Source},
    *,
};
use crate::{
    Config, jobs,
    testing::{Engine, START, Test, both_engines},
};
use db::{
    Db, Timestamp,
    testing::{PostgresDatabase, SqliteFile},
    transfer,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("plinth-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn place(&self) -> Place {
        Place::Folder(self.0.clone())
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Everything in it, hidden or not.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A database of its own, of either engine, that nobody has open.
enum Own {
    Sqlite(SqliteFile),
    Postgres(PostgresDatabase),
}

impl Own {
    async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite(SqliteFile::new()),
            Engine::Postgres => Self::Postgres(PostgresDatabase::new().await.unwrap()),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => file.url(),
            Self::Postgres(database) => database.url(),
        }
    }

    fn config(&self) -> Config {
        let env = HashMap::from([("DATABASE_URL".to_owned(), self.url())]);
        Config::from_env(&env).unwrap().config
    }

    async fn open(&self) -> Db {
        let url = self.url().parse().unwrap();
        Db::open(&url, &db::backup::options()).await.unwrap()
    }

    /// Migrated, with people who said something.
    async fn lived_in(engine: Engine, people: usize) -> Self {
        let own = Self::new(engine).await;
        let db = own.open().await;
        db.migrate().await.unwrap();
        for n in 0..people {
            someone(&db, &format!("user{n}@example.com")).await;
        }
        db.close().await;
        own
    }

    async fn backup(&self, place: &Place, now: Timestamp) -> anyhow::Result<Made> {
        let source = Source::open(&self.config().core).await?;
        let made = take::take(&source, place, now, |_| {}).await;
        source.close().await;
        made
    }

    async fn restore(&self, file: &str, force: bool) -> Result<Restored, String> {
        let restored = restore::restore(&self.config(), file, force, START, |_| {}).await;
        restored.map_err(|error| crate::error::explain(&error))
    }

    async fn sums(&self) -> Vec<transfer::Sum> {
        let db = self.open().await;
        let sums = transfer::sums(&db).await.unwrap();
        db.close().await;
        sums
    }
}

async fn someone(db: &Db, email: &str) {
    let mut tx = db.begin().await.unwrap();
    let new = db::users::NewUser {
        id: uuid::Uuid::now_v7(),
        identity: uuid::Uuid::now_v7(),
        email: Some(email),
        confirmed_at: Some(START),
        password_hash: Some("hash"),
        role: "authenticated",
        user_metadata: serde_json::json!({"name": "Zoë \\ \"quoted\"\n\ttab", "b": [1, 2.5, null]}),
    };
    db::users::create(&mut tx, new, START)
        .await
        .unwrap()
        .unwrap();
    tx.commit().await.unwrap();
}

/// Plans what is due, and does of it what makes backups.
async fn back_up(test: &Test) {
    jobs::plan(&test.app).await.unwrap();
    let (app, now) = (&test.app, test.app.now());
    let until = now + Duration::from_secs(60);
    let due = db::jobs::claim(&app.db, &app.instance, now, until, 50)
        .await
        .unwrap();
    for job in due.into_iter().filter(|job| job.kind == KIND) {
        jobs::run(app, job).await;
    }
}

both_engines! {
    /// The drill: what a server would be started on after the disk was lost.
    async fn a_restored_backup_holds_what_was_there_and_serves(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 30).await, Folder::new());
        let before = own.sums().await;
        let made = own.backup(&folder.place(), START).await.unwrap();
        assert_eq!(folder.names(), [made.name.clone(), format!("{}.sha256", made.name)]);
        let is = restore::verify(&own.config(), &folder.file(&made.name)).await.unwrap();
        assert!(is.contains("SHA-256 is right") && is.contains("as new as this version"), "{is}");

        let elsewhere = Own::new(engine).await;
        let restored = elsewhere.restore(&folder.file(&made.name), false).await.unwrap();
        assert_eq!(
            restored,
            Restored { file: folder.file(&made.name), sum_compared: true, pending_migrations: 0, set_aside: None }
        );
        assert_eq!(elsewhere.sums().await, before);
        assert_eq!(before.iter().find(|sum| sum.table == "users").unwrap().rows, 30);
        let db = elsewhere.open().await;
        db.migrate().await.unwrap();
        someone(&db, "after@example.com").await;
        assert_eq!(db::check::verify(&db).await.unwrap(), Vec::<String>::new());
        db.close().await;
    }

    async fn a_backup_of_an_older_schema_goes_forward_at_the_next_start(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 1).await, Folder::new());
        let db = own.open().await;
        db.revert(2).await.unwrap();
        db.close().await;
        let made = own.backup(&folder.place(), START).await.unwrap();

        let elsewhere = Own::new(engine).await;
        let restored = elsewhere.restore(&folder.file(&made.name), false).await.unwrap();
        assert_eq!(restored.pending_migrations, 2);
        let db = elsewhere.open().await;
        db.migrate().await.unwrap();
        assert_eq!(db::check::verify(&db).await.unwrap(), Vec::<String>::new());
        db.close().await;
    }

    async fn a_damaged_backup_is_refused_and_touches_nothing(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 3).await, Folder::new());
        let made = own.backup(&folder.place(), START).await.unwrap();
        let file = folder.0.join(&made.name);
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();

        let before = own.sums().await;
        let refusal = own.restore(&folder.file(&made.name), true).await.unwrap_err();
        assert!(refusal.contains("is damaged: its SHA-256") && refusal.contains("Nothing was touched"), "{refusal}");
        assert_eq!(own.sums().await, before);
    }

    async fn a_backup_of_something_else_or_of_a_newer_version_is_refused(engine: Engine) {
        for (change, expected) in [
            ("update _sqlx_migrations set version = 9000 where version = (select max(version) from _sqlx_migrations)", "migration 9000"),
            ("update _sqlx_migrations set checksum = checksum || checksum where version = 1", "no backup of Plinth's"),
        ] {
            let (own, folder) = (Own::lived_in(engine, 1).await, Folder::new());
            let db = own.open().await;
            let source = Source::open(&own.config().core).await.unwrap();
            db::testing::execute(&db, change).await.unwrap();
            let made = take::take(&source, &folder.place(), START, |_| {}).await.unwrap();
            source.close().await;
            db.close().await;

            let target = Own::new(engine).await;
            let refusal = target.restore(&folder.file(&made.name), true).await.unwrap_err();
            assert!(refusal.contains(expected) && refusal.contains("Nothing was touched"), "{refusal}");
            let db = target.open().await;
            assert!(db.ran().await.unwrap().is_empty(), "nothing was restored");
            db.close().await;
        }
    }

    async fn what_is_in_the_way_is_named_and_set_aside_only_when_told(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 2).await, Folder::new());
        let made = own.backup(&folder.place(), START).await.unwrap();
        let target = Own::lived_in(engine, 5).await;
        let before = target.sums().await;

        let refusal = target.restore(&folder.file(&made.name), false).await.unwrap_err();
        assert!(refusal.contains("5 of them users") && refusal.contains("--force"), "{refusal}");
        assert_eq!(target.sums().await, before);

        let restored = target.restore(&folder.file(&made.name), true).await.unwrap();
        assert_eq!(target.sums().await, own.sums().await);
        let aside = restored.set_aside.unwrap();
        match &target {
            Own::Sqlite(_) => {
                let db = Db::open(&aside.parse().unwrap(), &db::backup::options()).await.unwrap();
                assert_eq!(transfer::sums(&db).await.unwrap(), before);
                db.close().await;
                std::fs::remove_file(aside).unwrap();
            }
            Own::Postgres(_) => {
                let schema = aside.strip_prefix("the schema ").unwrap();
                let db = target.open().await;
                assert_eq!(db::testing::rows(&db, &format!("{schema}.users")).await.unwrap(), 5);
                db.close().await;
            }
        }
    }

    async fn a_database_that_is_not_there_is_not_backed_up_as_an_empty_one(engine: Engine) {
        let (own, folder) = (Own::new(engine).await, Folder::new());
        let refusal = own.backup(&folder.place(), START).await.unwrap_err().to_string();
        assert!(refusal.contains("check DATABASE_URL"), "{refusal}");
        assert_eq!(folder.names(), Vec::<String>::new());
        if let Own::Sqlite(file) = &own {
            assert!(!file.path().exists());
        }
    }

    async fn a_backup_that_fails_leaves_nothing_and_the_ones_before(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 1).await, Folder::new());
        let made = own.backup(&folder.place(), START).await.unwrap();
        let kept = folder.names();
        // A folder where the backup is to be: it fails at the very end.
        let later = START + Duration::from_secs(60);
        let name = file::name(later, engine == Engine::Sqlite);
        std::fs::create_dir_all(folder.0.join(&name).join("in the way")).unwrap();
        own.backup(&folder.place(), later).await.unwrap_err();
        std::fs::remove_dir_all(folder.0.join(&name)).unwrap();

        let left: Vec<_> = folder.names().into_iter().filter(|name| !name.ends_with(".sha256")).collect();
        assert_eq!(left, std::slice::from_ref(&made.name));
        assert!(kept.iter().all(|name| folder.names().contains(name)));
    }

    async fn a_job_makes_one_a_day_and_metrics_tell_of_it(engine: Engine) {
        let (own, folder) = (Own::lived_in(engine, 1).await, Folder::new());
        let (url, to) = (own.url(), folder.0.display().to_string());
        let variables = [("DATABASE_URL", url.as_str()), ("BACKUP_URL", to.as_str())];
        let test = Test::over(own.open().await, &variables).await;
        let beside = test.beside(&variables).await;
        let backups = || folder.names().into_iter().filter(|name| !name.ends_with(".sha256")).count();
        let told = async || crate::telemetry::render(&test.app).await;

        jobs::plan(&beside.app).await.unwrap();
        back_up(&test).await;
        assert_eq!(backups(), 1);
        let at = format!("backup_last_success_timestamp_seconds {}", START.unix());
        let metrics = told().await;
        assert!(metrics.contains(&at) && metrics.contains("backup_size_bytes "), "{metrics}");

        test.app.clock.turn(Duration::from_secs(3600));
        back_up(&test).await;
        assert_eq!(backups(), 1);

        test.app.clock.turn(Duration::from_secs(86_400));
        back_up(&test).await;
        assert_eq!(backups(), 2);
        test.app.db.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_served_is_not_replaced_even_when_forced() {
    let (own, folder) = (Own::lived_in(Engine::Sqlite, 1).await, Folder::new());
    let made = own.backup(&folder.place(), START).await.unwrap();
    let served = own.open().await;

    let refusal = own
        .restore(&folder.file(&made.name), true)
        .await
        .unwrap_err();
    assert!(
        refusal.contains("is in use: stop what serves it"),
        "{refusal}"
    );
    someone(&served, "still@example.com").await;
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_makes_no_backup_and_is_replaced_by_one() {
    let (own, folder) = (Own::lived_in(Engine::Sqlite, 200).await, Folder::new());
    let before = own.sums().await;
    let made = own.backup(&folder.place(), START).await.unwrap();
    let Own::Sqlite(file) = &own else { return };
    let mut bytes = std::fs::read(file.path()).unwrap();
    let length = bytes.len();
    bytes[length / 3..length / 3 * 2].fill(0x5a);
    std::fs::write(file.path(), bytes).unwrap();

    let later = START + Duration::from_secs(1);
    own.backup(&folder.place(), later).await.unwrap_err();
    assert_eq!(folder.names().len(), 2, "the backup and its sum");

    let restored = own.restore(&folder.file(&made.name), true).await.unwrap();
    assert_eq!(own.sums().await, before);
    std::fs::remove_file(restored.set_aside.unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_while_others_write() {
    let (own, folder) = (Own::lived_in(Engine::Sqlite, 50).await, Folder::new());
    let db = own.open().await;
    let writing = tokio::spawn({
        let db = db.clone();
        async move {
            for n in 0.. {
                someone(&db, &format!("meanwhile{n}@example.com")).await;
            }
        }
    });
    let made = own.backup(&folder.place(), START).await.unwrap();
    writing.abort();
    let _ = writing.await;
    db.close().await;

    let elsewhere = Own::new(Engine::Sqlite).await;
    elsewhere
        .restore(&folder.file(&made.name), false)
        .await
        .unwrap();
    let sums = elsewhere.sums().await;
    let rows = |table: &str| sums.iter().find(|sum| sum.table == table).unwrap().rows;
    assert!(rows("users") >= 50);
    assert_eq!(
        rows("users"),
        rows("identities"),
        "each is written with the other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_other_engine_is_refused_with_the_way_there() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("x.dump"), b"PGDMP and so on").unwrap();
    std::fs::write(folder.0.join("x.txt"), b"hello").unwrap();
    let own = Own::new(Engine::Sqlite).await;
    let refusal = own.restore(&folder.file("x.dump"), true).await.unwrap_err();
    assert!(refusal.contains("plinth db copy"), "{refusal}");
    let refusal = own.restore(&folder.file("x.txt"), true).await.unwrap_err();
    assert!(refusal.contains("is no backup"), "{refusal}");
    let refusal = own
        .restore(&folder.file("nothing"), true)
        .await
        .unwrap_err();
    assert!(refusal.contains("there is no file"), "{refusal}");
}

#[test]
fn a_name_says_when_and_of_what() {
    let name = file::name(START, true);
    assert_eq!(name, "plinth-20261120T093000Z.sqlite3.gz");
    assert_eq!(file::name(START, false), "plinth-20261120T093000Z.dump");
    assert_eq!(file::taken_at(&name).unwrap().timestamp(), START.unix());
    for other in [
        "plinth-x.dump",
        "other-20261120T093000Z.dump",
        ".plinth-20261120T093000Z.dump.part",
    ] {
        assert_eq!(file::taken_at(other), None);
    }
}

#[test]
fn the_newest_seven_stay_however_old_they_are() {
    let day = |n: u64| file::name(START - Duration::from_secs(n * 86_400), true);
    let names: Vec<_> = (0..12).map(day).collect();
    let keep = |days: u32| NonZeroU32::new(days).unwrap();
    let gone = |names: &[String], days| -> Vec<String> {
        file::outdated(names, START, keep(days))
            .into_iter()
            .cloned()
            .collect()
    };
    assert_eq!(gone(&names, 7), names[8..]);
    assert_eq!(gone(&names, 3), names[7..]);
    assert_eq!(gone(&names, 30), Vec::<String>::new());
    let old: Vec<_> = (100..107).map(day).collect();
    assert_eq!(gone(&old, 7), Vec::<String>::new());
}

#[test]
fn a_place_is_a_folder_or_a_bucket() {
    let read = |text: &str| text.parse::<PlaceUrl>().map(|url| url.to_string());
    for (text, shown) in [
        ("/var/backups", "/var/backups"),
        ("file:///var/backups", "/var/backups"),
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(shown));
    }
    for text in ["s3:///x", "gs://bucket", "https://x"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_packed_comes_back_and_what_was_cut_does_not() {
    let folder = Folder::new();
    let (from, packed) = (folder.0.join("from"), folder.0.join("packed"));
    let bytes: Vec<u8> = (0..1_000_000u32)
        .flat_map(|n| (n / 3).to_le_bytes())
        .collect();
    std::fs::write(&from, &bytes).unwrap();
    let mut gz = vec![];
    file::pack(&from, |piece| {
        gz.extend(piece);
        Ok(())
    })
    .unwrap();
    std::fs::write(&packed, &gz).unwrap();
    assert_eq!(Form::of(&packed).unwrap(), Form::SqliteGzip);
    let unpacked = |path: &Path| {
        let mut out = vec![];
        file::unpack(path, &mut out).map(|_| out)
    };
    assert!(unpacked(&packed).unwrap() == bytes);
    std::fs::write(&packed, &gz[..gz.len() - 9]).unwrap();
    assert!(unpacked(&packed).is_err());
}

#[test]
fn backups_are_configured_or_refused_with_the_remedy() {
    let read = |variables: &[(&str, &str)]| {
        let env = variables
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Config::from_env(&env)
    };
    let every = |variables: &[(&str, &str)]| read(variables).unwrap().config.backup.every();
    assert_eq!(every(&[]), None);
    assert_eq!(
        every(&[("BACKUP_URL", "backups")]),
        Some(Duration::from_secs(86_400))
    );
    assert_eq!(
        every(&[("BACKUP_URL", "backups"), ("BACKUP_SCHEDULE", "6h")]),
        Some(Duration::from_secs(21_600))
    );
    assert_eq!(
        every(&[("BACKUP_URL", "backups"), ("BACKUP_SCHEDULE", "off")]),
        None
    );

    assert!(read(&[("BACKUP_SCHEDULE", "5m")]).is_err());
    let problems = read(&[("BACKUP_URL", "s3://bucket/prefix")]).unwrap_err();
    assert!(
        problems[0].fault.contains("AWS_ACCESS_KEY_ID")
            && problems[0].remedy.contains("AWS_REGION")
    );
    let keys = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let with = [&[("BACKUP_URL", "s3://bucket/prefix")], &keys[..]].concat();
    assert!(read(&with).is_ok());
}
