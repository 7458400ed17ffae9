//! The disk that SQLite writes to is full (23).
use super::{
    case::Case,
    postgres::{is_root, run as finish},
    scene::Scene,
    sender::{Sender, is_acknowledged},
    story,
};
use crate::events;
use anyhow::Result;
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

pub async fn run(scene: &Scene<'_>, case: &mut Case) -> Result<()> {
    if !is_root() {
        case.skip("needs root, to mount a small tmpfs");
        return Ok(());
    }
    let disk = match Disk::mount(scene.folder().join("disk")) {
        Ok(disk) => disk,
        Err(error) => {
            case.skip(format!("a tmpfs cannot be mounted here: {error:#}"));
            return Ok(());
        }
    };
    let database = format!("sqlite://{}", disk.0.join("plinth.db").display());
    let server = scene.serve(&[("DATABASE_URL", &database)]).await?;
    let user = server.sign_up().await?;
    let sender = Sender::new(scene, &server.url(""));
    let mut told = 0;
    let mut tell = async |k: usize| {
        let event = story::currency(0, k, &user, events::now(), 1);
        let answer = super::plinth::heard(&scene.seen, sender.delivery(&event)).await;
        told += usize::from(is_acknowledged(&answer));
        answer
    };
    let before = tell(0).await;
    case.check(
        "it takes events before",
        is_acknowledged(&before),
        before.brief(),
    );

    std::fs::write(disk.0.join("filler"), vec![0; 64 << 20]).ok();
    let mut refused = vec![];
    for k in 1..200 {
        let answer = tell(k).await;
        if !is_acknowledged(&answer) {
            refused.push(answer);
        }
    }
    let wrong: Vec<_> = refused
        .iter()
        .filter(|answer| ![503, 507].contains(&answer.status))
        .map(|answer| answer.brief())
        .collect();
    case.check(
        "what cannot be stored is not acknowledged",
        !refused.is_empty(),
        format!("{} of 199 refused", refused.len()),
    );
    case.none("it is refused with 503 or 507", &wrong);
    let read = server.get("/auth/v1/user", &user.token).await;
    case.check("reads go on", read.status == 200, read.brief());

    std::fs::remove_file(disk.0.join("filler"))?;
    let over = Instant::now();
    let mut after = tell(1000).await;
    while !is_acknowledged(&after) && over.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = tell(1000).await;
    }
    case.recovered(over.elapsed());
    case.check(
        "it takes events again",
        is_acknowledged(&after),
        after.brief(),
    );
    let mut coins = 0;
    while coins != told as i64 && over.elapsed() < Duration::from_secs(100) {
        let billing = server.get("/api/billing", &user.token).await;
        coins = billing.body["credits"][0]["amount"].as_i64().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    case.check(
        "nothing lost, nothing counted twice",
        coins == told as i64,
        format!("{coins} of {told}"),
    );
    drop(server);
    Ok(())
}

/// A small one, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&at)?;
        finish(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
                .arg(&at),
        )?;
        Ok(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that is being killed may still have a file open.
        let _ = finish(Command::new("umount").arg("-l").arg(&self.0));
    }
}
