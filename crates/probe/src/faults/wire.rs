//! The network before something, which can fall silent with every socket open, or be cut.
use anyhow::Result;
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub struct Wire {
    pub port: u16,
    /// Those who came before this number was raised are heard no more, and told nothing.
    generation: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Leads to a port of this machine.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let (generation, seen) = watch::channel(0);
        let far = SocketAddr::from(([127, 0, 0, 1], port));
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(join(near, far, seen.clone()));
            }
        });
        Ok(Self {
            port: own,
            generation,
            task,
        })
    }

    /// Every connection that there is goes on for ever, and nothing comes through it. New ones work: as
    /// when a firewall forgets who talks to whom.
    pub fn forget(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(mut near: TcpStream, far: SocketAddr, mut generation: watch::Receiver<u64>) {
    let own = *generation.borrow();
    let Ok(mut far) = TcpStream::connect(far).await else {
        return;
    };
    // What it waits with must not be held while it sleeps.
    let forgotten = async { drop(generation.wait_for(|now| *now > own).await) };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        // Both stay open, and unread.
        () = forgotten => std::future::pending().await,
    }
}
