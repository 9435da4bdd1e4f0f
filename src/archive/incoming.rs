//! A file on its way into the archive: hashed and written as it comes.
//!
//! A small one is held in memory until it is whole and put in its place in one go. A larger one is uploaded part by part beside the
//! contents, and renamed once its digest is known. At most two parts are in memory.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _};

use super::Error;
use super::place::{Place, content};
use crate::event::hex;

/// The size of a part. S3 services take none smaller, but for the last.
const PART: usize = 5 << 20;

pub(super) struct Incoming<'a> {
    place: &'a Place,
    digest: Context,
    size: u64,
    buffer: BytesMut,
    upload: Option<(Path, Box<dyn MultipartUpload>)>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self { place, digest: Context::new(&SHA256), size: 0, buffer: BytesMut::new(), upload: None }
    }

    /// How many bytes have come.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes in the next bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= PART {
            let part = self.buffer.split_to(PART).freeze();
            self.part(part).await?;
        }
        Ok(())
    }

    async fn part(&mut self, part: Bytes) -> Result<(), Error> {
        self.place.ensure_space()?;
        if self.upload.is_none() {
            let path = self.place.on_its_way();
            let upload = self.place.store()?.put_multipart(&path).await.map_err(|error| self.place.failed(&error))?;
            self.upload = Some((path, upload));
        }
        let Some((_, upload)) = &mut self.upload else { return Ok(()) };
        upload.put_part(part.into()).await.map_err(|error| self.place.failed(&error))
    }

    /// It is whole: puts it in its place, unless its content is there already. Its digest and size.
    pub(super) async fn finish(mut self) -> Result<(String, u64), Error> {
        let sha256 = hex(std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish().as_ref());
        let kept = self.keep(&sha256).await;
        if kept.is_err() {
            self.discard().await;
        }
        kept.map(|()| (sha256, self.size))
    }

    async fn keep(&mut self, sha256: &str) -> Result<(), Error> {
        match self.place.size(sha256).await {
            Ok(size) if size == self.size => {
                self.discard().await;
                return Ok(());
            }
            // Of another size it is damaged, and is written anew.
            Ok(_) | Err(Error::Missing) => {}
            Err(error) => return Err(error),
        }
        let (store, target) = (self.place.store()?, content(sha256)?);
        let rest = self.buffer.split().freeze();
        if self.upload.is_none() {
            self.place.ensure_space()?;
            return store.put(&target, rest.into()).await.map(drop).map_err(|error| self.place.failed(&error));
        }
        if !rest.is_empty() {
            self.part(rest).await?;
        }
        let Some((path, mut upload)) = self.upload.take() else { return Ok(()) };
        upload.complete().await.map_err(|error| self.place.failed(&error))?;
        store.rename(&path, &target).await.map_err(|error| self.place.failed(&error))
    }

    /// Forgets what has come, to begin again.
    pub(super) async fn restart(&mut self) {
        self.discard().await;
        *self = Self::new(self.place);
    }

    /// Removes what was written.
    pub(super) async fn discard(&mut self) {
        self.buffer.clear();
        if let Some((_, mut upload)) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(error = %error, "what was on its way into the archive is left there");
        }
    }
}
