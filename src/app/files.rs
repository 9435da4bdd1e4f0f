//! The archive, as the program opens it and watches over it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::archive::{self, Archive, Links};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::guard::{Guard, Names};
use crate::store::Store;
use crate::telemetry::Health;

/// How often an archive that does not work is tried.
const ARCHIVE_EVERY: Duration = Duration::from_mins(1);

/// The archive, which may not work now: that is told in `/readyz`, and keeps nothing from starting.
pub(super) async fn open(config: &Config, store: &Store, clock: &Clock, names: Names) -> Result<Archive, Error> {
    let links = match &config.files.public_url {
        Some(public_url) if config.files.listen.is_some() => {
            let mut candidate = vec![0; archive::KEY_BYTES];
            aws_lc_rs::rand::fill(&mut candidate).map_err(|_| Error::Random)?;
            let key = store.own_key("files", candidate, clock.now()).await?;
            Some(Links::new(&key, public_url, config.files.link_expiry))
        }
        _ => None,
    };
    let guard = Guard::new(config.outbound, names);
    // Whatever it is in, other replicas may use it.
    let shared = config.archive.shared || config.store.is_shared();
    let archive = archive::Config { shared, ..config.archive.clone() };
    Ok(Archive::new(&archive, store.instance_id(), guard, links, clock.clone()))
}

/// Removes what a program that was killed left in the archive; then sees whether it works, again as long as it does not.
pub(super) async fn watch(archive: Archive, health: Health, clock: Clock, stop: CancellationToken) {
    const PART: &str = "archive";
    let watching = async {
        archive.sweep().await;
        let mut first = true;
        loop {
            if std::mem::take(&mut first) || health.reasons().iter().any(|reason| reason.part == PART) {
                match archive.check().await {
                    Ok(()) => health.recover(PART),
                    Err(error) => health.degrade(PART, error.to_string()),
                }
            }
            clock.sleep(ARCHIVE_EVERY).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = stop.cancelled() => {}
    }
}
