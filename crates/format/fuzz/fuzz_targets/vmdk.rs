#![no_main]

use libfuzzer_sys::fuzz_target;
use vimana_format::Content;
use vimana_format_fuzz::{Image, judge};

fuzz_target!(|input: &[u8]| {
    judge(Content::Vmdk, &Image::decoded(input));
});
