use std::fs;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vimana_format::{Content, check, check_whole, identify};

use crate::made::created;

/// The tables and texts that a check looks at are all in here.
const LOOKED_AT: usize = 1 << 20;

/// Never a panic, never without end, and never more than a file's own size of
/// memory, whatever the bytes: whole numbers that are as large as can be,
/// single bits, and parts cut off.
#[test]
fn no_header_does_harm() {
    for (content, arguments) in [
        (Content::Qcow2, &["-f", "qcow2"][..]),
        (Content::Qcow2, &["-f", "qcow2", "-o", "cluster_size=512"]),
        (Content::Vmdk, &["-f", "vmdk"]),
        (Content::Vdi, &["-f", "vdi"]),
        (Content::Vhdx, &["-f", "vhdx", "-o", "subformat=dynamic"]),
    ] {
        let (dir, _file) = created(arguments);
        let mut image = fs::read(dir.path().join("image")).unwrap();
        image.truncate(3 << 20);
        let end = image.len().min(LOOKED_AT * 3);
        // Where there is something, there is something to break.
        let used: Vec<usize> = (0..end).filter(|at| image[*at] != 0).collect();
        let place = prop_oneof![
            prop::sample::select(used).prop_map(|at| at & !3),
            (0..512_usize).prop_map(|at| at & !3),
        ];
        let value = prop_oneof![
            any::<[u8; 4]>(),
            Just([0xff; 4]),
            Just([0; 4]),
            Just([0x7f, 0xff, 0xff, 0xff]),
            Just([0xff, 0xff, 0xff, 0x7f]),
        ];
        let changes = prop::collection::vec((place, value), 1..6);
        let length = prop_oneof![3 => Just(image.len()), 1 => 0..image.len()];
        let mut runner = TestRunner::new(Config {
            cases: 2_500,
            failure_persistence: None,
            ..Config::default()
        });
        let ran = runner.run(&(changes, length), |(changes, length)| {
            let mut bytes = image.clone();
            for (at, value) in changes {
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&value);
                }
            }
            bytes.truncate(length);
            let _seen = identify(&bytes);
            let _verdict = check(content, &bytes).and_then(|_| check_whole(content, &bytes));
            Ok(())
        });
        ran.unwrap();
    }
}
