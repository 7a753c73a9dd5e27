//! Images.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RANGE};
use reqwest::{Method, Response, StatusCode};
use vimana_model::event::EventView;
use vimana_model::image::{AcceptedImage, ImageAction, ImageView, ImportImage, RefreshImage};
use vimana_model::{ImageId, Result};

use crate::Client;
use crate::limits::REQUEST_TIMEOUT;
use crate::transport::Items;

const UPLOAD_OFFSET: &str = "upload-offset";
const UPLOAD_LENGTH: &str = "upload-length";
const PART: &str = "application/offset+octet-stream";

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadReach {
    /// Bytes that are there for good, and where the next part begins.
    pub offset_bytes: u64,
    /// Bytes of the whole file.
    pub size_bytes: u64,
}

/// An image's bytes on their way.
pub struct ImageDownload<'a> {
    client: &'a Client,
    /// Where in the image the first of them belongs.
    pub offset_bytes: u64,
    answer: Response,
}

impl ImageDownload<'_> {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// `Unavailable` where they stop coming: ask for the rest.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.answer.chunk().await;
        chunk.map_err(|error| self.client.unreachable(error))
    }
}

impl Client {
    /// The tenant's own, and those for all.
    pub async fn images(&self) -> Result<Vec<ImageView>> {
        let list: Items<_> = self.get("/api/v1/images").await?;
        Ok(list.items)
    }

    pub async fn image(&self, id: ImageId) -> Result<ImageView> {
        self.get(&format!("/api/v1/images/{id}")).await
    }

    pub async fn import_image(&self, form: &ImportImage) -> Result<AcceptedImage> {
        self.post_json("/api/v1/images", form).await
    }

    pub async fn act_on_image(&self, id: ImageId, action: ImageAction) -> Result<ImageView> {
        let path = format!("/api/v1/images/{id}");
        match action {
            ImageAction::Delete => self.delete(&path).await,
            ImageAction::Restore | ImageAction::Purge | ImageAction::Retry => {
                self.post(&format!("{path}/{}", action.name())).await
            }
        }
    }

    /// Has an image refreshed from now on.
    pub async fn set_image_refresh(&self, id: ImageId, form: &RefreshImage) -> Result<ImageView> {
        self.patch_json(&refresh(id), form).await
    }

    /// Has an image refreshed no more.
    pub async fn stop_image_refresh(&self, id: ImageId) -> Result<ImageView> {
        self.delete(&refresh(id)).await
    }

    /// Has its source asked at once.
    pub async fn refresh_image(&self, id: ImageId) -> Result<ImageView> {
        self.post(&refresh(id)).await
    }

    /// Oldest first.
    pub async fn image_timeline(&self, id: ImageId) -> Result<Vec<EventView>> {
        let path = format!("/api/v1/images/{id}/timeline");
        let list: Items<_> = self.get(&path).await?;
        Ok(list.items)
    }

    /// How far the upload of an image is.
    pub async fn image_upload(&self, id: ImageId) -> Result<UploadReach> {
        let request = self.prepare(Method::HEAD, &content(id))?;
        let answer = self.answer(request.timeout(REQUEST_TIMEOUT)).await?;
        self.reach(&answer)
    }

    /// Sends the part of the file that begins there, once. What is not
    /// answered may have come, whole or not: ask how far the upload is.
    pub async fn send_image_part(
        &self,
        id: ImageId,
        offset_bytes: u64,
        part: Bytes,
    ) -> Result<UploadReach> {
        let request = self.prepare(Method::PATCH, &content(id))?;
        let request = request
            .header(UPLOAD_OFFSET, offset_bytes)
            .header(CONTENT_TYPE, PART)
            .body(part);
        let answer = self.answer(request.timeout(REQUEST_TIMEOUT)).await?;
        self.reach(&answer)
    }

    /// Begins to download an image, as it is stored, from that byte on. A server
    /// that does not go on where it is asked to begins at the beginning.
    pub async fn download_image(
        &self,
        id: ImageId,
        offset_bytes: u64,
    ) -> Result<ImageDownload<'_>> {
        let mut request = self.prepare(Method::GET, &content(id))?;
        if offset_bytes > 0 {
            request = request.header(RANGE, format!("bytes={offset_bytes}-"));
        }
        let answer = self.answer(request).await?;
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT;
        Ok(ImageDownload {
            client: self,
            offset_bytes: if goes_on { offset_bytes } else { 0 },
            answer,
        })
    }

    fn reach(&self, answer: &Response) -> Result<UploadReach> {
        let number = |name: &str| {
            let value = answer.headers().get(name);
            value
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .ok_or_else(|| self.broken("it does not say how far the upload is"))
        };
        Ok(UploadReach {
            offset_bytes: number(UPLOAD_OFFSET)?,
            size_bytes: number(UPLOAD_LENGTH)?,
        })
    }
}

fn refresh(id: ImageId) -> String {
    format!("/api/v1/images/{id}/refresh")
}

fn content(id: ImageId) -> String {
    format!("/api/v1/images/{id}/content")
}
