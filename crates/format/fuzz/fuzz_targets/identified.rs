#![no_main]

use libfuzzer_sys::fuzz_target;
use vimana_format_fuzz::{Image, identified, judge};

fuzz_target!(|input: &[u8]| {
    let image = Image::decoded(input);
    judge(identified(&image), &image);
});
