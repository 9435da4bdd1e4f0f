//! Files that were saved, read from the archive for a destination that sends them along.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;

use super::Files;
use crate::archive::{Archive, Error};

impl Files for Archive {
    fn read<'a>(&'a self, sha256: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            let content = match Self::read(self, sha256, None).await {
                Ok(content) => content,
                Err(Error::Missing | Error::Off) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            };
            let whole = content.bytes.try_fold(BytesMut::new(), |mut whole, bytes| async move {
                whole.extend_from_slice(&bytes);
                Ok(whole)
            });
            whole.await.map(|whole| Some(whole.freeze())).map_err(|error| error.to_string())
        })
    }
}
