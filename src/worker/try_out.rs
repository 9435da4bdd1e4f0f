//! Where an event would go if it were handed on now: as the worker does it, and nothing is made of it.

use futures_util::future::{BoxFuture, FutureExt as _};

use super::Environment;
use super::dispatch::{Known, Place, envelope, task_of};
use crate::action::{Goes, Tried, TryOut};
use crate::store::Error;

impl TryOut for Environment {
    fn try_out<'a>(&'a self, event: &'a str) -> BoxFuture<'a, Result<Option<Tried>, Error>> {
        let found = async move {
            let Some(seq) = self.store.event_seq(event).await? else { return Ok(None) };
            let Some(event) = self.store.stored_event(seq).await? else { return Ok(None) };
            let Some(source) = self.sources.get(&event.source) else {
                return Ok(Some(Err(format!("the source `{}` is not in the configuration any more", event.source))));
            };
            let task = match task_of(source, &event) {
                Some(task_id) => self.store.fetched(&event.source, task_id).await?,
                None => None,
            };
            let envelope = envelope(source, &event, Known::of(source, &event, task.as_ref()), Place::default());
            let goes = self.routes.select(&envelope).map_err(|error| error.to_string()).and_then(|targets| {
                let goes = targets.into_iter().filter_map(|target| {
                    let destination = self.destinations.get(&target.destination)?;
                    let rendered = destination.render(&envelope);
                    let goes = |_| Goes { destination: target.destination, route: target.route };
                    Some(rendered.map(goes).map_err(|error| error.to_string()))
                });
                goes.collect()
            });
            Ok(Some(goes))
        };
        found.boxed()
    }
}
