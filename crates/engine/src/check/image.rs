//! The images' files, beside what is recorded of them.

use std::collections::HashSet;

use vimana_model::ImageId;
use vimana_model::image::{ImageContent, ImageState};
use vimana_repository::Kept;
use vimana_store::image::ImageRecord;

use super::books::Books;
use super::subject::{Kind, Subject};
use super::{Check, Findings, Outside};

pub fn check_images(books: &Books, outside: &Outside, found: &mut Findings) {
    let Some(held) = &outside.in_repository else {
        return;
    };
    let coming = books.images.values().filter_map(ImageRecord::successor);
    let coming: HashSet<ImageId> = coming.map(|successor| successor.id).collect();
    for (id, kept) in held {
        if coming.contains(id) {
            // It may be anywhere on its way.
        } else if !books.images.contains_key(id) && !books.doubts("images", id) {
            let what = "the repository holds files of it, and no record wants them";
            let subject = Subject::new(Kind::Image, books.image(*id));
            found.add(Check::ImageOfNobody, subject, what);
        } else if let Some(image) = books.images.get(id) {
            check_surplus(books, image, kept, found);
        }
    }
    let nothing = Kept::default();
    for image in books.images.values() {
        if let Some(content) = image.content.as_ref().filter(|_| image.state.has_content()) {
            let kept = held.get(&image.id).unwrap_or(&nothing);
            check_file(books, image, content, kept, found);
        }
    }
}

/// What is there, and should not be.
fn check_surplus(books: &Books, image: &ImageRecord, kept: &Kept, found: &mut Findings) {
    let state = image.state;
    let mut add = |what: String| {
        found.add(Check::ImageOfNobody, books.about_image(image), what);
    };
    match state {
        // It may be anywhere on its way.
        ImageState::Importing => {}
        ImageState::Failed | ImageState::Removed => {
            add(format!(
                "it is {state}, and the repository holds files of it"
            ));
        }
        ImageState::Ready | ImageState::Trashed => {
            if kept.staged {
                add(format!(
                    "it is {state}, and something of it waits to be entered"
                ));
            }
            let format = image.content.as_ref().map(|content| content.format);
            let others = kept.files.iter().filter(|(is, _)| Some(*is) != format);
            for (other, _) in others {
                add(format!("the repository holds a {other} file of it, too"));
            }
        }
    }
}

/// What should be there.
fn check_file(
    books: &Books,
    image: &ImageRecord,
    content: &ImageContent,
    kept: &Kept,
    found: &mut Findings,
) {
    let ImageContent {
        format, size_bytes, ..
    } = content;
    let file = kept.files.iter().find(|(is, _)| is == format);
    match file {
        None => {
            let what = format!("the repository has no {format} file of it");
            found.add(Check::ImageGone, books.about_image(image), what);
        }
        Some((_, is)) if is != size_bytes => {
            let what = format!("its file is {is} bytes, not {size_bytes}");
            found.add(Check::ImageOfOtherSize, books.about_image(image), what);
        }
        Some(_) => {}
    }
}
